"""Routers over one engine, and clients that are spread over them: anonymous ones that all get everything, and workers.

publisher ──► router ──┐              ┌── router ──► half of the clients
publisher ──► router ──┴── engine ────┴── router ──► the other half         one router: all of them there
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from msgspec import structs

from benchmarks.part import Record, Setting, Signal
from benchmarks.parts import router
from benchmarks.parts.acknowledging import TOKEN, ack
from benchmarks.parts.engine import Engine
from benchmarks.parts.sockets import Client, Counter, Publisher, Seen, masked, publishing, subscribed


async def first(setting: Setting, signal: Signal) -> Record:
    """The router at the first port."""
    return await _serve(setting, signal, 0)


async def second(setting: Setting, signal: Signal) -> Record:
    """The one at the second."""
    return await _serve(setting, signal, 1)


async def _serve(setting: Setting, signal: Signal, number: int) -> Record:
    urls, _, engine = setting.url.partition("#")
    record = await router.serve(structs.replace(setting, url=f"{urls.split(',')[number]}#{engine}"), signal)
    record.values[f"router_{number}"] = record.values.pop("server_cpu")
    return record


class Share:
    """What a publisher has to wait for: its part of what a subscriber has seen, which is of all publishers."""

    def __init__(self, whole: Seen, publishers: int) -> None:
        self._whole = whole
        self._publishers = publishers

    @property
    def seen(self) -> int:
        """See Seen."""
        return self._whole.seen // self._publishers


class Publishers:
    """One at each router, each with its part of the events."""

    def __init__(self, setting: Setting, watched: Sequence[Seen]) -> None:
        self._urls = urls_of(setting)
        made = [publishing(number) for number in range(setting.count)]
        self.ids: list[str] = [id for id, _ in made]
        shares = [Share(whole, len(self._urls)) for whole in watched]
        window = setting.options["window"] // len(self._urls)
        self._all = [
            Publisher([frame for _, frame in made[number :: len(self._urls)]], window, shares, confirmed=True)
            for number in range(len(self._urls))
        ]
        self._clients: list[Client] = []

    async def connect(self) -> None:
        """Before it begins."""
        for url, publisher in zip(self._urls, self._all, strict=True):
            self._clients.append(await Client.connect(f"{url}/publish", publisher.take))

    def begin(self) -> None:
        """Send the first window."""
        for publisher, client in zip(self._all, self._clients, strict=True):
            publisher.client = client
        self.pump()

    def pump(self) -> None:
        """Somebody has seen more."""
        for publisher in self._all:
            publisher.pump()

    async def end(self) -> int:
        """Wait until each is confirmed or refused; how many were refused."""
        for publisher in self._all:
            await publisher.answered.wait()
        await asyncio.gather(*(client.leave() for client in self._clients))
        return sum(publisher.refused for publisher in self._all)


async def fan_out(setting: Setting, signal: Signal) -> Record:
    """Anonymous subscribers, who all get everything; the first one's messages are kept, the others' only counted."""
    urls, subscribers = urls_of(setting), setting.options["subscribers"]
    publishers: Publishers

    def moved() -> None:
        publishers.pump()

    edge = {*range(len(urls)), *range(subscribers - len(urls), subscribers)}  # first and last of each router
    counters = [
        Counter(setting.count, moved if number in edge else None, keep=not number) for number in range(subscribers)
    ]
    publishers = Publishers(setting, [counters[number] for number in sorted(edge)])
    clients = [
        await subscribed(urls[number % len(urls)], counter.take, batch=True) for number, counter in enumerate(counters)
    ]
    await publishers.connect()
    record, engine = await _begun(setting, signal, publishers)
    for counter in counters:
        await counter.all.wait()
    _ended(record, signal, engine)
    record.values["lost"] = float(await publishers.end() + sum(abs(setting.count - each.seen) for each in counters))
    await asyncio.gather(*(each.leave() for each in clients))
    record.handled = counters[0].ids
    return record


class Worker:
    """One of the clients that share a subscription; it acknowledges each message's events, the very last at the end."""

    def __init__(self, moved: Callable[[], None]) -> None:
        self.counter: Counter = Counter(2**62, self._got, keep=True)
        self.client: Client | None = None
        self._moved = moved
        self._held: list[bytes] = []

    def _got(self) -> None:
        self._held += TOKEN.findall(self.counter.kept[-1])
        if self.client is not None and len(self._held) > 1:
            self.client.socket.write(masked(ack(self._held[:-1])))
            del self._held[:-1]
        self._moved()

    async def settle(self) -> None:
        """Acknowledge what is left, and wait until all is settled."""
        if self.client is not None and self._held:
            await self.client.ask(ack(self._held, b',"ref":1'), b"settled")


class All:
    """What all of them have seen together."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers

    @property
    def seen(self) -> int:
        """See Seen."""
        return sum(worker.counter.seen for worker in self._workers)


async def share(setting: Setting, signal: Signal) -> Record:
    """Clients that share one named subscription: each event goes to one of them, and is settled at the end."""
    options, urls = setting.options, urls_of(setting)
    all_seen = asyncio.Event()
    publishers: Publishers

    def moved() -> None:
        publishers.pump()
        if all_of_them.seen >= setting.count:
            all_seen.set()

    workers = [Worker(moved) for _ in range(options["subscribers"])]
    all_of_them = All(workers)
    publishers = Publishers(setting, [all_of_them])
    wish = b',"name":"%b","credit":%d' % (options["name"].encode(), options["credit"])
    for number, worker in enumerate(workers):
        url = urls[number % len(urls)]
        worker.client = await subscribed(url, worker.counter.take, batch=True, settings=wish)
    await publishers.connect()
    record, engine = await _begun(setting, signal, publishers)
    await all_seen.wait()
    await asyncio.gather(*(worker.settle() for worker in workers))
    _ended(record, signal, engine)
    record.values["lost"] = float(await publishers.end())
    await asyncio.gather(*(worker.client.leave() for worker in workers if worker.client is not None))
    record.handled = [id for worker in workers for id in worker.counter.ids]
    return record


def urls_of(setting: Setting) -> list[str]:
    """The routers'."""
    return setting.url.partition("#")[0].split(",")


async def _begun(setting: Setting, signal: Signal, publishers: Publishers) -> tuple[Record, Engine]:
    """Once all parts are ready."""
    engine = Engine(setting.url.partition("#")[2])
    await signal.ready()
    record = Record(started=time.monotonic(), published=publishers.ids)
    record.values["engine"] = -engine.cpu()
    publishers.begin()
    return record, engine


def _ended(record: Record, signal: Signal, engine: Engine) -> None:
    record.ended, record.cpu = time.monotonic(), signal.cpu()
    record.values["engine"] += engine.cpu()
    record.values["clients"] = record.cpu
