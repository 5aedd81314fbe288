"""The log that instances of the memory engine share.

ring      deque of Stored, trimmed from the left
delayed   heap of (due, n, event) whose `not_before` lies ahead, outside the ring
facts     the newest of each topic under `_bus.`, by topic, in the order of their positions; nothing trims them
cursors   one per named subscription
readers   one per `read(follow=True)`, with what came for it by the live path
"""

from __future__ import annotations

import heapq
import itertools
import secrets
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from wowevent.broker import CONTROL, KNOWN_IDS, KNOWN_SECONDS, LIVE, Appended, DeadLetter, Position, Retention, Stored
from wowevent.brokers.memory.cursor import Cursor, Entry, Waiter
from wowevent.errors import PositionLost
from wowevent.event import Event
from wowevent.routing import Routes
from wowevent.routing import matches as subscription_matches
from wowevent.topic import matches_any

_KNOWN_MOST: Final = 1_000_000  # memory is not without end: at over 8,000/s an id is known for less than two minutes
_CHUNK: Final = 256
_WALKS: Final = 64  # chunks of a long log: each is found by walking to it
_OVERHEAD: Final = 600  # bytes that an event takes beside its payload, about


class Instance(Protocol):
    """What the log needs of an instance."""

    def arm(self) -> None:
        """Set its timer to the next delayed event; called from any thread."""
        ...


class Reader:
    """One `read(follow=True)`: its waiter, and what came for it by the live path."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns: tuple[str, ...] = tuple(pattern for pattern in patterns if pattern.startswith("_"))
        self.inbox: deque[Stored] = deque()
        self.waiter: Waiter | None = None

    def wake(self) -> None:
        """Let it look again."""
        if self.waiter is not None:
            self.waiter.wake()
            self.waiter = None


class MemoryLog:
    """The log that instances of one name share."""

    def __init__(self) -> None:
        self.lock: threading.RLock = threading.RLock()
        self.epoch: str = secrets.token_hex(4)
        self.ring: deque[Stored] = deque()
        self.head: int = 0
        self.bytes: int = 0  # of the ring, once `counting`
        self.counting: bool = False
        self.delayed: list[tuple[float, int, Event]] = []
        self.held: dict[str, Event] = {}  # delayed, by id; what is not here any more was cancelled or has left
        self.seen: dict[str, Position | None] = {}
        self.seen_order: deque[tuple[float, str]] = deque()
        self.routes: Routes = Routes()
        self.facts: dict[str, Stored] = {}
        self.cursors: dict[str, Cursor] = {}
        self.live: dict[str, Instance] = {}
        self.readers: set[Reader] = set()
        self.instances: set[Instance] = set()
        self.dead: dict[str, tuple[DeadLetter, Stored]] = {}
        self.numbers: itertools.count[int] = itertools.count(1)
        self.last_stored: float = 0.0

    @property
    def start(self) -> int:
        """The offset of the oldest event that is still there, or the one to come."""
        return self.head - len(self.ring) + 1

    def append(self, event: Event, now: float) -> Appended:
        """Store and route one event now."""
        now = self.last_stored = max(now, self.last_stored)  # a clock set back must not disorder the log
        ids = self.routes.match(event)
        if event.topic.startswith(LIVE):
            return self._send_live(Stored(event, Position(self.epoch, self.head), now), ids)
        self.head += 1
        position = Position(self.epoch, self.head)
        stored = Stored(event, position, now)
        self.ring.append(stored)
        if self.counting:
            self.bytes += _size(event)
        if event.topic.startswith(CONTROL):
            self.facts.pop(event.topic, None)  # behind the others, as its position is
            self.facts[event.topic] = stored
        for id in ids:
            if (cursor := self.cursors.get(id)) is None:
                continue
            if cursor.lapsed:
                cursor.lost += 1
                continue
            cursor.put(Entry(event, position, now))
            if cursor.waiters:
                cursor.wake(1)
        return Appended(position, matched=ids)

    def _send_live(self, stored: Stored, ids: tuple[str, ...]) -> Appended:
        for reader in self.readers:
            if matches_any(reader.patterns, stored.event.topic):
                reader.inbox.append(stored)
        return Appended(stored.position, matched=ids)

    def forget_ids(self, now: float) -> None:
        """Give up the ids whose time to be looked for is over."""
        while len(self.seen_order) > KNOWN_IDS and (
            self.seen_order[0][0] < now - KNOWN_SECONDS or len(self.seen_order) > _KNOWN_MOST
        ):
            self.seen.pop(self.seen_order.popleft()[1], None)

    def release_due(self, now: float) -> None:
        """Append the delayed events whose moment has come."""
        while self.delayed and self.delayed[0][0] <= now:
            event = heapq.heappop(self.delayed)[2]
            if (
                self.held.get(event.event_id) is event
            ):  # not one of its id that came when it was cancelled and forgotten
                del self.held[event.event_id]
                self.seen[event.event_id] = self.append(event, now).position
                self.seen_order.append((now, event.event_id))
        self.wake_readers()

    def wake_readers(self) -> None:
        """Let waiting reads look again."""
        for reader in self.readers:
            if reader.waiter is not None:
                reader.wake()

    def count_bytes(self) -> None:
        """An instance limits the log's size: know it from here on."""
        if not self.counting:
            self.counting = True
            self.bytes = sum(_size(stored.event) for stored in self.ring)

    def retain(self, limits: Retention, now: float) -> None:
        """Keep the log within its limits, and give up subscriptions that nobody serves."""
        while limits.max_count is not None and len(self.ring) > limits.max_count:
            self._trim_one()  # entries hold their own event: what is unread stays
        floor = self.start
        while self.ring and self._over(limits, now):
            self._trim_one()
        if self.start > floor:
            for cursor in self.cursors.values():
                cursor.drop_before(self.start)
        for cursor in self.cursors.values():
            if not cursor.consumers and not cursor.lapsed and now - cursor.served_at > limits.unserved_after:
                cursor.lapse()

    def _over(self, limits: Retention, now: float) -> bool:
        too_old = limits.max_age is not None and self.ring[0].stored_at < now - limits.max_age
        return too_old or (limits.max_bytes is not None and self.bytes > limits.max_bytes)

    def _trim_one(self) -> None:
        event = self.ring.popleft().event
        if self.counting:
            self.bytes -= _size(event)

    def slice(self, offset: int, upto: Position | None = None) -> list[Stored]:
        """Up to a chunk of the log from `offset` on, and not behind `upto`; PositionLost if some of it is gone."""
        if offset < self.start:
            raise PositionLost(f"events {offset} to {self.start - 1} are gone from the log", self.start - offset)
        first, behind = offset - self.start, self.head - offset + 1
        most = max(_CHUNK, len(self.ring) // _WALKS)
        if upto is not None:
            most = max(0, min(most, upto.offset - offset + 1))
        if behind - most > first or most == 0:
            return list(itertools.islice(self.ring, first, first + most))
        # From the near end: a reader that keeps up must not walk over what it has read.
        newest = list(itertools.islice(reversed(self.ring), max(0, behind - most), max(0, behind)))
        newest.reverse()
        return newest

    def first(self, after: Position | None, since: float | None) -> int:
        """Where a read begins: behind a position, or with what was stored at a moment and later. PositionLost."""
        if after is not None:
            self.check(after)
            return after.offset + 1
        return self.start if since is None else self.start + bisect_left(self.ring, since, key=_stored_at)

    def backfill(self, cursor: Cursor) -> None:
        """Give a new subscription what its start asks for of the past."""
        start = cursor.subscription.start
        if start == "new":
            return
        first = self.start
        if isinstance(start, Position):
            self.check(start)
            first = start.offset + 1
        for stored in itertools.islice(self.ring, first - self.start, None):
            early = isinstance(start, datetime) and stored.event.timestamp < start
            if not early and subscription_matches(cursor.subscription, stored.event):
                cursor.put(Entry(stored.event, stored.position, stored.stored_at))

    def check_epoch(self, position: Position) -> None:
        """PositionLost if that is a position of another log."""
        if position.epoch != self.epoch or position.offset > self.head:
            raise PositionLost("that position is of another log")

    def check(self, position: Position) -> None:
        """PositionLost unless the log goes on right behind this position."""
        self.check_epoch(position)
        if position.offset + 1 < self.start:
            lost = self.start - position.offset - 1
            raise PositionLost(f"{lost} events behind that position are gone from the log", lost)


def _stored_at(stored: Stored) -> float:
    return stored.stored_at


def _size(event: Event) -> int:
    return len(memoryview(event.body)) + _OVERHEAD


_shared: dict[tuple[str, str], MemoryLog] = {}


def shared_log(name: str, namespace: str) -> MemoryLog:
    """The log of `memory://name` in this process: the one place where the process itself is the server."""
    return _shared.setdefault((name, namespace), MemoryLog())
