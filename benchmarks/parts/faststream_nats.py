"""FastStream on JetStream with a durable consumer, as its documentation shows it; runs in an environment of its own.

Its access log is off and a publish waits longer than its half second; all else is its default: the server pushes, and
each event is acknowledged when its handler has returned. It warns that a pull consumer is better for several instances;
here, asking for 100 at a time, that one was slower.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import nats
from faststream.nats import JStream, NatsBroker  # type: ignore[import-not-found] # only where this part runs

from benchmarks.body import Messages, id_of
from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.nats_left import DURABLE, STREAM, SUBJECT, left, made


async def publisher(setting: Setting, signal: Signal) -> Record:
    """So many publishers at once, each awaiting each."""
    publishers, messages = setting.options["publishers"], Messages(setting.options["size"])
    async with NatsBroker(setting.url, logger=None) as broker:
        await broker.start()

        async def each(first: int) -> None:
            for number in range(first, setting.count, publishers):
                await broker.publish(messages.plain(number), SUBJECT, stream=STREAM, timeout=30)

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
    broker = NatsBroker(setting.url, logger=None)

    @broker.subscriber(SUBJECT, stream=JStream(STREAM, declare=False), durable=DURABLE)
    async def handle(message: dict[str, Any]) -> None:
        handled.append(message["id"])
        if len(handled) == setting.count:
            record.ended = time.monotonic()
            done.set()

    async with await nats.connect(setting.url) as connection:
        js = connection.jetstream()
        await made(js)
        async with broker:
            await broker.start()
            await signal.ready()
            await done.wait()
            record.cpu = signal.cpu()
            record.values["lost"] = await left(js)
    return record
