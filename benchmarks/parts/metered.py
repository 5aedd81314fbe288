"""What one busy named subscription takes of publisher, consumer and server; and what many take that get nothing."""

from __future__ import annotations

import asyncio
import time

from benchmarks.part import Record, Setting, Signal
from benchmarks.parts import bus as plain
from benchmarks.parts.bus import Handled, subscribe
from benchmarks.parts.engine import Engine
from benchmarks.parts.rabbitmq_bus import left
from benchmarks.parts.router import resident
from wowevent import Event, EventBus


async def publisher(setting: Setting, signal: Signal) -> Record:
    """As that of `bus`."""
    record = await plain.publisher(setting, signal)
    record.values["publisher"] = record.cpu
    return record


async def consumer(setting: Setting, signal: Signal) -> Record:
    """As that of `bus`; it also says what the server took."""
    bus = EventBus(setting.url)
    handled = Handled(setting.count)
    await subscribe(bus, handled, batch=False)
    async with bus:
        engine = Engine(setting.url)
        await signal.ready()
        before = engine.cpu()
        await handled.all.wait()
        values = {"consumer": signal.cpu(), "engine": engine.cpu() - before}
    values["lost"] = await left(setting.url)
    return Record(ended=handled.ended, handled=handled.ids, cpu=values["consumer"], values=values)


async def idle(setting: Setting, signal: Signal) -> Record:
    """So many named subscriptions of one process; at the end each gets one event, to show that it was there."""
    woken = set()
    topics = [f"idle-{number}.waked" for number in range(setting.count)]

    async def handle(event: Event) -> None:
        woken.add(event.topic)

    async with EventBus(setting.url) as bus:
        await bus.subscribe("first.one", handle, "first")
        engine = Engine(setting.url)
        await signal.ready()
        record = Record(started=time.monotonic())
        before = (resident(), engine.resident())
        for number, topic in enumerate(topics):
            await bus.subscribe(topic, handle, f"idle-{number}")
        declared = time.monotonic() - record.started
        record.values = await _spent(engine, setting.options["settle"], setting.options["idle"])
        memory = {"kib": resident() - before[0], "engine_kib": engine.resident() - before[1]}
        record.values |= {name: size / 1024 / setting.count for name, size in memory.items()}
        record.values["declared_ms"] = 1000 * declared / setting.count
        await bus.publish_many([Event(topic=topic, source_agent="bench") for topic in topics])
        await bus.join(60)
        record.ended = time.monotonic()
    record.values["lost"] = float(len(set(topics) - woken))
    return record


async def _spent(engine: Engine, settle: float, seconds: float) -> dict[str, float]:
    """Per cent of a core while nothing happens, here and by the server."""
    await asyncio.sleep(settle)
    began, before = time.monotonic(), (time.process_time(), engine.cpu())
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    spent = (time.process_time() - before[0], engine.cpu() - before[1])
    return {"percent": 100 * spent[0] / took, "engine_percent": 100 * spent[1] / took}
