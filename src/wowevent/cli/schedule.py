"""`wowevent schedule`: events that are fired at their moments: add, list, remove."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from msgspec import structs

from wowevent.cli.arguments import payload_of, priority_of
from wowevent.cli.consent import Yes, consent
from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.show import local_time, print_all, print_json
from wowevent.codec import to_fields
from wowevent.event import Event
from wowevent.process.loop import run
from wowevent.schedule import ScheduleInfo
from wowevent.settings import Settings

_COLUMNS: Final = ("NAME", "WHEN", "NEXT", "LAST", "TOPIC")
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

Name = Annotated[str, typer.Argument(help="What the schedule is called.", show_default=False)]

app: typer.Typer = typer.Typer(
    help="Schedules: events that are fired at their moments, once among all processes.", no_args_is_help=True
)


@app.command()
def add(  # noqa: PLR0917 - the options of a command
    name: Name,
    topic: Annotated[str, typer.Option(help="Where the event goes, such as report.due.")],
    payload: Annotated[str, typer.Option(help="A JSON object.")] = "{}",
    every: Annotated[str | None, typer.Option(help="Such as 90s, 10m, 2h, 1d.")] = None,
    cron: Annotated[str | None, typer.Option(help="Such as '30 2 * * mon-fri'.")] = None,
    tz: Annotated[str, typer.Option(help="The time zone of --cron, such as Europe/Berlin.")] = "UTC",
    start: Annotated[str | None, typer.Option(help="Nothing is fired before: ISO 8601, naive is UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Nothing is fired behind it.")] = None,
    priority: Annotated[str | None, typer.Option(help="1 to 10, or low, normal, high, critical.")] = None,
    type: Annotated[str | None, typer.Option(help="What happens, where it is not the topic.")] = None,
    source: Annotated[str | None, typer.Option(help="The agent that says so.")] = None,
    target: Annotated[str | None, typer.Option(help="The only agent that should get it.")] = None,
    ttl: Annotated[float | None, typer.Option(help="Seconds behind its moment after which nobody handles it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Fire an event every so often, or when cron says so; a schedule of that name is replaced.

    A started bus has to be there when it is due (a service, a worker): it lets the event go.
    """
    event = Event(
        topic=topic,
        payload=payload_of(payload),
        event_type=type,
        priority=5 if priority is None else priority_of(priority),
        source_agent=source,
        target_agent=target,
        ttl_seconds=ttl,
    )
    timing: dict[str, Any] = {"every": _span(every), "cron": cron, "tz": tz, "start": start, "until": until}
    found = run(_add(settle(url=url, namespace=namespace), name, event, timing))
    if json:
        print_json(fields(found))
    else:
        print(f"added {found.name} next={_iso(found.next)}")


@app.command("list")
def list_all(
    json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print every schedule, with when it fires next and fired last."""
    print_all(run(_all(settle(url=url, namespace=namespace))), _COLUMNS, _row, json=json, fields=fields)


@app.command()
def remove(name: Name, yes: Yes = False, url: Url = None, namespace: Namespace = None) -> None:
    """Fire it no more; what is due within a second may still come."""
    settings = settle(url=url, namespace=namespace)
    info = run(_get(settings, name))
    consent(f"the schedule {info.name}, which fires {info.event.topic}, will be removed for all", yes=yes)
    run(_remove(settings, name))
    print(f"removed {name}")


def fields(info: ScheduleInfo) -> dict[str, Any]:
    """A schedule for programs."""
    return {**structs.asdict(info), "event": to_fields(info.event)}


def _span(text: str | None) -> float | None:
    if text is None:
        return None
    if not (found := _SPAN.fullmatch(text)):
        raise CommandError("usage", f"--every {text!r:.40}: such as 90s, 10m, 2h, 1d")
    return float(found[1]) * _SECONDS[found[2]]


def _iso(moment: datetime | None) -> str:
    return "never" if moment is None else moment.isoformat()


def _row(info: ScheduleInfo) -> Sequence[str]:
    when = f"every {info.every:g}s" if info.cron is None else f"{info.cron} {info.tz}"
    moments = ("-" if each is None else local_time(each.timestamp()) for each in (info.next, info.last))
    return (info.name, when, *moments, info.event.topic)


async def _add(settings: Settings, name: str, event: Event, timing: dict[str, Any]) -> ScheduleInfo:
    async with open_bus(settings) as bus:
        return await bus.schedules.add(name, event, **timing)


async def _all(settings: Settings) -> Sequence[ScheduleInfo]:
    async with open_bus(settings) as bus:
        return await bus.schedules.list()


async def _get(settings: Settings, name: str) -> ScheduleInfo:
    async with open_bus(settings) as bus:
        return await bus.schedules.get(name)


async def _remove(settings: Settings, name: str) -> None:
    async with open_bus(settings) as bus:
        await bus.schedules.remove(name)
