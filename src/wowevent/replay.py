"""A range of the log into a handler, at a speed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from wowevent.broker import Query, Stored
from wowevent.clock import Clock
from wowevent.delivery import Delivery, current, enter
from wowevent.errors import InvalidEvent
from wowevent.event import utc
from wowevent.handler import Handler
from wowevent.topic import check_pattern

REPLAY: Final = "replay"
"""What stands for the subscription's id in the delivery of a replayed event."""


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
        if self.speed_multiplier < 0:
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


async def replay(events: AsyncIterator[Stored], handler: Handler, speed: float, clock: Clock) -> int:
    """Call the handler with each event in turn, as far apart as they were divided by `speed`; returns how many.

    What the handler raises ends the replay: nothing is retried and no cursor moves.
    """
    count = 0
    first: float | None = None
    outer = current()  # a handler may replay
    began = clock.monotonic()
    async for stored in events:
        if speed > 0:
            happened = stored.event.timestamp.timestamp()
            first = happened if first is None else first
            wait = (happened - first) / speed - (clock.monotonic() - began)
            if wait > 0:
                await clock.sleep(wait)
        enter(Delivery(stored.event, 1, REPLAY, stored.position, replayed=True))
        try:
            await handler(stored.event)
        finally:
            enter(outer)
        count += 1
    return count
