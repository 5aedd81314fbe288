"""Schemas from files, each checked, and each error naming its file."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from wowevent.codec import loads
from wowevent.errors import BusError, InvalidEvent, shown
from wowevent.schema.definition import EventSchema

_LARGEST: Final = 16 * 1024 * 1024  # bytes of a file
_NAMED: Final = re.compile(r"(?P<event_type>.+)@(?P<version>[0-9.]+)\.json")


class SchemaFields(Struct, forbid_unknown_fields=True):
    """One schema as files, commands and HTTP write it."""

    event_type: str
    version: str
    json_schema: dict[str, Any]
    description: str = ""

    def schema(self) -> EventSchema:
        """The schema that these are; InvalidEvent says what is wrong."""
        return EventSchema(
            event_type=self.event_type,
            version=self.version,
            json_schema=self.json_schema,
            description=self.description,
        )


def fields_of(schema: EventSchema) -> SchemaFields:
    """A schema as files, commands and HTTP write it."""
    return SchemaFields(schema.event_type, schema.version, schema.json_schema, schema.description)


def read_schemas(path: str | PathLike[str]) -> list[EventSchema]:
    """The schemas of a file, or of each `.json` file of a folder (not of folders in it), in the order of their names.

    InvalidEvent names the file in which something is wrong; OSError where one cannot be read.
    """
    place = Path(path)
    if not place.is_dir():
        return _of_file(place)
    files = sorted(file for file in place.iterdir() if file.suffix == ".json" and not file.name.startswith("."))
    if not files:
        raise InvalidEvent(f"{place}: there is no .json file in this folder")
    return [schema for file in files for schema in _of_file(file)]


def read_schema(path: str | PathLike[str]) -> EventSchema:
    """The one schema of a file, which may be a bare JSON Schema by any name; raises as `read_schemas` does."""
    file = Path(path)
    found = _of_file(file, bare=True)
    if len(found) != 1:
        raise InvalidEvent(f"{file}: one schema is needed here, not {len(found)}")
    return found[0]


def _of_file(file: Path, *, bare: bool = False) -> list[EventSchema]:
    with file.open("rb") as opened:
        data = opened.read(_LARGEST + 1)
    try:
        if len(data) > _LARGEST:
            raise InvalidEvent(f"more than {_LARGEST} bytes")
        return _schemas(loads(data.removeprefix(b"\xef\xbb\xbf")), file.name, bare=bare)
    except BusError as error:
        raise InvalidEvent(f"{file}: {error}") from error


def _schemas(found: Any, name: str, *, bare: bool) -> list[EventSchema]:
    if isinstance(found, list):
        return [_numbered(number, fields) for number, fields in enumerate(found)]
    if isinstance(found, dict) and "json_schema" not in found and (named := _NAMED.fullmatch(name)) is not None:
        return [EventSchema(**named.groupdict(), json_schema=found)]
    if bare and isinstance(found, dict) and "json_schema" not in found:
        return [EventSchema(event_type="unnamed", version="0", json_schema=found)]
    return [_schema(found)]


def _numbered(number: int, fields: Any) -> EventSchema:
    try:
        return _schema(fields)
    except BusError as error:
        raise InvalidEvent(f"schema {number}: {error}") from error


def _schema(fields: Any) -> EventSchema:
    if isinstance(fields, dict) and "json_schema" not in fields:
        raise InvalidEvent(
            f"json_schema is missing among {shown(sorted(fields))}; "
            "a file that is a JSON Schema itself is named as task.created@1.0.0.json"
        )
    try:
        return msgspec.convert(fields, SchemaFields).schema()
    except msgspec.ValidationError as error:
        raise InvalidEvent(str(error)) from error
