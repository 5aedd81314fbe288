"""Reading the log: the stream of all events up to its end, or as it grows, and the live path.

A position is an offset of the stream, counted from 1. The stream does not say where it ends: a marker is written to it,
and read up to. It does not say either that its beginning is gone, so what comes is compared with what was asked for.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol
from uuid import uuid4

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from wowevent.broker import LIVE, Position, Query, Stored
from wowevent.brokers.rabbitmq.control import Control
from wowevent.brokers.rabbitmq.link import Link
from wowevent.brokers.rabbitmq.live import Live
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.outlet import Message
from wowevent.brokers.rabbitmq.strangers import event_of
from wowevent.brokers.rabbitmq.stream import Follower
from wowevent.brokers.rabbitmq.tags import route_of, tag_of, topic_of
from wowevent.clock import Clock
from wowevent.codec import decode
from wowevent.errors import BrokerUnavailable, BusError, InvalidEvent, PositionLost
from wowevent.reading import wanted
from wowevent.shared import Shared
from wowevent.topic import compile_pattern, matches_any
from wowevent.wakeup import Wakeup

_MOST: Final = 500  # events that are handed on at once
_LOOK: Final = 20  # messages that are looked at for one that says when it was stored

Items = list[Stored | BusError]


class Joined(Protocol):
    """What reading needs of a session."""

    link: Link
    names: Names
    control: Control
    live: Live
    clock: Clock
    max_age: float | None
    tails: set[Tail]
    head: Shared[int]


async def mark(link: Link, names: Names) -> str:
    """Write a marker behind everything; its id."""
    id = f"mark-{uuid4().hex}"
    properties = Basic.Properties(delivery_mode=2, message_id=id)
    await link.publish([Message("", names.history, properties, b"", mandatory=True, stream="history")])
    return id


async def head(link: Link, names: Names) -> int:
    """The offset of a marker that was written now: all that was confirmed before lies before it."""
    follower = await Follower.follow(link, names.history, -1)
    try:
        id = await mark(link, names)
        return await link.call(_find(follower, id))
    finally:
        follower.close()


async def _find(follower: Follower, id: str) -> int:
    while True:
        offset, message = await follower.next()
        if message.header.properties.message_id == id:
            return offset


async def _reached(session: Joined, first: int, last: int, moment: float) -> int:
    """An offset before which nothing lies that was stored at that moment or later; of which chunk, is good enough."""
    begin = first
    while first <= last:
        middle = (first + last) // 2
        follower = await Follower.follow(session.link, session.names.history, middle, most=_LOOK)
        try:
            offset, at = await session.link.call(_dated(follower, last))
        finally:
            follower.close()
        if at is None:
            break
        if at >= moment:
            last = middle - 1
        else:
            begin, first = offset, middle + 1
    return begin


async def _dated(follower: Follower, last: int) -> tuple[int, float | None]:
    """The place and the time of the first message that says when it was stored; None if the next ones do not."""
    for _ in range(_LOOK):
        offset, message = await follower.next()
        if at := tag_of(message).at:
            return offset, at
        if offset >= last:
            break
    return offset, None


class _Place:
    """Where a reading is, and what is to be said of what it does not find."""

    def __init__(self, query: Query, after: Position | None, session: Joined) -> None:
        self.query = query
        self.after = after
        self.session = session
        self.first: int = 0 if after is None else after.offset
        self._stored_at = 0.0
        self._aged = 0
        self._began = False

    def check(self, end: int) -> PositionLost | None:
        """Whether the log goes on from there; `end` is an offset that it has reached."""
        if self.after is None or (self.after.epoch == self.session.control.registry.epoch and self.first <= end + 1):
            return None
        return PositionLost("that position is of another log")

    def take(self, offset: int, message: DeliveredMessage, items: Items) -> None:
        """Add what is wanted of a message, and what is missing before it."""
        if not self._began:
            self._began = True
            if self.after is not None and offset > self.first:
                items.append(PositionLost(f"events behind position {self.after.offset} are gone from the log"))
        if not route_of(message)[0]:  # a marker
            return
        tag = tag_of(message)
        self._stored_at = max(self._stored_at, tag.at)
        age = self.session.max_age
        if age is not None and tag.at and tag.at < self.session.clock.time() - age:
            self._aged += self.after is not None
            return
        self.tell_aged(items)
        try:
            event = event_of(message)
        except InvalidEvent:  # what a stranger published is none: no part of the log, and nothing is damaged
            return
        except BusError as error:
            if matches_any(self.query.patterns, topic_of(message) or "damaged"):
                items.append(error)
            return
        if wanted(self.query, event):
            items.append(Stored(event, Position(self.session.control.registry.epoch, offset + 1), self._stored_at))

    def tell_aged(self, items: Items) -> None:
        """What was older than the log keeps it."""
        if self._aged:
            items.append(PositionLost(f"{self._aged} events are older than the log keeps them", self._aged))
            self._aged = 0


class Pages:
    """The log behind a position up to where it ended when reading began."""

    def __init__(self, query: Query, after: Position | None) -> None:
        self._query = query
        self._after = after
        self._place: _Place | None = None
        self._follower: Follower | None = None
        self._upto = 0
        self._over = False

    async def next(self, session: Joined) -> Items | None:
        """What is wanted of the next page that has something; None at the end."""
        if self._place is None:
            self._place = _Place(self._query, self._after, session)
            self._upto = await session.head()
            if (lost := self._place.check(self._upto)) is not None:
                self._over = True
                return [lost]
            if self._query.upto is not None:
                self._upto = min(self._upto, self._query.upto.offset - 1)
            first = self._place.first
            if self._query.since is not None and self._after is None:
                first = await _reached(session, first, self._upto, self._query.since)
            self._follower = await Follower.follow(session.link, session.names.history, first)
        while not self._over:
            found = await session.link.call(self._page(self._place))
            if found:
                return found
        return None

    async def _page(self, place: _Place) -> Items:
        follower, items = self._follower, Items()
        assert follower is not None  # noqa: S101 - for the type checker
        if place.first > self._upto:
            self._over = True
            return items
        offset, message = await follower.next()
        while True:
            if offset <= self._upto:
                place.take(offset, message, items)
            if offset >= self._upto:
                place.tell_aged(items)
                self._over = True
                return items
            more = follower.poll() if len(items) < _MOST else None
            if more is None:
                return items
            offset, message = more

    def close(self) -> None:
        """Read no more."""
        self._over = True
        if self._follower is not None:
            self._follower.close()
            self._follower = None


def facts(query: Query, after: Position | None, session: Joined) -> Items:
    """The newest event of each topic under `_bus.`: they have positions of their own, those of the control log."""
    registry = session.control.registry
    epoch = facts_epoch(registry.epoch)
    if after is not None and (after.epoch != epoch or after.offset > registry.offset + 1):
        return [PositionLost("that position is of another log")]
    behind = 0 if after is None else after.offset
    items = Items()
    for topic, (offset, at, body) in registry.facts.items():
        if offset + 1 <= behind:
            continue
        try:
            event = decode(body)
        except BusError as error:
            if matches_any(query.patterns, topic):
                items.append(error)
            continue
        if wanted(query, event):
            items.append(Stored(event, Position(epoch, offset + 1), at))
    return items


def facts_epoch(epoch: str) -> str:
    """Of the positions of facts."""
    return f"{epoch}.facts"


class Tail:
    """The log's end as it grows, and the live path."""

    def __init__(self, query: Query, after: Position | None, session: Joined) -> None:
        """Nothing is read before `next`."""
        self._query = query
        self._session = session
        self._place = _Place(query, after, session)
        self._live = tuple(pattern for pattern in query.patterns if pattern.startswith(LIVE))
        self._keys = [".".join(compile_pattern(pattern)) for pattern in self._live]
        self._follower: Follower | None = None
        self._started = False
        self._replies: deque[Stored | BusError] = deque()
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
            if self._session.link.error is not None:
                raise BrokerUnavailable("rabbitmq: the connection was lost")
            items = self._take()
            if items:
                return items
            await self._news.wait()
        return None

    async def _start(self) -> PositionLost | None:
        session, place = self._session, self._place
        session.tails.add(self)
        for key in self._keys:
            await session.live.listen(key)
        if self._live and len(self._live) == len(self._query.patterns):
            self._at = 0 if place.after is None else place.after.offset
            return None
        lost = None
        if place.after is not None:
            end = await session.head()
            if (lost := place.check(end)) is not None:
                place.first, place.after = end, None
        self._follower = await Follower.follow(session.link, session.names.history, place.first, self._news)
        return lost

    def _take(self) -> Items:
        items = Items(self._replies)
        self._replies.clear()
        while self._follower is not None and len(items) < _MOST and (more := self._follower.poll()) is not None:
            self._at = more[0] + 1
            self._place.take(*more, items)
        return items

    def hear(self, message: DeliveredMessage) -> None:
        """A live event."""
        _, topic = route_of(message)
        if not self._live or not matches_any(self._live, topic):
            return
        try:
            event = decode(message.body)
        except BusError as error:
            self._replies.append(error)
        else:
            place = Position(self._session.control.registry.epoch, self._at)
            self._replies.append(Stored(event, place, self._session.clock.time()))
        self._news.notify()

    def wake(self) -> None:
        """Something ended that it may be waiting for."""
        self._news.notify()

    def close(self) -> None:
        """Read no more."""
        self._closed = True
        self._session.tails.discard(self)
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        self._news.notify()
