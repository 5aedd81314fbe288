"""FastStream on a quorum queue, as its documentation shows it; runs in an environment of its own.

Its access log is off and its consumer is sent 500 events ahead; all else is its default: publishes are confirmed, and
each event is acknowledged when its handler has returned.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue  # type: ignore[import-not-found] # as above

from benchmarks.body import Messages, id_of
from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.rabbitmq_left import left
from benchmarks.parts.rabbitmq_message import QUEUE

_PREFETCH = 500


async def publisher(setting: Setting, signal: Signal) -> Record:
    """So many publishers at once, each awaiting each."""
    publishers, messages = setting.options["publishers"], Messages(setting.options["size"])
    async with RabbitBroker(setting.url, logger=None) as broker:
        await broker.start()

        async def each(first: int) -> None:
            for number in range(first, setting.count, publishers):
                await broker.publish(messages.plain(number), queue=QUEUE, persist=True)

        await signal.ready()
        began = time.monotonic()
        await asyncio.gather(*map(each, range(publishers)))
        ended = time.monotonic()
        ids = [id_of(number) for number in range(setting.count)]
        return Record(started=began, ended=ended, published=ids, cpu=signal.cpu())


async def consumer(setting: Setting, signal: Signal) -> Record:
    """Handles and acknowledges only."""
    handled: list[str] = []
    record = Record(handled=handled)
    done = asyncio.Event()
    broker = RabbitBroker(setting.url, logger=None, default_channel=Channel(prefetch_count=_PREFETCH))

    @broker.subscriber(RabbitQueue(QUEUE, queue_type=QueueType.QUORUM, durable=True))
    async def handle(message: dict[str, Any]) -> None:
        handled.append(message["id"])
        if len(handled) == setting.count:
            record.ended = time.monotonic()
            done.set()

    async with broker:
        await broker.start()
        await signal.ready()
        await done.wait()
        record.cpu = signal.cpu()
        await asyncio.sleep(0.5)  # the last one's acknowledgement is on its way when its handler returns
    record.values["lost"] = await left(setting.url)
    return record
