"""The raw peer on Redis: redis-py with hiredis on one stream and one group, the way its documentation shows it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from redis.asyncio import Redis

from benchmarks.load import payload
from benchmarks.part import Record, Setting, Signal

_STREAM, _GROUP = "events", "workers"
_PIPELINED = 100
_AT_ONCE = 500
_encode = msgspec.json.Encoder().encode


async def both(setting: Setting, signal: Signal) -> Record:
    """Publisher and consumer in one process, each on a connection of its own."""
    async with Redis.from_url(setting.url) as writer, Redis.from_url(setting.url) as reader:
        await _make_group(reader)
        await signal.ready()
        began = time.monotonic()
        handled, ids = await asyncio.gather(_consume(reader, setting.count), _publish(writer, setting))
        record = Record(started=began, ended=time.monotonic(), published=ids, handled=handled, cpu=signal.cpu())
        record.values["lost"] = await _pending(reader)
    return record


async def publisher(setting: Setting, signal: Signal) -> Record:
    """Publishes only."""
    async with Redis.from_url(setting.url) as redis:
        await redis.ping()
        await signal.ready()
        began = time.monotonic()
        ids = await _publish(redis, setting)
        return Record(started=began, ended=time.monotonic(), published=ids, cpu=signal.cpu())


async def consumer(setting: Setting, signal: Signal) -> Record:
    """Handles and acknowledges only."""
    async with Redis.from_url(setting.url) as redis:
        await _make_group(redis)
        await signal.ready()
        handled = await _consume(redis, setting.count)
        record = Record(ended=time.monotonic(), handled=handled, cpu=signal.cpu())
        record.values["lost"] = await _pending(redis)
    return record


async def _make_group(redis: Redis) -> None:
    await redis.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)


async def _publish(redis: Redis, setting: Setting) -> list[str]:
    """Gathered by 100, or with `one` each awaited by itself."""
    at_once = 1 if setting.options.get("one") else _PIPELINED
    ids = [f"event-{number:012d}-0000-0000-000000000000" for number in range(setting.count)]  # as long as a UUID
    for at in range(0, setting.count, at_once):
        numbers = range(at, min(setting.count, at + at_once))
        if at_once == 1:
            await redis.xadd(_STREAM, {"id": ids[at], "body": _encode(payload(at))})
            continue
        pipe = redis.pipeline(transaction=False)
        for number in numbers:
            pipe.xadd(_STREAM, {"id": ids[number], "body": _encode(payload(number))})
        await pipe.execute()
    return ids


async def _consume(redis: Redis, count: int) -> list[str]:
    handled: list[str] = []
    while len(handled) < count:
        found: Any = await redis.xreadgroup(_GROUP, "one", {_STREAM: ">"}, count=_AT_ONCE, block=5_000)
        for _, entries in found.items() if isinstance(found, dict) else found:
            flat = entries[0] if entries and isinstance(entries[0], list) else entries
            handled.extend([fields[b"id"].decode() for _, fields in flat])
            await redis.xack(_STREAM, _GROUP, *[entry for entry, _ in flat])
    return handled


async def _pending(redis: Redis) -> int:
    return int((await redis.xpending(_STREAM, _GROUP))["pending"])
