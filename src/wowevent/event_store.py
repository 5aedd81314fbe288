"""The newest events in memory, or a bus's log; and the replayer that hands them to a handler again."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from typing import Any

from wowevent.broker import Iteration, Position, Query, Stored
from wowevent.bus import EventBus
from wowevent.clock import Clock, SystemClock
from wowevent.errors import InvalidEvent, NotSupported, PositionLost
from wowevent.event import Event
from wowevent.handler import adapt
from wowevent.reading import wanted
from wowevent.replay import ReplayConfig, ReplayControl, build_query, replay, upto


class EventStore:
    """The newest `max_size` events that it was given; or `EventStore(bus=bus)`: the bus's log.

    Alone it is a memory of this process, which may be written from any thread: `bus.subscribe("*", store.store)`.
    With a bus it keeps nothing itself, and shows what the engine's log holds.
    """

    def __init__(self, max_size: int = 10_000, bus: EventBus | None = None, *, clock: Clock | None = None) -> None:
        """ValueError unless `max_size` is 1 or more; with a bus it means nothing."""
        if max_size < 1:
            raise ValueError("max_size: 1 or more")
        self.bus: EventBus | None = bus
        """Whose log this is; None for a store that stands alone."""
        self._max_size = max_size
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()  # never held across an await
        self._epoch = secrets.token_hex(4)
        self._head = 0
        self._events: deque[Stored] = deque()
        self._related: dict[str, deque[Stored]] = {}  # the same ones, by correlation

    def store(self, event: Event) -> None:
        """Keep an event; the oldest gives way when `max_size` are there. NotSupported with a bus: publish it there."""
        if self.bus is not None:
            raise NotSupported("this store shows the log of a bus: publish the event there")
        if not isinstance(event, Event):
            raise InvalidEvent(f"store takes an Event, not {type(event).__name__}")
        with self._lock:
            self._head += 1
            stored = Stored(event, Position(self._epoch, self._head), self._clock.time())
            self._events.append(stored)
            self._related.setdefault(event.correlation_id, deque()).append(stored)
            if len(self._events) > self._max_size:
                self._drop_oldest()

    def clear(self) -> None:
        """Forget all of them. NotSupported with a bus."""
        if self.bus is not None:
            raise NotSupported("this store shows the log of a bus, which keeps its events by its own limits")
        with self._lock:
            self._events.clear()
            self._related.clear()

    def __len__(self) -> int:
        """How many there are. NotSupported with a bus."""
        if self.bus is not None:
            raise NotSupported("this store shows the log of a bus, which must be asked: count what history() yields")
        return len(self._events)

    def get_events(
        self,
        pattern: str | Sequence[str] | None = None,
        start_time: datetime | str | None = None,
        end_time: datetime | str | None = None,
        correlation_id: str | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Those that fit, oldest first, `limit` at most. NotSupported with a bus: see `history`.

        Times are those of the events, ends included; naive ones are UTC. Raises InvalidEvent, InvalidTopic.
        """
        if self.bus is not None:
            raise NotSupported("this store shows the log of a bus, which must be asked: iterate over history()")
        query = build_query(pattern, start_time, end_time, correlation_id=correlation_id, limit=limit)
        return [stored.event for stored in self._find(query, None)]

    def history(  # noqa: PLR0917 - as `EventBus.history`
        self,
        pattern: str | Sequence[str] | None = None,
        start_time: datetime | str | None = None,
        end_time: datetime | str | None = None,
        correlation_id: str | None = None,
        after: Position | None = None,
        limit: int | None = None,
    ) -> Iteration:
        """As `EventBus.history`, of either kind of store; alone, what is there when the first one is asked for."""
        if self.bus is not None:
            return self.bus.history(pattern, start_time, end_time, correlation_id, after, limit)
        return self.read(build_query(pattern, start_time, end_time, correlation_id=correlation_id, limit=limit), after)

    async def read(self, query: Query, after: Position | None = None) -> AsyncGenerator[Stored]:
        """What a store that stands alone has of this, behind `after`; PositionLost if something there is gone."""
        for stored in self._find(query, after):
            yield stored

    def _find(self, query: Query, after: Position | None) -> list[Stored]:
        with self._lock:
            behind = 0 if after is None else self._behind(after)
            among = self._events if query.correlation_id is None else self._related.get(query.correlation_id, ())
            found = list(among)
        fitting = (stored for stored in found if stored.position.offset > behind and wanted(query, stored.event))
        return list(itertools.islice(fitting, query.limit))

    def _behind(self, after: Position) -> int:
        """The offset of that position, if all behind it is here."""
        if after.epoch != self._epoch or after.offset > self._head:
            raise PositionLost("that position is of another log")
        if (lost := self._head - len(self._events) - after.offset) > 0:
            raise PositionLost(f"{lost} events behind that position are gone", lost)
        return after.offset

    def _drop_oldest(self) -> None:
        correlation = self._events.popleft().event.correlation_id
        related = self._related[correlation]
        related.popleft()
        if not related:
            del self._related[correlation]


class EventReplayer:
    """Hands the events of a store, or of a bus, to a handler again: each delivery is marked as replayed."""

    def __init__(self, source: EventStore | EventBus, *, clock: Clock | None = None) -> None:
        """`clock` is for a store that stands alone; a bus has its own."""
        if not isinstance(source, EventStore | EventBus):
            raise TypeError(f"an EventReplayer takes an EventStore or an EventBus, not {type(source).__name__}")
        self._store = source if isinstance(source, EventStore) else EventStore(bus=source)
        self._clock = clock or SystemClock()

    async def replay(
        self, handler: Callable[..., Any], config: ReplayConfig | None = None, *, control: ReplayControl | None = None
    ) -> int:
        """Call `handler` with the events of a range, at a speed, at once unless told otherwise; returns how many.

        Nothing is retried: what the handler raises ends the replay. Raises InvalidEvent, InvalidTopic.
        """
        if self._store.bus is not None:
            return await self._store.bus.replay(handler, config, control=control)
        config = config or ReplayConfig(speed_multiplier=0)
        events = self._store.read(config.query())
        return await replay(events, adapt(handler), config.speed_multiplier, self._clock, control)

    async def catch_up(
        self,
        handler: Callable[..., Any],
        since: datetime | str | Position,
        pattern: str | Sequence[str] | None = None,
        *,
        control: ReplayControl | None = None,
    ) -> int:
        """At once, all that happened since a time, or lies behind a position; returns how many.

        For an agent that was away: `control.position` afterwards is where it goes on the next time, also if its handler
        raised. A position misses nothing; a time misses what was stored since, but happened earlier by its own. Raises
        PositionLost where events behind the position are gone.
        """
        start, after = (None, since) if isinstance(since, Position) else (since, None)
        events = self._store.history(pattern, start, after=after)
        if self._store.bus is not None:  # what the handler causes is none of it
            events = upto(events, (await self._store.bus.broker.ping()).head)
        return await replay(events, adapt(handler), 0.0, self._clock, control)
