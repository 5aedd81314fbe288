"""`wowevent subscribe`: a live tail, or with a name a remembered subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, Final, Literal

import typer

from wowevent.broker import Position
from wowevent.bus import EventBus
from wowevent.cli.engine import Namespace, Url, note, open_bus, settle
from wowevent.cli.show import printer
from wowevent.delivery import current
from wowevent.ending import end
from wowevent.event import Event
from wowevent.process.loop import ending, run
from wowevent.settings import Settings

_NEVER: Final = 0.1  # seconds that a handler gets to end when the command ends: it waits for nothing by then

Start = Literal["first", "new"]


def subscribe(  # noqa: PLR0917 - the options of a command
    pattern: Annotated[list[str], typer.Argument(help="Patterns such as 'task.*'.")],
    name: Annotated[str | None, typer.Option(help="Remember the subscription under this name.")] = None,
    start: Annotated[
        Start | None, typer.Option("--from", help="Where to begin: first is all that the log has.", show_default="new")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Whole envelopes, one a line.")] = False,
    count: Annotated[int | None, typer.Option("-n", "--count", min=1, help="End after so many.")] = None,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print events as they come, until Ctrl-C.

    Without a name this is a live tail. With one the engine remembers it: what came while nobody was there comes first,
    and several with one name share the events.
    """
    run(_tail(settle(url=url, namespace=namespace), pattern, name, start or "new", count, json=json))


async def _tail(
    settings: Settings, patterns: list[str], name: str | None, start: Start, count: int | None, *, json: bool
) -> None:
    told = ending()
    tail = _Tail(count, json=json)
    bus = open_bus(settings)
    await bus.start()
    try:
        if name is not None:
            tail.caught_up.set()
            await bus.subscribe(patterns, tail.handle, name, start=start)
        else:
            await bus.subscribe(patterns, tail.handle)
            if start == "first":
                await tail.catch_up(bus, patterns)
            tail.caught_up.set()
        note(f"listening to {' '.join(patterns)} on {settings.shown_url()}, {'as ' + name if name else 'live'}")
        await _first(told.wait(), tail.ended.wait())
    finally:
        await bus.stop(timeout=_NEVER)
    if tail.broken is not None:
        raise tail.broken


class _Tail:
    """What was printed, and how much more is wanted."""

    def __init__(self, count: int | None, *, json: bool) -> None:
        self.caught_up = asyncio.Event()
        self.ended = asyncio.Event()
        self.broken: OSError | None = None
        self._left = count
        self._last: Position | None = None
        self._show = printer(json=json)

    async def handle(self, event: Event) -> None:
        """Print one event. One that is not printed is not acknowledged either: the call waits until it is cancelled."""
        await self.caught_up.wait()
        delivery = current()
        position = None if delivery is None else delivery.position
        if position is not None and self._last is not None and self._last.covers(position):
            return
        if self.ended.is_set() or not self._print(event):
            await asyncio.Event().wait()

    async def catch_up(self, bus: EventBus, patterns: list[str]) -> None:
        """Print what the log has already; what comes meanwhile waits, and is not printed twice."""
        async for stored in bus.history(patterns):
            if self.ended.is_set() or not self._print(stored.event):
                return
            self._last = stored.position

    def _print(self, event: Event) -> bool:
        """Whether it could be printed."""
        try:
            self._show(event)
        except OSError as error:
            self.broken = error
            self.ended.set()
            return False
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self.ended.set()
        return True


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when one of them has."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(*tasks)
