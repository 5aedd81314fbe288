"""What is delayed: retries, and events that are published later. One instance at a time, which has a lock, sends it on.

It follows the stream, knows when each is due, and fetches the bodies then. An event leaves in two steps: it is written
anew as one that leaves, which nobody can take back, and then it is published. Whatever happens between the steps, the
next instance that has the lock goes on with the second. Its holder says so every half second, and the others listen:
two seconds after its last word another one sends on. What both would send has one id, and is stored once.
"""

from __future__ import annotations

import asyncio
import heapq
from contextlib import suppress
from typing import Final

from msgspec import structs

from wowevent.brokers.nats.control import Control
from wowevent.brokers.nats.faults import WRONG_SEQUENCE, is_missing, refusal
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.locks import LATER, Locks
from wowevent.brokers.nats.messages import Found, Message
from wowevent.brokers.nats.names import Names
from wowevent.brokers.nats.stream import Follower
from wowevent.brokers.nats.tags import copied, expecting, published, tag_of
from wowevent.clock import Clock, Timer
from wowevent.codec import decode, encode
from wowevent.ending import end
from wowevent.errors import BrokerError, BrokerUnavailable, BusError, StorageDamaged, shown
from wowevent.event import Event
from wowevent.log import logger
from wowevent.tag import Tag
from wowevent.wakeup import Wakeup

_SAYS: Final = 0.5  # real seconds between two looks at who sends on: many, within those after which it is another one
_AT_ONCE: Final = 256
_SOON: Final = 1.0  # seconds until what could not be sent on is tried again
_SELDOM: Final = 600.0  # and what cannot be read


class Delays:
    """The stream, as one instance sees it by one link."""

    def __init__(self, link: Link, names: Names, control: Control, locks: Locks, clock: Clock) -> None:
        """Nothing is read before `start`."""
        self._link = link
        self._names = names
        self._control = control
        self._locks = locks
        self._clock = clock
        self._due: list[tuple[float, int]] = []
        self._news = Wakeup()
        self._freed = Wakeup()
        self._watching: asyncio.Task[None] | None = None
        self._follower: Follower | None = None
        self._following: asyncio.Task[None] | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        link.on_end.append(self._news.notify)
        link.on_end.append(self._freed.notify)

    async def start(self) -> None:
        """Send on what is due from now on: at once if nobody else does, else when nothing is heard of who does."""
        await self._try_turn()
        self._watching = asyncio.create_task(self._watch(), name="nats:delays")

    def look(self) -> None:
        """A lock was let go."""
        self._locks.forget()
        self._freed.notify()

    async def _watch(self) -> None:
        while self._link.error is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SAYS):
                    await self._freed.wait()
            if not self._locks.watched:
                await self._try_turn()

    async def _try_turn(self) -> None:
        try:
            await self._turn()
        except BusError as error:
            logger.debug("nobody can be found who sends on what is due", error=error)

    async def _turn(self) -> None:
        """Go on having the lock, or have it now that it is free."""
        had = LATER in self._locks.held
        if not await self._locks.lock(LATER):
            await self.halt()
        elif not had or self._follower is None:
            await self.halt()
            await self._follow()
            await self._control.say()  # who hears that we let it go is quicker than one who has to miss us

    @property
    def silent(self) -> float:
        """Seconds since the server said anything here."""
        return 0.0 if self._follower is None else self._follower.silent

    async def _follow(self) -> None:
        subjects = [f"{self._names.prefix}l.>"]
        follower = self._follower = await Follower.follow(
            self._link, self._names.later, subjects, news=self._news, headers_only=True
        )
        self._following = asyncio.create_task(self._take(follower), name="nats:delays")

    async def _take(self, follower: Follower) -> None:
        while True:
            item = await follower.next()
            heapq.heappush(self._due, (tag_of(item.headers).due, item.seq))
            self._set_timer()

    async def halt(self) -> None:
        """Send nothing on any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await end(self._following, self._releasing)
        self._following = self._releasing = None
        if self._follower is not None:
            follower, self._follower = self._follower, None
            await follower.close()

    async def close(self) -> None:
        """Neither send nor look any more."""
        await end(self._watching)
        await self.halt()

    # --- in -------------------------------------------------------------------------------------------------------

    async def hold(self, event: Event, due: float) -> bool:
        """Keep an event until it is due; False if one of its id is kept already."""
        tag = Tag(at=self._clock.time(), due=due)
        message = copied(self._names.held(event.event_id), encode(event), tag, more=expecting(0))
        (confirm,) = await self._link.publish([self._link.fitting(message)])
        if confirm.error is None:
            return True
        if confirm.error.get("err_code") == WRONG_SEQUENCE:
            return False
        raise refusal(confirm.error)

    async def cancel(self, event_id: str) -> bool:
        """Let it not leave; False if it has left, or is not known."""
        found = await self._link.get(self._names.later, subject=self._names.held(event_id))
        if found is None or tag_of(found.headers).leaving:
            return False
        return await self._delete(found.seq)

    async def _delete(self, seq: int) -> bool:
        """Whether it was there."""
        try:
            await self._link.ask(f"STREAM.MSG.DELETE.{self._names.later}", seq=seq, no_erase=True)
        except BrokerError as error:
            if not is_missing(error):
                raise
            return False
        return True

    # --- out ------------------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due and self._link.error is None and self._follower is not None:
            self._timer = self._clock.call_later(max(0.0, self._due[0][0] - self._clock.time()), self._release_due)

    def _release_due(self) -> None:
        self._timer = None
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.create_task(self._release(), name="nats:delays")

    async def flush(self) -> None:
        """Return once what is due now has left, if it is this instance that sends on."""
        while self._follower is not None and self._due and self._due[0][0] <= self._clock.time():
            self._release_due()
            if self._releasing is None:
                return
            await asyncio.wait([self._releasing])

    async def _release(self) -> None:
        while self._due and self._due[0][0] <= self._clock.time():
            seqs: list[int] = []
            while self._due and self._due[0][0] <= self._clock.time() and len(seqs) < _AT_ONCE:
                seqs.append(heapq.heappop(self._due)[1])
            try:
                await self._send_on(seqs)
            except BusError as error:
                logger.debug("what is due cannot leave now", error=error)
                for seq in seqs:
                    heapq.heappush(self._due, (self._clock.time() + _SOON, seq))
                break
        self._set_timer()

    async def _send_on(self, seqs: list[int]) -> None:
        """What these are, where they go, and away with them here."""
        found = await asyncio.gather(*(self._link.get(self._names.later, seq=seq) for seq in seqs))
        claims: list[tuple[Message, Message]] = []
        out: list[tuple[int, Message]] = []
        for each in found:
            if each is None:  # taken back, or sent on by who had the lock before
                continue
            try:
                message, leaves = self._leaving(each)
            except BusError as error:  # a newer version may understand it
                logger.error("what is delayed cannot be read, and stays where it is", error=error)
                heapq.heappush(self._due, (self._clock.time() + _SELDOM, each.seq))
                continue
            if leaves:
                out.append((each.seq, message))
            else:
                tag = structs.replace(tag_of(each.headers), leaving=True)
                claims.append((copied(each.subject, each.body, tag, more=expecting(each.seq)), message))
        claimed = await self._link.publish([claim for claim, _ in claims])
        for (_, message), confirm in zip(claims, claimed, strict=True):
            if confirm.error is None:
                out.append((confirm.seq, message))
            elif confirm.error.get("err_code") != WRONG_SEQUENCE:
                raise refusal(confirm.error)
        if not self._locks.holds(LATER):  # an id is known for two minutes: who was away for longer would send it again
            raise BrokerUnavailable("nats: another instance sends on what is due")
        await self._link.store([message for _, message in out])
        await asyncio.gather(*(self._delete(seq) for seq, _ in out))

    def _leaving(self, found: Found) -> tuple[Message, bool]:
        """What it becomes, and whether nobody can take it back any more. BusError for what cannot be read."""
        tag = tag_of(found.headers)
        if not tag.target:
            event = decode(found.body)
            return published(self._names.event(event), event, self._clock.time()), tag.leaving
        if not self._names.is_once_more(tag.target):
            raise StorageDamaged(f"nothing goes on to {shown(tag.target)}")
        _, owner, key = found.subject.rsplit(".", 2)
        return copied(tag.target, found.body, structs.replace(tag, due=0.0, target=""), f"{owner}-{key}"), True
