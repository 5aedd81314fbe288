"""One subscription as one instance serves it: its lanes, what is leased of them, and how that is settled.

    ready in a queue ──► here (asked for, or delivered ahead) ──► leased ──► acknowledged
                                                                   │ ├─ a copy with its counts, confirmed, then acknowledged
                                                                   │ └─ given back as it was: noted, then returned
                                                                   └─ the lease ends: a copy to the suspects

The server counts what it takes back, whatever the reason; what was given back on purpose is noted in the control log,
and what is left of its count are crashes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final
from uuid import uuid4

import structlog
from aiormq.abc import ChannelFrame, DeliveredMessage
from msgspec import Struct, structs
from pamqp.commands import Basic

from wowevent.broker import KNOWN_IDS, URGENT_RUN, Ack, Bury, Extend, Lease, Reason, Retry, Settlement
from wowevent.brokers.rabbitmq.control import Control
from wowevent.brokers.rabbitmq.faults import translate
from wowevent.brokers.rabbitmq.letters import Letters
from wowevent.brokers.rabbitmq.link import Channel, Link, Message
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.registry import Made, Returned
from wowevent.brokers.rabbitmq.tags import Tag, of_copy, returns_of, tag_of
from wowevent.clock import Clock, Timer
from wowevent.codec import decode
from wowevent.errors import BrokerUnavailable, BusError, PositionLost
from wowevent.event import Event
from wowevent.wakeup import Wakeup

logger = structlog.get_logger("wowevent")

SUSPECTS: Final = "suspects"
"""How the control log calls that queue."""
QUORUM: Final[dict[str, Any]] = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}
"""Of every work queue: no dead-letter exchange, and no limit of deliveries that is ever reached, since counting is ours.
Without one, what is given back goes to the queue's end rather than to its old place."""
_AHEAD: Final = 10_000  # messages that the server may wait for to be acknowledged, at most


class Here(Struct, gc=False):
    """One message that the server has given us, and that is not leased."""

    message: DeliveredMessage
    tag: Tag | None = None
    """What it says of itself, where that was corrected."""

    @property
    def number(self) -> int:
        """By which it is acknowledged."""
        return self.message.delivery.delivery_tag or 0


class Held(Struct, gc=False):
    """One leased message."""

    here: Here
    event: Event
    tag: Tag
    ends: float
    """By the monotonic clock."""
    lane: int
    touched: bool = False
    """Its counts are others than those that the message bears."""


class Context(Struct, frozen=True):
    """What serving needs of a session."""

    link: Link
    names: Names
    control: Control
    letters: Letters
    clock: Clock
    settled: OrderedDict[tuple[str, str], None]
    """The ids that this instance settled last, by subscription."""
    max_age: float | None


class Serving:
    """See the module."""

    def __init__(self, id: str, context: Context) -> None:
        """Nothing is asked before the first `take`."""
        self.id: str = id
        self.news: Wakeup = Wakeup()
        """Notified when there may be more to take."""
        self.leases: dict[str, Held] = {}
        """What is leased here, by token."""
        self.lock: Channel | None = None
        """Holds the lock of an exclusive subscription."""
        self._context = context
        self._channel: Channel | None = None
        self._queues = (context.names.suspects(id), context.names.urgent(id), context.names.plain(id))
        self._here: tuple[deque[Here], ...] = (deque(), deque(), deque())
        self._open: dict[int, None] = {}  # what the server has given us and waits for, in its order
        self._back = False  # something is here that was with somebody before
        self._consumers: dict[int, str] = {}
        self._ahead = 0
        self._prefix = uuid4().hex[:8]
        self._numbers = itertools.count()
        self._run = 0
        self._in_hand: set[str] = set()
        self._lost = 0
        self._ends: Timer | None = None
        self._ends_at = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- what is here ---------------------------------------------------------------------------------------------

    @property
    def ready(self) -> int:
        """How many messages are here that are not leased."""
        return sum(map(len, self._here))

    async def _opened(self) -> Channel:
        """The channel that all of its messages come by."""
        if self._channel is None or self._channel.is_closed:
            self._forget()
            channel = await self._context.link.open_channel()
            channel.on_consumer_cancel_callbacks.add(self._cancelled)
            self._channel = channel
        return self._channel

    def _forget(self) -> None:
        """What came by a channel that is gone lies in its queue again."""
        for lane in self._here:
            lane.clear()
        self.leases.clear()
        self._in_hand.clear()
        self._open.clear()
        self._consumers.clear()

    def _cancelled(self, _: Basic.Cancel) -> None:
        """The server ended a consumer: its queue was deleted, or moves."""
        self._context.link.fail(BrokerUnavailable(f"rabbitmq: a queue of {self.id!r} is gone"))

    def _arrive(self, lane: int, message: DeliveredMessage) -> None:
        here = Here(message)
        self._open[here.number] = None
        self._here[lane].append(here)
        self._back = self._back or bool(message.delivery.redelivered)  # type: ignore[union-attr]  # never GetEmpty
        if self.news.waiting:
            self.news.notify()

    def _lanes(self) -> list[int]:
        known = self._context.control.registry.known.get(self.id)
        return [0, 1, 2] if known is not None and SUSPECTS in known.made else [1, 2]

    # --- fetching -------------------------------------------------------------------------------------------------

    async def consume(self, limit: int) -> None:
        """Have what comes delivered, up to `limit` messages of each lane beyond those that are leased."""
        channel, link = await self._opened(), self._context.link
        ahead = min(max(len(self.leases) + limit, self._ahead), _AHEAD)
        if ahead > self._ahead:  # the number is a consumer's for its life
            self._ahead = ahead
            for lane in [lane for lane in self._consumers if lane != 0]:
                await link.call(channel.basic_cancel(self._consumers.pop(lane)))
        for lane in self._lanes():
            if lane not in self._consumers:
                self._consumers[lane] = tag = f"{self._prefix}.{lane}.{next(self._numbers)}"
                await link.call(channel.basic_qos(prefetch_count=1 if lane == 0 else ahead))
                await link.call(channel.basic_consume(self._queues[lane], _told(self._arrive, lane), consumer_tag=tag))

    async def take(self, limit: int, lease: float, *, asking: bool) -> list[Lease]:
        """Lease what is here; with `asking` the queues are asked for more, as long as they have some.

        PositionLost, once, where something was older than the log keeps it.
        """
        await self._opened()
        found: list[Lease] = []
        empty = {0, 1, 2} - set(self._lanes()) if asking else {0, 1, 2}
        ends = self._context.clock.monotonic() + lease
        try:
            while len(found) < limit:
                await self._look(empty)
                if self._back and await self._judge():
                    if asking:
                        empty.discard(0)
                    continue
                if (chosen := self._next(alone=not found)) is None:
                    break
                leased = await self._lease(*chosen, ends)
                if leased is None:
                    if self._lost and found:
                        break
                    continue
                if self._lost and not found:
                    self._unlease([leased])
                    break
                found.append(leased)
                if chosen[0] == 0:
                    break
        except BaseException:
            self._unlease(found)
            raise
        if self._lost and not found:
            lost, self._lost = self._lost, 0
            raise PositionLost(f"{self.id}: {lost} unread events are older than the log keeps them", lost)
        if found:
            self._watch(ends)
        return found

    async def _look(self, empty: set[int]) -> None:
        """Have the head of each lane here, so that there is a choice."""
        for lane in (0, 1, 2):
            if lane in empty or self._here[lane] or (lane == 0 and self._suspected()):
                continue
            assert self._channel is not None
            message = await self._context.link.call(self._channel.basic_get(self._queues[lane]))
            if isinstance(message.delivery, Basic.GetOk):
                self._arrive(lane, message)
            else:
                empty.add(lane)

    def _suspected(self) -> bool:
        return any(held.lane == 0 for held in self.leases.values()) if 0 in self._lanes() else False

    def _next(self, *, alone: bool) -> tuple[int, Here] | None:
        """A suspect, if none is leased and nothing else is taken; else the next of the two lanes."""
        suspects, urgent, plain = self._here
        if suspects and not self._suspected():
            return (0, suspects.popleft()) if alone else None
        if urgent and (self._run < URGENT_RUN or not plain):
            self._run = self._run + 1 if plain else 0
            return 1, urgent.popleft()
        self._run = 0
        return (2, plain.popleft()) if plain else None

    async def _lease(self, lane: int, here: Here, ends: float) -> Lease | None:
        """The lease of a message; None for one that is not to be delivered."""
        tag = here.tag or tag_of(here.message)
        try:
            event = decode(here.message.body)
        except BusError as error:
            await self._bury_damaged(lane, here, tag, error)
            return None
        if not tag.copy and (self._aged(tag) or not self._wanted(event, tag)):
            await self._ack([here.number])
            return None
        token = f"{self._prefix}.{next(self._numbers)}"
        self.leases[token] = Held(here, event, tag, ends, lane, touched=here.tag is not None)
        self._in_hand.add(event.event_id)
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
        """Whether it was meant for this subscription, and this instance has not had it before."""
        if event.event_id in self._in_hand or (self.id, event.event_id) in self._context.settled:
            return False
        return self._context.control.registry.wants(self.id, event, tag.seen)

    def _unlease(self, leases: list[Lease]) -> None:
        """They were not handed on: they are here as before."""
        for lease in reversed(leases):
            held = self._pop(lease.token)
            self._here[held.lane].appendleft(held.here)

    def _pop(self, token: str) -> Held:
        held = self.leases.pop(token)
        self._in_hand.discard(held.event.event_id)
        return held

    # --- crashes --------------------------------------------------------------------------------------------------

    async def _judge(self) -> bool:
        """What was with somebody before goes to the suspects, unless it was given back untouched. True: some did."""
        self._back = moved = False
        await self._context.control.sync()
        now = self._context.clock.time()
        for lane, queue in enumerate(self._here):
            accused: list[tuple[Here, Tag]] = []
            for here in queue:
                if here.tag is not None or not (returns := returns_of(here.message)):
                    continue
                tag = tag_of(here.message)
                crashes = returns - self._context.control.registry.returns(self.id, _name(here.message, tag))
                if crashes > 0 and lane == 0:
                    here.tag = tag.crashed(now, crashes)
                elif crashes > 0:
                    accused.append((here, tag.crashed(now, crashes)))
            for here, _ in accused:
                queue.remove(here)
            await self._accuse(accused)
            moved = moved or bool(accused)
        return moved

    async def _accuse(self, accused: Sequence[tuple[Here, Tag]]) -> None:
        """Copies to the suspects' queue, confirmed; then the messages are acknowledged."""
        if not accused:
            return
        if 0 not in self._lanes():
            await self._context.link.ask("queue_declare", self._queues[0], durable=True, arguments=QUORUM)
            await self._context.control.append(Made(self.id, SUSPECTS))
            if self._consumers:
                await self.consume(self._ahead)
        await self._context.link.publish([_copy(here.message, tag, self._queues[0]) for here, tag in accused])
        await self._ack([here.number for here, _ in accused])

    def _watch(self, ends: float) -> None:
        """Look for leases that ended, then."""
        if self._ends is not None:
            if self._ends_at <= ends:
                return
            self._ends.cancel()
        self._ends_at = ends
        self._ends = self._context.clock.call_later(max(0.0, ends - self._context.clock.monotonic()), self._end)

    def _end(self) -> None:
        """Leases that ended unsettled are crashes."""
        self._ends = None
        now, time = self._context.clock.monotonic(), self._context.clock.time()
        over = [self._pop(token) for token in [token for token, held in self.leases.items() if held.ends <= now]]
        if over:
            self._begin(self._accuse([(held.here, held.tag.crashed(time)) for held in over]))
        if self.leases:
            self._watch(min(held.ends for held in self.leases.values()))

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work, name="rabbitmq:crashes")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # What it was about is still unacknowledged: without this connection, the server gives it to the next.
            logger.error("leases that ended cannot be counted now", subscription=self.id, error=error)
            self._context.link.fail(translate(error))
        self.news.notify()

    async def flush(self) -> None:
        """Return once the leases that ended by now are where they belong."""
        self._end_now()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _end_now(self) -> None:
        if self._ends is not None and self._ends_at <= self._context.clock.monotonic():
            self._ends.cancel()
            self._end()

    # --- settling -------------------------------------------------------------------------------------------------

    async def settle(self, settlements: Sequence[Settlement]) -> int:
        """See Broker."""
        self._end_now()
        if self._channel is not None and self._channel.is_closed:
            self.settle_lost(settlements)
            self._forget()
        popped: dict[str, Held] = {}
        try:
            count = await self._settle(settlements, popped)
        except BaseException:
            self.leases.update(popped)  # what was not carried out may be asked for again
            self._in_hand.update(held.event.event_id for held in popped.values())
            raise
        if count:
            self.news.notify()
        return count

    async def _settle(self, settlements: Sequence[Settlement], popped: dict[str, Held]) -> int:
        acks: list[int] = []
        back: list[Here] = []
        copies: list[Message] = []
        count = 0
        for order in settlements:
            held = self.leases.get(order.token)
            if held is None:
                continue
            count += 1
            if type(order) is Ack:  # nearly all of them
                self._note_settled(held.event.event_id)
                acks.append(held.here.number)
            elif isinstance(order, Extend):
                self._extend(held, order)
                continue
            elif isinstance(order, Retry) and not (order.charge or order.delay > 0 or held.touched):
                back.append(held.here)
            else:
                copies.append(await self._become(held, order))
                acks.append(held.here.number)
            popped[order.token] = self._pop(order.token)
        if copies:
            await self._context.link.publish(copies)
        popped_back = {here.number for here in back}
        await self._ack(acks)
        for token in [token for token, held in popped.items() if held.here.number not in popped_back]:
            del popped[token]
        await self._give_back(back)
        return count

    def settle_lost(self, settlements: Sequence[Settlement]) -> None:
        """Of leases that ended with their connection: what was done is not done again here."""
        for order in settlements:
            if isinstance(order, Ack) and order.token in self.leases:
                self._note_settled(self.leases[order.token].event.event_id)

    def _extend(self, held: Held, order: Extend) -> None:
        if order.error is not None:
            held.tag, held.touched = held.tag.failed(self._context.clock.time(), order.error), True
        held.ends = self._context.clock.monotonic() + order.seconds
        self._watch(held.ends)

    async def _become(self, held: Held, order: Retry | Bury) -> Message:
        """The copy that goes on where this lease ends."""
        now, tag, message = self._context.clock.time(), held.tag, held.here.message
        if isinstance(order, Bury):
            await self._context.letters.make(self.id)
            self._note_settled(held.event.event_id)
            return self._context.letters.message(self.id, held.event, tag, order)
        if order.charge:
            tag = tag.failed(now, order.error)
        queue = self._queues[0 if tag.crashes else held.lane]
        if order.delay <= 0:
            return _copy(message, tag, queue)
        later = structs.replace(tag, due=now + order.delay, target=queue)
        return _copy(message, later, self._context.names.later)

    def _note_settled(self, event_id: str) -> None:
        settled = self._context.settled
        settled[self.id, event_id] = None
        if len(settled) > KNOWN_IDS:
            settled.popitem(last=False)

    async def _ack(self, numbers: list[int]) -> None:
        """As one answer, as far as nothing before them is open."""
        channel, done = self._channel, {number for number in numbers if number in self._open}
        if not done or channel is None or channel.is_closed:
            return
        upto = 0
        for number in self._open:
            if number not in done:
                break
            upto = number
        frames = [Basic.Ack(delivery_tag=upto, multiple=True)] if upto else []
        frames += [Basic.Ack(delivery_tag=number) for number in sorted(done) if number > upto]
        for number in done:
            del self._open[number]
        await self._send(channel, frames)

    async def _give_back(self, back: list[Here]) -> None:
        """As it was, to its place: noted first, since the server counts whatever comes back."""
        channel = self._channel
        if not back or channel is None or channel.is_closed:
            return
        names = tuple(_name(here.message, tag_of(here.message)) for here in back)
        await self._context.control.append(Returned(self.id, names))
        numbers = sorted(here.number for here in back)
        for number in numbers:
            self._open.pop(number, None)
        await self._send(channel, [Basic.Nack(delivery_tag=number, requeue=True) for number in numbers])

    async def _send(self, channel: Channel, frames: list[Any]) -> None:
        await self._context.link.call(channel.write_queue.put(ChannelFrame.marshall(channel.number, frames)))

    async def _bury_damaged(self, lane: int, here: Here, tag: Tag, error: BusError) -> None:
        await self._context.letters.make(self.id)
        id = here.message.header.properties.message_id or f"{self._prefix}.{here.number}"
        letter = self._context.letters.message(
            self.id, Event(topic="damaged", event_id=id), tag, Bury("", Reason.DESERIALIZATION_ERROR, str(error))
        )
        await self._context.link.publish([structs.replace(letter, body=here.message.body)])
        await self._ack([here.number])
        logger.error("an event cannot be read, it is a dead letter", subscription=self.id, lane=lane, error=error)

    # --- the end --------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Have nothing more delivered, and give back what is not leased."""
        channel, link = self._channel, self._context.link
        if channel is None or channel.is_closed or link.error is not None:
            return
        for lane in list(self._consumers):
            await link.call(channel.basic_cancel(self._consumers.pop(lane)))
        self._ahead = 0
        back = [here for lane in self._here for here in lane if here.tag is None]
        for lane in self._here:
            lane.clear()
        await self._give_back(back)

    async def purge(self) -> int:
        """Drop what is here and not leased."""
        numbers = [here.number for lane in self._here for here in lane]
        for lane in self._here:
            lane.clear()
        await self._ack(numbers)
        return len(numbers)

    async def close(self) -> None:
        """Lease nothing, watch nothing."""
        if self._ends is not None:
            self._ends.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._channel is not None and self._context.link.error is None:
            self._context.link.drop(self._channel)
        self.news.notify()


def _told(arrive: Callable[[int, DeliveredMessage], None], lane: int) -> Callable[[DeliveredMessage], Any]:
    async def told(message: DeliveredMessage) -> None:
        arrive(lane, message)

    return told


def _copy(message: DeliveredMessage, tag: Tag, queue: str) -> Message:
    """The same event with other counts, for one queue alone."""
    id = message.header.properties.message_id or ""
    return Message("", queue, of_copy(id, structs.replace(tag, copy=uuid4().hex[:12])), message.body, mandatory=True)


def _name(message: DeliveredMessage, tag: Tag) -> str:
    """Which message of a queue it is, whoever has it."""
    return f"{message.header.properties.message_id}/{tag.copy}"
