"""A channel on which messages are published and confirmed, as many in one write as there are.

What goes into a stream goes on a channel on which everything goes into that stream, once. When a stream's leader
changes, the server sends what is not confirmed to the new one, and numbers it as the channel's confirms are numbered;
its own numbers count what went into the stream. Where these differ, it takes as many messages behind that for ones that
it has, and confirms them without storing them (RabbitMQ 3.10).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Literal

from aiormq import Channel
from aiormq.abc import ChannelFrame
from msgspec import Struct
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from wowevent.errors import BrokerUnavailable
from wowevent.wakeup import Wakeup

AT_ONCE: Final = 500
"""Messages, or methods, in one write,"""
_BYTES: Final = 2**20  # and bytes

Stream = Literal["", "history", "control"]
"""The one that a message goes into; none, where it goes into queues only."""
STREAMS: Final[tuple[Stream, ...]] = ("", "history", "control")


class Message(Struct, frozen=True, gc=False):
    """What is published: always confirmed; `mandatory` makes it an error if no queue takes it."""

    exchange: str
    key: str
    properties: Basic.Properties
    body: bytes
    mandatory: bool = False
    stream: Stream = ""


class Outlet:
    """See the module."""

    def __init__(self, channel: Channel) -> None:
        """A channel with confirms, and nothing published on it yet."""
        self._channel = channel
        self._queue: list[tuple[Message, asyncio.Future[Any]]] = []
        self._news = Wakeup()
        self._writing = asyncio.create_task(self._write(), name="rabbitmq:publish")

    def put(self, message: Message) -> asyncio.Future[Any]:
        """It is written in its turn; what becomes of it."""
        answer = asyncio.get_running_loop().create_future()
        self._queue.append((message, answer))
        self._news.notify()
        return answer

    async def retire(self, patience: float) -> Channel:
        """Nothing is put here any more: return the channel once all is answered, or that many seconds have passed."""
        try:
            if waiting := self._unanswered():
                await asyncio.wait(waiting, timeout=patience)
        finally:
            self.fail(BrokerUnavailable("rabbitmq: the channel was given up"))
        return self._channel

    def fail(self, error: Exception) -> None:
        """Nothing is written any more: what waits is told."""
        self._writing.cancel()
        for answer in self._unanswered():
            answer.set_exception(error)
            answer.exception()
        self._queue.clear()

    def _unanswered(self) -> list[asyncio.Future[Any]]:
        answers = [*(answer for _, answer in self._queue), *self._channel.confirmations.values()]
        return [answer for answer in answers if isinstance(answer, asyncio.Future) and not answer.done()]

    async def ended(self) -> None:
        """Return once it has ended, behind `fail`."""
        await asyncio.gather(self._writing, return_exceptions=True)

    async def _write(self) -> None:
        """What gathered while the last write was under way goes in one write; so tags and frames keep one order."""
        channel = self._channel
        while True:
            if not self._queue:
                await self._news.wait()
                continue
            frames: list[Any] = []
            size = count = 0
            for message, answer in self._queue[:AT_ONCE]:
                count += 1
                channel.delivery_tag += 1
                channel.confirmations[channel.delivery_tag] = answer
                if message.mandatory:
                    ids = channel.message_id_delivery_tag
                    ids[message.properties.message_id or ""] = channel.delivery_tag
                    answer.add_done_callback(partial(_forget, ids, message.properties.message_id or ""))
                frames += _frames(message, channel.max_content_size)
                size += len(message.body)
                if size > _BYTES:
                    break
            del self._queue[:count]
            if frames:
                await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))


def _frames(message: Message, most: int) -> Sequence[Any]:
    publish = Basic.Publish(exchange=message.exchange, routing_key=message.key, mandatory=message.mandatory)
    body = message.body
    parts = [ContentBody(body[start : start + most]) for start in range(0, len(body), most)]
    return [publish, ContentHeader(body_size=len(body), properties=message.properties), *parts]


def _forget(ids: dict[str, int], id: str, _: asyncio.Future[Any]) -> None:
    ids.pop(id, None)
