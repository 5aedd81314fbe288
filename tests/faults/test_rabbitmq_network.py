"""Bad lines to a RabbitMQ server, one that is not there, and one that takes no messages: told in time, and got over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.load import Load, refused
from tests.faults.rabbit import Rabbit, line_to
from tests.faults.worker import Publisher, build
from tests.processes import address, end, running, until
from tests.servers import free_port
from wowevent import Event, EventBus
from wowevent.broker import Ack
from wowevent.brokers import open_broker
from wowevent.errors import BrokerUnavailable, StorageFull

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("rabbit")]

FOR_LONG = {"test_a_bad_line_is_no_dead_one[chopped]"}

SOURCE = Publisher(url="", journal="", name="test")


# ---------------------------------------------------------------------------------------------------- bad lines


async def test_a_black_hole(lab: Lab, rabbit: Rabbit, long_form: bool, measured):
    """Nothing passes: every call says so within 10 s; all resumes within 15 s."""
    rounds, longest, slowest = 5 if long_form else 1, 0.0, 0.0
    async with line_to(rabbit) as (proxy, url), EventBus(url) as bus:
        broker = open_broker(url)
        await broker.ping()
        load = Load(lab, url)
        await load.start()
        for number in range(rounds):
            proxy.stop_passing()
            calls: list[Awaitable[object]] = [broker.publish([Event(topic="other")]), broker.ping()]
            calls += [broker.fetch(SUBSCRIPTION, limit=1, wait=0), broker.info(SUBSCRIPTION)]
            calls.append(bus.publish(build(SOURCE, number)))
            longest = max(longest, *await asyncio.gather(*map(refused, calls)))
            await asyncio.sleep(3)
            proxy.pass_on()
            began = time.monotonic()
            await bus.publish(Event(topic="other"))
            await load.goes_on(20)
            slowest = max(slowest, time.monotonic() - began)
        await broker.close()
        with lab.journal("test") as journal:  # they may have arrived all the same, once the line was there
            for number in range(rounds):
                journal.write("invoked", f"test-{number}")
        await load.judge(measured, rounds, longest=longest, recovery=slowest)
    assert longest < 11
    assert slowest < 15


async def test_a_reset_each_second(lab: Lab, rabbit: Rabbit, long_form: bool, measured):
    """For some seconds, or a minute: all that is on its way is cut off, and everything goes on between the resets."""
    rounds, slowest = 60 if long_form else 3, 0.0
    async with line_to(rabbit) as (proxy, url):
        load = Load(lab, url)
        await load.start()
        for _ in range(rounds):
            await asyncio.sleep(1)
            proxy.reset()
            slowest = max(slowest, await load.goes_on(1))
        assert not lab.history("failed", "unknown")
        await load.judge(measured, rounds, connections=proxy.connections, recovery=slowest)
    assert slowest < 10


@pytest.mark.parametrize("kind", ["slow", "chopped"])
async def test_a_bad_line_is_no_dead_one(lab: Lab, rabbit: Rabbit, long_form: bool, kind: str, measured):
    """100 ms each way, or pieces of 1 to 7 bytes: no connection is given up, with a heartbeat of a second."""
    async with line_to(rabbit) as (proxy, url):
        proxy.delay, proxy.chopped = (0.1, False) if kind == "slow" else (0.0, True)
        load = Load(lab, f"{url}?heartbeat=1")
        await load.start()
        connections = proxy.connections
        began, before = time.monotonic(), len(lab.history("ok"))
        await asyncio.sleep(60 if long_form else 5)
        await load.goes_on(5)
        rate = (len(lab.history("ok")) - before) / (time.monotonic() - began)
        assert proxy.connections == connections
        assert not lab.history("failed", "unknown", "stale")
        await load.judge(measured, 1, confirmed_a_second=rate)
    assert not (await lab.verdict()).duplicates


async def test_lines_that_died_in_silence(lab: Lab, rabbit: Rabbit, measured):
    """Who only waits is told by the heartbeat, and has what came meanwhile."""
    handled: list[str] = []
    async with line_to(rabbit) as (proxy, url), EventBus(f"{url}?heartbeat=1") as bus, EventBus(lab.url) as other:
        await bus.subscribe("load.#", lambda event: handled.append(event.event_id), SUBSCRIPTION)
        await other.publish(build(SOURCE, 0))
        await lab.until(lambda: handled == ["test-0"])
        proxy.strand()
        began = time.monotonic()
        await other.publish(build(SOURCE, 1))
        await lab.until(lambda: handled == ["test-0", "test-1"], timeout=20)
        measured(1, recovery=time.monotonic() - began)


async def test_the_answer_of_a_publish_is_lost(lab: Lab, rabbit: Rabbit, long_form: bool, measured):
    """The bus says it again by itself: it may be stored twice, and one consumer handles it once."""
    rounds = 50 if long_form else 5
    handled: list[str] = []
    async with line_to(rabbit) as (proxy, url), EventBus(url) as bus, EventBus(lab.url) as other:
        await other.subscribe("load.#", lambda event: handled.append(event.event_id), SUBSCRIPTION)
        for number in range(rounds):
            proxy.swallow = f"test-{number}".encode()
            await bus.publish(build(SOURCE, number))
            assert not proxy.swallow, "it was swallowed"
        await lab.until(lambda: len(set(handled)) == rounds)
        await asyncio.sleep(0.5)  # what came twice would come now
    stored = Counter(await lab.stored())
    measured(rounds, stored_twice=sum(count == 2 for count in stored.values()))
    assert set(stored.values()) <= {1, 2}
    assert stored.keys() == {f"test-{number}" for number in range(rounds)}
    assert sorted(handled) == sorted(stored)


# ---------------------------------------------------------------------------------------------------- absent


async def test_a_bus_without_a_server_says_so_at_once():
    bus = EventBus(f"amqp://127.0.0.1:{free_port()}")
    assert await refused(bus.start()) < 1
    await bus.stop()


def test_a_service_waits_for_its_server(tmp_path: Path, rabbit: Rabbit, long_form: bool, measured):
    """Live, not ready, and ready within 5 s of the server's start, which may be a minute later."""
    rabbit.server.kill()
    with running(tmp_path, "wowevent.service", PORT="0", WOWEVENT_URL=rabbit.url) as process:
        service = address(tmp_path)
        deadline = time.monotonic() + (60 if long_form else 2)
        while time.monotonic() < deadline:
            answer = httpx.get(f"{service}/ready")
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
            assert httpx.get(f"{service}/health").json()["rabbitmq"] == "unreachable"
            assert process.poll() is None
            time.sleep(0.25)
        rabbit.server.start()
        began = time.monotonic()
        until(lambda: httpx.get(f"{service}/ready").status_code == 200, "readiness")
        measured(1, recovery=time.monotonic() - began)
        assert time.monotonic() - began < 5
        assert httpx.post(f"{service}/events", json={"topic": "a"}).status_code == 202
        assert end(process) == 0


# ---------------------------------------------------------------------------------------------------- alarmed


async def in_time(call: Callable[[], Awaitable[object]]) -> tuple[str, float]:
    """What a publish that is not taken says, and after how many seconds."""
    began = time.monotonic()
    with pytest.raises((StorageFull, BrokerUnavailable)) as caught:
        await asyncio.wait_for(call(), 30)
    return caught.type.__name__, time.monotonic() - began


async def test_an_alarmed_server_takes_nothing_and_gives_all(lab: Lab, rabbit: Rabbit, long_form: bool, measured):
    """Short of memory: a publish says so within 10 s, what is there is delivered and acknowledged, all resumes."""
    rounds, longest, slowest = 5 if long_form else 1, 0.0, 0.0
    await lab.declare(lease=60.0)
    broker = open_broker(lab.url)
    async with EventBus(lab.url) as bus:
        for number in range(rounds):
            await broker.publish([build(SOURCE, 100 * number + n) for n in range(20)])
            (held,) = await broker.fetch(SUBSCRIPTION, limit=1, wait=5)
            try:
                await asyncio.to_thread(rabbit.short_of_memory, short=True)
                for n in range(3):
                    event = build(SOURCE, 100 * number + 50 + n)
                    name, took = await in_time(partial(bus.publish, event))
                    longest = max(longest, took)
                assert name == "StorageFull"
                assert await broker.settle(SUBSCRIPTION, [Ack(held.token)]) == 1
                left = 19
                while left:
                    leases = await broker.fetch(SUBSCRIPTION, limit=20, wait=5)
                    assert leases
                    left -= await broker.settle(SUBSCRIPTION, [Ack(lease.token) for lease in leases])
                if long_form:  # longer than any call may take: who asked for something has given up by then
                    await asyncio.sleep(12)
            finally:
                await asyncio.to_thread(rabbit.short_of_memory, short=False)
            began = time.monotonic()
            await taken(bus, build(SOURCE, 100 * number + 99))
            while not (leases := await broker.fetch(SUBSCRIPTION, limit=100, wait=1)) or not await passed(
                broker, leases, f"test-{100 * number + 99}"
            ):
                assert time.monotonic() - began < 30
            slowest = max(slowest, time.monotonic() - began)
    await broker.close()
    measured(rounds, longest=longest, recovery=slowest)
    assert longest < 11
    assert slowest < 15


async def taken(bus: EventBus, event: Event) -> None:
    """Publish it; the server tells its connections a moment later that the alarm is over."""
    async with asyncio.timeout(15):
        while True:
            try:
                await bus.publish(event)
                return
            except StorageFull:
                await asyncio.sleep(0.05)


async def passed(broker, leases, id: str) -> bool:
    """Acknowledge these; whether that one was among them."""
    await broker.settle(SUBSCRIPTION, [Ack(lease.token) for lease in leases])
    return id in {lease.event.event_id for lease in leases}
