"""Live subscriptions: one reader of the log's end a bus, and an inbox for each subscription.

A live subscriber gets its own copy of what is published while it is there, at most once. Its inbox is bounded: what a
slow one cannot take is dropped, counted and said. So is what is published while a pause holds it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import aclosing
from itertools import takewhile
from typing import Final, Protocol

from msgspec import structs

from wowevent.broker import (
    Attempt,
    Broker,
    Extend,
    Iteration,
    Lease,
    Position,
    Query,
    Retry,
    Settlement,
    Stored,
    Subscription,
)
from wowevent.clock import Clock, Timer
from wowevent.ending import end
from wowevent.errors import BrokerError, Closed, FormatTooNew, PositionLost, StorageDamaged
from wowevent.event import Event
from wowevent.holds import Holds
from wowevent.log import logger
from wowevent.routing import Routes
from wowevent.wakeup import Wakeup

CAPACITY: Final = 10_000
UNREADABLE: Final = (StorageDamaged, FormatTooNew)
"""What an iteration over the log raises for one event that cannot be served; it goes on behind it."""
_BACKOFF: Final = (0.05, 5.0)
_TELL: Final = 1.0  # seconds for which what a pause held is counted, before it is told


class Inbox:
    """What came for one live subscription; to its consumer it is a source like a broker."""

    def __init__(self, id: str, since: Position, clock: Clock) -> None:
        """Events up to `since` were published before the subscription was there."""
        self.id = id
        self.dropped: int = 0
        self._reported = 0
        self._since = since
        self._clock = clock
        self._ready: deque[Lease] = deque()
        self._leased: dict[str, Lease] = {}
        self._numbers = itertools.count()
        self._news = Wakeup()
        self._closed = False

    def put(self, stored: Stored) -> None:
        """One event of the log."""
        if self._since.covers(stored.position):
            return
        if len(self._ready) >= CAPACITY:
            if not self.dropped:
                logger.error("delivery dropped, the live subscription is too slow", subscription=self.id, held=CAPACITY)
            self.dropped += 1
            return
        self._ready.append(Lease(event=stored.event, token=str(next(self._numbers)), position=stored.position))
        self._news.notify()

    def lose(self, lost: int | None) -> None:
        """Events that the feed could not read; counted where their number is known."""
        self.dropped += lost or 0
        self._news.notify()

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        """See Source; waits until there is something. PositionLost, once, where something was dropped."""
        while not self._ready and limit > 0 and wait > 0 and not self._closed and self.dropped == self._reported:
            await self._news.wait()
        if (lost := self.dropped - self._reported) and limit > 0:
            self._reported = self.dropped
            raise PositionLost(f"{lost} events came faster than they were taken, or while they were paused", lost)
        leases = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        self._leased.update((lease.token, lease) for lease in leases)
        return leases

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        """See Source. What is buried is gone: a live subscription has no dead letters."""
        for settlement in reversed(settlements):  # the last one first: each finds its place at the front
            if isinstance(settlement, Extend):
                continue
            lease = self._leased.pop(settlement.token, None)
            if lease is not None and isinstance(settlement, Retry):
                self._again(lease, settlement)
        return len(settlements)

    def _again(self, lease: Lease, retry: Retry) -> None:
        if retry.charge:
            failed = Attempt(lease.failures + 1, self._clock.time(), retry.error)
            lease = structs.replace(lease, failures=lease.failures + 1, attempts=(*lease.attempts, failed))

        def due() -> None:
            before = sum(1 for _ in takewhile(lambda other: int(other.token) < int(lease.token), self._ready))
            self._ready.insert(before, lease)
            self._news.notify()

        if retry.delay > 0:
            self._clock.call_later(retry.delay, due)
        elif not self._closed:
            due()

    async def detach(self, id: str) -> None:
        """See Source."""
        self._closed = True
        self._news.notify()


class Sink(Protocol):
    """What the feed fills: an inbox, or a router's audience."""

    def put(self, stored: Stored) -> None:
        """One event of the log that it wants."""
        ...

    def lose(self, lost: int | None) -> None:
        """So many events, where that is known, came and went before they could be read."""
        ...


class Feed:
    """One reader of the log's end, and the sinks that it fills."""

    def __init__(self, broker: Broker, clock: Clock, holds: Holds) -> None:
        self._broker = broker
        self._clock = clock
        self._holds = holds
        self._held: Counter[str] = Counter()  # by subscription, what a pause held and nobody was told of yet
        self._telling: Timer | None = None
        self._routes = Routes()
        self._sinks: dict[str, Sink] = {}
        self._position: Position | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def position(self) -> Position:
        """Up to where the log was read; once it was started."""
        if self._position is None:
            raise Closed("the log's end is not read yet")
        return self._position

    async def start(self) -> None:
        """Read from the log's end on. Starting twice is starting once."""
        if self._reader is None:
            head = (await self._broker.ping()).head
            if self._reader is None:  # nobody else began while the engine answered
                self._position = head
                self._reader = asyncio.create_task(self._read(), name="wowevent:live")

    async def open(self, subscription: Subscription) -> Inbox:
        """An inbox that gets everything published from now on."""
        await self.start()
        head = (await self._broker.ping()).head
        inbox = Inbox(subscription.id, head, self._clock)
        self.attach(subscription, inbox)
        return inbox

    def attach(self, subscription: Subscription, sink: Sink) -> None:
        """Fill this sink too, from where the feed is now."""
        self._sinks[subscription.id] = sink
        self._routes.add(subscription)

    def held(self, subscription: Subscription, event: Event) -> bool:
        """Whether a pause keeps this event from that live subscription."""
        return self._holds.broad and self._holds.stops(subscription.agent, event) is not None

    def forget(self, id: str) -> None:
        """Fill this sink no longer."""
        self._sinks.pop(id, None)
        self._held.pop(id, None)
        self._routes.remove(id)

    async def close(self) -> None:
        """End the reader."""
        if self._telling is not None:
            self._telling.cancel()
        await end(self._reader)

    async def _read(self) -> None:
        pause = _BACKOFF[0]
        query = Query(patterns=("#", "_bus.#"))
        while True:
            began = self._position
            try:
                async with aclosing(self._broker.read(query, after=self._position, follow=True)) as log:
                    await self._pass_on(log)
                return
            except Closed:
                return
            except PositionLost as lost:
                logger.error("live subscriptions lost events", lost=lost.lost, error=lost)
                await self._skip()
                self._lose(lost.lost)
            except BrokerError as error:
                pause = _BACKOFF[0] if self._position != began else min(2 * pause, _BACKOFF[1])
                logger.error("live subscriptions cannot be read now", error=error, retry_in=pause)
                await self._clock.sleep(pause)

    async def _pass_on(self, log: Iteration) -> None:
        """Fill the sinks until the log ends; what cannot be served is left out, and said."""
        while True:
            try:
                async for stored in log:
                    self._position = stored.position
                    ids = self._routes.match(stored.event)
                    for id in self._without_held(ids, stored.event) if self._holds.broad else ids:
                        self._sinks[id].put(stored)
                return
            except UNREADABLE as damage:  # the iteration goes on behind it
                logger.error("live subscriptions lost an event", code=damage.code, error=damage)
                self._lose(1)

    def _without_held(self, ids: Sequence[str], event: Event) -> list[str]:
        """Those that may have the event; for the others it is counted, and they are told of all together."""
        held = [id for id in ids if (spec := self._routes.get(id)) is not None and self.held(spec, event)]
        self._held.update(held)
        if held and self._telling is None:
            self._telling = self._clock.call_later(_TELL, self._tell)
        return [id for id in ids if id not in held]

    def _tell(self) -> None:
        held, self._held, self._telling = self._held, Counter(), None
        for id, count in held.items():
            self._sinks[id].lose(count)

    async def _skip(self) -> None:
        """Go on at the log's end."""
        while True:
            try:
                self._position = (await self._broker.ping()).head
                break
            except BrokerError:
                await self._clock.sleep(_BACKOFF[0])

    def _lose(self, lost: int | None) -> None:
        """Tell everybody of a gap."""
        for sink in list(self._sinks.values()):
            sink.lose(lost)
