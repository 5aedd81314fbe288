"""`wowevent schema`: what payloads are held against: register, list, show, check, diff, remove."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from wowevent.cli.consent import Yes, consent
from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.show import counted, facts, print_all, print_json, text
from wowevent.process.loop import run
from wowevent.schema import EventSchema, SchemaBreak, SchemaRegistry, fields_of, read_schema, read_schemas
from wowevent.schema import diff as differences
from wowevent.settings import Settings

_COLUMNS: Final = ("TYPE", "VERSION", "BYTES", "DESCRIPTION")

Files = Annotated[list[Path], typer.Argument(help="Files, or folders of them.", show_default=False)]
Type = Annotated[str, typer.Argument(help="An event type.")]
Json = Annotated[bool, typer.Option("--json", help="One object a line.")]

app: typer.Typer = typer.Typer(help="Schemas of events: what their payloads must look like.", no_args_is_help=True)


@app.command()
def register(
    files: Files,
    backward: Annotated[
        bool, typer.Option("--backward", help="Refuse what would not accept all that its neighbours accept.")
    ] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Register schemas, all or none of them; the same one twice is once."""
    schemas = _read(files)
    run(_register(settle(url=url, namespace=namespace), schemas, backward=backward))
    for schema in schemas:
        print(f"registered {schema.event_type} {schema.version}")


@app.command("list")
def list_all(
    event_type: Annotated[str | None, typer.Argument(help="Only those of this event type.")] = None,
    json: Json = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print what is registered, by type and version."""
    schemas = run(_registered(settle(url=url, namespace=namespace))).schemas(event_type)
    print_all(schemas, _COLUMNS, _row, json=json, fields=fields_of, right={"BYTES"})


@app.command()
def show(
    event_type: Type,
    version: Annotated[str | None, typer.Option(help="Which one.", show_default="the newest")] = None,
    json: Json = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print one schema."""
    schema = run(_registered(settle(url=url, namespace=namespace))).get_schema(event_type, version)
    if json:
        print_json(fields_of(schema))
        return
    text(f"{schema.event_type} {schema.version}", ())
    if schema.description:
        facts([("description", schema.description)])
    text("json_schema", msgspec.json.format(msgspec.json.encode(schema.json_schema), indent=2).decode().splitlines())


@app.command()
def check(files: Files, json: Json = False, url: Url = None, namespace: Namespace = None) -> None:
    """Say what schemas would refuse that the registered versions next to them accept; status 65 for any break."""
    schemas = _read(files)
    registry = run(_registered(settle(url=url, namespace=namespace)))
    found = 0
    for schema in schemas:
        breaks = registry.check(schema)
        found += len(breaks)
        _tell(f"{schema.event_type} {schema.version}", breaks, json=json)
        registry.take(schema)  # the next version is held against this one, too
    if found:
        raise CommandError("schema_conflict", f"{counted(found, 'break')} in {counted(len(schemas), 'schema')}")
    if not json:
        print(f"compatible: {counted(len(schemas), 'schema')}")


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="A file with one schema, also a bare JSON Schema.")],
    new: Annotated[Path, typer.Argument(help="Another one.")],
    json: Json = False,
) -> None:
    """Print what the new schema refuses that the old one accepted, and what it accepts beside that."""
    found = differences(read_schema(old), read_schema(new))
    if json:
        print_json(found)
        return
    for title, changes in (("breaks", found.breaks), ("harmless", found.harmless)):
        text(title, map(str, changes) if changes else ["none"])


@app.command()
def remove(
    event_type: Type,
    version: Annotated[str, typer.Option(help="Which one.")],
    yes: Yes = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Remove one version of a schema: events are no longer held against it."""
    settings = settle(url=url, namespace=namespace)
    schema = run(_registered(settings)).get_schema(event_type, version)
    consent(f"the schema {schema.event_type} {schema.version} will be removed for all that use this log", yes=yes)
    run(_remove(settings, schema))
    print(f"removed {schema.event_type} {schema.version}")


def _read(files: Iterable[Path]) -> list[EventSchema]:
    """The schemas of all files, older versions first; each file is read before anything is done."""
    found = [schema for file in files for schema in read_schemas(file)]
    return sorted(found, key=lambda schema: (schema.event_type, schema.numbers))


def _tell(name: str, breaks: Sequence[SchemaBreak], *, json: bool) -> None:
    for each in breaks if json else ():
        print_json({"schema": name, **msgspec.to_builtins(each)})
    if breaks and not json:
        text(name, map(str, breaks))


def _row(schema: EventSchema) -> Sequence[str]:
    size = len(msgspec.json.encode(schema.json_schema))
    return (schema.event_type, schema.version, f"{size:,}", schema.description)


async def _registered(settings: Settings) -> SchemaRegistry:
    """A copy of what is registered now."""
    registry = SchemaRegistry()
    async with open_bus(settings, registry):
        return registry


async def _register(settings: Settings, schemas: Sequence[EventSchema], *, backward: bool) -> None:
    registry = SchemaRegistry("backward" if backward else "none")
    async with open_bus(settings, registry) as bus:
        trial = SchemaRegistry(registry.compatibility)
        for schema in registry.schemas():
            trial.take(schema)
        trial.register_all(schemas)
        for schema in schemas:
            await bus.register_schema(schema)


async def _remove(settings: Settings, schema: EventSchema) -> None:
    async with open_bus(settings, SchemaRegistry()) as bus:
        await bus.remove_schema(schema.event_type, schema.version)
