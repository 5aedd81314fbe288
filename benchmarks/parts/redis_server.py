"""What our calls cost the Redis server, by its own account: the time of its scripts, and its processor time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from benchmarks.load import PATTERN, event
from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.bus import Handled, publish_and_wait, subscribe
from wowevent import Event, EventBus
from wowevent.broker import Ack, Broker, Query, Subscription
from wowevent.brokers import open_broker


class Account:
    """What the server spent since it was opened."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._before = (0.0, 0.0, 0.0)

    async def open(self) -> None:
        self._before = await self._now()

    async def spent(self) -> tuple[float, float, float]:
        """Seconds: in scripts, of the processor, and by the clock."""
        at, before = await self._now(), self._before
        return at[0] - before[0], at[1] - before[1], at[2] - before[2]

    async def _now(self) -> tuple[float, float, float]:
        facts: dict[str, Any] = await self._redis.info("commandstats", "cpu")
        scripts = facts.get("cmdstat_evalsha", {}).get("usec", 0) / 1e6
        return scripts, facts["used_cpu_user"] + facts["used_cpu_sys"], time.monotonic()


async def steps(setting: Setting, signal: Signal) -> Record:
    """Publish in calls of so many events, to so many subscriptions; then fetch and settle what one of them has."""
    batch, matching = setting.options["batch"], setting.options["matching"]
    events = [event(number) for number in range(setting.count)]
    calls = [events[at : at + batch] for at in range(0, setting.count, batch)]
    broker = open_broker(setting.url)
    ids = [f"matching-{number}" for number in range(matching)]
    for id in ids:
        await broker.declare(Subscription(id=id, patterns=(PATTERN,), agent="matching"))
    async with Redis.from_url(setting.url) as redis:
        await broker.ping()
        account = Account(redis)
        await signal.ready()
        record = Record(started=time.monotonic(), published=[each.event_id for each in events])
        await account.open()
        for call in calls:
            await broker.publish(call)
        record.values |= _each("publish", await account.spent(), setting.count)
        infos = [await broker.info(id) for id in ids]
        record.values["lost"] = sum(abs(setting.count - info.ready) for info in infos if info is not None)
        if ids:
            await account.open()
            record.handled = await _fetched(broker, ids[0], batch)
            record.values |= _each("settle", await account.spent(), setting.count)
            info = await broker.info(ids[0])
            record.values["lost"] += info is None or info.ready + (info.leased or 0)
        else:
            record.handled = [stored.event.event_id async for stored in broker.read(Query())]
        record.ended = time.monotonic()
    await broker.close()
    return record


def _each(step: str, spent: Sequence[float], count: int) -> dict[str, float]:
    """Microseconds an event."""
    kinds = ("scripts", "cpu", "clock")
    return {f"{step}_{kind}": 1e6 * seconds / count for kind, seconds in zip(kinds, spent, strict=True)}


async def _fetched(broker: Broker, id: str, batch: int) -> list[str]:
    """Everything that is ready, fetched and settled."""
    found: list[str] = []
    while leases := await broker.fetch(id, limit=batch, wait=0):
        found += [lease.event.event_id for lease in leases]
        await broker.settle(id, [Ack(lease.token) for lease in leases])
    return found


async def served(setting: Setting, signal: Signal) -> Record:
    """`both`, beside so many other named subscriptions that are served here and get nothing until the end.

    First what all of them cost while nothing happens; at the end each gets one event, to show that it was there.
    """
    options, woken = setting.options, set()
    bus = EventBus(setting.url)
    handled = Handled(setting.count)
    await subscribe(bus, handled, batch=False)

    async def handle(event: Event) -> None:
        woken.add(event.topic)

    topics = [f"other-{number}.waked" for number in range(options["others"])]
    for number, topic in enumerate(topics):
        await bus.subscribe(topic, handle, f"other-{number}")
    async with bus, Redis.from_url(setting.url) as redis:
        values = await _idle(redis, options["settle"], options["idle"])
        record = await publish_and_wait(bus, handled, setting, signal)
        await bus.publish_many([Event(topic=topic, source_agent="bench") for topic in topics])
        await bus.join(30)
    record.values |= values
    record.values["lost"] += len(set(topics) - woken)
    return record


async def _idle(redis: Redis, settle: float, seconds: float) -> dict[str, float]:
    """Connections of the process, and per cent of a core that it and the server take while nothing happens."""
    await asyncio.sleep(settle)
    account = Account(redis)
    await account.open()
    before = time.process_time()
    await asyncio.sleep(seconds)
    own = time.process_time() - before
    _, server, clock = await account.spent()
    connections = len(await redis.client_list()) - 1  # that one is ours
    return {
        "connections": float(connections),
        "client_percent": 100 * own / clock,
        "server_percent": 100 * server / clock,
    }
