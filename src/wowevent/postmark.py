"""What an event gets when it is published: it is checked, and says from whom, when, and what it follows from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import structs

from wowevent.clock import Clock
from wowevent.delivery import followed, following
from wowevent.errors import InvalidEvent
from wowevent.event import Event, utc
from wowevent.payload import too_large
from wowevent.topic import is_reserved, reserved


class Postmark:
    """That of one bus."""

    def __init__(
        self,
        name: str,
        max_payload: int,
        clock: Clock,
        *,
        check: Callable[[Event], object] | None,
        count: Callable[[Event, str], None],
    ) -> None:
        """`name` is the source of events that have none. `check(event)` raises for one that no schema allows.

        `count(event, who)` is told of each that somebody was made to publish by another one.
        """
        self._name = name
        self._max_payload = max_payload
        self._clock = clock
        self._check = check
        self._count = count

    def stamp(self, event: Event, delay: float | timedelta | None = None, at: datetime | str | None = None) -> Event:
        """The event as it will be stored; InvalidEvent if it cannot be."""
        if not isinstance(event, Event):
            raise InvalidEvent(f"publish takes an Event, not {type(event).__name__}")
        if is_reserved(event.topic):
            raise reserved(event.topic)
        if len(memoryview(event.body)) > self._max_payload:
            raise too_large(len(memoryview(event.body)), self._max_payload)
        if self._check is not None:
            self._check(event)
        delivery = followed()
        plain = delivery is None and delay is None and at is None and not event.hops
        if plain and (event.source_agent or not self._name):
            return event
        changes: dict[str, Any] = {}
        if not event.source_agent and self._name:
            changes["source_agent"] = self._name
        if delay is not None or at is not None:
            changes["not_before"] = self._moment(delay, at)
        if delivery is not None:
            changes |= following(event, delivery)
        stamped = structs.replace(event, **changes) if changes else event
        if stamped.hops:
            self._count(stamped, stamped.source_agent if delivery is None else delivery.subscription)
        return stamped

    def _moment(self, delay: float | timedelta | None, at: datetime | str | None) -> datetime:
        if at is not None:
            return utc(at, "at")
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 10**10:
            raise InvalidEvent(f"delay: {delay!r:.40} is not a number of seconds")
        return datetime.fromtimestamp(self._clock.time() + seconds, UTC)
