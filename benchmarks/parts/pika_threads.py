"""The raw peer of our blocking bus: pika's BlockingConnection, quorum queue, persistent, each publish confirmed.

Runs in an environment of its own. A connection of pika is one thread's: 16 threads have one each, or share one under a
lock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack, closing

import pika  # type: ignore[import-not-found,import-untyped,unused-ignore] # only where this part runs

from benchmarks.body import Messages, id_of
from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.rabbitmq_message import QUEUE, QUORUM


async def publisher(setting: Setting, signal: Signal) -> Record:
    """So many `threads`, `shared` on one connection or not; then all that came is read from the queue."""
    threads, shared = setting.options["threads"], setting.options.get("shared", False)
    messages, lock = Messages(setting.options["size"]), threading.Lock()
    with ExitStack() as stack:
        channels = [_channel(stack, setting.url) for _ in range(1 if shared else threads)]
        channels[0].queue_declare(QUEUE, durable=True, arguments=QUORUM)

        def publish(first: int) -> list[str]:
            channel, ids = channels[first % len(channels)], []
            for number in range(first, setting.count, threads):
                id = id_of(number)
                properties = pika.BasicProperties(delivery_mode=2, message_id=id)
                body = messages.encoded(number)
                if shared:
                    with lock:
                        channel.basic_publish("", QUEUE, body, properties, mandatory=True)
                else:
                    channel.basic_publish("", QUEUE, body, properties, mandatory=True)
                ids.append(id)
            return ids

        await signal.ready()
        record = Record(started=time.monotonic())
        found = await asyncio.gather(*(asyncio.to_thread(publish, first) for first in range(threads)))
        record.ended, record.cpu = time.monotonic(), signal.cpu()
    record.published = [id for ids in found for id in ids]
    record.handled = await asyncio.to_thread(_read, setting.url)
    return record


def _channel(stack: ExitStack, url: str):
    channel = stack.enter_context(closing(pika.BlockingConnection(pika.URLParameters(url)))).channel()
    channel.confirm_delivery()
    return channel


def _read(url: str) -> list[str]:
    """Everything that is in the queue."""
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        found = connection.channel().consume(QUEUE, auto_ack=True, inactivity_timeout=1)
        ids: list[str] = []
        for _, properties, _ in found:
            if properties is None:
                return ids
            ids.append(properties.message_id)
    return ids
