"""Dead letters: a queue for each subscription that has some. To look into it is to take all, under its lock.

    letter sent ──► confirmed ──► delivery acknowledged

Who dies between the last two leaves a letter, and the event in its queue: it is buried again, by then perhaps as a copy
among the suspects. Both letters have one id, since it is made of the event's, and who looks next leaves one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final
from uuid import uuid4

from aiormq.abc import DeliveredMessage
from msgspec import Struct, structs

from wowevent.broker import URGENT, Bury, DeadLetter, DeadQuery, Discard, Redeliver
from wowevent.brokers.rabbitmq.control import Control
from wowevent.brokers.rabbitmq.link import Channel, Link
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.outlet import Message
from wowevent.brokers.rabbitmq.registry import Made
from wowevent.brokers.rabbitmq.tags import number_of, properties, tag_of
from wowevent.clock import Clock
from wowevent.codec import decode, encode
from wowevent.errors import BusError
from wowevent.event import Event
from wowevent.reading import asked_for
from wowevent.tag import Tag
from wowevent.wakeup import Wakeup

DEAD: Final = "dead"
"""How the control log calls the queue."""
_LOOK: Final = 0.005  # seconds
_LOOKS: Final = 400
_QUORUM: Final = {"x-queue-type": "quorum"}
_ALL: Final = 65_000  # letters that are looked through at once


class _Found(Struct, gc=False):
    letter: DeadLetter
    tag: Tag
    delivery_tag: int


class Letters:
    """The dead letters of a namespace."""

    def __init__(self, link: Link, names: Names, control: Control, clock: Clock) -> None:
        """Nothing is asked before it is needed."""
        self._link = link
        self._names = names
        self._control = control
        self._clock = clock

    async def make(self, id: str) -> None:
        """The queue of a subscription."""
        if id not in self._control.registry.known or self._control.has(id, DEAD):
            return
        await self.declare(id)
        await self._control.append(Made(id, DEAD))

    async def declare(self, id: str) -> None:
        """The same, whatever the control log says."""
        queue = self._names.dead(id)
        await self._link.ask("queue_declare", queue, durable=True, arguments=_QUORUM)
        await self._link.ask("queue_bind", queue, self._names.dead_letters, queue)

    def queues(self, id: str) -> list[str]:
        """The queue of a subscription, if it was made."""
        return [self._names.dead(id)] if self._control.has(id, DEAD) else []

    def message(self, id: str, dead: DeliveredMessage, event: Event, tag: Tag, bury: Bury) -> Message:
        """How an event becomes a dead letter; `dead` is the message that it came in."""
        named = dead.header.properties.message_id  # strangers need not: two of theirs may be alike
        letter = f"{_digest(id)}-{_digest(named) if named else uuid4().hex[:16]}"
        tag = structs.replace(tag.buried_by(bury, self._clock.time()), letter=letter)
        queue = self._names.dead(id)
        return Message(self._names.dead_letters, queue, properties(event, tag), encode(event), mandatory=True)

    def _made(self) -> list[str]:
        return [id for id, known in self._control.registry.known.items() if DEAD in known.made]

    async def count(self, id: str) -> int:
        """How many letters a subscription has; a second one of a killed process counts until somebody looks."""
        if not self._control.has(id, DEAD):
            return 0
        queue = self._names.dead(id)
        async with self._link.lock(self._names.lock(queue)):  # else those that somebody looks at would not be counted
            return await self._link.count([queue])

    async def find(self, query: DeadQuery) -> Sequence[DeadLetter]:
        """See Broker."""
        found: list[DeadLetter] = []
        async with aclosing(self.all(query)) as parts:
            async for part in parts:
                found += part
        return sorted(found, key=lambda letter: letter.time)[: query.limit]

    async def all(self, query: DeadQuery) -> AsyncGenerator[list[DeadLetter]]:
        """See Broker: those of one subscription at a time, since a queue can only be taken whole."""
        digests = None if query.ids is None else {id.partition("-")[0] for id in query.ids}
        for id in self._made():
            if query.subscription not in (None, id) or (digests is not None and _digest(id) not in digests):
                continue
            async with self._opened(id) as (letters, _):
                found = [each.letter for each in letters if asked_for(query, each.letter)]
            yield found  # the queue is whole again, and its lock free

    async def resolve(self, orders: Sequence[Redeliver | Discard]) -> int:
        """See Broker."""
        count = 0
        wanted = {order.id: order for order in orders}
        digests = {id.partition("-")[0] for id in wanted}
        for id in self._made():
            if _digest(id) in digests:
                async with self._opened(id) as (letters, settled):
                    chosen = [each for each in letters if each.letter.id in wanted]
                    again = [each for each in chosen if isinstance(wanted[each.letter.id], Redeliver)]
                    await self._link.publish([self._again(id, each) for each in again])
                    settled += [each.delivery_tag for each in chosen]
                    count += len(chosen)
        return count

    def _again(self, id: str, found: _Found) -> Message:
        event, names = found.letter.event, self._names
        spec = self._control.registry.spec(id)
        lanes = spec is None or not spec.exclusive
        queue = names.urgent(id) if lanes and event.priority >= URGENT else names.plain(id)
        tag = Tag(at=found.tag.at, seen=self._control.registry.offset, copy=uuid4().hex[:12], redelivered=True)
        return Message("", queue, properties(event, tag), encode(event), mandatory=True)

    @asynccontextmanager
    async def _opened(self, id: str) -> AsyncIterator[tuple[list[_Found], list[int]]]:
        """All letters of a subscription, and a list for those that are settled; the others are put back."""
        link, queue = self._link, self._names.dead(id)
        async with link.lock(self._names.lock(queue)):
            channel = await link.open_channel()
            try:
                messages = await self._taken(channel, queue, min(await link.count([queue]), _ALL))
                letters = [_found(id, message) for message in messages]
                newest = {each.letter.id: each for each in letters}
                settled = [each.delivery_tag for each in letters if newest[each.letter.id] is not each]
                yield list(newest.values()), settled
                for tag in settled:
                    await link.call(channel.basic_ack(tag, wait=False))
            finally:
                await link.call(channel.close())
            await self._put_back(queue, len(messages) - len(settled))

    async def _put_back(self, queue: str, count: int) -> None:
        """The server takes a moment; whoever looks next must find them all."""
        for _ in range(_LOOKS):
            if await self._link.count([queue]) >= count:
                return
            await asyncio.sleep(_LOOK)

    async def _taken(self, channel: Channel, queue: str, count: int) -> list[DeliveredMessage]:
        messages: list[DeliveredMessage] = []
        news = Wakeup()

        def arrive(message: DeliveredMessage) -> None:
            messages.append(message)
            news.notify()

        async def enough() -> None:
            while len(messages) < count:
                await news.wait()

        if count:
            await self._link.call(channel.basic_qos(prefetch_count=count))
            await self._link.consume(channel, queue, arrive, tag="letters")
            await self._link.call(enough())
        return messages[:count]


def _found(id: str, message: DeliveredMessage) -> _Found:
    tag = tag_of(message)
    try:
        event = decode(message.body)
    except BusError:
        event = Event(
            topic="damaged", timestamp=datetime.fromtimestamp(tag.buried, UTC), event_id=f"damaged-{tag.letter}"
        )
    return _Found(tag.letter_of(tag.letter, event, id), tag, number_of(message))


def _digest(id: str) -> str:
    return blake2b(id.encode(), digest_size=8).hexdigest()
