"""FastStream on a Redis stream with a group, as its documentation shows it; runs in an environment of its own.

Its access log is off and a read takes at most 100 events; all else is its default: each event is acknowledged when its
handler has returned, and the stream keeps what was acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from faststream.redis import RedisBroker, StreamSub  # type: ignore[import-not-found] # only where this part runs
from redis.asyncio import Redis

from benchmarks.body import id_of, payload
from benchmarks.part import Record, Setting, Signal

_STREAM, _GROUP = "events", "workers"
_AT_ONCE = 100


async def publisher(setting: Setting, signal: Signal) -> Record:
    """So many publishers at once, each awaiting each."""
    publishers = setting.options["publishers"]
    ids = [id_of(number) for number in range(setting.count)]
    async with RedisBroker(setting.url, logger=None) as broker:
        await broker.start()

        async def each(first: int) -> None:
            for number in range(first, setting.count, publishers):
                await broker.publish({"id": ids[number], "body": payload(number)}, stream=_STREAM)

        await signal.ready()
        began = time.monotonic()
        await asyncio.gather(*map(each, range(publishers)))
        return Record(started=began, ended=time.monotonic(), published=ids, cpu=signal.cpu())


async def consumer(setting: Setting, signal: Signal) -> Record:
    """Handles and acknowledges only."""
    handled: list[str] = []
    record = Record()
    done = asyncio.Event()
    broker = RedisBroker(setting.url, logger=None)
    stream = StreamSub(_STREAM, group=_GROUP, consumer="one", max_records=_AT_ONCE)

    @broker.subscriber(stream=stream)
    async def handle(message: dict[str, Any]) -> None:
        handled.append(message["id"])
        if len(handled) == setting.count:
            record.ended = time.monotonic()
            done.set()

    async with Redis.from_url(setting.url) as redis:
        # From the first event on: FastStream makes the group where the stream ends.
        await redis.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)
        async with broker:
            await broker.start()
            await signal.ready()
            await done.wait()
            record.cpu = signal.cpu()
            record.values["lost"] = await _pending(redis)
    record.handled = handled
    return record


async def _pending(redis: Redis) -> int:
    """What is not acknowledged; the last one's acknowledgement is on its way when its handler returns."""
    left = 0
    for _ in range(100):
        left = int((await redis.xpending(_STREAM, _GROUP))["pending"])
        if not left:
            return 0
        await asyncio.sleep(0.05)
    return left
