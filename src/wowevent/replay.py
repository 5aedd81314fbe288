"""A range of the log at a speed: the events themselves into a handler, or new ones like them into a topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from math import isfinite
from typing import Final

from msgspec import Struct, structs

from wowevent.broker import Position, Query, Stored
from wowevent.clock import Clock
from wowevent.delivery import Delivery, current, enter
from wowevent.errors import InvalidEvent, InvalidTopic
from wowevent.event import Event, new_id, utc
from wowevent.handler import Handler
from wowevent.topic import check_pattern, check_topic, is_reserved

REPLAY: Final = "replay"
"""What stands for the subscription's id in the delivery of a replayed event."""

Progress = Callable[[int, Position], object]
"""Told how many events were published again, and the position of the last of them."""

_TOGETHER: Final = 100  # events that are published in one call, where no time lies between them


class ReplayConfig(Struct, frozen=True, kw_only=True):
    """Which events, and how fast: `speed_multiplier` 0 is at once, 1.0 real time, 2.0 twice as fast.

    Times are those of the events, ends included; naive ones are UTC.
    """

    start_time: datetime | str | None = None
    end_time: datetime | str | None = None
    pattern: str | Sequence[str] | None = None
    correlation_id: str | None = None
    event_ids: Sequence[str] | None = None
    speed_multiplier: float = 1.0
    max_events: int | None = None

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


class _Pace:
    """Keeps events as far apart as they were, divided by `speed`; 0 is at once."""

    def __init__(self, speed: float, clock: Clock) -> None:
        self._speed = speed
        self._clock = clock
        self._began = clock.monotonic()
        self._first: float | None = None

    async def wait_for(self, event: Event) -> None:
        """Return when it is the event's turn."""
        if self._speed <= 0:
            return
        happened = event.timestamp.timestamp()
        self._first = happened if self._first is None else self._first
        wait = (happened - self._first) / self._speed - (self._clock.monotonic() - self._began)
        if wait > 0:
            await self._clock.sleep(wait)


async def upto(events: AsyncIterator[Stored], end: Position) -> AsyncIterator[Stored]:
    """The events up to `end`: what is published while they are looked at is none of them."""
    async with aclosing(events):  # type: ignore[type-var]  # an async generator, whatever the protocol promises
        async for stored in events:
            if stored.position.offset > end.offset:
                return
            yield stored


async def replay(events: AsyncIterator[Stored], handler: Handler, speed: float, clock: Clock) -> int:
    """Call the handler with each event in turn, as far apart as they were divided by `speed`; returns how many.

    What the handler raises ends the replay: nothing is retried and no cursor moves.
    """
    count = 0
    outer = current()  # a handler may replay
    pace = _Pace(speed, clock)
    async with aclosing(events):  # type: ignore[type-var]  # as in upto
        async for stored in events:
            await pace.wait_for(stored.event)
            enter(Delivery(stored.event, 1, REPLAY, stored.position, replayed=True))
            try:
                await handler(stored.event)
            finally:
                enter(outer)
            count += 1
    return count


def check_destination(topic: str) -> str:
    """The topic itself, if events can be published into it; InvalidTopic otherwise."""
    if is_reserved(check_topic(topic)):
        raise InvalidTopic(f"{topic!r}: topics whose first word starts with '_' are the bus's own")
    return topic


async def replay_into(
    topic: str,
    events: AsyncIterator[Stored],
    publish: Callable[[Sequence[Event]], Awaitable[object]],
    *,
    speed: float,
    clock: Clock,
    progress: Progress | None = None,
) -> int:
    """Publish an event like each of these into `topic`, as far apart as they were divided by `speed`; returns how many.

    A cancellation is heeded between two calls of `publish`: what `progress` was told is exactly what was published.
    """
    count = 0
    pace = _Pace(speed, clock)
    batch: list[Stored] = []

    async def send() -> None:
        nonlocal count
        now = datetime.fromtimestamp(clock.time(), UTC)
        await publish([_like(stored.event, topic, now) for stored in batch])
        count += len(batch)
        if progress is not None:
            progress(count, batch[-1].position)
        batch.clear()

    async with aclosing(events):  # type: ignore[type-var]  # as in upto
        async for stored in events:
            await pace.wait_for(stored.event)
            batch.append(stored)
            if speed > 0 or len(batch) >= _TOGETHER:
                await _whole(send())
        if batch:
            await _whole(send())
    return count


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


async def _whole(step: Awaitable[None]) -> None:
    """Carry out a step to its end, also when this task is cancelled meanwhile."""
    task = asyncio.ensure_future(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
