"""`wowevent history`: the events of the log, oldest first."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from wowevent.cli.arguments import Time, moment
from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.show import printer
from wowevent.process.loop import run
from wowevent.settings import Settings


def history(  # noqa: PLR0917 - the options of a command
    pattern: Annotated[list[str] | None, typer.Argument(help="Patterns such as 'task.*'; all without one.")] = None,
    since: Time = None,
    until: Time = None,
    correlation_id: Annotated[str | None, typer.Option(help="Only what belongs together.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=0, help="At most so many.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Whole envelopes, one a line.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print what happened, oldest first. Times are those of the events."""
    settings = settle(url=url, namespace=namespace)
    run(_print(settings, pattern or None, moment(since), moment(until), correlation_id, limit, json=json))


async def _print(  # noqa: PLR0917 - the parts of a question to the log
    settings: Settings,
    patterns: list[str] | None,
    since: datetime | None,
    until: datetime | None,
    correlation_id: str | None,
    limit: int | None,
    *,
    json: bool,
) -> None:
    show = printer(json=json)
    async with open_bus(settings) as bus:
        found = bus.history(patterns, start_time=since, end_time=until, correlation_id=correlation_id, limit=limit)
        async for stored in found:
            show(stored.event)
