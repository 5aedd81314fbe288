"""One named subscription of the memory engine: what waits for it, what is leased, and who is served.

lanes     two deques of entries in log order, urgent and other     ready, published in order
returned  heap of (offset, n, entry), one a lane                   ready again
suspects  heap of (offset, n, entry), crashes > 0                  ready again, to be leased alone
waiting   heap of (due, n, entry)                                  delayed retries
leases    token -> (entry, deadline, instance)                     leased
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Hashable, Iterable

from msgspec import Struct

from wowevent.broker import URGENT, URGENT_RUN, Attempt, Position, Subscription, SubscriptionInfo
from wowevent.errors import PositionLost
from wowevent.event import Event


class Waiter:
    """A fetch or read that waits; woken from any thread, at most once."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def wake(self) -> None:
        """Let it look again."""
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            self._finish()
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Entry(Struct, gc=False):
    """One event on one subscription."""

    event: Event
    position: Position
    stored_at: float
    redelivered: bool = False
    failures: int = 0
    crashes: int = 0
    attempts: tuple[Attempt, ...] = ()

    def failed(self, now: float, error: str) -> None:
        """Its handler raised or timed out."""
        self.failures += 1
        self.attempts += (Attempt(self.failures + self.crashes, now, error),)

    def crashed(self, now: float) -> None:
        """Its lease ended unsettled."""
        self.crashes += 1
        self.attempts += (Attempt(self.failures + self.crashes, now, "the lease ended unsettled"),)


Heap = list[tuple[float, int, Entry]]


class Cursor:
    """One named subscription: what waits for it, what is leased, and who is served."""

    def __init__(self, subscription: Subscription, now: float) -> None:
        self.subscription = subscription
        self.lanes: tuple[deque[Entry], deque[Entry]] = (deque(), deque())
        self.returned: tuple[Heap, Heap] = ([], [])
        self.suspects: Heap = []
        self.waiting: Heap = []
        self.leases: dict[str, tuple[Entry, float, Hashable]] = {}
        self.next_expiry: float = float("inf")
        self.waiters: set[Waiter] = set()
        self.consumers: set[Hashable] = set()
        self.owner: Hashable | None = None
        self.served_at = now
        self.run: int = 0
        self.lost: int = 0
        self.lapsed: bool = False
        self._numbers = itertools.count()

    def put(self, entry: Entry) -> None:
        """A newly published event."""
        urgent = entry.event.priority >= URGENT and not self.subscription.exclusive
        self.lanes[0 if urgent else 1].append(entry)

    def give_back(self, entry: Entry) -> None:
        """Ready again, in the place that its age gives it."""
        item = (entry.position.offset, next(self._numbers), entry)
        urgent = entry.event.priority >= URGENT and not self.subscription.exclusive
        heapq.heappush(self.suspects if entry.crashes else self.returned[0 if urgent else 1], item)

    def wait_for(self, entry: Entry, due: float) -> None:
        """Ready again at `due`, Unix seconds."""
        heapq.heappush(self.waiting, (due, next(self._numbers), entry))

    def tick(self, now: float, monotonic: float) -> None:
        """Take in what is due by now: delayed retries, and leases that ended."""
        while self.waiting and self.waiting[0][0] <= now:
            self.give_back(heapq.heappop(self.waiting)[2])
        if monotonic < self.next_expiry:
            return
        self.next_expiry = float("inf")
        for token, (entry, deadline, _) in list(self.leases.items()):
            if deadline <= monotonic:
                del self.leases[token]
                entry.crashed(now)
                self.give_back(entry)
            else:
                self.next_expiry = min(self.next_expiry, deadline)

    def next_due(self, now: float, monotonic: float) -> float:
        """Seconds until `tick` has something to do."""
        due = self.waiting[0][0] - now if self.waiting else float("inf")
        return min(due, self.next_expiry - monotonic)

    def take(self, limit: int) -> list[Entry]:
        """Up to `limit` entries to lease now, in order; a suspect comes alone."""
        if self.suspects:
            return [heapq.heappop(self.suspects)[2]]
        urgent, other = self.lanes
        if not (urgent or self.returned[0] or self.returned[1]):  # the common case, without a choice to make
            self.run = 0
            return [other.popleft() for _ in range(min(limit, len(other)))]
        return list(itertools.islice(self._pick(), limit))

    def _pick(self) -> Iterable[Entry]:
        """Entries in the order of the lanes, what was returned before what was published later."""
        while True:
            has_urgent, has_other = self._has(0), self._has(1)
            if has_urgent and not (has_other and self.run >= URGENT_RUN):
                self.run += 1
                yield self._next(0)
            elif has_other:
                self.run = 0
                yield self._next(1)
            else:
                return

    def _has(self, lane: int) -> bool:
        return bool(self.lanes[lane] or self.returned[lane])

    def _next(self, lane: int) -> Entry:
        published, returned = self.lanes[lane], self.returned[lane]
        if returned and (not published or returned[0][0] <= published[0].position.offset):
            return heapq.heappop(returned)[2]
        return published.popleft()

    def may_lease(self, instance: Hashable) -> bool:
        """Whether this instance may have leases now; for an exclusive one it becomes the owner."""
        if not self.subscription.exclusive:
            return True
        if self.owner is None:
            self.owner = instance
        return self.owner is instance and all(holder is instance for _, _, holder in self.leases.values())

    def ready(self) -> Iterable[Entry]:
        """What could be leased now."""
        yield from itertools.chain(*self.lanes)
        yield from (item[2] for item in itertools.chain(*self.returned, self.suspects))

    def unsettled(self) -> Iterable[Entry]:
        """Everything that is not settled."""
        yield from self.ready()
        yield from (item[2] for item in self.waiting)
        yield from (lease[0] for lease in self.leases.values())

    def clear_ready(self) -> int:
        """Drop what is ready; how many."""
        count = sum(1 for _ in self.ready())
        for queue in (*self.lanes, *self.returned, self.suspects):
            queue.clear()
        return count

    def drop_before(self, offset: int) -> None:
        """The log gave up everything before `offset`; what of it is not in a handler's hands is lost here."""
        before = sum(1 for _ in self.unsettled())
        for lane in self.lanes:
            while lane and lane[0].position.offset < offset:
                lane.popleft()
        for heap in (*self.returned, self.suspects, self.waiting):
            heap[:] = [item for item in heap if item[2].position.offset >= offset]
            heapq.heapify(heap)
        self.lost += before - sum(1 for _ in self.unsettled())

    def lapse(self) -> None:
        """Nobody served it for too long: its backlog goes."""
        self.lapsed = True
        self.lost += self.clear_ready() + len(self.waiting)
        self.waiting.clear()

    def report_loss(self) -> None:
        """PositionLost if something was lost since the last report."""
        if not self.lost and not self.lapsed:
            return
        lost, self.lost, self.lapsed = self.lost, 0, False
        raise PositionLost(f"{self.subscription.id}: {lost} unread events were dropped by the log's limits", lost)

    def wake(self, most: int | None = None) -> None:
        """Let waiting fetches look again."""
        for waiter in list(self.waiters)[:most]:
            self.waiters.discard(waiter)
            waiter.wake()

    def info(self, dead: int, now: float) -> SubscriptionInfo:
        """Its numbers; `dead` is how many dead letters the log has for it."""
        oldest = min((entry.stored_at for entry in self.unsettled()), default=None)
        return SubscriptionInfo(
            subscription=self.subscription,
            ready=sum(1 for _ in self.ready()),
            leased=len(self.leases),
            delayed=len(self.waiting),
            dead=dead,
            consumers=len(self.consumers),
            oldest=None if oldest is None else max(0.0, now - oldest),
            lost=self.lost,
            lapsed=self.lapsed,
        )
