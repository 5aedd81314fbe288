"""What is delayed: retries, and events that are published later.

All of it lies in one queue, which one instance at a time reads, whole: it holds what is not due yet unacknowledged, and
sends it on when it is. Should that instance end, the next one is delivered all of it again. So a delay has no grain, it
needs no queue for each length, and it goes by the clock that was given. What waits for long is written to the queue's
end again, before the server takes it back (`consumer_timeout`, half an hour unless set otherwise).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Any, Final

from aiormq.abc import DeliveredMessage
from msgspec import structs

from wowevent.brokers.rabbitmq.control import Control
from wowevent.brokers.rabbitmq.link import Channel, Link, unrouted
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.outlet import Message
from wowevent.brokers.rabbitmq.registry import Cancelled, Held, Left
from wowevent.brokers.rabbitmq.tags import number_of, of_copy, properties, returns_of, tag_of
from wowevent.clock import Clock, Timer
from wowevent.codec import decode, encode
from wowevent.errors import BrokerError, BusError
from wowevent.event import Event
from wowevent.log import logger
from wowevent.tag import Tag

QUEUE: Final[dict[str, Any]] = {"x-queue-type": "quorum", "x-single-active-consumer": True}
"""Of the queue."""
_HELD: Final = 60_000  # messages that one instance holds
_AGAIN: Final = 600.0  # seconds after which what is held is written anew
_SOON: Final = 1.0  # seconds until what could not be sent on is tried again


class Delays:
    """The queue, as one instance sees it."""

    def __init__(self, link: Link, names: Names, control: Control, clock: Clock) -> None:
        """Nothing is read before `start`."""
        self._link = link
        self._names = names
        self._control = control
        self._clock = clock
        self._channel: Channel | None = None
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, DeliveredMessage, Tag]] = []
        self._timer: Timer | None = None
        self._releasing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the queue, if nobody else does."""
        channel = self._channel = await self._link.open_channel()
        self._link.needs(channel)
        await self._link.call(channel.basic_qos(prefetch_count=_HELD))
        await self._link.consume(channel, self._names.later, self._arrive, tag="later")

    def close(self) -> None:
        """Send nothing on any more; the server gives what is held to the next."""
        if self._timer is not None:
            self._timer.cancel()
        if self._releasing is not None:
            self._releasing.cancel()

    # --- in -------------------------------------------------------------------------------------------------------

    def message(self, event: Event, tag: Tag) -> Message:
        """How something gets in: `tag` says when it is due, and which queue it goes to then."""
        return Message("", self._names.later, properties(event, tag), encode(event), mandatory=True)

    async def hold(self, event: Event, tag: Tag) -> bool:
        """Keep an event until it is due; False if its id is known already."""
        if self._control.registry.delayed(event.event_id):
            return False
        await self._link.publish([self.message(event, tag)])  # first: what is noted, and not there, would be lost
        return not await self._control.append(Held(event.event_id))

    async def cancel(self, event_id: str) -> bool:
        """Let it not leave; False if it has left, or is not known."""
        return bool(await self._control.append(Cancelled(event_id)) == "held")

    # --- out ------------------------------------------------------------------------------------------------------

    def _arrive(self, message: DeliveredMessage) -> None:
        tag = tag_of(message)
        again = self._clock.time() + _AGAIN
        heapq.heappush(self._due, (min(tag.due, again), next(self._numbers), message, tag))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due and self._link.error is None:
            self._timer = self._clock.call_later(max(0.0, self._due[0][0] - self._clock.time()), self._release_due)

    def _release_due(self) -> None:
        self._timer = None
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.create_task(self._release(), name="rabbitmq:delays")

    async def flush(self) -> None:
        """Return once what is due now has left."""
        if self._due and self._due[0][0] <= self._clock.time():
            self._release_due()
        if self._releasing is not None and not self._releasing.done():
            await asyncio.wait([self._releasing])

    async def _release(self) -> None:
        while self._due and self._due[0][0] <= self._clock.time():
            items: list[tuple[float, int, DeliveredMessage, Tag]] = []
            while self._due and self._due[0][0] <= self._clock.time() and len(items) < _HELD:
                items.append(heapq.heappop(self._due))
            results = await asyncio.gather(*(self._send_on(message, tag) for _, _, message, tag in items))
            failed = [item for item, sent in zip(items, results, strict=True) if not sent]
            for _, number, message, tag in failed:
                heapq.heappush(self._due, (self._clock.time() + _SOON, number, message, tag))
            if failed:
                break
        self._set_timer()

    async def _send_on(self, message: DeliveredMessage, tag: Tag) -> bool:
        """Confirmed where it goes, then acknowledged here."""
        try:
            if (out := await self._out(message, tag)) is not None:
                await self._publish(out)
            assert self._channel is not None  # noqa: S101 - for the type checker
            await self._link.call(self._channel.basic_ack(number_of(message), wait=False))
        except BrokerError as error:
            logger.debug("what is due cannot leave now", error=error)
            return False
        return True

    async def _publish(self, out: Message) -> None:
        try:
            await self._link.publish([out])
        except BrokerError as error:
            if not (unrouted(error) and not out.exchange):
                raise  # the subscription that it came from is forgotten: so is this

    async def _out(self, message: DeliveredMessage, tag: Tag) -> Message | None:
        """What it leaves as."""
        try:
            event = decode(message.body)
        except BusError as error:  # a newer version may understand it
            logger.error("a delayed event cannot be read, and stays where it is", error=error)
            kept = structs.replace(tag, due=self._clock.time() + _AGAIN)
            props = of_copy(message.header.properties.message_id or "", kept)
            return Message("", self._names.later, props, message.body, mandatory=True)
        if tag.due > self._clock.time():  # it has waited for long, and goes on waiting
            return self.message(event, tag)
        left = structs.replace(tag, due=0.0, target="", seen=self._control.registry.offset)
        if tag.target:
            return Message("", tag.target, properties(event, left), message.body, mandatory=True)
        before = await self._control.append(Left(event.event_id))
        if before == "cancelled" or (before == "left" and not returns_of(message)):
            return None  # taken back; or the second copy of one that was published twice
        left = structs.replace(left, at=self._clock.time(), seen=self._control.registry.offset)  # it may have moved on
        exchange, key = self._names.exchange(event.topic), event.routing_key
        return Message(exchange, key, properties(event, left), message.body, mandatory=True, stream="history")
