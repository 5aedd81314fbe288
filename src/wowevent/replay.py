"""A range of the log at a speed: the events themselves into a handler, or new ones like them into a topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from math import isfinite
from typing import Final, Literal

from msgspec import Struct, structs

from wowevent.broker import Iteration, Position, Query, Stored
from wowevent.clock import Clock
from wowevent.delivery import Delivery, current, enter
from wowevent.errors import InvalidEvent, InvalidTopic
from wowevent.event import Event, utc
from wowevent.handler import Handler
from wowevent.id import new_id
from wowevent.step import whole
from wowevent.topic import check_pattern, check_topic, is_reserved, reserved

REPLAY: Final = "replay"
"""What stands for the subscription's id in the delivery of a replayed event."""

Progress = Callable[[int, Position], object]
"""Told how many events were published again, and the position of the last of them."""

State = Literal["new", "running", "paused", "done", "cancelled", "failed"]

_TOGETHER: Final = 100  # events that are published in one call, where no time lies between them
_GRAIN: Final = 1e-6  # seconds: the times of events have no finer one, and a rounding error is not waited for


class ReplayConfig(Struct, frozen=True, kw_only=True):
    """Which events, and how fast: `speed_multiplier` 0 is at once, 1.0 real time, 2.0 twice as fast.

    Times are those of the events, ends included; naive ones are UTC.
    """

    start_time: datetime | str | None = None
    end_time: datetime | str | None = None
    pattern: str | Sequence[str] | None = None
    """One, or several; None: all but the bus's own."""
    correlation_id: str | None = None
    event_ids: Sequence[str] | None = None
    """These alone, in the order of the log."""
    speed_multiplier: float = 1.0
    max_events: int | None = None
    """The first so many; None: all."""

    def query(self) -> Query:
        """The same as a question to the log; InvalidEvent for what cannot be one."""
        if not (isfinite(self.speed_multiplier) and self.speed_multiplier >= 0):
            raise InvalidEvent("speed_multiplier: 0 for at once, or more")
        return build_query(
            self.pattern,
            self.start_time,
            self.end_time,
            correlation_id=self.correlation_id,
            event_ids=self.event_ids,
            limit=self.max_events,
        )


def build_query(
    pattern: str | Sequence[str] | None = None,
    start_time: datetime | str | None = None,
    end_time: datetime | str | None = None,
    *,
    correlation_id: str | None = None,
    event_ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> Query:
    """A question to the log from what users write; InvalidEvent or InvalidTopic for what cannot be one."""
    if limit is not None and limit < 0:
        raise InvalidEvent("limit: 0 or more")
    patterns = ("#",) if pattern is None else (pattern,) if isinstance(pattern, str) else tuple(pattern)
    return Query(
        patterns=tuple(check_pattern(each) for each in patterns),
        start_time=None if start_time is None else utc(start_time, "start_time"),
        end_time=None if end_time is None else utc(end_time, "end_time"),
        correlation_id=correlation_id,
        event_ids=None if event_ids is None else tuple(event_ids),
        limit=limit,
    )


class ReplayControl:
    """Steers one replay, and says how far it is: `bus.replay(handler, config, control=control)`; from any thread.

        new ──> running <──> paused        cancelled also before it begins,
                   └─────┬─────┘           failed by what the handler, the engine or a publish raises
                         └──> done | cancelled | failed

    A pause and a cancellation take effect between two events, or between two calls where several are published in one;
    `replayed` and `position` then stand still. Pauses are no time: a replay at a speed goes on as if there had been
    none. Steering one that has ended changes nothing.
    """

    def __init__(self) -> None:
        self.replayed: int = 0
        """Events that are done."""
        self.position: Position | None = None
        """That of the last of them."""
        self._clock: Clock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._steered = asyncio.Event()  # set by the loop alone, whoever steers
        self._held = self._cancelled = self._stopped = False
        self._ran = 0.0  # seconds before `_since`, from when on it runs
        self._since: float | None = None
        self._end: State | None = None

    @property
    def state(self) -> State:
        """What it is doing; "new" until the first event is looked for."""
        if self._end is not None:
            return self._end
        if self._clock is None:
            return "cancelled" if self._cancelled else "new"
        return "paused" if self._held else "running"

    def pause(self) -> None:
        """Hold it; before it begins, it begins held."""
        if self._held or self._end is not None:
            return
        self._held = True
        if self._clock is not None and (since := self._since) is not None:
            self._since = None  # first: who counts in between counts too little, and looks again
            self._ran += self._clock.monotonic() - since
        self._wake()

    def resume(self) -> None:
        """Let it go on where it was held."""
        if not self._held or self._end is not None:
            return
        self._held = False
        self._since = None if self._clock is None else self._clock.monotonic()
        self._wake()

    def cancel(self) -> None:
        """End it before the next event: it returns how many are done."""
        self._cancelled = True
        self._wake()

    # --- for who carries it out ---------------------------------------------------------------------------------

    @contextmanager
    def run(self, clock: Clock) -> Iterator[None]:
        """The replay is what happens inside; ValueError if there was one already."""
        if self._clock is not None:
            raise ValueError("a ReplayControl steers one replay; make another for this one")
        self._clock, self._loop = clock, asyncio.get_running_loop()
        self._since = None if self._held else clock.monotonic()
        end: State = "failed"
        try:
            yield
            end = "cancelled" if self._stopped else "done"
        except asyncio.CancelledError:
            end = "cancelled"
            raise
        finally:
            self._end, self._loop = end, None

    async def turn(self, at: float) -> bool:
        """Return when it has run for `at` seconds and is not held: True to go on, False if it is cancelled."""
        while not self._cancelled:
            if self._held:
                await self._news(None)
            elif (left := at - self._elapsed()) > _GRAIN:
                await self._news(left)
            else:
                return True
        self._stopped = True
        return False

    def reached(self, count: int, position: Position) -> None:
        """So many are done, the last of them at that position."""
        self.replayed, self.position = count, position

    def _elapsed(self) -> float:
        ran, since = self._ran, self._since  # in this order: see pause
        return ran if since is None or self._clock is None else ran + self._clock.monotonic() - since

    async def _news(self, seconds: float | None) -> None:
        """Wait until somebody steers, for `seconds` at most."""
        self._steered.clear()
        timer = None if seconds is None or self._clock is None else self._clock.call_later(seconds, self._steered.set)
        try:
            await self._steered.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if (loop := self._loop) is not None:
            loop.call_soon_threadsafe(self._steered.set)


class _Pace:
    """Keeps events as far apart as they were, divided by `speed`; 0 is at once."""

    def __init__(self, speed: float, control: ReplayControl) -> None:
        self._speed = speed
        self._control = control
        self._first: float | None = None

    async def turn(self, event: Event) -> bool:
        """Return when it is the event's turn: True; False if the replay is cancelled."""
        if self._speed <= 0:
            return await self._control.turn(0.0)
        happened = event.timestamp.timestamp()
        self._first = happened if self._first is None else self._first
        return await self._control.turn((happened - self._first) / self._speed)


async def upto(events: Iteration, end: Position) -> AsyncGenerator[Stored]:
    """The events up to `end`: what is published while they are looked at is none of them."""
    async with aclosing(events):
        async for stored in events:
            if stored.position.offset > end.offset:
                return
            yield stored


async def replay(
    events: Iteration, handler: Handler, speed: float, clock: Clock, control: ReplayControl | None = None
) -> int:
    """Call the handler with each event in turn, as far apart as they were divided by `speed`; returns how many.

    What the handler raises ends the replay: nothing is retried and no cursor moves.
    """
    control = control or ReplayControl()
    outer = current()  # a handler may replay
    pace = _Pace(speed, control)
    async with aclosing(events):
        with control.run(clock):
            async for stored in events:
                if not await pace.turn(stored.event):
                    break
                enter(Delivery(stored.event, 1, REPLAY, stored.position, replayed=True, outer=outer))
                try:
                    await handler(stored.event)
                finally:
                    enter(outer)
                control.reached(control.replayed + 1, stored.position)
    return control.replayed


def check_destination(topic: str) -> str:
    """The topic itself, if events can be published into it; InvalidTopic otherwise."""
    if is_reserved(check_topic(topic)):
        raise reserved(topic)
    return topic


def check_elsewhere(config: ReplayConfig, here: Position, there: Position | None) -> None:
    """InvalidTopic unless events of the log `here` can keep their topics, in the log `there`.

    In their own log they would be handled again by all that handled them; a log and its copy count as one.
    """
    if there is None or there.epoch == here.epoch:
        raise InvalidTopic("events that keep their topics go into another log: name a topic, or a bus of another log")
    if own := [pattern for pattern in config.query().patterns if is_reserved(pattern)]:
        raise InvalidTopic(f"{own[0]!r}: topics whose first word starts with '_' are the bus's own: name a topic")


async def replay_into(
    topic: str | None,
    events: Iteration,
    publish: Callable[[Sequence[Event]], Awaitable[object]],
    *,
    speed: float,
    clock: Clock,
    source_agent: str | None = None,
    control: ReplayControl | None = None,
    progress: Progress | None = None,
) -> int:
    """Publish an event like each of these, as far apart as they were divided by `speed`; returns how many.

    They go into `topic`; without one, each into its own. `source_agent` is whose they are, if not the same one's. A
    cancellation is heeded between two calls of `publish`: what `progress` was told is exactly what was published.
    """
    control = control or ReplayControl()
    pace = _Pace(speed, control)
    batch: list[Stored] = []

    async def send() -> None:
        now = datetime.fromtimestamp(clock.time(), UTC)
        new = [_like(stored.event, topic or stored.event.topic, now) for stored in batch]
        await publish([structs.replace(each, source_agent=source_agent) for each in new] if source_agent else new)
        control.reached(control.replayed + len(batch), batch[-1].position)
        if progress is not None:
            progress(control.replayed, batch[-1].position)
        batch.clear()

    async with aclosing(events):
        with control.run(clock):
            async for stored in events:
                if not await pace.turn(stored.event):
                    break  # and publish nothing of what gathered
                batch.append(stored)
                if speed > 0 or len(batch) >= _TOGETHER:
                    await whole(send())
            else:
                if batch:
                    await whole(send())
    return control.replayed


def _like(event: Event, topic: str, now: datetime) -> Event:
    """A new event of the same content, correlation included.

    It happens now, so its time to live begins anew; nobody waits for its reply any more.
    """
    return structs.replace(
        event,
        event_id=new_id(),
        topic=topic,
        replay_of=event.event_id,
        timestamp=now,
        not_before=None,
        reply_to=None,
        hops=0,
    )
