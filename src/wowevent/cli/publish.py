"""`wowevent publish`: one event, or a stream of them from standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from msgspec import structs

from wowevent.bus import EventBus
from wowevent.cli.arguments import payload_of, priority_of
from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.lines import is_piped, lines, size
from wowevent.codec import parse
from wowevent.errors import BusError
from wowevent.event import Event
from wowevent.process.loop import run
from wowevent.settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress

_STDIN: Final = 0
_ENVELOPE: Final = 64 * 1024  # bytes of a line beside the payload
_TOGETHER: Final = 500  # events of one call

Maker = Callable[[bytes], Event]
"""A line as an event."""


def publish(  # noqa: PLR0917 - the options of a command
    topic: Annotated[str | None, typer.Argument(help="Where it goes, such as task.created.")] = None,
    payload: Annotated[
        str | None, typer.Argument(help="A JSON object; '-', or nothing and a pipe, reads one a line from stdin.")
    ] = None,
    priority: Annotated[str | None, typer.Option(help="1 to 10, or low, normal, high, critical.")] = None,
    type: Annotated[str | None, typer.Option(help="What happened, where it is not the topic.")] = None,
    source: Annotated[str | None, typer.Option(help="The agent that says so.")] = None,
    target: Annotated[str | None, typer.Option(help="The only agent that should get it.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="What it belongs to.")] = None,
    delay: Annotated[float | None, typer.Option(min=0, help="Seconds from now.")] = None,
    ttl: Annotated[float | None, typer.Option(help="Seconds after which nobody should handle it.")] = None,
    events: Annotated[bool, typer.Option("--events", help="Read whole envelopes or CloudEvents from stdin.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Publish one event, or one for each line of standard input."""
    fields: dict[str, Any] = {
        "topic": topic,
        "event_type": type,
        "priority": None if priority is None else priority_of(priority),
        "source_agent": source,
        "target_agent": target,
        "correlation_id": correlation_id,
        "ttl_seconds": ttl,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    settings = settle(url=url, namespace=namespace)
    if events:
        if fields or payload is not None:
            raise CommandError("usage", "--events reads whole events: they have their own topic, payload and the rest")
        run(_stream(settings, parse, delay))
    elif topic is None:
        raise CommandError("usage", "a TOPIC is needed (or --events)")
    elif payload == "-" or (payload is None and is_piped(_STDIN)):
        run(_stream(settings, lambda line: Event(**fields, payload=payload_of(line)), delay))
    else:
        run(_one(settings, Event(**fields, payload=payload_of(payload or "{}")), delay))


async def _one(settings: Settings, event: Event, delay: float | None) -> None:
    async with open_bus(settings) as bus:
        receipt = await bus.publish(event, delay=delay)
    where = "" if delay is None else f" delay={delay:g}"
    if receipt.position is not None:  # which RabbitMQ does not tell, and a delayed one does not have yet
        where = f" position={receipt.position}"
    again = " duplicate" if receipt.duplicate else ""
    alone = f" unserved={','.join(receipt.unserved)}" if receipt.unserved else ""
    print(f"published {receipt.event_id}{where} matched={receipt.matched}{again}{alone}")


async def _stream(settings: Settings, make: Maker, delay: float | None) -> None:
    """Publish each line as it comes. A bad one ends the command; what stands before it is published."""
    count = 0
    with _progress() as progress:
        task = progress.add_task("publishing", total=size(_STDIN), events=0) if progress else None
        async with open_bus(settings) as bus:
            async for batch in lines(_STDIN, longest=settings.max_payload + _ENVELOPE):
                for start in range(0, len(batch), _TOGETHER):
                    count = await _batch(bus, batch[start : start + _TOGETHER], make, delay, count)
                if progress and task is not None:
                    progress.update(task, advance=sum(map(len, batch)) + len(batch), events=count)
    print(f"published {count} event{'' if count == 1 else 's'}")


async def _batch(bus: EventBus, batch: list[bytes], make: Maker, delay: float | None, before: int) -> int:
    """How many lines were published so far; empty ones count for nothing."""
    events: list[Event] = []
    wrong: BusError | None = None
    for line in batch:
        if not line.strip():
            continue
        try:
            events.append(_later(make(line), delay))
        except BusError as error:
            wrong = error
            break
    if events:
        await bus.publish_many(events)
    count = before + len(events)
    if wrong is not None:
        raise CommandError(wrong.code, f"event {count + 1}: {wrong}; {count} before it were published") from wrong
    return count


def _later(event: Event, delay: float | None) -> Event:
    return event if delay is None else structs.replace(event, not_before=datetime.now(UTC) + timedelta(seconds=delay))


def _progress() -> AbstractContextManager[Progress | None]:
    """A bar on stderr, if somebody looks at it."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    count = TextColumn("{task.fields[events]:,} events")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), count, TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))
