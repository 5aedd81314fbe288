"""The raw peer on RabbitMQ: aio-pika, one quorum queue, persistent, confirmed, as its documentation shows it.

Publishing goes by the default exchange, straight into the queue. The consumer acknowledges the last of what came in one
turn of the loop, and with it all before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aio_pika
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from benchmarks.body import Messages, id_of
from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.bus import percentiles, steadily
from benchmarks.parts.rabbitmq_left import left
from benchmarks.parts.rabbitmq_message import QUEUE, QUORUM

_GATHERED = 100
_PREFETCH = 500


async def publisher(setting: Setting, signal: Signal) -> Record:
    """Gathered by 100, or with `one` each awaited by itself."""
    at_once = 1 if setting.options.get("one") else _GATHERED
    async with await aio_pika.connect(setting.url) as connection:
        publish = _publishing(await connection.channel(), setting)
        await signal.ready()
        began = time.monotonic()
        for at in range(0, setting.count, at_once):
            if at_once == 1:
                await publish(at)
            else:
                await asyncio.gather(*map(publish, range(at, min(setting.count, at + at_once))))
        ended = time.monotonic()
        ids = [id_of(number) for number in range(setting.count)]
        return Record(started=began, ended=ended, published=ids, cpu=signal.cpu())


async def consumer(setting: Setting, signal: Signal) -> Record:
    """Handles and acknowledges only."""
    async with await aio_pika.connect(setting.url) as connection:
        handled: list[str] = []
        taking = await Taking.start(await connection.channel(), handled.append)
        await signal.ready()
        await taking.settle(setting.count)
        record = Record(ended=taking.ended, handled=handled, cpu=signal.cpu())
    record.values["lost"] = await left(setting.url)
    return record


async def latency(setting: Setting, signal: Signal) -> Record:
    """Publish to handler, in milliseconds, at a steady rate that waits for nothing; a connection for each direction."""
    sent: dict[str, float] = {}
    taken: dict[str, float] = {}

    def take(id: str) -> None:
        taken[id] = time.monotonic()

    async with await aio_pika.connect(setting.url) as writer, await aio_pika.connect(setting.url) as reader:
        taking = await Taking.start(await reader.channel(), take)
        publish = _publishing(await writer.channel(), setting)

        async def timed(number: int) -> None:
            sent[id_of(number)] = time.monotonic()
            await publish(number)

        await signal.ready()
        began = time.monotonic()
        await asyncio.gather(steadily(setting, timed), taking.settle(setting.count))
        record = Record(started=began, ended=taking.ended, published=list(sent), handled=list(taken))
        record.cpu = signal.cpu()
    record.values = percentiles([taken[id] - sent[id] for id in sent])
    record.values["lost"] = await left(setting.url)
    return record


def _publishing(channel: AbstractChannel, setting: Setting) -> Callable[[int], Awaitable[None]]:
    """`publish(n)`, which returns when the server has confirmed it; a channel does so unless it is told not to."""
    exchange, messages = channel.default_exchange, Messages(setting.options["size"])

    async def publish(number: int) -> None:
        body = messages.encoded(number)
        message = Message(body, message_id=id_of(number), delivery_mode=DeliveryMode.PERSISTENT)
        await exchange.publish(message, QUEUE)

    return publish


class Taking:
    """One consumer of the queue."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self.ended = 0.0
        """When the last one was handled."""
        self._take = take
        self._taken = 0
        self._came = asyncio.Event()
        self._newest: AbstractIncomingMessage

    @classmethod
    async def start(cls, channel: AbstractChannel, take: Callable[[str], None]) -> Taking:
        """Make the queue and consume it; `take` gets the ids."""
        await channel.set_qos(prefetch_count=_PREFETCH)
        queue: AbstractQueue = await channel.declare_queue(QUEUE, durable=True, arguments=QUORUM)
        self = cls(take)
        await queue.consume(self._handle)
        return self

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        self._take(str(message.message_id))
        self._taken += 1
        self._newest = message
        self._came.set()

    async def settle(self, count: int) -> None:
        """Acknowledge what comes, until so many were."""
        settled = 0
        while settled < count:
            await self._came.wait()
            self._came.clear()
            settled, self.ended = self._taken, time.monotonic()
            await self._newest.ack(multiple=True)
