"""`wowevent storms`: the conversations that went too far and are parked; list and release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
import typer

from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.listing import ListsByDefault
from wowevent.cli.show import local_time, print_all
from wowevent.errors import shown
from wowevent.process.loop import run
from wowevent.settings import Settings
from wowevent.storm import Storm, in_words

_COLUMNS: Final = ("CONVERSATION", "CORRELATION", "SINCE", "LIMIT", "BY", "PATH")


app: typer.Typer = typer.Typer(cls=ListsByDefault, help="List the conversations that are parked as storms; release.")


@app.command("list")
def list_all(
    json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print the conversations that went too far: all that belongs to them goes to the dead letters."""
    print_all(run(_all(settle(url=url, namespace=namespace))), _COLUMNS, _row, json=json, fields=fields)


@app.command()
def release(
    id: Annotated[str, typer.Argument(help="The event that it began with, or its correlation.")],
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Let a conversation go on, as far again as it went; `dlq redeliver` hands out again what was parked of it."""
    for storm in run(_release(settle(url=url, namespace=namespace), id)):
        print(f"released {storm.id}")


def fields(storm: Storm) -> dict[str, Any]:
    """A storm for programs."""
    return {**msgspec.to_builtins(storm), "why": storm.why}


def _row(storm: Storm) -> Sequence[str]:
    since = local_time(storm.since)
    return (storm.id, storm.correlation_id, since, f"{storm.limit} {storm.most:,}", storm.who, in_words(storm.path))


async def _all(settings: Settings) -> Sequence[Storm]:
    async with open_bus(settings) as bus:
        return bus.storms.list()


async def _release(settings: Settings, id: str) -> Sequence[Storm]:
    async with open_bus(settings) as bus:
        released = await bus.storms.release(id)
    if not released:
        raise CommandError("storm_not_found", f"no conversation {shown(id)} is parked")
    return released
