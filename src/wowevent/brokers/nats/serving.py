"""One subscription as one instance serves it: what is leased, and how that is settled.

    a message ──► leased ──┬─ acknowledged
                           ├─ a copy with its counts goes on, stored; then it is acknowledged
                           └─ the lease ends: a copy goes to the suspects, and it is acknowledged

A copy goes on where the message comes once more, waits among what is delayed, or lies with the dead letters
(`successors`). What the server delivers again was with an instance that said nothing of it: a crash, unless it has a
successor already.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from time import monotonic
from typing import Final
from uuid import uuid4

from msgspec import Struct

from wowevent.broker import Ack, Bury, Extend, Lease, Position, Reason, Retry, Settlement
from wowevent.brokers.nats.consumers import patience
from wowevent.brokers.nats.lanes import LANES, LOG, SOURCES, Here, Lanes
from wowevent.brokers.nats.messages import Message
from wowevent.brokers.nats.successors import Context, Successors
from wowevent.codec import decode
from wowevent.errors import BusError, PositionLost, StorageFull
from wowevent.event import Event
from wowevent.expiry import Expiry
from wowevent.log import logger
from wowevent.tag import Tag

_PURGED: Final = 500  # messages that are dropped at once
_ALIVE: Final = 1.0  # seconds before the server gives a message away, in which it is not ours any more


class Held(Struct, gc=False):
    """One leased message."""

    here: Here
    event: Event
    tag: Tag
    ends: float
    """By the monotonic clock."""
    doubted: bool = False
    """It was to be settled, and nobody said that it was."""


class Serving:
    """See the module."""

    def __init__(self, id: str, context: Context) -> None:
        """Nothing is asked before the first `take`."""
        self.id: str = id
        self.lanes: Lanes = Lanes(id, context.link, context.names, context.control.registry, context.consumers.mend)
        """What the server has given us."""
        self.leases: dict[str, Held] = {}
        """What is leased here, by token."""
        self.lease: float = 30.0
        """Seconds of a lease, as was declared last."""
        self.expiry: Expiry = Expiry(context.clock, self._end, self._accused, name="nats:crashes")
        """The ends of these leases."""
        self._context = context
        self._successors = Successors(id, context)
        self._prefix = uuid4().hex[:8]
        self._numbers = itertools.count()
        self._suspect: str | None = None
        self._lost = 0
        self._made = self._known_made()

    def relink(self, context: Context) -> None:
        """A new line: what is leased stays so, since the server knows nothing of lines."""
        self._context = self._successors.context = context
        self.lanes.relink(context.link, context.consumers.mend)

    def check(self) -> None:
        """What a consumer gave that was made anew since, or is gone for good, is not ours any more."""
        made = self._known_made()
        for source in self.lanes.here:
            if made.get(source) != self._made.get(source):
                self.lanes.forget(source)
                self.leases = {token: held for token, held in self.leases.items() if held.here.source != source}
        self._made = made
        self.lanes.news.notify()

    def _known_made(self) -> dict[str, tuple[str, int]]:
        known = self._context.control.registry.known.get(self.id)
        if known is None:
            return {}
        return {source: (known.born, known.made.get(source, 0)) for source in SOURCES}

    # --- fetching -------------------------------------------------------------------------------------------------

    async def take(self, limit: int, lease: float, *, asking: bool, lanes: bool) -> list[Lease]:
        """Lease what is here; with `asking` the server is asked for more, as long as it has some.

        PositionLost, once, where something was older than the log keeps it.
        """
        self.lease = lease
        ends = self._context.clock.monotonic() + lease
        found: list[Lease] = []
        try:
            await self._take(found, limit, ends, asking=asking, lanes=lanes)
        except BaseException:
            self._unlease(found)
            raise
        if self._lost and not found:
            lost, self._lost = self._lost, 0
            raise PositionLost(f"{self.id}: {lost} unread events are older than the log keeps them", lost)
        if found:
            self.expiry.watch(ends)
        return found

    async def _take(self, found: list[Lease], limit: int, ends: float, *, asking: bool, lanes: bool) -> None:
        empty: set[str] = set()
        while len(found) < limit:
            if asking:
                await self._ask(limit - len(found), empty, lanes=lanes)
            if self.lanes.back and await self._judge():
                empty.clear()
                continue
            if self.lanes.count(0) and not self._suspected():
                if found:  # it comes alone
                    return
                if (leased := await self._lease(self.lanes.here["s"].popleft(), ends, alone=True)) is not None:
                    found.append(leased)
                    return
                continue
            if (here := self.lanes.next(lanes=lanes)) is None:
                return
            leased = await self._lease(here, ends)
            if leased is not None and self._lost and not found:  # first of all, what was lost is told
                self._unlease([leased])
                return
            if leased is not None:
                found.append(leased)

    async def _ask(self, count: int, empty: set[str], *, lanes: bool) -> None:
        """As many as can be leased, and no more: of what is here others get nothing."""
        if not self._suspected():
            await self.lanes.fill(0, 1, empty)
            if self.lanes.count(0):
                return
        if not lanes:
            await self.lanes.fill(2, count, empty)
            await self.lanes.fill(1, count, empty)
            return
        due = self.lanes.due(count)
        await self.lanes.fill(2, due, empty)
        await self.lanes.fill(1, count - min(self.lanes.count(2), due), empty)
        await self.lanes.fill(2, count - self.lanes.count(1), empty)

    async def consume(self, ahead: int) -> None:
        """Have what comes delivered. No suspect while one is here: this instance may not outlive it."""
        await self.lanes.consume(ahead, suspects=not self._suspected())

    @property
    def takeable(self) -> bool:
        """Whether something is here that may be leased now."""
        suspects = self.lanes.count(0)
        return bool(len(self.lanes) - suspects or (suspects and not self._suspected()))

    def _suspected(self) -> bool:
        return self._suspect is not None and self._suspect in self.leases

    async def _lease(self, here: Here, ends: float, *, alone: bool = False) -> Lease | None:
        """The lease of a message; None for one that is not to be delivered."""
        if self._stale(here):  # the line was cut for so long that the server gives it to the next
            return None
        try:
            event = decode(here.item.body)
        except BusError as error:
            await self._bury_damaged(here, error)
            return None
        if here.source in LOG and (self._aged(here.tag) or not self._wanted(here, event)):
            self._drop(here)
            return None
        token = f"{self._prefix}.{next(self._numbers)}"
        tag, epoch = here.tag, self._successors.epoch
        self.leases[token] = Held(here, event, tag, ends)
        if alone:
            self._suspect = token
        return Lease(
            event=event,
            token=token,
            position=Position(epoch, here.place) if tag.copy in ("", epoch) else None,
            failures=tag.failures,
            crashes=tag.crashes,
            attempts=tag.attempts,
            redelivered=tag.redelivered,
        )

    def _stale(self, here: Here) -> bool:
        return monotonic() - here.touched > self._patience - _ALIVE

    @property
    def _patience(self) -> float:
        """By the shorter one of two leases, where it is declared anew meanwhile."""
        spec = self._context.control.registry.spec(self.id)
        return patience(self.lease if spec is None else min(self.lease, spec.lease))

    def _aged(self, tag: Tag) -> bool:
        age = self._context.max_age
        aged = age is not None and 0 < tag.at < self._context.clock.time() - age
        self._lost += aged
        return aged

    def _wanted(self, here: Here, event: Event) -> bool:
        """Whether the server's filter holds it and ours too, by what was declared then."""
        return self._context.control.registry.wants(self.id, event, here.place, here.source)

    def _drop(self, here: Here) -> None:
        self._context.link.send(here.item.reply.decode(), b"+ACK")

    def _unlease(self, leases: Sequence[Lease]) -> None:
        """They were not handed on: they are here as before."""
        for lease in reversed(leases):
            held = self.leases.pop(lease.token, None)
            if held is not None:
                self.lanes.put_back(held.here)

    # --- crashes --------------------------------------------------------------------------------------------------

    async def _judge(self) -> bool:
        """What was with somebody before goes to the suspects, unless it has gone on already. True: some did."""
        self.lanes.back = False
        left = back = self.lanes.take_back()  # out of the way of others, who would lease it meanwhile
        try:
            left = await self._still_open(back)
            await self._accuse([here for here in left if here.source != "s"])
        except StorageFull:  # no copy can be written: each comes alone from where it is
            self.lanes.suspect(left)
            return True
        except BaseException:
            self.lanes.give_back(left)
            raise
        self.lanes.give_back([here for here in left if here.source == "s"])
        return any(here.source != "s" for here in back)

    async def _still_open(self, back: Sequence[Here]) -> list[Here]:
        """Those of what was with somebody before that have not gone on; what has is settled."""
        now = self._context.clock.time()
        gone = await asyncio.gather(*(self._successors.gone_on(here) for here in back))
        for here, on in zip(back, gone, strict=True):
            _judge(here, now)
            if on:
                self._drop(here)
        return [here for here, on in zip(back, gone, strict=True) if not on]

    async def _accuse(self, accused: Sequence[Here]) -> None:
        """Copies to the suspects, stored; then the messages are acknowledged."""
        if not accused:
            return
        await self._context.consumers.again(self.id)
        await self._context.link.store([self._successors.once_more(here, here.tag, "s") for here in accused])
        await self.lanes.ack(accused)

    async def _expire(self, over: Sequence[Held]) -> None:
        now = self._context.clock.time()
        left = [held for held in over if not self._stale(held.here)]
        doubted = [held.here for held in left if held.doubted]
        gone = await asyncio.gather(*(self._successors.gone_on(here) for here in doubted))
        settled = {id(here) for here, on in zip(doubted, gone, strict=True) if on}
        for held in left:
            held.here.tag = held.tag.crashed(now)
            if id(held.here) in settled:
                self._drop(held.here)
        await self._accuse([held.here for held in left if id(held.here) not in settled])

    def _end(self) -> None:
        """Leases that ended unsettled are crashes."""
        now = self._context.clock.monotonic()
        over = [token for token, held in self.leases.items() if held.ends <= now or self._stale(held.here)]
        held = [self.leases.pop(token) for token in over]
        if held:
            self.expiry.begin(self._expire(held))
        if self.leases:
            self.expiry.watch(min(each.ends for each in self.leases.values()))

    def _accused(self, error: BaseException | None) -> None:
        if error is not None:
            # It is still unacknowledged: if this instance says no more of it, the server gives it to the next.
            logger.error("leases that ended cannot be counted now", subscription=self.id, error=error)
        self.lanes.news.notify()

    @property
    def holding(self) -> bool:
        """Whether there is anything that the server must know to be ours."""
        return bool(self.leases or len(self.lanes))

    async def touch(self) -> None:
        """Tell the server what is ours."""
        await self.lanes.touch([held.here for held in self.leases.values()], self._patience)

    # --- settling -------------------------------------------------------------------------------------------------

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """See Broker."""
        self.expiry.look()
        popped: dict[str, Held] = {}
        try:
            count = await self._settle(settlements, popped)
        except BaseException:
            self.leases.update(popped)  # what was not carried out may be asked for again
            for held in popped.values():
                held.doubted = True
            if popped:
                self.expiry.watch(min(held.ends for held in popped.values()))
            raise
        if self._suspect in popped or self.lanes.count(0) or not all(isinstance(order, Ack) for order in settlements):
            self.lanes.news.notify()  # suspects may come now, or there is something that comes once more
        return count

    async def _settle(self, settlements: Sequence[Settlement], popped: dict[str, Held]) -> int:
        acks: list[Here] = []
        copies: list[tuple[int, Message]] = []
        extended = 0
        if any(isinstance(order, Retry) for order in settlements):
            await self._context.consumers.again(self.id)
        for order in settlements:
            held = self.leases.get(order.token)
            if held is None or self._stale(held.here):
                continue
            if isinstance(order, Extend):
                extended += 1
                self._extend(held, order)
                continue
            popped[order.token] = self.leases.pop(order.token)
            acks.append(held.here)
            if not isinstance(order, Ack):
                copies.append((held.here.place, self._successors.of(held.here, held.tag, held.event, order)))
        if copies:
            # What was published first comes first again.
            await self._context.link.store([message for _, message in sorted(copies, key=lambda each: each[0])])
        return extended + await self.lanes.ack(acks)

    def _extend(self, held: Held, order: Extend) -> None:
        if order.error is not None:
            held.tag = held.tag.failed(self._context.clock.time(), order.error)
        held.ends = self._context.clock.monotonic() + order.seconds
        self.expiry.watch(held.ends)

    async def _bury_damaged(self, here: Here, error: BusError) -> None:
        letter = self._successors.letter(here, here.tag, Bury("", Reason.DESERIALIZATION_ERROR, str(error)))
        await self._context.link.store([letter])
        self._drop(here)
        logger.error("an event cannot be read, it is a dead letter", subscription=self.id, error=error)

    async def purge(self) -> int:
        """Drop what is ready, here and at the server; how many of those it would have got."""
        count = 0
        for lane in (0, 1, 2):
            empty: set[str] = set()
            while True:
                await self.lanes.fill(lane, _PURGED, empty)
                items = [here for source in LANES[lane] for here in self.lanes.here[source]]
                if not items:
                    break
                for source in LANES[lane]:
                    self.lanes.here[source].clear()
                count += sum(self._counts(here) for here in items)
                await self.lanes.ack(items)
        return count

    def _counts(self, here: Here) -> bool:
        try:
            return here.source not in LOG or self._wanted(here, decode(here.item.body))
        except BusError:
            return True

    # --- the end --------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Have nothing more delivered; what is here and not leased comes once more, to whoever asks next."""
        left = [here for here in await self.lanes.stop() if not self._stale(here)]
        try:
            left = [here for here in left if not here.fresh] + await self._still_open(
                [each for each in left if each.fresh]
            )
            if left:
                await self._context.consumers.again(self.id)
            left.sort(key=lambda here: here.place)
            copies = [
                self._successors.once_more(here, here.tag, "s" if here.tag.crashes else here.source[-1])
                for here in left
            ]
            await self._context.link.store(copies)
            await self.lanes.ack(left)
        except StorageFull as error:  # it is not kept from others for want of room; what it costs is a crash each
            logger.warning(
                "no room to give back what is not leased: the server does", subscription=self.id, error=error
            )
        except BaseException:
            self.lanes.give_back(left)
            raise

    async def abandon(self) -> None:
        """This instance ends, and its open leases with it, as crashes."""
        over, self.leases = list(self.leases.values()), {}
        await self._expire(over)

    async def close(self) -> None:
        """Lease nothing, watch nothing."""
        await self.expiry.close()
        self.lanes.news.notify()


def _judge(here: Here, now: float) -> None:
    """Whoever had it before said nothing of it."""
    if not here.judged and here.item.delivered > 1:
        here.tag, here.judged = here.tag.crashed(now, here.item.delivered - 1), True
