"""Publish to handler through the router at a steady rate: by bare sockets, and by EventRouterClient at both ends."""

from __future__ import annotations

import asyncio
import re
import time

from benchmarks.load import PATTERN, event
from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.bus import percentiles, steadily
from benchmarks.parts.sockets import Client, publishing, subscribed
from wowevent import Event
from wowevent.client import EventRouterClient

_EVENT_ID = re.compile(rb'"event_id":"([^"]+)"')


async def sockets(setting: Setting, signal: Signal) -> Record:
    """Two bare connections: what is the router's and the kernel's of it."""
    url = setting.url.partition("#")[0]
    made = [publishing(number) for number in range(setting.count)]
    times = _Times(setting.count)

    async def publish(number: int) -> None:
        id, frame = made[number]
        times.sent[id] = time.monotonic()
        publisher.socket.write(frame)

    subscriber = await subscribed(
        url, lambda data: times.take(data[at.start(1) : at.end(1)].decode() for at in _EVENT_ID.finditer(data))
    )
    publisher = await Client.connect(f"{url}/publish", lambda _data: None)
    record = await times.measure(setting, signal, publish)
    await asyncio.gather(publisher.leave(), subscriber.leave())
    return record


async def clients(setting: Setting, signal: Signal) -> Record:
    """Two of our clients, each publish awaited by a task of its own."""
    url = setting.url.partition("#")[0]
    times = _Times(setting.count)

    async def handle(event: Event) -> None:
        times.take((event.event_id,))

    async def publish(number: int) -> None:
        one = event(number)
        times.sent[one.event_id] = time.monotonic()
        await publisher.publish(one)

    async with EventRouterClient(url) as subscriber, EventRouterClient(url) as publisher:
        await subscriber.subscribe([PATTERN], callback=handle)
        return await times.measure(setting, signal, publish)


class _Times:
    """When each event was published, and when it was handled."""

    def __init__(self, count: int) -> None:
        self.sent: dict[str, float] = {}
        self.taken: dict[str, float] = {}
        self._count = count
        self._done = asyncio.Event()

    def take(self, ids) -> None:
        now = time.monotonic()
        for id in ids:
            self.taken[id] = now
        if len(self.taken) >= self._count:
            self._done.set()

    async def measure(self, setting: Setting, signal: Signal, publish) -> Record:
        await signal.ready()
        began = time.monotonic()
        await steadily(setting, publish)
        await self._done.wait()
        record = Record(started=began, ended=time.monotonic(), published=list(self.sent), handled=list(self.taken))
        record.cpu = signal.cpu()
        record.values = percentiles([self.taken[id] - self.sent[id] for id in self.sent])
        return record
