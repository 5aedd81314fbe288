"""How is an idle consumer woken: a blocking XREADGROUP, or a note that it waits and a PUBLISH?

The blocking read is simple, but each wake-up registers and unregisters every stream. The note: the fetch
script writes `waits` when it finds nothing (atomically, so no wake-up is lost), and the append wakes one
waiter only then. Measured: latency from publish to delivery, and what one event costs the server, by the
number of idle subscriptions beside it.
"""

import asyncio
import time
from typing import Any

import redis.asyncio as redis
from servers import NO_RETRY, redis_server

APPEND = """
redis.call('XADD', KEYS[1], '*', 'e', ARGV[1])
local waiter = redis.call('SPOP', KEYS[2])
if waiter then redis.call('PUBLISH', waiter, KEYS[1]) end
return 1
"""
FETCH = """
local got = redis.call('XREADGROUP', 'GROUP', 'g', ARGV[1], 'COUNT', ARGV[2], 'STREAMS', KEYS[1], '>')
if not got then redis.call('SADD', KEYS[2], ARGV[3]) return {} end
return got[1][2]
"""
EVENTS = 300


def stream(n: int) -> str:
    return f"{{ns}}:q:{n}:n"


def waits(n: int) -> str:
    return f"{{ns}}:q:{n}:waits"


async def blocking(client: Any, streams: int, seen: asyncio.Queue[float]) -> None:
    """One blocking call over every stream, then a round for the next."""
    wanted = {stream(n): ">" for n in range(streams)}
    while True:
        for name, entries in await client.xreadgroup("g", "me", wanted, count=100, block=2000):
            seen.put_nowait(time.perf_counter())
            await client.xack(name, "g", *[entry for entry, _ in entries])


async def woken(client: Any, port: int, streams: int, seen: asyncio.Queue[float]) -> None:
    """Fetch each once, which leaves a note where nothing was; then sleep until a message names the stream."""
    fetch = client.register_script(FETCH)
    async with redis.Redis(port=port, retry=NO_RETRY).pubsub() as channel:
        await channel.subscribe("{ns}:wake:me")
        for n in range(streams):
            await fetch(keys=[stream(n), waits(n)], args=["me", 100, "{ns}:wake:me"])
        async for message in channel.listen():
            if message["type"] != "message":
                continue
            n = int(message["data"].split(b":")[2])
            while entries := await fetch(keys=[stream(n), waits(n)], args=["me", 100, "{ns}:wake:me"]):
                seen.put_nowait(time.perf_counter())
                await client.xack(stream(n), "g", *[entry for entry, _ in entries])


async def measure(client: Any, port: int, how: str, streams: int) -> tuple[float, float]:
    """(median latency in us, server CPU in us per event) with a pause between events, so that each one wakes."""
    await client.flushall()
    for n in range(streams):
        await client.xgroup_create(stream(n), "g", id="0", mkstream=True)
    seen: asyncio.Queue[float] = asyncio.Queue()
    reader = redis.Redis(port=port, retry=NO_RETRY, socket_timeout=10)
    work = blocking(reader, streams, seen) if how == "blocking" else woken(reader, port, streams, seen)
    task = asyncio.create_task(work)
    await asyncio.sleep(0.2)
    append = client.register_script(APPEND)
    latencies = []
    used = await cpu(client)
    for i in range(EVENTS):
        started = time.perf_counter()
        await append(keys=[stream(i % streams), waits(i % streams)], args=["x" * 300])
        latencies.append(await asyncio.wait_for(seen.get(), 5) - started)
        await asyncio.sleep(0.001)
    spent = (await cpu(client) - used) / EVENTS
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await reader.aclose()
    return sorted(latencies)[EVENTS // 2] * 1e6, spent * 1e6


async def cpu(client: Any) -> float:
    """Seconds of processor time the server has used."""
    info = await client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


async def main() -> None:
    with redis_server("--appendfsync", "everysec") as server:
        client: Any = redis.Redis(port=server.port, retry=NO_RETRY)
        for streams in (1, 100, 1000):
            for how in ("blocking", "woken"):
                latency, spent = await measure(client, server.port, how, streams)
                print(
                    f"{streams:5} subscriptions, {how:8}: publish to delivery {latency:5.0f} us, "
                    f"server {spent:5.0f} us an event"
                )
        await client.aclose()


if __name__ == "__main__":
    asyncio.run(main())
