"""Our blocking bus: so many threads share it, each waiting for each publish; then its queue is read."""

from __future__ import annotations

import asyncio
import threading
import time

from benchmarks.load import TOPIC, event
from benchmarks.part import Record, Setting, Signal
from wowevent import Event
from wowevent.blocking import EventBus

_QUEUE = "worker"
_WITHIN = 100.0


async def publisher(setting: Setting, signal: Signal) -> Record:
    """What is measured ends with the last confirm."""
    threads, bus = setting.options["threads"], EventBus(setting.url)
    handled: list[str] = []
    done = threading.Event()

    def handle(event: Event) -> None:
        handled.append(event.event_id)
        if len(handled) == setting.count:
            done.set()

    def publish(first: int) -> list[str]:
        ids = []
        for number in range(first, setting.count, threads):
            one = event(number)
            if bus.publish(one):
                ids.append(one.event_id)
        return ids

    await asyncio.to_thread(bus.subscribe, _QUEUE, [f"{TOPIC}.*"], handle)
    await signal.ready()
    record = Record(started=time.monotonic())
    found = await asyncio.gather(*(asyncio.to_thread(publish, first) for first in range(threads)))
    record.ended, record.cpu = time.monotonic(), signal.cpu()
    record.published = [id for ids in found for id in ids]
    await asyncio.to_thread(bus.start_consuming, _QUEUE, False)
    await asyncio.to_thread(done.wait, _WITHIN)
    await asyncio.to_thread(bus.close)
    record.handled = handled
    record.values["lost"] = setting.count - len(record.published)
    return record
