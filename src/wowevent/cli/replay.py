"""`wowevent replay`: a range of the log again, onto the screen or as new events into a topic or another log."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from math import isfinite
from typing import Annotated

import typer

from wowevent.broker import Position
from wowevent.cli.arguments import Time, moment
from wowevent.cli.consent import Yes, consent
from wowevent.cli.engine import Namespace, Url, note, open_bus, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.progress import progress
from wowevent.cli.show import counted, printer
from wowevent.delivery import current
from wowevent.event import Event, check_name
from wowevent.process.loop import run
from wowevent.replay import ReplayConfig, check_destination
from wowevent.settings import Settings


def replay(  # noqa: PLR0917 - the options of a command
    pattern: Annotated[list[str] | None, typer.Argument(help="Patterns such as 'task.*'; all without one.")] = None,
    since: Time = None,
    until: Time = None,
    correlation_id: Annotated[str | None, typer.Option(help="Only what belongs together.")] = None,
    speed: Annotated[float, typer.Option(min=0, help="1 is as it was, 2 twice as fast, 0 at once.")] = 0.0,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=0, help="At most so many.")] = None,
    into: Annotated[
        str | None, typer.Option(help="Publish them into this topic, as new events with replay_of.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Publish them on this engine: a URL.", show_default="the same one")
    ] = None,
    to_namespace: Annotated[
        str | None, typer.Option(help="Publish them in this namespace.", show_default="the same one")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Whole envelopes, one a line.")] = False,
    yes: Yes = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print what happened again, as far apart as it was; or publish it, with --into, --to-namespace or --to.

    In another log events keep their topics unless --into names one. No subscription is moved. Ctrl-C stops it, and it
    says how far it came.
    """
    if not isfinite(speed):
        raise CommandError("usage", f"--speed: {speed} is not a speed")
    publishing = not (into is None and to is None and to_namespace is None)
    if publishing and json:
        raise CommandError("usage", "--json prints events, --into, --to and --to-namespace publish them: one of these")
    config = ReplayConfig(
        pattern=pattern or None,
        start_time=moment(since),
        end_time=moment(until),
        correlation_id=None if correlation_id is None else check_name(correlation_id),
        speed_multiplier=speed,
        max_events=limit,
    )
    settings = settle(url=url, namespace=namespace)
    if not publishing:
        run(_print(settings, config, json=json))
        return
    target = settle(url=to or settings.engine_url(), namespace=to_namespace or settings.namespace)
    way = _Way(settings, target, into)
    if total := run(_count(settings, config)):
        consent(f"{counted(total, 'event')} will be published into {way} as new ones", yes=yes)
    print(f"replayed {counted(run(_republish(way, config, total)), 'event')} into {way}")


class _Way:
    """From where to where events are published again."""

    def __init__(self, source: Settings, target: Settings, topic: str | None) -> None:
        """Raises CommandError, InvalidTopic for a way that leads nowhere."""
        self.source: Settings = source
        self.target: Settings = target
        self.topic: str | None = None if topic is None else check_destination(topic)
        self.stays: bool = (source.engine_url(), source.namespace) == (target.engine_url(), target.namespace)
        """Into the log that they are of."""
        if topic is None and self.stays:
            raise CommandError("usage", "this is the log that they are of: name another one, or --into TOPIC")

    def __str__(self) -> str:
        """Where to, as it may be shown."""
        elsewhere = f"namespace {self.target.namespace} of {self.target.shown_url()}"
        if self.stays:
            return str(self.topic)
        return elsewhere if self.topic is None else f"{self.topic} in {elsewhere}"


class _Progress:
    """How far a replay came."""

    def __init__(self, total: int | None = None) -> None:
        self._total = total
        self._count = 0
        self._position: Position | None = None

    def reached(self, count: int, position: Position | None) -> None:
        """So many events are done, the last of them at that position of the log."""
        self._count, self._position = count, position

    def passed(self, position: Position | None) -> None:
        """One more is done."""
        self.reached(self._count + 1, position)

    def stopped(self) -> str:
        """What is said of a replay that was interrupted."""
        of = "" if self._total is None else f" of {self._total:,}"
        at = "" if self._position is None else f", at {self._position}"
        return f"stopped after {counted(self._count, 'event')}{of}{at}"


async def _print(settings: Settings, config: ReplayConfig, *, json: bool) -> None:
    show = printer(json=json)
    so_far = _Progress()

    async def handle(event: Event) -> None:
        show(event)
        delivery = current()
        so_far.passed(None if delivery is None else delivery.position)

    async with open_bus(settings) as bus:
        try:
            await bus.replay(handle, config)
        except asyncio.CancelledError:
            note(so_far.stopped())
            raise


async def _republish(way: _Way, config: ReplayConfig, total: int) -> int:
    """How many were published; how far it is shows meanwhile."""
    so_far = _Progress(total)
    try:
        with progress({"replaying": "events"}) as show:

            def told(count: int, position: Position) -> None:
                so_far.reached(count, position)
                show("replaying", count, count / max(count, total))

            async with AsyncExitStack() as buses:
                bus = await buses.enter_async_context(open_bus(way.source))
                to = None if way.stays else await buses.enter_async_context(open_bus(way.target))
                return await bus.replay_into(way.topic, config, to=to, progress=told)
    except asyncio.CancelledError:
        note(so_far.stopped())
        raise


async def _count(settings: Settings, config: ReplayConfig) -> int:
    """How many events it is about, as the log is now."""
    async with open_bus(settings) as bus:
        found = bus.history(
            config.pattern, config.start_time, config.end_time, config.correlation_id, limit=config.max_events
        )
        return sum([1 async for _ in found])
