"""WowEvent's side of every workload, on whichever engine its URL names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from benchmarks.figures import percentile
from benchmarks.load import PATTERN, event
from benchmarks.part import Record, Setting, Signal
from wowevent import Event, EventBus
from wowevent import Subscription as Handle
from wowevent.broker import Broker, Retention, Subscription
from wowevent.brokers import open_broker

WORKER = "worker"
_BATCH = 500


class Handled:
    """What came to the one handler, and the end of it."""

    def __init__(self, count: int) -> None:
        self.ids: list[str] = []
        self.ended = 0.0
        self.all = asyncio.Event()
        self._count = count

    def take(self, events: list[Event]) -> None:
        self.ids.extend([each.event_id for each in events])
        if len(self.ids) >= self._count:
            self.ended = time.monotonic()
            self.all.set()


async def subscribe(bus: EventBus, handled: Handled, *, batch: bool) -> Handle:
    """The one subscription that gets the events."""
    if batch:

        async def handle_many(events: list[Event]) -> None:
            handled.take(events)

        return await bus.subscribe(PATTERN, handle_many, WORKER, batch=_BATCH)

    async def handle(event: Event) -> None:
        handled.take([event])

    return await bus.subscribe(PATTERN, handle, WORKER)


async def both(setting: Setting, signal: Signal) -> Record:
    """Publisher and subscription in one process."""
    bus = EventBus(setting.url)
    handled = Handled(setting.count)
    handle = await subscribe(bus, handled, batch=setting.options.get("many", False))
    if setting.options.get("unmeasured"):
        handle.consumer._observe = None  # noqa: SLF001 - what a bus would be without its metrics and breakers
        bus.metrics.published = _nothing  # type: ignore[method-assign,assignment]
    async with bus:
        return await publish_and_wait(bus, handled, setting, signal)


def _nothing(_event_type: str, _count: int = 1) -> None:
    """In the place of what counts."""


async def publish_and_wait(bus: EventBus, handled: Handled, setting: Setting, signal: Signal) -> Record:
    """From go until the last is handled, and the proof that nothing is left."""
    publish = _publishing(bus, setting)
    await signal.ready()
    record = Record(started=time.monotonic())
    record.published = await publish()
    record.values["publish_rate"] = setting.count / (time.monotonic() - record.started)
    await handled.all.wait()
    record.cpu = signal.cpu()
    await bus.join(30)
    record.values["lost"] = await _unsettled(bus)
    record.ended, record.handled = handled.ended, handled.ids
    return record


async def _unsettled(bus: EventBus) -> int:
    """What the engine still has for the subscription, once its consumer has settled everything."""
    left = 0
    for _ in range(100):
        info = await bus.info(WORKER)
        if info is None:
            raise RuntimeError("the subscription is gone")
        numbers = (info.ready, info.leased, info.delayed, info.dead, info.lost)
        left = sum(1 if number is None else number for number in numbers)  # what cannot be told is not nothing
        if not left:
            return 0
        await asyncio.sleep(0.05)
    return left


async def publisher(setting: Setting, signal: Signal) -> Record:
    """Publishes only; the subscription is another process's."""
    async with EventBus(setting.url) as bus:
        publish = _publishing(bus, setting)
        await signal.ready()
        began = time.monotonic()
        ids = await publish()
        return Record(started=began, ended=time.monotonic(), published=ids, cpu=signal.cpu())


async def consumer(setting: Setting, signal: Signal) -> Record:
    """Handles only."""
    bus = EventBus(setting.url)
    handled = Handled(setting.count)
    await subscribe(bus, handled, batch=False)
    async with bus:
        await signal.ready()
        await handled.all.wait()
        cpu = signal.cpu()
        left = await _unsettled(bus)
    return Record(ended=handled.ended, handled=handled.ids, cpu=cpu, values={"lost": left})


async def appender(setting: Setting, signal: Signal) -> Record:
    """Publishes to nobody; what was stored is read back from the log."""
    async with EventBus(setting.url) as bus:
        publish = _publishing(bus, setting)
        await signal.ready()
        record = Record(started=time.monotonic())
        record.published = await publish()
        record.ended, record.cpu = time.monotonic(), signal.cpu()
        record.handled = [stored.event.event_id async for stored in bus.history()]
    return record


def _publishing(bus: EventBus, setting: Setting) -> Callable[[], Any]:
    """How the events go in: `many`, by some `publishers` at once, `made` before, or one awaited after the other."""
    count, publishers = setting.count, setting.options.get("publishers", 1)
    made = [event(number) for number in range(count)] if setting.options.get("made") else None

    async def many() -> list[str]:
        ids: list[str] = []
        for at in range(0, count, _BATCH):
            upto = min(count, at + _BATCH)
            events = made[at:upto] if made is not None else [event(number) for number in range(at, upto)]
            await bus.publish_many(events)
            ids.extend([each.event_id for each in events])
        return ids

    async def each(first: int = 0, step: int = 1) -> list[str]:
        ids = []
        for number in range(first, count, step):
            one = made[number] if made is not None else event(number)
            await bus.publish(one)
            ids.append(one.event_id)
        return ids

    async def concurrently() -> list[str]:
        found = await asyncio.gather(*(each(first, publishers) for first in range(publishers)))
        return [id for ids in found for id in ids]

    if setting.options.get("many"):
        return many
    return each if publishers == 1 else concurrently


async def latency(setting: Setting, signal: Signal) -> Record:
    """Publish to handler, in milliseconds, at a steady rate that waits for nothing."""
    sent: dict[str, float] = {}
    taken: dict[str, float] = {}
    done = asyncio.Event()

    async def handle(event: Event) -> None:
        taken[event.event_id] = time.monotonic()
        if len(taken) == setting.count:
            done.set()

    async def publish(one: Event) -> None:
        sent[one.event_id] = time.monotonic()
        await bus.publish(one)

    bus = EventBus(setting.url)
    await bus.subscribe(PATTERN, handle, WORKER)
    async with bus:
        await signal.ready()
        began = time.monotonic()
        await steadily(setting, lambda number: publish(event(number)))
        await done.wait()
        ended = time.monotonic()
    record = Record(started=began, ended=ended, published=list(sent), handled=list(taken))
    record.values = percentiles([taken[id] - sent[id] for id in sent])
    return record


async def steadily(setting: Setting, call: Callable[[int], Any]) -> None:
    """Start `call(n)` at a steady rate, each as a task of its own, and wait for all."""
    pause, began = 1 / setting.options["rate"], time.monotonic()
    tasks = []
    for number in range(setting.count):
        wait = began + number * pause - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(call(number)))
    await asyncio.gather(*tasks)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds, without the first tenth: connections and caches warm up."""
    warm = seconds[len(seconds) // 10 :]
    return {f"p{share}": 1000 * percentile(warm, share / 100) for share in (50, 95, 99)}


async def crowd(setting: Setting, signal: Signal) -> Record:
    """`both`, while so many other subscriptions are remembered that none of the events match."""
    broker = open_broker(setting.url)
    for number in range(setting.options["others"]):
        await broker.declare(Subscription(id=f"other-{number}", patterns=(f"other-{number}.*",), agent="other"))
    bus = EventBus(broker)
    handled = Handled(setting.count)
    await subscribe(bus, handled, batch=False)
    async with bus:
        record = await publish_and_wait(bus, handled, setting, signal)
    await broker.close()
    return record


async def filler(setting: Setting, signal: Signal) -> Record:
    """Fills a log that others will read; every thousandth event belongs to one correlation."""
    async with EventBus(setting.url.replace("full", "off")) as bus:
        await signal.ready()
        began = time.monotonic()
        for at in range(0, setting.count, _BATCH):
            numbers = range(at, min(setting.count, at + _BATCH))
            await bus.publish_many([event(n, correlation_id=f"flow-{n % (setting.count // 20 or 1)}") for n in numbers])
        return Record(started=began, ended=time.monotonic())


async def stored(setting: Setting, signal: Signal) -> Record:
    """`both` on a filled log, and what looking into its history takes, in milliseconds."""
    bus = EventBus(setting.url)
    handled = Handled(setting.count)
    await subscribe(bus, handled, batch=False)
    async with bus:
        record = await publish_and_wait(bus, handled, setting, signal)
        record.values["correlation_ms"], found = await _looked(bus, correlation_id="flow-1")
        record.values["first_page_ms"], _ = await _looked(bus, limit=100)
        record.values["lost"] += found != setting.options["correlated"]
        await bus.remove(WORKER)
    return record


async def _looked(bus: EventBus, **query: Any) -> tuple[float, int]:
    """The best of five looks: what it takes once nothing else is in the way."""
    taken, found = [], 0
    for _ in range(5):
        began = time.perf_counter()
        found = len([stored async for stored in bus.history(**query)])
        taken.append(time.perf_counter() - began)
    return 1000 * min(taken), found


async def tracer(setting: Setting, signal: Signal) -> Record:
    """A long log, and what it takes to tell a conversation of it, in milliseconds: its first one, and its last one.

    Half a minute lies before the last one, so that its ids say where it is.
    """
    broker = _keeping_all(setting)
    async with EventBus(broker) as bus:
        await signal.ready()
        record = Record(started=time.monotonic())
        early, named = await _talk(bus), await _talk(bus, "order-7")
        for at in range(0, setting.count, _BATCH):
            await bus.publish_many([event(n) for n in range(at, min(setting.count, at + _BATCH))])
        record.ended = time.monotonic()
        await asyncio.sleep(setting.options["apart"])
        late = await _talk(bus)
        for name, id in {
            "first_root": early[0], "first_leaf": early[-1], "first_named": named[0], "last_root": late[0],
            "last_leaf": late[-1],
        }.items():  # fmt: skip
            record.values[f"{name}_ms"], found = await _traced(bus, id)
            record.values["lost"] = record.values.get("lost", 0) + (found != len(early))
    await broker.close()
    return record


async def _talk(bus: EventBus, name: str | None = None) -> list[str]:
    """A conversation of a hundred events, ten below each of ten; their ids."""
    sent = [event(0, correlation_id=name)]
    for n in range(1, 100):
        cause = sent[(n - 1) // 10]
        sent.append(event(n, correlation_id=cause.correlation_id, parent_event_id=cause.event_id))
    await bus.publish_many(sent)
    return [each.event_id for each in sent]


async def _traced(bus: EventBus, id: str) -> tuple[float, int]:
    """The best of three, or of as many as begin within a second, and how many events it has."""
    taken, found = list[float](), 0
    while len(taken) < 3 and sum(taken) < 1:
        began = time.perf_counter()
        found = len((await bus.trace(id)).steps)
        taken.append(time.perf_counter() - began)
    return 1000 * min(taken), found


async def replayer(setting: Setting, signal: Signal) -> Record:
    """Reads a whole log again: its history, and a replay into a handler."""
    broker = _keeping_all(setting)
    events = [event(number) for number in range(setting.count)]
    async with EventBus(broker) as bus:
        for at in range(0, setting.count, _BATCH):
            await bus.publish_many(events[at : at + _BATCH])
        await signal.ready()
        began = time.monotonic()
        ids = [stored.event.event_id async for stored in bus.history()]
        ended = time.monotonic()
        record = Record(started=began, ended=ended, published=[e.event_id for e in events], handled=ids)
        record.cpu = signal.cpu()
        replayed: list[str] = []

        async def handle(event: Event) -> None:
            replayed.append(event.event_id)

        began = time.monotonic()
        await bus.replay(handle)
        record.values["replay_rate"] = setting.count / (time.monotonic() - began)
        record.values["lost"] = len(set(record.published) ^ set(replayed))
    await broker.close()
    return record


def _keeping_all(setting: Setting) -> Broker:
    """Memory keeps 10,000 events unless it is told otherwise."""
    return open_broker(setting.url, retention=Retention(max_count=10 * setting.count))
