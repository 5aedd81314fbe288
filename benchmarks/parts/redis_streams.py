"""The raw peer on Redis: redis-py with hiredis on one stream and one group, the way its documentation shows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.body import id_of, payload
from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.bus import percentiles, steadily

_STREAM, _GROUP = "events", "workers"
_PIPELINED = 100
_AT_ONCE = 500
_CONNECTIONS = 100
_encode = msgspec.json.Encoder().encode


async def both(setting: Setting, signal: Signal) -> Record:
    """Publisher and consumer in one process, each on a connection of its own."""
    async with Redis.from_url(setting.url) as writer, Redis.from_url(setting.url) as reader:
        await _make_group(reader)
        await signal.ready()
        began = time.monotonic()
        handled, ids = await asyncio.gather(_consume(reader, setting), _publish(writer, setting))
        record = Record(started=began, ended=time.monotonic(), published=ids, handled=handled, cpu=signal.cpu())
        record.values["lost"] = await _left(reader, setting)
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
        handled = await _consume(redis, setting)
        record = Record(ended=time.monotonic(), handled=handled, cpu=signal.cpu())
        record.values["lost"] = await _left(redis, setting)
    return record


async def appender(setting: Setting, signal: Signal) -> Record:
    """Publishes to nobody; what was stored is read back from the stream."""
    async with Redis.from_url(setting.url) as redis:
        await redis.ping()
        await signal.ready()
        record = Record(started=time.monotonic())
        record.published = await _publish(redis, setting)
        record.ended, record.cpu = time.monotonic(), signal.cpu()
        stored: Any = await redis.xrange(_STREAM)
        record.handled = [fields[b"id"].decode() for _, fields in stored]
    return record


async def latency(setting: Setting, signal: Signal) -> Record:
    """Publish to handler, in milliseconds, at a steady rate that waits for nothing; connections for each direction."""
    sent: dict[str, float] = {}
    taken: dict[str, float] = {}

    def take(ids: list[str]) -> None:
        taken.update(dict.fromkeys(ids, time.monotonic()))

    # A pool that makes who publishes wait for a connection, where the plain one would raise.
    pool = BlockingConnectionPool.from_url(setting.url, max_connections=_CONNECTIONS, timeout=60)
    async with Redis.from_pool(pool) as writer, Redis.from_url(setting.url) as reader:
        await _make_group(reader)

        async def publish(number: int) -> None:
            id = id_of(number)
            sent[id] = time.monotonic()
            await writer.xadd(_STREAM, {"id": id, "body": _encode(payload(number))})

        await signal.ready()
        began = time.monotonic()
        handled, _ = await asyncio.gather(_consume(reader, setting, take), steadily(setting, publish))
        record = Record(started=began, ended=time.monotonic(), published=list(sent), handled=handled, cpu=signal.cpu())
        record.values = percentiles([taken[id] - sent[id] for id in sent])
        record.values["lost"] = await _left(reader, setting)
    return record


async def _make_group(redis: Redis) -> None:
    await redis.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)


async def _publish(redis: Redis, setting: Setting) -> list[str]:
    """Gathered by 100, or with `one` each awaited by itself."""
    at_once = 1 if setting.options.get("one") else _PIPELINED
    ids = [id_of(number) for number in range(setting.count)]
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


async def _consume(redis: Redis, setting: Setting, take: Callable[[list[str]], None] | None = None) -> list[str]:
    """Acknowledge what one read brought; with `delete`, take it from the stream too, in the same round trip."""
    handled: list[str] = []
    at_once, delete = setting.options.get("at_once", _AT_ONCE), setting.options.get("delete", False)
    while len(handled) < setting.count:
        found: Any = await redis.xreadgroup(_GROUP, "one", {_STREAM: ">"}, count=at_once, block=5_000)
        for _, entries in found.items() if isinstance(found, dict) else found:
            flat = entries[0] if entries and isinstance(entries[0], list) else entries
            ids = [fields[b"id"].decode() for _, fields in flat]
            handled.extend(ids)
            if take is not None:
                take(ids)
            done = [entry for entry, _ in flat]
            if delete:
                pipe = redis.pipeline(transaction=False)
                pipe.xack(_STREAM, _GROUP, *done)
                pipe.xdel(_STREAM, *done)
                await pipe.execute()
            else:
                await redis.xack(_STREAM, _GROUP, *done)
    return handled


async def _left(redis: Redis, setting: Setting) -> int:
    """What is not acknowledged, or, where that is done, not deleted."""
    pending = int((await redis.xpending(_STREAM, _GROUP))["pending"])
    return pending + (int(await redis.xlen(_STREAM)) if setting.options.get("delete") else 0)
