"""One registry for all processes of a log: what is registered here is told to the others, and theirs is taken in.

A schema is a fact of the control log: kind `schema`, by its key; the JSON Schema as text, which may be
as deep as an event may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from wowevent.directory import Directory
from wowevent.errors import BusError, SchemaConflict
from wowevent.log import logger
from wowevent.schema import EventSchema, SchemaRegistry

_KIND: Final = "schema"


class SharedSchemas:
    """A registry and the control log, kept the same from `start` on."""

    def __init__(self, registry: SchemaRegistry, directory: Directory) -> None:
        self._registry = registry
        self._directory = directory
        self._end: Callable[[], None] = _nothing
        self._saying = False  # `register` tells the others itself
        self._jobs: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take in what others have registered, and tell them what is registered here.

        SchemaConflict where both have a version, with different schemas.
        """
        await self._directory.refresh()
        there = self._directory.facts(_KIND)
        for schema in self._registry.schemas():
            said = there.get(schema.key)
            if said is None:
                await self._directory.put(_KIND, schema.key, _value(schema))
            elif _schema(said) != schema:
                raise SchemaConflict(
                    f"{schema.key} is registered with another schema in this log; give yours another version"
                )
        self._directory.watch(_KIND, self._changed)
        self._end = self._registry.watch(self._registered)

    async def close(self) -> None:
        """Return once what was registered lately has been told, or could not be; a second is enough."""
        self._end()
        if self._jobs:
            _, left = await asyncio.wait(self._jobs, timeout=1.0)
            for job in left:
                job.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def register(self, schema: EventSchema) -> None:
        """Register a schema for all; returns when the engine has it.

        Raises SchemaConflict by what all have registered until now, BrokerError, in which case nothing is registered.
        """
        await self._directory.refresh()
        self._saying = True
        try:
            self._registry.register_schema(schema)
        finally:
            self._saying = False
        try:
            await self._directory.put(_KIND, schema.key, _value(schema))
        except BusError:
            if schema.key not in self._directory.facts(_KIND):
                self._registry.forget(schema.event_type, schema.version)
            raise

    async def remove(self, event_type: str, version: str) -> None:
        """Remove one version for all; SchemaNotFound, BrokerError."""
        await self._directory.refresh()
        schema = self._registry.get_schema(event_type, version)
        await self._directory.drop(_KIND, schema.key)

    def _changed(self, key: str, value: dict[str, Any] | None) -> None:
        """What somebody registered or removed; told again of what this process did, nothing changes."""
        if value is None:
            event_type, _, version = key.rpartition("@")
            self._registry.forget(event_type, version)
        else:
            self._registry.take(_schema(value))

    def _registered(self, schema: EventSchema, there: bool) -> None:
        """Somebody used the registry itself, which cannot wait until the others know."""
        if not self._saying:
            job = asyncio.get_running_loop().create_task(self._tell(schema, there=there), name="wowevent:schemas")
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _tell(self, schema: EventSchema, *, there: bool) -> None:
        try:
            if there:
                await self._directory.put(_KIND, schema.key, _value(schema))
            else:
                await self._directory.drop(_KIND, schema.key)
        except BusError as error:
            logger.error("validation here differs from what others know", schema=schema.key, there=there, error=error)


def _nothing() -> None:
    """Nobody was told to watch yet."""


def _value(schema: EventSchema) -> dict[str, Any]:
    return {
        "event_type": schema.event_type,
        "version": schema.version,
        "json_schema": msgspec.json.encode(schema.json_schema).decode(),
        "description": schema.description,
    }


def _schema(value: Mapping[str, Any]) -> EventSchema:
    return EventSchema(**{**value, "json_schema": msgspec.json.decode(value["json_schema"])})
