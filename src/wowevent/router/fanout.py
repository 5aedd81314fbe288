"""Anonymous subscriptions: an event of the log's end is encoded once, however many clients get it.

    feed -> Audience (all who want the same) -> pending -> at the end of the turn: one encoding for each
            shape of frame (subscription id, batch or not) -> the same bytes to every member's client

A member that asks for what it missed first reads the log at its own pace, while what is new is held for it; then it
joins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, Final, Protocol

from wowevent.broker import Broker, Iteration, Position, Query, Stored, Subscription
from wowevent.ending import end
from wowevent.errors import BrokerError, Closed, PositionLost
from wowevent.event import Event
from wowevent.lineage import UNNAMED
from wowevent.live import UNREADABLE, Feed
from wowevent.log import logger
from wowevent.router.wire import Reset, encode, item, message, messages, shared_part
from wowevent.routing import wants
from wowevent.settler import BACKOFF
from wowevent.storm import Guard

_TURN: Final = 128 * 1024  # bytes after which a turn ends: one push must not fill an outbox
_HELD: Final = 2_000  # events that are held for a member while it reads the log; then it reads on
_HELD_BYTES: Final = 256 * 1024  # and bytes: what is held must fit into an outbox

Pending = list[tuple[bytes, Position]]
"""Events that are encoded already (`wire.shared_part`), with their positions."""
Answer = Callable[[bool, int | None, Position], None]
"""`answer(recovered, lost, position)`: say that the subscription is served."""


class Reader(Protocol):
    """One client as fan-out sees it."""

    @property
    def batch(self) -> bool:
        """Whether it takes `events` frames."""
        ...

    def push(self, data: bytes, events: int, position: Position | None) -> None:
        """Send whole messages that hold so many events, the last of them at `position`."""
        ...

    def asked(self, request: Event) -> None:
        """A request is brought to it, which it may answer."""
        ...

    async def room(self) -> None:
        """Return once it reads, or once it is gone."""
        ...


class Member:
    """One subscription of one client."""

    __slots__ = ("audience", "gone", "held", "held_bytes", "id", "name", "overflowed", "reader", "since")

    def __init__(self, reader: Reader, id: str, audience: Audience, since: Position) -> None:
        self.reader: Reader = reader
        self.name: str = id
        """The subscription's id with this client,"""
        self.id: bytes = encode(id)
        """and the same as JSON."""
        self.audience: Audience = audience
        self.since: Position | None = since
        """What lies up to here is not for it; None once that is past."""
        self.held: Pending | None = []
        """What is new while it was not answered yet, or still reads the log."""
        self.held_bytes: int = 0
        self.overflowed: bool = False
        self.gone: bool = False

    def take(self, pending: Pending) -> None:
        """What was published, for one that does not get what all get."""
        if self.held is not None:
            self._hold(pending)
            return
        self.send([each for each in pending if self.since is None or each[1] > self.since])

    def _hold(self, pending: Pending) -> None:
        held = self.held or []
        self.held_bytes += sum(len(shared) for shared, _ in pending)
        self.overflowed = self.overflowed or len(held) + len(pending) > _HELD or self.held_bytes > _HELD_BYTES
        self.held = [] if self.overflowed else held + pending

    def send(self, pending: Pending) -> None:
        """Encode and send, for this member alone."""
        if pending:
            data = messages([item(self.id, shared) for shared, _ in pending], batch=self.reader.batch)
            self.reader.push(data, len(pending), pending[-1][1])


class Audience:
    """All members that want the same; to the feed it is one live subscription."""

    def __init__(self, spec: Subscription, guard: Guard | None) -> None:
        """What the `guard` stops goes to nobody."""
        self.spec = spec
        self._guard = guard
        self.known: asyncio.Task[None] | None = None
        """Makes the engine know of it, so that requests find a responder here."""
        self.later: asyncio.Task[None] | None = None
        """Tells the engine again, where it was in trouble then."""
        self._groups: dict[tuple[bytes, bool], dict[Member, None]] = {}
        self._apart: dict[Member, None] = {}  # those that do not get what all get, yet
        self._pending: Pending = []
        self._size = 0  # bytes of what is pending

    def __len__(self) -> int:
        return len(self._apart) + sum(map(len, self._groups.values()))

    @property
    def _members(self) -> list[Member]:
        return [*self._apart, *(each for group in self._groups.values() for each in group)]

    def add(self, member: Member) -> None:
        """Let it have what comes from now on."""
        self.flush()
        self._apart[member] = None

    def discard(self, member: Member) -> None:
        """It gets nothing more."""
        self._apart.pop(member, None)
        key = (member.id, member.reader.batch)
        if (group := self._groups.get(key)) is not None:
            group.pop(member, None)
            if not group:
                del self._groups[key]

    def put(self, stored: Stored) -> None:
        """One event of the log; sent at the end of this turn."""
        if self.stops(stored.event):
            return
        if not self._pending:
            asyncio.get_running_loop().call_soon(self.flush)
        if stored.event.reply_to is not None:
            for member in self._members:
                member.reader.asked(stored.event)
        shared = shared_part(stored.event, str(stored.position))
        self._pending.append((shared, stored.position))
        self._size += len(shared)
        if self._size >= _TURN:
            self.flush()

    def stops(self, event: Event) -> bool:
        """Whether it is of a storm; nobody keeps it, since nothing is kept for who has no name."""
        if self._guard is None or (why := self._guard.stops(UNNAMED, event)) is None:
            return False
        logger.debug("delivery dropped", subscription=self.spec.id, event_id=event.event_id, why=why)
        return True

    def lose(self, lost: int | None) -> None:
        """A gap in what the feed could read."""
        self.flush()
        for member in self._members:
            tell_reset(member, lost)

    def flush(self) -> None:
        """Send what gathered."""
        if not self._pending:
            return
        pending, self._pending, self._size = self._pending, [], 0
        last = pending[-1][1]
        for (id, batch), group in list(self._groups.items()):
            data = messages([item(id, shared) for shared, _ in pending], batch=batch)
            for member in list(group):
                member.reader.push(data, len(pending), last)
        for member in list(self._apart):
            member.take(pending)
            if member.held is None and member.since is not None and last > member.since:
                self._settle_in(member)

    def _settle_in(self, member: Member) -> None:
        """From here on it gets what all get."""
        member.since = None
        if self._apart.pop(member, member) is None:
            self._groups.setdefault((member.id, member.reader.batch), {})[member] = None

    def release(self, member: Member, position: Position) -> bool:
        """It has read the log up to `position`: send what was held behind that, and let it join.

        False if too much came meanwhile, and it must read on.
        """
        self.flush()
        held, overflowed = member.held or [], member.overflowed
        member.held, member.overflowed, member.held_bytes = (None if not overflowed else []), False, 0
        if overflowed:
            return False
        member.since = position
        member.send([each for each in held if each[1] > position])
        if held and held[-1][1] > position:
            self._settle_in(member)
        return True


class Fanout:
    """The anonymous subscriptions of one router."""

    def __init__(self, broker: Broker, feed: Feed, guard: Guard | None = None) -> None:
        """What the `guard` stops goes to nobody."""
        self._broker = broker
        self._feed = feed
        self._guard = guard
        self._audiences: dict[object, Audience] = {}
        self._newest: Position | None = None
        self._jobs: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return sum(map(len, self._audiences.values()))

    @property
    def ids(self) -> list[str]:
        """Of the live subscriptions that stand for them, with the engine."""
        return [audience.spec.id for audience in self._audiences.values()]

    def note(self, position: Position | None) -> None:
        """We published up to here; the feed may not have come so far."""
        if position is not None and (self._newest is None or not self._newest.covers(position)):
            self._newest = position

    def join(self, reader: Reader, id: str, spec: Subscription) -> Member:
        """A new member: what is published from now on is held for it until `serve` lets it go."""
        key = (spec.patterns, spec.agent, spec.filter)
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(spec, self._guard)
            self._feed.attach(spec, audience)
            audience.known = self._spawn(self._declare(audience))
        member = Member(reader, id, audience, self.position)
        audience.add(member)
        return member

    @property
    def position(self) -> Position:
        """Up to where the log was seen here."""
        seen = self._feed.position
        return seen if self._newest is None or self._newest.epoch != seen.epoch else max(seen, self._newest)

    async def serve(self, member: Member, after: Position | None, answer: Answer) -> None:
        """Answer once the engine knows of the subscription; then let it have what it missed, and what comes."""
        if member.audience.known is not None and not member.audience.known.done():
            await asyncio.wait({member.audience.known})
        since = member.since or self.position
        if after is not None:
            await self._catch_up(member, after, answer)
        elif not member.gone:
            answer(True, None, since)
            if not member.audience.release(member, since):
                await self._catch_up(member, since, None)

    def leave(self, member: Member) -> None:
        """It gets nothing more."""
        member.gone = True
        audience = member.audience
        audience.discard(member)
        key = (audience.spec.patterns, audience.spec.agent, audience.spec.filter)
        if not len(audience) and self._audiences.get(key) is audience:
            del self._audiences[key]
            self._feed.forget(audience.spec.id)
            self._spawn(self._remove(audience))

    async def _catch_up(self, member: Member, after: Position, answer: Answer | None) -> None:
        """Send what the log holds behind `after`, at the pace of the client, then let the member join.

        Who was answered is served: the engine's trouble is waited out. Who was not is told of it, and asks again.
        """
        position: Position | None = after
        pause = BACKOFF[0]
        while not member.gone:
            lost: PositionLost | None = None
            try:
                head = (await self._broker.ping()).head
                query = Query(patterns=member.audience.spec.patterns)
                async with aclosing(self._broker.read(query, after=position)) as log:
                    async for piece in _pieces(member, log, self._feed):
                        if answer is not None:
                            answer = answer(True, None, head)
                        position = await _send_piece(member, piece) or position
            except PositionLost as gap:
                position, lost = None, gap
            except BrokerError as error:
                if answer is not None:
                    raise
                logger.error("what a client missed cannot be read now", error=error, retry_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, BACKOFF[1])
                continue
            pause = BACKOFF[0]
            _answer_or_reset(member, answer, lost, head)
            answer = None
            if lost is not None:
                continue
            position = head if position is None else max(position, head)
            await member.reader.room()
            if member.gone or member.audience.release(member, position):
                return

    async def close(self) -> None:
        """Forget all of them."""
        for audience in self._audiences.values():
            self._feed.forget(audience.spec.id)
            self._spawn(self._remove(audience))
        self._audiences.clear()
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=2.0)
        await end(*self._jobs)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(job, name="wowevent:fanout")
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task

    async def _declare(self, audience: Audience) -> None:
        try:
            await self._broker.declare(audience.spec)
        except (BrokerError, Closed) as error:
            logger.error("subscription is served, but the engine does not know of it", error=error)
            audience.later = self._spawn(self._declare_later(audience.spec))

    async def _declare_later(self, spec: Subscription) -> None:
        pause = BACKOFF[0]
        with suppress(Closed):
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, BACKOFF[1])
                with suppress(BrokerError):
                    await self._broker.declare(spec)
                    return

    async def _remove(self, audience: Audience) -> None:
        if audience.known is not None:
            await asyncio.wait({audience.known})
        await end(audience.later)
        try:
            await self._broker.remove(audience.spec.id)
        except (BrokerError, Closed) as error:
            logger.info("presence could not be taken back, it will end by itself", error=error)


async def _pieces(member: Member, log: Iteration, feed: Feed) -> AsyncIterator[tuple[Pending, Position | None]]:
    """What a read finds for a member, encoded, and up to where: a turn's worth at a time.

    A position of None stands for an event that cannot be served. What a pause holds is left out, and told at the end.
    """
    spec = member.audience.spec
    pending: Pending = []
    size, position, ended, held = 0, None, False, 0
    while not ended:
        damaged = False
        try:
            async for stored in log:
                position = stored.position
                if feed.held(spec, stored.event):
                    held += wants(spec, stored.event)
                elif wants(spec, stored.event) and not member.audience.stops(stored.event):
                    pending.append(_encoded(member, stored))
                    size += len(pending[-1][0])
                if size >= _TURN:
                    yield pending, position
                    pending, size = [], 0
            ended = True
        except UNREADABLE as damage:  # the iteration goes on behind it
            logger.error("an event is left out", code=damage.code, error=damage)
            damaged = True
        if position is not None:
            yield pending, position
            pending, size = [], 0
        if damaged:
            yield [], None
    if held and not member.gone:
        tell_reset(member, held)


def _encoded(member: Member, stored: Stored) -> tuple[bytes, Position]:
    """An event on its way to a member, which may answer it."""
    if stored.event.reply_to is not None:
        member.reader.asked(stored.event)
    return shared_part(stored.event, str(stored.position)), stored.position


async def _send_piece(member: Member, piece: tuple[Pending, Position | None]) -> Position | None:
    """Send a piece of the log, and wait until the client reads."""
    pending, position = piece
    if member.gone:
        return position
    if position is None:
        tell_reset(member, 1)
    member.send(pending)
    await member.reader.room()
    return position


def _answer_or_reset(member: Member, answer: Answer | None, lost: PositionLost | None, head: Position) -> None:
    """Say that it is served, if that was not said; and what it has lost."""
    if answer is not None:
        answer(lost is None, None if lost is None else lost.lost, head)
    elif lost is not None:
        tell_reset(member, lost.lost)


def tell_reset(member: Member, lost: int | None) -> None:
    """The frame that says that something is missing."""
    member.reader.push(message(encode(Reset(subscription_id=member.name, lost=lost))), 0, None)
