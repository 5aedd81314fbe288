"""Reading the log: its range up to the end, as it grows, the newest facts, and the live path of replies.

A position is a sequence of the log's stream. The server says nothing of what is gone, so what a reader asks for is
compared with where the log begins now; and where it is given something else than the next one, it looks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from wowevent.broker import CONTROL, LIVE, Position, Query, Stored
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.names import LANES, Names, distinct
from wowevent.brokers.nats.registry import Registry
from wowevent.brokers.nats.stream import Follower, Item, Pages, read_all
from wowevent.brokers.nats.tags import tag_of
from wowevent.clock import Clock
from wowevent.codec import decode
from wowevent.errors import BrokerUnavailable, BusError, PositionLost
from wowevent.reading import named, reached, wanted
from wowevent.topic import is_reserved, matches_any
from wowevent.wakeup import Wakeup

Items = Sequence[Stored | BusError]
_MOST: Final = 500
_LIVE: Final = 10_000  # live events that wait for who follows: of more the oldest go, which nobody promised to keep


class State(Protocol):
    """What a reader needs of an instance."""

    link: Link
    names: Names
    registry: Registry
    clock: Clock
    tails: set[Tail]
    pasts: set[Past]

    async def ends(self) -> tuple[int, int]:
        """The first sequence that the log still has, and its last."""
        ...


def subjects(names: Names, patterns: Sequence[str]) -> list[str]:
    """Where the log has what these patterns match, or more."""
    whole = _is_whole(patterns)
    reserved = any(is_reserved(pattern) and not pattern.startswith(LIVE) for pattern in patterns)
    lanes = LANES * whole + LANES.upper() * (whole or reserved)
    return distinct({f"{names.prefix}{lane}.>" for lane in lanes})


def _is_whole(patterns: Sequence[str]) -> bool:
    """Whether all of the log is read for these, so that what does not come is gone."""
    return not all(is_reserved(pattern) for pattern in patterns)


def epoch_of(registry: Registry) -> str:
    """Of the log."""
    return "" if registry.log is None else registry.log.epoch


class _Reader:
    """Makes events of messages."""

    def __init__(self, query: Query, names: Names, epoch: str, first: int = 1) -> None:
        self.epoch = epoch
        self.next = first
        self._query = query
        self._names = names
        self._whole = _is_whole(query.patterns)
        self._name = named(query)
        self._at = 0.0

    async def items(self, state: State, found: Sequence[Item]) -> list[Stored | BusError]:
        """What was asked for of these, which come next; and what is missing among them."""
        items: list[Stored | BusError] = []
        begins = 0
        for item in found:
            if item.seq > self.next and self._whole:
                begins = begins or (await state.ends())[0]
                items += self.missing(min(item.seq, begins))
            self.next = item.seq + 1
            each = self.take(item)
            if each is not None:
                items.append(each)
        return items

    def missing(self, begins: int) -> list[BusError]:
        """What the log's limits took of what was to be read, where it begins there."""
        lost, self.next = begins - self.next, max(self.next, begins)
        return [PositionLost(f"{lost} events were gone before they were read", lost)] if lost > 0 else []

    def take(self, item: Item) -> Stored | BusError | None:
        """None for what was not asked for."""
        if not matches_any(self._query.patterns, self._names.topic(item.subject)):
            return None
        if self._name is not None and self._name not in item.body:
            return None
        return self.event(item, item.seq)

    def event(self, item: Item, place: int) -> Stored | BusError | None:
        """The same, of what lies at that place of the log or lay there."""
        self._at = max(self._at, tag_of(item.headers).at)  # publishers' clocks differ a little
        try:
            event = decode(item.body)
        except BusError as error:
            return error
        return Stored(event, Position(self.epoch, place), self._at) if wanted(self._query, event) else None


async def first_of(state: State, after: Position | None) -> tuple[int, int, PositionLost | None]:
    """Where a read behind that position begins, where the log ends, and what is missing between."""
    first, last = await state.ends()
    if after is None:
        return first, last, None
    if after.epoch != epoch_of(state.registry) or after.offset > last:
        raise PositionLost("that position is not one that the log goes on from")
    if after.offset + 1 >= first:
        return after.offset + 1, last, None
    lost = first - after.offset - 1
    return first, last, PositionLost(f"{lost} events behind that position are gone", lost)


async def _reached(state: State, first: int, last: int, moment: float) -> int:
    """The place from `first` on at which the log comes to a moment, by the clocks of who published; behind `last`."""

    async def at(seq: int) -> float | None:
        found = await state.link.get(state.names.log, seq=seq)
        return None if found is None else tag_of(found.headers).at or None  # a stranger's does not say

    return await reached(at, first, last, moment)


class Past:
    """The log up to its end, a page at a time."""

    def __init__(self, query: Query, after: Position | None) -> None:
        """Nothing is read before `next`."""
        self._query = query
        self._after = after
        self._pages: Pages | None = None
        self._last = 0
        self._state: State | None = None
        self._done = False

    async def next(self, state: State) -> Items | None:
        """What comes next; None at the end."""
        if self._done:
            return None
        if self._pages is None:
            where = subjects(state.names, self._query.patterns)
            first, self._last, lost = await first_of(state, self._after)
            if self._query.upto is not None:
                self._last = min(self._last, self._query.upto.offset)
            if self._query.since is not None and self._after is None:
                first = await _reached(state, first, self._last, self._query.since)
            if not where or first > self._last:
                self._done = True
                return [lost] if lost is not None else None
            self._pages = Pages(state.link, state.names.log, where, first)
            self._reader = _Reader(self._query, state.names, epoch_of(state.registry), first)
            self._state = state
            state.pasts.add(self)
            if lost is not None:
                return [lost]
        if self._reader.epoch != epoch_of(state.registry):
            await self.close()
            return [PositionLost("the log was made anew while it was read")]
        page = await self._pages.next()
        items = await self._reader.items(state, [item for item in page if item.seq <= self._last])
        if not page or page[-1].seq >= self._last:
            if self._reader.next <= self._last:
                items += self._reader.missing(min(self._last + 1, (await state.ends())[0]))
            await self.close()
        return items

    async def close(self) -> None:
        """Read no more."""
        self._done = True
        if self._state is not None:
            self._state.pasts.discard(self)
        if self._pages is not None:
            await self._pages.close()


async def facts(state: State, query: Query, after: Position | None) -> Items:
    """The newest event of each topic under `_bus.`: from the log, or from where it was kept when the log let it go."""
    names = state.names
    _, last, epoch = *await state.ends(), epoch_of(state.registry)
    if after is not None and (after.epoch != epoch or after.offset > last):
        return [PositionLost("that position is not one that the log goes on from")]
    found: dict[str, tuple[int, Item]] = {}
    kept = await read_all(state.link, names.control, [f"{names.prefix}c.f.>"])
    newest = await read_all(
        state.link,
        names.log,
        [f"{names.prefix}{lane}.{CONTROL}>" for lane in LANES.upper()],
        deliver_policy="last_per_subject",
    )
    for item in kept:
        tag = tag_of(item.headers)  # those of a log that is gone have no place in this one
        found[item.subject[len(names.prefix) + 4 :]] = (tag.place if tag.copy in ("", epoch) else 0, item)
    for item in newest:
        topic = names.topic(item.subject)
        if topic not in found or found[topic][0] < item.seq:  # a topic has two lanes
            found[topic] = (item.seq, item)
    reader = _Reader(query, names, epoch)
    items: list[Stored | BusError] = []
    for topic, (place, item) in sorted(found.items(), key=lambda each: each[1][0]):
        if (after is None or place > after.offset) and matches_any(query.patterns, topic):
            each = reader.event(item, place)
            if each is not None:
                items.append(each)
    return items


def _live_subjects(names: Names, patterns: Sequence[str]) -> set[str]:
    """Where these are heard on the live path: all of it for a wildcard, which is seldom."""
    wild = any("*" in pattern or "#" in pattern for pattern in patterns)
    return {names.live(">")} if wild else {names.live(pattern) for pattern in patterns}


class Tail:
    """The log's end as it grows, and the live path."""

    def __init__(self, query: Query, after: Position | None, state: State) -> None:
        """Nothing is read before `next`."""
        self._query = query
        self._after = after
        self._state = state
        self._link = state.link
        self._live = tuple(pattern for pattern in query.patterns if pattern.startswith(LIVE))
        self._reader = _Reader(query, state.names, epoch_of(state.registry))
        self._follower: Follower | None = None
        self._numbers: list[int] = []
        self._started = False
        self._replies: deque[Stored | BusError] = deque(maxlen=_LIVE)
        self._news = Wakeup()
        self._at = 0
        self._closed = False

    async def next(self) -> Items | None:
        """What comes next; None once it is closed."""
        if not self._started:
            self._started = True
            if (lost := await self._start()) is not None:
                return [lost]
        while not self._closed:
            if self._link.error is not None:
                raise BrokerUnavailable("nats: the connection was lost")
            items = await self._take()
            if items:
                return items
            if not self._waiting:
                await self._news.wait()
        return None

    async def _start(self) -> PositionLost | None:
        state = self._state
        state.tails.add(self)
        for subject in _live_subjects(state.names, self._live):
            self._numbers.append(self._link.hear(subject, self._hear))
        where = subjects(state.names, self._query.patterns)
        if not where:
            self._at = 0 if self._after is None else self._after.offset
            await self._link.reach()
            return None
        try:
            first, _, lost = await first_of(state, self._after)
        except PositionLost as error:
            (first, last), lost = await state.ends(), error
            first = last + 1
        self._at = first - 1
        self._reader = _Reader(self._query, state.names, epoch_of(state.registry), first)
        self._follower = await Follower.follow(self._link, state.names.log, where, first, self._news)
        return lost

    async def _take(self) -> list[Stored | BusError]:
        replies = list(self._replies)
        self._replies.clear()
        found: list[Item] = []
        while self._follower is not None and len(found) < _MOST and (item := self._follower.poll()) is not None:
            self._at = item.seq
            found.append(item)
        return replies + await self._reader.items(self._state, found)

    @property
    def _waiting(self) -> bool:
        """Whether something came meanwhile."""
        return bool(self._replies or self._closed or (self._follower is not None and self._follower.waits))

    @property
    def silent(self) -> float:
        """Seconds since the server said anything here."""
        return 0.0 if self._follower is None else self._follower.silent

    def _hear(self, subject: bytes, _reply: bytes, body: bytes, _headers: bytes) -> None:
        """A live event."""
        if not matches_any(self._live, self._state.names.topic(subject.decode())):
            return
        try:
            event = decode(body)
        except BusError as error:
            self._replies.append(error)
        else:
            place = Position(epoch_of(self._state.registry), self._at)
            self._replies.append(Stored(event, place, self._state.clock.time()))
        self._news.notify()

    def wake(self) -> None:
        """Something ended that it may be waiting for."""
        self._news.notify()

    def close(self) -> None:
        """Read no more."""
        self._closed = True
        self._state.tails.discard(self)
        self._news.notify()

    async def end(self) -> None:
        """Leave nothing behind."""
        self.close()
        follower, self._follower = self._follower, None
        if follower is not None:
            await follower.close()
        for number in self._numbers:
            await self._link.unhear(number)
