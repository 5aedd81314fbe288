"""/schemas: what payloads are held against: list, show, check, register, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct
from starlette.responses import Response

from wowevent.errors import NotSupported
from wowevent.schema import EventSchema, SchemaBreak
from wowevent.service.access import note
from wowevent.service.answers import answer
from wowevent.service.asking import bus_of
from wowevent.service.intake import order_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from wowevent.schema import SchemaRegistry


class SchemaOrder(Struct, forbid_unknown_fields=True):
    """A JSON Schema for the payloads of an event type, as one version of it."""

    event_type: str
    version: Annotated[str, Meta(description="MAJOR, MAJOR.MINOR or MAJOR.MINOR.PATCH, compared as numbers.")]
    json_schema: Annotated[dict[str, Any], Meta(description="Drafts 4 to 2020-12, by its `$schema`.")]
    description: str = ""


class SchemaShown(Struct):
    """One schema that is registered."""

    event_type: str
    version: str
    json_schema: dict[str, Any]
    description: str


class Schemas(Struct):
    """What is registered: by type, and by version from the oldest."""

    schemas: list[SchemaShown]


class BreakShown(Struct):
    """One way in which a schema refuses what its neighbour accepts."""

    path: Annotated[str, Meta(description="Such as `payload.items.*.price`.")]
    what: Annotated[str, Meta(description="The keyword, or `schema`, `alternative`, `property`.")]
    old: str
    new: str
    certain: Annotated[bool, Meta(description="False: it could not be decided whether it is one.")]


class SchemaReport(Struct):
    """Whether a schema could stand among those that are registered without refusing what they accept."""

    compatible: bool
    breaks: list[BreakShown]


async def schemas(request: Request) -> Response:
    """`{"schemas": […]}`: all, or those of one type; by type, and by version from the oldest."""
    found = _registry(request).schemas(request.query_params.get("event_type"))
    return answer(Schemas([_shown(each) for each in found]))


async def schema(request: Request) -> Response:
    """One of them."""
    version = request.query_params.get("version")
    return answer(_shown(_registry(request).get_schema(request.path_params["event_type"], version)))


async def register(request: Request) -> Response:
    """201: it is registered, and every process that attaches a registry knows within a second or so."""
    given = await _given(request)
    _registry(request)
    await bus_of(request).register_schema(given)
    note(request, "schema registered", schema=given.event_type, version=given.version)
    place = f"/schemas/{given.event_type}?version={given.version}"
    return answer(_shown(given), 201, location=place)


async def check(request: Request) -> Response:
    """`{"compatible": false, "breaks": […]}` against the versions next to it; nothing is changed."""
    given = await _given(request)
    # A comparison may take a second or two: others get their turn meanwhile.
    return answer(_report(await asyncio.to_thread(_registry(request).check, given)))


async def remove(request: Request) -> Response:
    """204: events are no longer held against it, anywhere."""
    _registry(request)
    event_type, version = request.path_params["event_type"], request.path_params["version"]
    await bus_of(request).remove_schema(event_type, version)
    note(request, "schema removed", schema=event_type, version=version)
    return Response(status_code=204)


def _shown(schema: EventSchema) -> SchemaShown:
    return SchemaShown(schema.event_type, schema.version, schema.json_schema, schema.description)


def _report(breaks: Sequence[SchemaBreak]) -> SchemaReport:
    shown = [BreakShown(each.path, each.what, each.old, each.new, each.certain) for each in breaks]
    return SchemaReport(compatible=not shown, breaks=shown)


def _registry(request: Request) -> SchemaRegistry:
    registry = bus_of(request).registry
    if registry is None:
        raise NotSupported("this service has no schema registry")
    return registry


async def _given(request: Request) -> EventSchema:
    order = await order_of(request, SchemaOrder)
    return EventSchema(
        event_type=order.event_type,
        version=order.version,
        json_schema=order.json_schema,
        description=order.description,
    )
