"""Reading the log: pages of it, its facts, and its end as it grows, with every gap noticed.

Positions are consecutive, so a gap shows by arithmetic; what was trimmed and which log it is are asked for with each
page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from wowevent.broker import LIVE, Position, Query, Stored
from wowevent.brokers.redis.dial import Dial
from wowevent.brokers.redis.line import Line
from wowevent.brokers.redis.session import Session
from wowevent.codec import decode
from wowevent.errors import BrokerUnavailable, BusError, Closed, NotSupported, PositionLost, StorageDamaged
from wowevent.reading import named, reached, wanted
from wowevent.topic import matches_any

_BYTES: Final = 2**20  # of a page, about
_MOST: Final = 1_000  # events of a page
_BLOCK: Final = 2_000  # milliseconds that the server waits for news
_END: Final = 2**64 - 1

Items = list[Stored | BusError]


def parse(entry: Any, epoch: str) -> tuple[int, Stored | BusError]:
    """Position and event (or why it cannot be read) of a stream entry."""
    id, fields = entry
    offset, _, at = id.decode().partition("-")
    try:
        found: Stored | BusError = Stored(decode(fields[1]), Position(epoch, int(offset)), int(at) / 1000)
    except BusError as error:
        found = error
    return int(offset), found


def take(entries: Sequence[Any], at: int, query: Query, epoch: str, items: Items) -> int:
    """Add what is wanted of these entries behind position `at`, and every gap; the position of the last."""
    name = named(query)
    for entry in entries:
        offset = int(entry[0].partition(b"-")[0])
        if offset != at + 1:
            items.append(_gap(at, offset))
        at = offset
        if name is not None and name not in entry[1][1]:
            continue
        _, found = parse(entry, epoch)
        if isinstance(found, BusError) or wanted(query, found.event):
            items.append(found)
    return at


class Pages:
    """The log behind a position up to where it ended when reading began."""

    def __init__(self, query: Query, after: Position | None) -> None:
        self._query = query
        self._after = after
        self._at: int | None = None  # read up to here
        self._upto = 0
        self._epoch = ""  # of the log it began with: another one may be joined between two pages
        self._size = _BYTES / 32  # bytes of an event, guessed at first

    async def next(self, session: Session) -> Items | None:
        """What is wanted of the next page that has something; None at the end."""
        while self._at is None or self._at < self._upto:
            found = await self._page(session)
            if found:
                return found
        return None

    async def _page(self, session: Session) -> Items:
        log, state = f"{session.key}:log", f"{session.key}:state"
        fields = session.line.call("HMGET", state, "epoch", "trimmed", "head")
        if self._at is None:
            epoch, trimmed, head = await fields
            self._epoch = epoch.decode() if epoch else session.epoch
            self._at, lost = _begin(self._after, session, epoch, trimmed, head)
            self._upto = int(head or 0)
            if self._query.upto is not None:
                self._upto = min(self._upto, self._query.upto.offset)
            if lost is not None:
                return [lost]
            if self._query.since is not None and self._after is None:
                self._at = await self._before(session, self._query.since)
            fields = session.line.call("HMGET", state, "epoch", "trimmed", "head")
        count = max(1, min(_MOST, int(_BYTES / self._size)))
        page = session.line.call("XRANGE", log, self._at + 1, self._upto, "COUNT", count)
        epoch, trimmed, _ = await fields
        entries = await page
        items: Items = []
        if epoch is None or epoch.decode() != self._epoch:
            self._at = self._upto
            return [PositionLost("the log was emptied or replaced while it was read")]
        if entries:
            self._at = take(entries, self._at, self._query, self._epoch, items)
            self._size = max(1.0, sum(len(fields[1]) for _, fields in entries) / len(entries))
        else:
            if int(trimmed) > self._at:
                items.append(_gap(self._at, min(int(trimmed), self._upto) + 1))
            self._at = self._upto
        return items

    async def _before(self, session: Session, moment: float) -> int:
        """The position behind which lies what was stored then and later."""
        log = f"{session.key}:log"

        async def at(offset: int) -> float | None:
            found = await session.line.call("XRANGE", log, offset, self._upto, "COUNT", 1)
            return int(found[0][0].partition(b"-")[2]) / 1000 if found else None

        return await reached(at, (self._at or 0) + 1, self._upto, moment) - 1


def _begin(
    after: Position | None, session: Session, epoch: bytes | None, trimmed: bytes | None, head: bytes | None
) -> tuple[int, PositionLost | None]:
    """Where to begin, and what is missing before that."""
    first = int(trimmed or 0)
    if after is None:
        return first, None
    if epoch is None or after.epoch != epoch.decode() or after.epoch != session.epoch or after.offset > int(head or 0):
        return first, PositionLost("that position is of another log")
    if after.offset < first:
        return first, _gap(after.offset, first + 1)
    return after.offset, None


def _gap(before: int, behind: int) -> PositionLost:
    lost = behind - before - 1
    return PositionLost(f"{lost} events behind position {before} are gone from the log", lost)


class Facts:
    """The newest event of each topic under `_bus.`, behind a position."""

    def __init__(self, query: Query, after: Position | None) -> None:
        self._query = query
        self._after = after

    async def next(self, session: Session) -> Items | None:
        """What is wanted of the next page that has something; None at the end."""
        while True:
            epoch = session.epoch
            after = self._after or Position(epoch, 0)
            head, *page = await session.call("facts", after.offset, _MOST, _BYTES)
            session.learn(epoch, head)
            if after.epoch != epoch or after.offset > head:
                self._after = None
                return [PositionLost("that position is of another log")]
            if not page:
                return None
            self._after = Position(epoch, int(page[-2]))
            found = [self._one(*fact, epoch) for fact in zip(page[::3], page[1::3], page[2::3], strict=True)]
            items = [each for each in found if each is not None]
            if items:
                return items

    def _one(self, topic: bytes, offset: bytes, entry: bytes | None, epoch: str) -> Stored | BusError | None:
        """A fact that is wanted, or why it cannot be read."""
        try:
            if entry is None:
                raise StorageDamaged(f"the fact at position {int(offset)} was deleted, or evicted")
            at, _, body = entry.partition(b"\n")
            event = decode(body)
        except BusError as error:
            return error if matches_any(self._query.patterns, topic.decode()) else None
        return Stored(event, Position(epoch, int(offset)), int(at) / 1000) if wanted(self._query, event) else None


class Tail:
    """The log's end as it grows, and the live path; on a connection of its own, since the server waits with us."""

    def __init__(self, query: Query, after: Position | None, session: Session, dial: Dial) -> None:
        """NotSupported for a pattern of the live path that does not say whose replies are meant."""
        live = [pattern for pattern in query.patterns if pattern.startswith(LIVE)]
        words = {pattern.split(".")[1] for pattern in live}
        if words & {"*", "#"}:
            raise NotSupported(f"redis: {live[0]!r}: the second word of a reply's topic names who gets it")
        self._query = query
        self._after = after
        self._session = session
        self._line = Line(dial)
        self._epoch = session.epoch
        self._at: int | None = None
        self._log = f"{session.key}:log" if len(live) < len(query.patterns) else None
        self._replies: dict[str, str] = {f"{session.key}:r:{word}": "" for word in words}
        # Asked before whatever is sent later on the same line: replies to later questions come behind these.
        self._began: dict[str, asyncio.Future[Any]] = {
            stream: session.line.call("XREVRANGE", stream, "+", "-", "COUNT", 1) for stream in self._replies
        }

    async def next(self) -> Items:
        """What comes next."""
        state = ("HMGET", f"{self._session.key}:state", "epoch", "trimmed", "head")
        if self._at is None:
            await self._begin_replies()
            self._at, lost = _begin(self._after, self._session, *await self._line.call(*state))
            if lost is not None:
                return [lost]
        while True:
            streams = [*([self._log] if self._log else []), *self._replies]
            behind = [*([f"{self._at}-{_END}"] if self._log else []), *self._replies.values()]
            news = self._line.call("XREAD", "COUNT", 200, "BLOCK", _BLOCK, "STREAMS", *streams, *behind)
            facts = self._line.call(*state)
            found, (epoch, trimmed, head) = await news, await facts
            if epoch is None or epoch.decode() != self._epoch or int(head or 0) < self._at:
                same = epoch is not None and epoch.decode() == self._epoch
                return await self._begin_anew(int(head or 0), self._at if same else 0)
            items: Items = []
            for stream, entries in found or ():
                if stream.decode() == self._log:
                    self._at = take(entries, self._at, self._query, self._epoch, items)
                else:
                    items += self._take_live(stream, entries, head)
            if self._log and int(trimmed or 0) > self._at:
                items.append(_gap(self._at, int(trimmed) + 1))
                self._at = int(trimmed)
            if items:
                return items

    async def _begin_replies(self) -> None:
        for stream, asked in self._began.items():
            try:
                last = await asked
            except BrokerUnavailable:  # older ones answer nobody's question any more
                last = []
            self._replies[stream] = last[0][0].decode() if last else "0"

    async def _begin_anew(self, head: int, known: int) -> Items:
        """The log is another one, or ends before what is known of it; in that case an epoch is made of it first."""
        await self._session.found(self._epoch, head, known)
        self._epoch, self._at = self._session.epoch, head
        self._replies = dict.fromkeys(self._replies, "0")
        return [PositionLost("the log was emptied or replaced; it begins anew")]

    def _take_live(self, stream: bytes, entries: Sequence[Any], head: bytes | None) -> Items:
        items: Items = []
        place = Position(self._epoch, int(head or 0) if self._log is None else self._at or 0)
        for id, fields in entries:
            self._replies[stream.decode()] = id.decode()
            try:
                event = decode(fields[1])
            except BusError as error:
                items.append(error)
                continue
            if matches_any(self._query.patterns, event.topic):
                items.append(Stored(event, place, int(id.partition(b"-")[0]) / 1000))
        return items

    async def close(self) -> None:
        """End its connection."""
        await self._line.close()


async def next_of(tail: Tail) -> Items | None:
    """What comes next; None once the broker is closed."""
    try:
        return await tail.next()
    except Closed:
        return None
