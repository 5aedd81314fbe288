"""The messages of one subscription that the server has given this instance: its lanes, and what is answered.

0 suspects   what is delivered alone; the queue is made when there is one
1 urgent     priority 7 and up
2 plain
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from uuid import uuid4

from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from msgspec import Struct
from pamqp.commands import Basic

from wowevent.broker import URGENT_RUN
from wowevent.brokers.rabbitmq.control import Control
from wowevent.brokers.rabbitmq.link import Channel, Link
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.registry import Made, Returned, Stopped
from wowevent.brokers.rabbitmq.tags import name_of, number_of, returns_of, tag_of
from wowevent.errors import BrokerUnavailable
from wowevent.shared import Shared
from wowevent.tag import Tag
from wowevent.wakeup import Wakeup

QUORUM: Final[dict[str, Any]] = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}
"""Of every work queue: no dead-letter exchange, and no limit of deliveries that is ever reached, for counting is ours.
Without a limit, what is given back goes to the queue's end rather than to its old place."""
SUSPECTS: Final = "suspects"
"""How the control log calls that queue."""
YOUNG: Final = 1.5
"""Seconds after which a quorum queue survives: where its log lies is written down up to a second late."""
_BACK: Final = 1_000  # messages that were given back, and are put in order
_AHEAD: Final = 10_000  # messages that the server may wait for to be acknowledged, at most
_COMING: Final = -1  # the lane of a message that the server has given, and that is not here yet

T = TypeVar("T")


class Here(Struct):
    """One message that the server has given us."""

    message: DeliveredMessage
    number: int
    """By which it is acknowledged."""
    tag: Tag | None = None
    """What it says of itself, where that was corrected."""


class Lanes:
    """See the module."""

    def __init__(self, id: str, link: Link, names: Names, control: Control) -> None:
        """Nothing is asked before it is needed."""
        self.news: Wakeup = Wakeup()
        """Notified when there may be more."""
        self.here: tuple[deque[Here], ...] = (deque(), deque(), deque())
        """What is not leased, by lane."""
        self.back: bool = False
        """Something came that was with somebody before."""
        self.urgent: bool = False
        """An urgent one was taken, and whether there is another one was not asked since: it may be on its way."""
        self.queues: tuple[str, str, str] = (names.suspects(id), names.urgent(id), names.plain(id))
        """The queues, by lane."""
        self._id = id
        self._locked = names.lock(f"suspects.{id}")
        self._link = link
        self._control = control
        self._channel: Channel | None = None
        self._open: dict[int, int] = {}  # what the server waits for, in its order, and the lane of each
        self._newest = 0  # the highest number of those that came
        self._consumers: dict[str, tuple[int, int]] = {}  # by tag: the lane, and how many messages it may be ahead
        self._wanted = 0
        self.starting: Shared[None] = Shared(self._start)
        """Has consumers for what is wanted."""
        self._unwritten: list[Any] = []  # answers
        self.writing: Shared[None] = Shared(self._write)
        """Tells the server what was answered."""
        self._asked = 0  # messages that the server was asked for, and did not answer yet
        self._heard = Wakeup()
        self._stopping = 0  # calls of `stop` under way
        self._prefix = uuid4().hex[:8]
        self._numbers = itertools.count()
        self._run = 0

    def __len__(self) -> int:
        """How many messages are here that are not leased."""
        return sum(map(len, self.here))

    @property
    def lost(self) -> bool:
        """Whether the channel is gone, and with it all that came by it: that lies in its queues again."""
        return self._channel is not None and self._channel.is_closed

    @property
    def consuming(self) -> bool:
        """Whether messages are delivered without being asked for."""
        return bool(self._consumers)

    def present(self) -> list[int]:
        """The lanes whose queues are there."""
        return [0, 1, 2] if self._control.has(self._id, SUSPECTS) else [1, 2]

    async def open(self) -> None:
        """Have a channel that messages come by. Whoever has leases asks for `lost` before.

        What a `stop` is about to give back lies before what would come first: that is waited for.
        """
        while self._stopping:
            await self._heard.wait()
        if self._channel is None or self._channel.is_closed:
            self.forget()
            channel = await self._link.open_channel()
            channel.on_consumer_cancel_callbacks.add(self._cancelled)
            self._channel = channel

    def forget(self) -> None:
        """Nothing is here."""
        for lane in self.here:
            lane.clear()
        self._open.clear()
        self._newest = 0
        self._unwritten.clear()
        self._consumers.clear()

    def _cancelled(self, cancel: Basic.Cancel) -> None:
        """The server ended a consumer: its queue was deleted, or moves. Who takes the next finds out what it is."""
        self._consumers.pop(cancel.consumer_tag or "", None)
        self.news.notify()

    async def _ask(self, work: Awaitable[T]) -> T:
        """An answer about a queue. One that is missing, of a subscription that is known, was deleted by somebody."""
        try:
            return await work
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, ChannelNotFoundEntity):
                await self._control.sync()
                if self._id in self._control.registry.known:
                    self._link.fail(BrokerUnavailable(f"rabbitmq: a queue of {self._id!r} is gone"))
            raise

    def _arrive(self, lane: int, message: DeliveredMessage) -> None:
        here = Here(message, number_of(message))
        # One that was asked for gets here later than what was delivered behind it: an answer for many stops before it.
        for number in range(self._newest + 1, here.number):
            self._open[number] = _COMING
        self._newest = max(self._newest, here.number)
        self._open[here.number] = lane
        self.here[lane].append(here)
        self.back = self.back or bool(message.delivery.redelivered)  # type: ignore[union-attr]  # it is no GetEmpty
        if self.news.waiting:
            self.news.notify()

    async def make_suspects(self) -> None:
        """The queue of what is delivered alone. Nothing is put into it before it would survive the server's death.

        It is needed because something has died, which may die again at once. A queue that was too young then comes
        back without a leader: it answers nobody, and nothing heals it but to delete it.
        """
        if 0 in self.present():
            return
        link, queue = self._link, self.queues[0]
        async with link.lock(self._locked):
            await self._control.sync()
            if 0 not in self.present():
                async with link.apart() as ask:
                    if await link.there([queue]) and not await link.count([queue]):
                        await ask("queue_delete", queue)  # whoever began to make it did not end
                    await ask("queue_declare", queue, durable=True, arguments=QUORUM)
                await asyncio.sleep(YOUNG)
                await self._control.append(Made(self._id, SUSPECTS))
        if self._consumers:
            await self.consume(self._wanted)

    # --- in -------------------------------------------------------------------------------------------------------

    async def consume(self, ahead: int) -> None:
        """Have what comes delivered, of each lane up to `ahead` messages that are not acknowledged."""
        self._wanted = min(max(ahead, self._wanted), _AHEAD)
        if self.lost or self.starting.busy or any(self._lacks(lane) for lane in self.present()):
            await self.starting()

    async def _start(self) -> None:
        """One at a time: a prefetch is said to the channel, and holds for the consumer that comes next, for its life.

        Who wants more has one more. One that is cancelled to make room gives back, as redelivered, what is on its way.
        """
        await self.open()
        channel, link = self._channel, self._link
        assert channel is not None  # noqa: S101 - for the type checker
        for lane in self.present():
            if (more := self._lacks(lane)) > 0:
                await link.call(channel.basic_qos(prefetch_count=more))
                if not self._wanted:  # it was told to stop meanwhile
                    return
                tag = f"{self._prefix}.{lane}.{next(self._numbers)}"
                self._consumers[tag] = lane, more
                await self._ask(link.consume(channel, self.queues[lane], partial(self._arrive, lane), tag=tag))

    def _lacks(self, lane: int) -> int:
        """How many more messages of a lane the server is to deliver without being asked."""
        if lane == 0 and 0 in self._open.values():  # one that was asked for: until it is answered, no second one
            return 0
        wanted = self._wanted if lane else 1
        return max(0, wanted - sum(count for at, count in self._consumers.values() if at == lane))

    async def look(self, lanes: set[int]) -> None:
        """Ask for a message of each of these lanes that has none here; those that are empty leave the set.

        What was given back lies before the others, in the order of its return: all of that is asked for.
        """
        for lane in sorted(lanes):
            while not self.here[lane] or (self.back and len(self.here[lane]) < _BACK):
                message = await self._ask(self._link.call(self._get(lane)))
                if not isinstance(message.delivery, Basic.GetOk):
                    self.urgent = self.urgent and lane != 1
                    lanes.discard(lane)
                    break
                if lane == 0 or not message.delivery.redelivered:
                    break

    async def _get(self, lane: int) -> DeliveredMessage:
        """One message, if there is one: it lies here then, though who asked may have left."""
        assert self._channel is not None  # noqa: S101 - for the type checker
        self._asked += 1
        try:
            message = await self._channel.basic_get(self.queues[lane])
        finally:
            self._asked -= 1
            self._heard.notify()
        if isinstance(message.delivery, Basic.GetOk):
            self._arrive(lane, message)
        return message

    async def _answered(self) -> None:
        while self._asked:
            await self._heard.wait()

    def in_order(self) -> None:
        """What was given back, in the order in which it was published."""
        for lane in (1, 2):
            back = [here for here in self.here[lane] if returns_of(here.message)]
            if back:
                rest = [here for here in self.here[lane] if not returns_of(here.message)]
                self.here[lane].clear()
                self.here[lane].extend([*sorted(back, key=_published), *rest])

    def next(self) -> tuple[int, Here] | None:
        """Urgent first, and after every eight of those one other."""
        _, urgent, plain = self.here
        if urgent and (self._run < URGENT_RUN or not plain):
            self.urgent = True
            self._run = self._run + 1 if plain else 0
            return 1, urgent.popleft()
        self._run = 0
        return (2, plain.popleft()) if plain else None

    # --- out ------------------------------------------------------------------------------------------------------

    async def ack(self, numbers: Sequence[int]) -> None:
        """Done with these: one answer, as far as nothing before them is open."""
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
        await self._answer(done, frames)

    async def reach(self) -> None:
        """Return once what the server has sent so far is here.

        BrokerUnavailable if it has given what is here to others. It is asked: a dead line says nothing.
        """
        if self._channel is not None:
            await self._link.call(self._channel.flow(active=True))

    async def give_back(self, back: Sequence[Here]) -> None:
        """As they were, to their places: noted first, since the server counts whatever comes back."""
        channel = self._channel
        if not back or channel is None or channel.is_closed:
            return
        names = tuple(name_of(here.message, tag_of(here.message)) for here in back)
        await self._control.append(Returned(self._id, names))
        numbers = sorted(here.number for here in back)
        await self._answer(numbers, [Basic.Nack(delivery_tag=number, requeue=True) for number in numbers])

    async def _answer(self, numbers: Sequence[int] | set[int], frames: Sequence[Any]) -> None:
        for number in numbers:
            self._open.pop(number, None)
        self._unwritten += frames
        await self.writing()

    async def _write(self) -> None:
        """One write at a time: should an answer for many overtake one of those, that would be unknown to the server.

        To a channel that is gone nothing is said: the connection would end with it.
        """
        channel, frames = self._channel, self._unwritten
        self._unwritten = []
        if frames and channel is not None and not channel.is_closed:
            await self._link.call(_written(channel, frames))

    async def stop(self, now: float) -> None:
        """Have nothing more delivered, and give back what is not leased."""
        channel = self._channel
        if channel is None or channel.is_closed or self._link.error is not None:
            return
        self._wanted = 0
        self._stopping += 1
        try:
            await self._stop(channel, now)
        finally:
            self._stopping -= 1
            self._heard.notify()

    async def _stop(self, channel: Channel, now: float) -> None:
        if self._consumers:
            most = max(Counter(lane for lane, _ in self._consumers.values()).values())
            await self._control.append(Stopped(self._id, now, most))
        while self._consumers:
            tag, _ = self._consumers.popitem()
            await self._link.call(channel.basic_cancel(tag))
        if self._asked:  # somebody left while the server was asked: what it gives lies here, too
            await self._link.call(self._answered())
        back = [here for lane in self.here for here in lane if here.tag is None]
        for lane in self.here:
            lane.clear()
        await self.give_back(back)

    async def purge(self) -> int:
        """Drop what is here and not leased."""
        numbers = [here.number for lane in self.here for here in lane]
        for lane in self.here:
            lane.clear()
        await self.ack(numbers)
        return len(numbers)

    def close(self) -> None:
        """The channel ends; what came by it goes back to its queues."""
        if self._channel is not None and self._link.error is None:
            self._link.drop(self._channel)
        self.news.notify()


async def _written(channel: Channel, frames: Sequence[Any]) -> None:
    """Returns once the system has it: from then on, our end takes nothing back."""
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames, drain_future=done))
    await done


def _published(here: Here) -> tuple[float, str]:
    """When: the ids that we make grow with time."""
    return tag_of(here.message).at, here.message.header.properties.message_id or ""
