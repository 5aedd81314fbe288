"""`wowevent history`: the events of the log, oldest first."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.show import printer
from wowevent.event import utc
from wowevent.process.loop import run
from wowevent.settings import Settings

_AGO: Final = re.compile(r"(\d{1,6})([smhd])")
_UNIT: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Time = Annotated[str | None, typer.Option(help="ISO 8601 (naive is UTC), or as long ago as 90s, 15m, 2h, 7d.")]


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


def moment(text: str | None) -> datetime | None:
    """A time as a person writes it; InvalidEvent if it is none."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNIT[ago[2]]: int(ago[1])})
    return utc(text)
