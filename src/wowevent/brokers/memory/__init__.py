"""The memory engine: the reference for the others, and what tests and first steps run on.

Every operation is synchronous under the log's lock, which no await crosses: instances of one log may live on the event
loops of different threads.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sys
from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from msgspec import structs

from wowevent.broker import (
    Ack,
    Appended,
    Bury,
    Capabilities,
    DeadLetter,
    DeadQuery,
    Discard,
    Examination,
    Extend,
    Iteration,
    Lease,
    Ping,
    Position,
    Present,
    Query,
    Redeliver,
    Retention,
    Retry,
    Settlement,
    Stored,
    Subscription,
    SubscriptionInfo,
)
from wowevent.brokers.memory import doctor
from wowevent.brokers.memory.cursor import Cursor, Entry, Waiter
from wowevent.brokers.memory.log import MemoryLog, Reader, shared_log
from wowevent.clock import Clock, SystemClock, Timer
from wowevent.errors import Closed, SubscriptionNotFound
from wowevent.event import Event
from wowevent.reading import asked_for, narrowed, of_facts, wanted

__all__ = ["MemoryBroker", "MemoryLog", "shared_log"]

_TURN: Final = 64  # publishes after which a publisher that never has to wait lets its consumers run
DEFAULT_RETENTION: Final = Retention(max_count=10_000)


class MemoryBroker:
    """One instance of the memory engine; see `Broker` for what each call promises."""

    def __init__(
        self, log: MemoryLog | None = None, *, retention: Retention | None = None, clock: Clock | None = None
    ) -> None:
        """`log` is shared by the instances that are given the same one."""
        self.capabilities: Capabilities = Capabilities(
            name="memory",
            durable=False,
            shared=False,
            promise="Everything within this process; all of it is gone when the process ends.",
            private=log is None,
        )
        limits = retention or Retention()
        self._log = log or MemoryLog()
        self._retention = DEFAULT_RETENTION if limits == Retention() else limits
        self._clock = clock or SystemClock()
        self._timer: Timer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retained_at = 0.0
        self._turn = 0
        self._closed = False

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        """See Broker."""
        with self._log.lock:
            self._enter()
            now = self._clock.time()
            results = [self._publish_one(event, now) for event in events]
            self._log.forget_ids(now)
            if self._log.readers:
                self._log.wake_readers()
            if now >= self._retained_at + 1 or len(self._log.ring) > 2 * (self._retention.max_count or 2**62):
                self._retained_at = now
                self._log.retain(self._retention, now)
        self._turn += len(events)
        if self._turn >= _TURN:
            self._turn = 0
            await asyncio.sleep(0)
        return results

    def _publish_one(self, event: Event, now: float) -> Appended:
        log = self._log
        if event.event_id in log.seen:
            return Appended(log.seen[event.event_id], duplicate=True)
        due = event.not_before.timestamp() if event.not_before is not None else 0.0
        if due > now:
            log.held[event.event_id] = event
            heapq.heappush(log.delayed, (due, next(log.numbers), event))
            log.seen[event.event_id] = None  # until it has left, and for as long as others from then on
            if log.delayed[0][2] is event:
                for instance in log.instances:
                    instance.arm()
            return Appended(None, matched=log.routes.match(event))
        appended = log.append(event, now)
        log.seen[event.event_id] = appended.position
        log.seen_order.append((now, event.event_id))
        return appended

    async def cancel(self, event_id: str) -> bool:
        """See Broker."""
        with self._log.lock:
            self._enter()
            if self._log.held.pop(event_id, None) is None:
                return False
            self._log.seen_order.append((self._clock.time(), event_id))
            return True

    async def declare(self, subscription: Subscription) -> SubscriptionInfo:
        """See Broker."""
        log = self._log
        with log.lock:
            self._enter()
            now = self._clock.time()
            if not subscription.durable:
                log.routes.add(subscription)
                log.live[subscription.id] = self
                return SubscriptionInfo(subscription=subscription, consumers=1)
            cursor = log.cursors.get(subscription.id)
            if cursor is None:
                cursor = Cursor(subscription, now)
                log.backfill(cursor)
                log.cursors[subscription.id] = cursor
            cursor.subscription = subscription
            log.routes.add(subscription)
            return self._info(cursor, now)

    async def detach(self, id: str) -> None:
        """See Broker."""
        with self._log.lock:
            self._enter()
            if (cursor := self._log.cursors.get(id)) is not None:
                self._leave(cursor)

    def _leave(self, cursor: Cursor) -> None:
        if self in cursor.consumers:
            cursor.consumers.discard(self)
            cursor.served_at = self._clock.time()
        if cursor.owner is self:
            cursor.owner = None
        cursor.wake()

    async def remove(self, id: str) -> None:
        """See Broker."""
        log = self._log
        with log.lock:
            self._enter()
            log.routes.remove(id)
            log.live.pop(id, None)
            if (cursor := log.cursors.pop(id, None)) is not None:
                cursor.wake()
                log.dead = {key: item for key, item in log.dead.items() if item[0].subscription != id}

    async def subscriptions(self) -> Sequence[SubscriptionInfo]:
        """See Broker."""
        log = self._log
        with log.lock:
            self._enter()
            now = self._clock.time()
            live = [
                SubscriptionInfo(subscription=spec, consumers=1) for spec in log.routes.all() if spec.id in log.live
            ]
            return [self._info(cursor, now) for cursor in log.cursors.values()] + live

    async def presence(self, *, fresh: bool = True) -> Sequence[Present]:  # noqa: ARG002 - it always is
        """See Broker."""
        log = self._log
        with log.lock:
            self._enter()
            found = [Present(cursor.subscription, len(cursor.consumers)) for cursor in log.cursors.values()]
            return found + [Present(spec, 1) for spec in log.routes.all() if spec.id in log.live]

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        """See Broker."""
        until = self._clock.monotonic() + wait
        with self._log.lock:
            self._enter()
            self._cursor(id).consumers.add(self)
        while True:
            with self._log.lock:
                self._enter()
                cursor = self._cursor(id)
                now, monotonic = self._clock.time(), self._clock.monotonic()
                if self not in cursor.consumers:  # detached while this call was waiting
                    return []
                leases = self._take(cursor, limit, now, monotonic)
                if leases or limit == 0 or monotonic >= until:
                    return leases
                waiter = Waiter()
                cursor.waiters.add(waiter)
                # What another one leases meanwhile comes back no sooner than that.
                pause = min(until - monotonic, max(0.0, cursor.next_due(now, monotonic)), cursor.subscription.lease)
                timer = self._clock.call_later(pause, waiter.wake)
            try:
                await waiter.future
            except asyncio.CancelledError:
                with self._log.lock:
                    if waiter not in cursor.waiters:  # it was woken for an event, which is another's now
                        cursor.wake(1)
                raise
            finally:
                timer.cancel()
                with self._log.lock:
                    cursor.waiters.discard(waiter)

    def _take(self, cursor: Cursor, limit: int, now: float, monotonic: float) -> list[Lease]:
        cursor.tick(now, monotonic)
        if limit == 0 or not cursor.may_lease(self):
            return []
        cursor.report_loss()
        deadline = monotonic + cursor.subscription.lease
        leases = [self._lease(cursor, entry, deadline) for entry in cursor.take(limit)]
        if leases:
            cursor.next_expiry = min(cursor.next_expiry, deadline)
            if cursor.waiters and next(iter(cursor.ready()), None) is not None:
                cursor.wake(1)  # one wake-up may stand for several events
        return leases

    def _lease(self, cursor: Cursor, entry: Entry, deadline: float) -> Lease:
        token = str(next(self._log.numbers))  # never given twice, so it names the attempt too
        cursor.leases[token] = (entry, deadline, self)
        event = entry.event.__copy__()
        if not (entry.failures or entry.crashes or entry.redelivered):
            return Lease(event=event, token=token, position=entry.position)
        return Lease(
            event=event,
            token=token,
            position=entry.position,
            failures=entry.failures,
            crashes=entry.crashes,
            attempts=entry.attempts,
            redelivered=entry.redelivered,
        )

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        """See Broker."""
        with self._log.lock:
            self._enter()
            cursor = self._cursor(id)
            now, monotonic = self._clock.time(), self._clock.monotonic()
            cursor.tick(now, monotonic)
            count, pop, simple = 0, cursor.leases.pop, not cursor.subscription.exclusive
            for settlement in settlements:
                if simple and type(settlement) is Ack:  # nearly all of them, and nobody else is freed by it
                    count += pop(settlement.token, None) is not None
                else:
                    count += self._settle_one(cursor, settlement, now, monotonic)
            return count

    def _settle_one(self, cursor: Cursor, settlement: Settlement, now: float, monotonic: float) -> bool:
        lease = cursor.leases.pop(settlement.token, None)
        if lease is None:
            return False
        entry, deadline, holder = lease
        match settlement:
            case Ack():
                pass
            case Extend(token, seconds, error):
                if error is not None:
                    entry.failed(now, error)
                self._extend(cursor, token, (entry, monotonic + seconds, holder), deadline)
            case Retry(_, delay, error, charge):
                if charge:
                    entry.failed(now, error)
                if delay > 0:
                    cursor.wait_for(entry, now + delay)
                else:
                    cursor.give_back(entry)
                cursor.wake()
            case Bury():
                self._bury(cursor, entry, settlement, now)
        if cursor.subscription.exclusive and cursor.waiters:
            cursor.wake()
        return True

    def _extend(self, cursor: Cursor, token: str, lease: tuple[Entry, float, Hashable], before: float) -> None:
        cursor.leases[token] = lease
        cursor.next_expiry = min(cursor.next_expiry, lease[1])
        if lease[1] < before:
            cursor.wake()  # who waits has reckoned with the longer lease

    def _bury(self, cursor: Cursor, entry: Entry, bury: Bury, now: float) -> None:
        if bury.error is not None:
            entry.failed(now, bury.error)
        letter = DeadLetter(
            id=f"{next(self._log.numbers)}",
            event=entry.event,
            subscription=cursor.subscription.id,
            reason=bury.reason,
            error=bury.error if bury.error is not None else (entry.attempts[-1].error if entry.attempts else ""),
            traceback=bury.traceback,
            attempts=entry.attempts,
            time=now,
        )
        self._log.dead[letter.id] = (letter, Stored(entry.event, entry.position, entry.stored_at))

    async def dead(self, query: DeadQuery) -> Sequence[DeadLetter]:
        """See Broker."""
        with self._log.lock:
            self._enter()
            found = (letter for letter, _ in self._log.dead.values() if asked_for(query, letter))
            return list(itertools.islice(found, query.limit))

    async def letters(self, query: DeadQuery) -> AsyncGenerator[Sequence[DeadLetter]]:
        """See Broker: they are in memory as it is."""
        yield await self.dead(structs.replace(query, limit=sys.maxsize))

    async def resolve(self, letters: Sequence[Redeliver | Discard]) -> int:
        """See Broker."""
        log, count = self._log, 0
        with log.lock:
            self._enter()
            for order in letters:
                if order.id not in log.dead:
                    continue
                letter, stored = log.dead[order.id]
                if isinstance(order, Redeliver):
                    cursor = log.cursors.get(letter.subscription)
                    if cursor is None:
                        continue
                    cursor.give_back(Entry(stored.event, stored.position, stored.stored_at, redelivered=True))
                    cursor.wake()
                del log.dead[order.id]
                count += 1
        return count

    def read(self, query: Query, *, after: Position | None = None, follow: bool = False) -> Iteration:
        """See Broker."""
        if not follow and of_facts(query):
            return self._read_facts(query, after)
        return self._read(query, after, follow=follow)

    async def _read(self, query: Query, after: Position | None, *, follow: bool) -> AsyncGenerator[Stored]:
        log, left = self._log, query.limit
        reader = Reader(query.patterns)
        with log.lock:
            self._enter()
            offset = log.first(after, query.since)
            if follow:
                log.readers.add(reader)
        try:
            while left is None or left > 0:
                with log.lock:
                    chunk = log.slice(offset, query.upto)
                    live = [reader.inbox.popleft() for _ in range(len(reader.inbox))]
                    if not chunk and not live:
                        if not follow or self._closed:
                            return
                        reader.waiter = Waiter()
                        future = reader.waiter.future
                if not chunk and not live:
                    await future
                    continue
                offset += len(chunk)
                for stored in itertools.chain(live, narrowed(query, chunk)):
                    if wanted(query, stored.event):
                        yield Stored(stored.event.__copy__(), stored.position, stored.stored_at)
                        left = None if left is None else left - 1
                        if left == 0:
                            return
                if not follow and len(chunk) > _TURN:  # who looks for little in a long log lets others run
                    await asyncio.sleep(0)
        finally:
            with log.lock:
                log.readers.discard(reader)

    async def _read_facts(self, query: Query, after: Position | None) -> AsyncGenerator[Stored]:
        log = self._log
        with log.lock:
            self._enter()
            if after is not None:
                log.check_epoch(after)
            behind = 0 if after is None else after.offset
            news = list(itertools.takewhile(lambda fact: fact.position.offset > behind, reversed(log.facts.values())))
        found = (fact for fact in reversed(news) if wanted(query, fact.event))
        for stored in itertools.islice(found, query.limit):
            yield Stored(stored.event.__copy__(), stored.position, stored.stored_at)

    async def info(self, id: str) -> SubscriptionInfo | None:
        """See Broker."""
        with self._log.lock:
            self._enter()
            if id in self._log.live:
                return SubscriptionInfo(subscription=self._log.routes.get(id), consumers=1)  # type: ignore[arg-type]  # it is there
            cursor = self._log.cursors.get(id)
            return None if cursor is None else self._info(cursor, self._clock.time())

    def _info(self, cursor: Cursor, now: float) -> SubscriptionInfo:
        cursor.tick(now, self._clock.monotonic())
        dead = sum(1 for letter, _ in self._log.dead.values() if letter.subscription == cursor.subscription.id)
        return cursor.info(dead, now)

    async def purge(self, id: str) -> int:
        """See Broker."""
        with self._log.lock:
            self._enter()
            cursor = self._cursor(id)
            cursor.tick(self._clock.time(), self._clock.monotonic())
            return cursor.clear_ready()

    async def ping(self) -> Ping:
        """See Broker."""
        self._enter()
        return Ping(0.0, Position(self._log.epoch, self._log.head))

    def examine(self) -> AbstractAsyncContextManager[Examination]:
        """See Broker."""
        return doctor.examine(self.subscriptions)

    async def close(self) -> None:
        """See Broker."""
        if self._closed:
            return
        self._closed = True
        log = self._log
        with log.lock:
            log.instances.discard(self)
            for id in [id for id, holder in log.live.items() if holder is self]:
                log.routes.remove(id)
                del log.live[id]
            for cursor in log.cursors.values():
                self._leave(cursor)
            log.wake_readers()
        if self._timer is not None:
            self._timer.cancel()

    def arm(self) -> None:
        """Set this instance's timer to the next delayed event; called under the lock, from any thread."""
        if self._loop is None or self._loop.is_closed():
            return
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._set_timer()
        else:
            self._loop.call_soon_threadsafe(self._set_timer)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._log.delayed and not self._closed:
            self._timer = self._clock.call_later(max(0.0, self._log.delayed[0][0] - self._clock.time()), self._release)

    def _release(self) -> None:
        with self._log.lock:
            self._log.release_due(self._clock.time())
            self._set_timer()

    def _enter(self) -> None:
        """Every call: refuse after close; on the first one, join the log with this loop's timer."""
        if self._closed:
            raise Closed("this broker is closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._log.instances.add(self)
            if self._retention.max_bytes is not None:
                self._log.count_bytes()
            self._set_timer()

    def _cursor(self, id: str) -> Cursor:
        cursor = self._log.cursors.get(id)
        if cursor is None:
            raise SubscriptionNotFound(f"no subscription {id!r} is remembered")
        return cursor
