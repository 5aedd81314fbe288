"""A range of a log as it is copied and compared: in its order, with what is missing told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from wowevent.broker import CONTROL, KNOWN_IDS, Broker, Iteration, Position, Query, Stored
from wowevent.copying.note import TOPICS
from wowevent.errors import PositionLost, StorageDamaged
from wowevent.event import Event

_FACTS: Final = Query(patterns=(f"{CONTROL}#",))
_EVENTS: Final = Query(patterns=("#",))
_DAMAGED: Final = 1_000  # in a row: then it is the log that cannot be read, not an event of it
_STEP: Final = 500  # events after which it is told how far it is

Told = Callable[[int, float], object]
"""Told how many events are done, and which part of all that lies ahead, from 0 to 1."""


class Past:
    """The events of a log behind one position up to another, that one included."""

    def __init__(
        self, broker: Broker, after: Position | None, upto: Position | None = None, query: Query = _EVENTS
    ) -> None:
        """Without `after` from the log's beginning, without `upto` to where it ends when that is reached."""
        self.damaged: int = 0
        """Events that cannot be read, and were left out."""
        self.gone: bool = False
        """The log's limits took events behind `after` before they were read."""
        self.part: float = 0.0
        """How much of the range was read, from 0 to 1; stays 0 where `upto` is not given."""
        self._broker = broker
        self._after = after
        self._upto = upto
        self._query = query
        self._place = after or upto
        self._first: int | None = None if after is None else after.offset
        self._last = 0 if after is None else after.offset

    async def read(self, told: Told = lambda _count, _part: None) -> AsyncGenerator[Stored]:
        """The events, in the log's order. BrokerError; PositionLost where `after` and `upto` are of another log."""
        count = 0
        async with aclosing(self._all()) as found:
            async for stored in found:
                yield stored
                count += 1
                if count % _STEP == 0:
                    told(count, self.part)
                    await asyncio.sleep(0)  # an engine that never waits must not keep Ctrl-C waiting
        self.part = 1.0
        told(count, self.part)

    async def _all(self) -> AsyncGenerator[Stored]:
        """One iteration may end with the gap that it tells of; who asks again without a position goes on behind it."""
        after, repeats = self._after, False
        while True:
            found, gap = 0, False
            log = self._broker.read(self._query, after=after)
            async with aclosing(log):
                async for item in _items(log):
                    if isinstance(item, PositionLost):
                        await self._check(item)
                        gap = self.gone = True
                    elif isinstance(item, StorageDamaged):
                        self.damaged += bool(found) or not repeats
                    elif self._is_behind(item.position):
                        return
                    else:
                        gap = False
                        if item.position.offset > self._last:
                            found += 1
                            self._pass(item.position.offset)
                            yield item
            if not gap or (repeats and not found):
                return
            after, repeats = None, True

    def _is_behind(self, position: Position) -> bool:
        if self._place is not None and position.epoch != self._place.epoch:
            raise PositionLost("the log was emptied or replaced while it was read")
        return self._upto is not None and position.offset > self._upto.offset

    def _pass(self, offset: int) -> None:
        self._last = offset
        if self._first is None:
            self._first = offset - 1
        if self._upto is not None:
            self.part = (offset - self._first) / max(1, self._upto.offset - self._first)

    async def _check(self, lost: PositionLost) -> None:
        """Raise it, unless it tells of what the log's limits took."""
        head = (await self._broker.ping()).head
        if self._place is not None and (head.epoch != self._place.epoch or head.offset < self._last):
            raise lost


async def facts(broker: Broker) -> dict[str, Stored]:
    """The newest of each shared fact, by topic, but for what copies note of themselves. BrokerError."""
    async with aclosing(Past(broker, None, query=_FACTS).read()) as found:
        return {stored.event.topic: stored async for stored in found if not stored.event.topic.startswith(TOPICS)}


def is_newer(fact: Event, known: Event) -> bool:
    """Whether a fact takes the place of what is known by its topic."""
    return fact.event_id != known.event_id and fact.timestamp > known.timestamp


async def once(events: AsyncGenerator[Stored]) -> AsyncGenerator[Stored]:
    """Each id once among the last 10,000: an engine without `dedup` may have stored an event twice."""
    known: dict[str, None] = {}
    async with aclosing(events):
        async for stored in events:
            id = stored.event.event_id
            if id not in known:
                known[id] = None
                if len(known) > KNOWN_IDS:
                    del known[next(iter(known))]
                yield stored


async def _items(log: Iteration) -> AsyncGenerator[Stored | PositionLost | StorageDamaged]:
    """What a reading yields, and what it raises and goes on behind."""
    damaged = 0
    while True:
        try:
            item: Stored | PositionLost | StorageDamaged = await anext(log)
            damaged = 0
        except StopAsyncIteration:
            return
        except PositionLost as lost:
            item = lost
        except StorageDamaged as damage:
            damaged += 1
            if damaged == _DAMAGED:
                raise
            item = damage
        yield item
