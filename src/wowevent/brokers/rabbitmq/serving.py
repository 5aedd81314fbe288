"""One subscription as one instance serves it: what is leased, and how that is settled.

    a message ──► leased ──┬─ acknowledged
                           ├─ a copy with its counts goes on, confirmed; then it is acknowledged
                           ├─ given back as it was: noted, then returned to its place
                           └─ the lease ends: a copy goes to the suspects

The server counts what it takes back, whatever the reason. What was given back on purpose is noted in the control log;
what is left of the server's count are crashes.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from math import inf
from typing import Final
from uuid import uuid4

from aiormq.abc import DeliveredMessage
from msgspec import Struct, structs

from wowevent.broker import KNOWN_IDS, Ack, Bury, Extend, Lease, Reason, Retry, Settlement
from wowevent.brokers.rabbitmq.control import Control
from wowevent.brokers.rabbitmq.faults import translate
from wowevent.brokers.rabbitmq.lanes import Here, Lanes
from wowevent.brokers.rabbitmq.letters import Letters
from wowevent.brokers.rabbitmq.link import Channel, Link
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.outlet import Message
from wowevent.brokers.rabbitmq.strangers import envelope, event_of, given_id
from wowevent.brokers.rabbitmq.tags import name_of, of_copy, returns_of, tag_of
from wowevent.clock import Clock
from wowevent.errors import BusError, PositionLost
from wowevent.event import Event
from wowevent.expiry import Expiry
from wowevent.log import logger
from wowevent.tag import Tag

_BACK: Final = 1.0  # seconds in which what was delayed finds its way back


class Held(Struct):
    """One leased message."""

    here: Here
    event: Event
    tag: Tag
    ends: float
    """By the monotonic clock; infinite while the others of its fetch are gathered."""
    lane: int
    touched: bool = False
    """Its counts are others than those that the message bears."""

    @property
    def names(self) -> tuple[str, str]:
        """What is done with it: the event as it was published, and this copy of it."""
        return f"{self.event.event_id}/", f"{self.event.event_id}/{self.tag.copy}"


class Context(Struct, frozen=True):
    """What serving needs of a session."""

    link: Link
    names: Names
    control: Control
    letters: Letters
    clock: Clock
    settled: OrderedDict[tuple[str, str], None]
    """What this instance settled last, by subscription: the names of messages."""
    max_age: float | None


class Serving:
    """See the module."""

    def __init__(self, id: str, context: Context) -> None:
        """Nothing is asked before the first `take`."""
        self.id: str = id
        self.lanes: Lanes = Lanes(id, context.link, context.names, context.control)
        """What the server has given us."""
        self.leases: dict[str, Held] = {}
        """What is leased here, by token."""
        self.expiry: Expiry = Expiry(context.clock, self._end, self._accused, name="rabbitmq:crashes")
        """The ends of these leases."""
        self.lock: Channel | None = None
        """Holds the lock of an exclusive subscription."""
        self._context = context
        self._prefix = uuid4().hex[:8]
        self._numbers = itertools.count()
        self._suspect: str | None = None
        self._in_hand: set[str] = set()
        self._lost = 0
        self._delayed: list[float] = []

    # --- fetching -------------------------------------------------------------------------------------------------

    async def take(self, limit: int, lease: float, *, asking: float) -> list[Lease]:
        """Lease what is here; the queues are asked for more, one by one, as long as they have some.

        After `asking` seconds what was found is enough.
        PositionLost, once, where something was older than the log keeps it.
        """
        if self.lanes.lost:
            self._forget()
        await self.lanes.open()
        found: list[Lease] = []
        try:
            await self._take(found, limit, asking=asking)
        except BaseException:
            self._unlease(found)
            raise
        if self._lost and not found:
            lost, self._lost = self._lost, 0
            raise PositionLost(f"{self.id}: {lost} unread events are older than the log keeps them", lost)
        if found:
            self._hand_on(found, lease)
        return found

    def _hand_on(self, found: list[Lease], lease: float) -> None:
        """Their time begins when they are all here: what the server was asked for meanwhile may have taken long."""
        ends = self._context.clock.monotonic() + lease
        for each in found:
            if (held := self.leases.get(each.token)) is not None:  # else its channel was lost meanwhile
                held.ends = ends
        self.expiry.watch(ends)

    async def _take(self, found: list[Lease], limit: int, *, asking: float) -> None:
        ask = set(self.lanes.present()) if asking else set()
        enough = self._context.clock.monotonic() + asking
        while len(found) < limit:
            if found and self._context.clock.monotonic() > enough:
                ask = set()
            ask |= {1} if self.lanes.urgent else set()  # before another one gets ahead of it
            await self.lanes.look(ask - {0} if self._suspected() else ask)
            if self.lanes.back and await self._judge():
                ask |= {0} if asking else set()
                continue
            suspects = self.lanes.here[0] and not self._suspected()
            if suspects and found:  # it comes alone
                return
            chosen = (0, self.lanes.here[0].popleft()) if suspects else self.lanes.next()
            if chosen is None:
                return
            leased = await self._lease(*chosen)
            if leased is not None and self._lost and not found:  # first of all, what was lost is told
                self._unlease([leased])
                return
            if leased is not None:
                found.append(leased)
            if suspects and leased is not None:
                return

    @property
    def delayed(self) -> int | None:
        """How many retries this instance has delayed, until they should be back; None: nothing is known."""
        now = self._context.clock.time()
        self._delayed = [due for due in self._delayed if due + _BACK > now]
        return len(self._delayed) or None

    @property
    def takeable(self) -> bool:
        """Whether something is here that may be leased now."""
        suspects, urgent, plain = self.lanes.here
        return bool(urgent or plain or (suspects and not self._suspected()))

    def _suspected(self) -> bool:
        return self._suspect is not None and self._suspect in self.leases

    async def _lease(self, lane: int, here: Here) -> Lease | None:
        """The lease of a message; None for one that is not to be delivered."""
        tag = here.tag or tag_of(here.message)
        try:
            event = event_of(here.message)
        except BusError as error:
            await self._bury_damaged(lane, here, tag, error)
            return None
        done = (self.id, f"{event.event_id}/{tag.copy}") in self._context.settled
        if done or (not tag.copy and (self._aged(tag) or not self._wanted(event, tag))):
            await self.lanes.ack([here.number])
            return None
        token = f"{self._prefix}.{next(self._numbers)}"
        self.leases[token] = Held(here, event, tag, inf, lane, touched=here.tag is not None)
        self._in_hand.add(event.event_id)
        if lane == 0:
            self._suspect = token
        return Lease(
            event=event,
            token=token,
            position=None,
            failures=tag.failures,
            crashes=tag.crashes,
            attempts=tag.attempts,
            redelivered=tag.redelivered,
        )

    def _aged(self, tag: Tag) -> bool:
        age = self._context.max_age
        aged = age is not None and 0 < tag.at < self._context.clock.time() - age
        self._lost += aged
        return aged

    def _wanted(self, event: Event, tag: Tag) -> bool:
        """Whether it was meant for this subscription, and this instance does not have it now."""
        if event.event_id in self._in_hand:
            return False
        return self._context.control.registry.wants(self.id, event, tag.seen)

    def _unlease(self, leases: list[Lease]) -> None:
        """They were not handed on: they are here as before."""
        for lease in reversed(leases):
            held = self._pop(lease.token)
            self.lanes.here[held.lane].appendleft(held.here)

    def _pop(self, token: str) -> Held:
        held = self.leases.pop(token)
        self._in_hand.discard(held.event.event_id)
        return held

    # --- crashes --------------------------------------------------------------------------------------------------

    async def _judge(self) -> bool:
        """What was with somebody before goes to the suspects, unless it was given back untouched. True: some did."""
        self.lanes.back = moved = False
        await self._context.control.sync()
        now = self._context.clock.time()
        for lane, queue in enumerate(self.lanes.here):
            accused: list[tuple[Here, Tag]] = []
            for here in queue:
                if here.tag is not None or not (returns := returns_of(here.message)):
                    continue
                tag = tag_of(here.message)
                if (self.id, name_of(here.message, tag)) in self._context.settled:
                    continue  # it was done here, and only its answer was lost
                crashes = returns - self._excused(here, tag)
                if crashes > 0 and lane == 0:
                    here.tag = tag.crashed(now, crashes)
                elif crashes > 0:
                    accused.append((here, tag.crashed(now, crashes)))
            for here, _ in accused:
                queue.remove(here)
            await self._accuse(accused)
            moved = moved or bool(accused)
        self.lanes.in_order()
        return moved

    def _excused(self, here: Here, tag: Tag) -> int:
        """How often it came back without a crash: given back untouched, or on its way to a consumer that ended.

        Of the second there is no more to be seen than that one ended since it was published.
        """
        registry = self._context.control.registry
        return registry.returns(self.id, name_of(here.message, tag)) + registry.stops(self.id, tag.seen)

    async def _accuse(self, accused: Sequence[tuple[Here, Tag]]) -> None:
        """Copies to the suspects' queue, confirmed; then the messages are acknowledged."""
        if not accused:
            return
        await self.lanes.make_suspects()
        await self._context.link.publish([self._copy(here.message, tag, self.lanes.queues[0]) for here, tag in accused])
        await self.lanes.ack([here.number for here, _ in accused])

    async def _expire(self, over: Sequence[Held]) -> None:
        """Leases that ended. Who was stopped may have lost the line long ago: then others have it all."""
        await self.lanes.reach()
        now = self._context.clock.time()
        await self._accuse([(held.here, held.tag.crashed(now)) for held in over])

    def given_up(self) -> list[str]:
        """The names of what the server takes back with a connection that broke, but for leases that ended before."""
        now = self._context.clock.monotonic()
        here = [held.here for held in self.leases.values() if held.ends > now]
        for lane in self.lanes.here:
            here += lane
        return [name_of(each.message, tag_of(each.message)) for each in here]

    def _end(self) -> None:
        """Leases that ended unsettled are crashes."""
        now = self._context.clock.monotonic()
        over = [self._pop(token) for token in [token for token, held in self.leases.items() if held.ends <= now]]
        if over:
            self.expiry.begin(self._expire(over))
        if self.leases:
            self.expiry.watch(min(held.ends for held in self.leases.values()))

    def _accused(self, error: BaseException | None) -> None:
        if error is not None:
            # What it was about is still unacknowledged: without this connection, the server gives it to the next.
            logger.error("leases that ended cannot be counted now", subscription=self.id, error=error)
            self._context.link.fail(translate(error))
        self.lanes.news.notify()

    # --- settling -------------------------------------------------------------------------------------------------

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """See Broker."""
        if any(isinstance(order, Bury) for order in settlements):
            await self._context.letters.make(self.id)
        self.expiry.look()
        if self.lanes.lost:
            self._note_lost(settlements)
            self._forget()
        popped: dict[str, Held] = {}
        try:
            count = await self._settle(settlements, popped)
        except BaseException:
            self.leases.update(popped)  # what was not carried out may be asked for again
            self._in_hand.update(held.event.event_id for held in popped.values())
            raise
        if count:
            self.lanes.news.notify()
        return count

    async def _settle(self, settlements: Sequence[Settlement], popped: dict[str, Held]) -> int:
        acks: list[int] = []
        back: list[Here] = []
        copies: list[Message] = []
        count = 0
        for order in settlements:  # at one go: a lease may end in any wait
            held = self.leases.get(order.token)
            if held is None:
                continue
            count += 1
            if isinstance(order, Ack):  # nearly all of them
                self._note_settled(held)
                acks.append(held.here.number)
            elif isinstance(order, Extend):
                self._extend(held, order)
                continue
            elif isinstance(order, Retry) and not (order.charge or order.delay > 0 or held.touched):
                back.append(held.here)
            else:
                copies.append(self._become(held, order))
                acks.append(held.here.number)
            popped[order.token] = self._pop(order.token)
        if copies:
            await self._context.link.publish(copies)
        for order in settlements:  # not before: what could not be buried must come again
            if isinstance(order, Bury) and order.token in popped:
                self._note_settled(popped[order.token])
        popped_back = {here.number for here in back}
        await self.lanes.ack(acks)
        for token in [token for token, held in popped.items() if held.here.number not in popped_back]:
            del popped[token]
        await self.lanes.give_back(back)
        return count

    def _note_lost(self, settlements: Sequence[Settlement]) -> None:
        """Of leases that ended with their connection: what was done is not done again here."""
        for order in settlements:
            if isinstance(order, Ack) and order.token in self.leases:
                self._note_settled(self.leases[order.token])

    def _extend(self, held: Held, order: Extend) -> None:
        if order.error is not None:
            held.tag, held.touched = held.tag.failed(self._context.clock.time(), order.error), True
        held.ends = self._context.clock.monotonic() + order.seconds
        self.expiry.watch(held.ends)

    def _become(self, held: Held, order: Retry | Bury) -> Message:
        """The copy that goes on where this lease ends."""
        now, tag, message = self._context.clock.time(), held.tag, held.here.message
        if isinstance(order, Bury):
            return self._context.letters.message(self.id, message, held.event, tag, order)
        if order.charge:
            tag = tag.failed(now, order.error)
        queue = self.lanes.queues[0 if tag.crashes else held.lane]
        if order.delay <= 0:
            return self._copy(message, tag, queue, held.event)
        later = structs.replace(tag, due=now + order.delay, target=queue)
        self._delayed.append(later.due)
        return self._copy(message, later, self._context.names.later, held.event)

    def _copy(self, message: DeliveredMessage, tag: Tag, queue: str, event: Event | None = None) -> Message:
        """The same event with other counts, for one queue alone."""
        id, body = envelope(message, event)
        tag = structs.replace(tag, copy=uuid4().hex[:12], seen=self._context.control.registry.offset)
        return Message("", queue, of_copy(id, tag), body, mandatory=True)

    def _note_settled(self, held: Held) -> None:
        settled = self._context.settled
        for name in held.names:
            settled[self.id, name] = None
        while len(settled) > KNOWN_IDS:
            settled.popitem(last=False)

    async def _bury_damaged(self, lane: int, here: Here, tag: Tag, error: BusError) -> None:
        await self._context.letters.make(self.id)
        id = given_id(here.message) or f"{self._prefix}.{here.number}"
        bury = Bury("", Reason.DESERIALIZATION_ERROR, str(error))
        letter = self._context.letters.message(self.id, here.message, Event(topic="damaged", event_id=id), tag, bury)
        await self._context.link.publish([structs.replace(letter, body=here.message.body)])
        await self.lanes.ack([here.number])
        logger.error("an event cannot be read, it is a dead letter", subscription=self.id, lane=lane, error=error)

    # --- the end --------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """What was leased by a channel that is gone lies in its queue again."""
        self.leases.clear()
        self._in_hand.clear()
        self.lanes.forget()

    async def close(self) -> None:
        """Lease nothing, watch nothing."""
        await self.expiry.close()
        for shared in (self.lanes.starting, self.lanes.writing):
            await shared.close()
        self.lanes.close()
