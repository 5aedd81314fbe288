"""GET /overview and /routers: all processes together; of each what who asks may see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.conformance.engines import eventually
from tests.service.described import Described
from tests.service.guarded import Guarded
from wowevent import BrokerUnavailable, Event, EventBus
from wowevent.broker import Subscription
from wowevent.brokers.memory import MemoryBroker
from wowevent.bus import _shown
from wowevent.client import EventRouterClient
from wowevent.pulse import Connected, RouterPulse
from wowevent.router import EventRouter
from wowevent.service import create_app, drain
from wowevent.settings import Settings
from wowevent.testing import TestBus


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    """One by a clock that the test moves."""
    async with TestBus() as bus:
        yield bus


async def nothing(event: Event) -> None:
    """A handler."""


async def failing(event: Event) -> None:
    raise ValueError


async def test_all_of_it(client: httpx.AsyncClient, bus: TestBus) -> None:
    async def slow(event: Event) -> None:
        await bus.clock.sleep(0.25)

    await bus.subscribe("task.*", slow, "worker", concurrency=10)
    await bus.broker.declare(Subscription(id="idle", patterns=("task.*",)))
    await bus.subscribe("bad.*", failing, durable=False)
    await bus.publish_many([Event(topic="task.created") for _ in range(10)] + [Event(topic="bad.one")])
    await bus.advance(2)
    found = (await client.get("/overview")).json()
    assert (found["engine"], found["url"], found["health"], found["processes"]) == ("memory", "memory://", "healthy", 1)
    assert found["published_per_second"] == 5.5
    assert found["delivered_per_second"] == 5.0
    assert found["failed_per_second"] == 0.5
    assert found["latency"]["p95"] == found["latency"]["p99"] == pytest.approx(0.25, rel=0.05)
    assert (found["subscriptions"], found["ready"], found["leased"], found["dead"]) == (3, 10, 0, 0)
    assert found["series"][0]["at"] == found["since"]
    newest = found["series"][-1]
    assert (newest["published"], newest["p95"]) == (5.5, found["latency"]["p95"])


async def test_of_all_processes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    async with EventBus(url) as other, EventBus(url) as bus:
        await other.subscribe("task.*", nothing, "worker")
        async with _client(bus) as client:
            found = (await client.get("/overview")).json()
            assert found["processes"] == 2
            assert found["url"] == url
            for _ in range(20):
                await other.publish(Event(topic="task.created"))
            await other.join(5)

            async def is_seen() -> bool:
                series = (await client.get("/overview")).json()["series"]
                return any(each["delivered"] > 0 for each in series)

            await eventually(is_seen, 8)
            await other.stop()

            async def has_left() -> bool:
                return bool((await client.get("/overview")).json()["processes"] == 1)

            await eventually(has_left, 5)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("memory://", "memory://"),
        ("redis://ops:secret@localhost:6379/1", "redis://***@localhost:6379/1"),
        ("tls://ops:secret@localhost:4222?creds=/secret", "tls://***@localhost:4222"),
    ],
)
def test_where_the_log_is_tells_no_secret(given: str, shown: str) -> None:
    assert _shown(given, Settings(), MemoryBroker()) == shown
    assert _shown(MemoryBroker(), Settings(), MemoryBroker()) == "memory://"
    assert _shown(None, Settings(url=given), MemoryBroker()) == shown


class Away:
    """An engine that stops to answer."""

    def __init__(self, bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("subscriptions", "ping"):
            monkeypatch.setattr(bus.broker, name, self._refuse)

    async def _refuse(self) -> None:
        raise BrokerUnavailable("away")


async def test_an_engine_that_is_away_is_unhealthy_and_the_rest_is_shown(
    client: httpx.AsyncClient, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    Away(bus, monkeypatch)
    found = (await client.get("/overview")).json()
    assert (found["health"], found["subscriptions"], found["ready"]) == ("unhealthy", None, None)
    assert found["published_per_second"] == 0


async def test_who_does_not_administer_sees_what_it_may(guarded: Guarded, bus: TestBus) -> None:
    for pattern in ("task.*", "secret.*"):
        await bus.broker.declare(Subscription(id=pattern[:-2], patterns=(pattern,)))
    await bus.publish_many([Event(topic="task.a"), Event(topic="secret.a"), Event(topic="secret.b")])
    async with guarded.having("worker", subscribe=["task.#"]) as client:
        found = (await client.get("/overview")).json()
        assert (found["url"], found["subscriptions"], found["ready"]) == (None, 1, 1)
    async with guarded.having("boss", admin=["#"]) as client:
        found = (await client.get("/overview")).json()
        assert (found["url"], found["subscriptions"], found["ready"]) == ("memory://", 2, 3)
    async with guarded.having("mute", publish=["#"]) as client:
        assert (await client.get("/overview")).status_code == (await client.get("/routers")).status_code == 403


# --- routers --------------------------------------------------------------------------------------------------------


async def test_routers_and_the_clients_of_those_that_are_here(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    async with (
        EventBus(url) as bus,
        EventBus(url) as other,
        EventRouter(port=0, bus=bus) as here,
        EventRouter(port=0, bus=other) as there,
        EventRouterClient(here.url, agent="planner") as planner,
        EventRouterClient(there.url),
    ):
        await planner.subscribe(["task.*"], callback=nothing, name="worker")
        await planner.publish("task.created", {})
        async with _client(bus) as client:

            async def are_there() -> bool:
                found = (await client.get("/routers")).json()["routers"]
                return [each["clients"] for each in found] == [1, 1]

            await eventually(are_there, 8)
            found = {each["process"]: each for each in (await client.get("/routers")).json()["routers"]}
            own, far = found[bus.attendance.process], found[other.attendance.process]
            assert (own["named"], own["events_processed"], far["named"], far["connections"]) == (1, 1, 0, None)
            (connection,) = own["connections"]
            assert (connection["name"], connection["subscriptions"]) == ("planner", 1)
            assert connection["address"] in {"127.0.0.1", "::1"}
            assert 0 < own["since"] <= connection["since"]
            await there.stop()

            async def has_left() -> bool:
                return len((await client.get("/routers")).json()["routers"]) == 1

            await eventually(has_left, 8)


class Fronting:
    """A router of which only the numbers matter."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def pulse(self) -> RouterPulse:
        return RouterPulse(len(self.names), 0, 0, 1.0)

    def connected(self) -> list[Connected]:
        return [Connected(name, "127.0.0.1", 1.0, 0, 0) for name in self.names]


async def test_who_does_not_administer_sees_its_own_connections(guarded: Guarded, bus: EventBus) -> None:
    bus.pulses.routers.append(Fronting("worker", "boss"))
    async with guarded.having("worker", subscribe=["task.#"]) as client:
        (router,) = (await client.get("/routers")).json()["routers"]
        assert (router["clients"], router["host"]) == (2, None)
        assert [each["name"] for each in router["connections"]] == ["worker"]
    async with guarded.having("boss", admin=["#"]) as client:
        (router,) = (await client.get("/routers")).json()["routers"]
        assert router["host"] == bus.pulses.host
        assert [each["name"] for each in router["connections"]] == ["worker", "boss"]


@asynccontextmanager
async def _client(bus: EventBus) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(bus)
    hooks = {"response": [Described().check]}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://bus", event_hooks=hooks
    ) as client:
        yield client
    await drain(app)
