"""Short words for what nearly every test does with a broker."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.conformance.engines import Rig
from wowevent import Delivery, Event, EventBus
from wowevent.broker import (
    Ack,
    Broker,
    DeadQuery,
    Discard,
    Lease,
    Position,
    Query,
    Redeliver,
    Stored,
    Subscription,
    SubscriptionInfo,
)
from wowevent.clock import Clock
from wowevent.errors import BrokerUnavailable

WORKER = "worker"


def _nested(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


PAYLOADS: dict[str, dict[str, Any]] = {
    "empty": {},
    "unicode": {"grüße": "日本語 🎉 \u0000 \u2028 \ud7ff", "": "\\ \" ' / é"},
    "numbers": {"big": 2**63 - 1, "small": -(2**63), "float": 0.1, "tiny": 5e-324, "zero": -0.0},
    "values": {"null": None, "yes": True, "list": [[], {}, [1, [2, [3]]]]},
    "large": {"text": "é" * 100_000},
    "deep": _nested(32),
}


def event(topic: str = "task.created", n: int = 0, **fields: Any) -> Event:
    """An event that says which one it is."""
    return Event(topic=topic, payload={"n": n}, **{"source_agent": "tester", **fields})


def events(count: int, topic: str = "task.created", **fields: Any) -> list[Event]:
    return [event(topic, n, **fields) for n in range(count)]


def later(rig: Rig, seconds: float, n: int = 0, **fields: Any) -> Event:
    """One that leaves after so many seconds of the test's clock."""
    moment = datetime.fromtimestamp(rig.clock.time(), UTC) + timedelta(seconds=seconds)
    return event(n=n, not_before=moment, **fields)


def numbers(found: Sequence[Lease] | Sequence[Stored]) -> list[int]:
    """Which ones they are."""
    return [item.event.payload["n"] for item in found]


async def declare(
    broker: Broker, id: str = WORKER, patterns: tuple[str, ...] = ("#",), **settings: Any
) -> SubscriptionInfo:
    return await broker.declare(Subscription(id=id, patterns=patterns, **settings))


async def take(broker: Broker, id: str = WORKER, limit: int = 100) -> Sequence[Lease]:
    """What can be leased now."""
    return await broker.fetch(id, limit=limit, wait=0)


async def take_one(broker: Broker, id: str = WORKER) -> Lease:
    (lease,) = await take(broker, id, 1)
    return lease


async def take_all(broker: Broker, id: str = WORKER, limit: int = 100) -> list[Lease]:
    """Lease and acknowledge until nothing comes."""
    found: list[Lease] = []
    while leases := await take(broker, id, limit):
        found += leases
        assert await broker.settle(id, [Ack(lease.token) for lease in leases]) == len(leases)
    return found


async def acknowledge(broker: Broker, leases: Sequence[Lease]) -> int:
    """Of WORKER; how many that still held."""
    return await broker.settle(WORKER, [Ack(lease.token) for lease in leases])


async def read(broker: Broker, *, after: Any = None, **query: Any) -> list[Stored]:
    return [stored async for stored in broker.read(Query(**query), after=after)]


async def has(broker: Broker, count: int) -> bool:
    """Whether the log has so many."""
    return len(await read(broker)) >= count


def beyond(broker: Broker) -> int:
    """So far behind the last event lies a position that the log has never reached."""
    return 1 if broker.capabilities.positions else 1_000


async def store(broker: Broker, sent: Sequence[Event]) -> list[Position]:
    """Publish them; where they are in the log, as it is read. Receipts that name positions name the same ones."""
    answers = await broker.publish(sent)
    places = {stored.event.event_id: stored.position for stored in await read(broker)}
    found = [places[each.event_id] for each in sent]
    if broker.capabilities.positions:
        assert [answer.position for answer in answers] == found
    return found


async def info(broker: Broker, id: str = WORKER) -> SubscriptionInfo:
    found = await broker.info(id)
    assert found is not None
    return found


async def unsettled(bus: EventBus, name: str = WORKER) -> int:
    """How many events wait for a subscription or agent, in whatever state that the engine can tell."""
    found = await bus.info(name)
    assert found is not None
    assert not bus.capabilities.exact or None not in (found.leased, found.delayed)
    return found.ready + (found.leased or 0) + (found.delayed or 0)


# --- what an engine declares -------------------------------------------------------------------------------------


def same(engine: Broker | EventBus, found: object, expected: object) -> bool:
    """Whether a number is the expected one; None is as good only where the engine declares `exact=False`."""
    return found == expected or (found is None and not engine.capabilities.exact)


async def heard(rig: Rig, broker: Broker) -> None:
    """Let all instances know what one of them declared, where an event is routed after its publisher looked.

    There the publisher's own view makes `matched`, and may be late (decision 0005). Others may not: no time for them.
    """
    if not broker.capabilities.matches:
        await rig.breathe()


class Seen:
    """A handler that notes what it gets, and raises what `verdict(event, attempt)` returns."""

    def __init__(self, verdict: Callable[[Event, int], Exception | None] = lambda _event, _attempt: None) -> None:
        self.events: list[Event] = []
        self.deliveries: list[Delivery] = []
        self.times: list[float] = []
        self.clock: Clock | None = None
        self._verdict = verdict

    async def __call__(self, event: Event, delivery: Delivery) -> None:
        self.events.append(event)
        self.deliveries.append(delivery)
        if self.clock is not None:
            self.times.append(self.clock.monotonic())
        if (error := self._verdict(event, delivery.attempt)) is not None:
            raise error

    @property
    def numbers(self) -> list[int]:
        return [event.payload["n"] for event in self.events]

    def count(self, count: int) -> Callable[[], bool]:
        """For `eventually`: that many came."""
        return lambda: len(self.events) >= count


def failing(*ns: int, times: int = 10**9) -> Callable[[Event, int], Exception | None]:
    """The verdict that fails the first `times` attempts at these events."""
    return lambda event, attempt: OSError("on purpose") if event.payload["n"] in ns and attempt <= times else None


# --- trouble ----------------------------------------------------------------------------------------------------------


async def once_it_works(call: Any) -> Any:
    """What it returns, after the calls that say that something has to be mended."""
    for _ in range(100):
        try:
            return await call()
        except BrokerUnavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("it was not mended")


async def given_up(call: Any) -> float:
    """After how many seconds it says that the server is not there; infinitely many if it does not."""
    began = time.monotonic()
    try:
        await call()
    except BrokerUnavailable:
        return time.monotonic() - began
    return math.inf


def calls(broker: Broker) -> dict[str, Any]:
    """One of each call that asks the engine; it has WORKER, and another subscription, `other`."""
    missing = Subscription(id="new", patterns=("#",))
    return {
        "publish": lambda: broker.publish([event(n=9)]),
        "publish later": lambda: broker.publish([event(not_before=datetime.now(UTC) + timedelta(hours=1))]),
        "cancel": lambda: broker.cancel("no"),
        "declare": lambda: broker.declare(missing),
        "declare live": lambda: broker.declare(Subscription(id="live~1", patterns=("#",), durable=False)),
        "remove": lambda: broker.remove("other"),
        "subscriptions": broker.subscriptions,
        "info": lambda: broker.info(WORKER),
        "fetch": lambda: broker.fetch("other", limit=1, wait=0),
        "dead": lambda: broker.dead(DeadQuery()),
        "resolve": lambda: broker.resolve([Discard("no"), Redeliver("worker-1")]),
        "read": lambda: anext(broker.read(Query())),
        "facts": lambda: anext(broker.read(Query(patterns=("_bus.#",)))),
        "purge": lambda: broker.purge("other"),
        "ping": broker.ping,
    }
