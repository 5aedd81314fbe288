"""Bad lines to a Redis server, and one that is not there: told in time, stored once, handled, and got over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.faults.checker import Report
from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.load import Load, refused
from tests.faults.proxy import Proxy
from tests.faults.redis import behind, line_to, swallowed
from tests.faults.worker import Publisher, build, empty
from tests.processes import address, end, running, until
from tests.servers import Server, free_port
from wowevent import Event, EventBus
from wowevent.broker import Ack, Retry, Settlement
from wowevent.brokers.redis.script import SCRIPTS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("redis")]

SOURCE = Publisher(url="", journal="", name="test")


def exactly(report: Report, stored: Sequence[str]) -> None:
    """What is stored was handled, and is there once."""
    assert len(stored) == len(set(stored))
    assert report.handled == report.invoked & frozenset(stored)


# ---------------------------------------------------------------------------------------------------- bad lines


async def test_a_black_hole(lab: Lab, redis: Server, long_form: bool, measured):
    """Nothing passes: every call says so within 10 s; all resumes within 15 s."""
    rounds, longest, slowest = 5 if long_form else 1, 0.0, 0.0
    async with line_to(redis) as (proxy, broker), EventBus(behind(proxy)) as bus:
        load = Load(lab, behind(proxy))
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
        with lab.journal("test") as journal:  # they may have arrived all the same, once the line was there
            for number in range(rounds):
                journal.write("invoked", f"test-{number}")
        exactly(*await load.judge(measured, rounds, longest=longest, recovery=slowest))
    assert longest < 11
    assert slowest < 15


async def test_nobody_waits_for_the_publishes_of_others(redis: Server):
    """Publishes that gathered behind one that gets no answer are told as soon as that one."""
    async with Proxy(redis.port, plain=True) as proxy, EventBus(behind(proxy)) as bus:
        proxy.stop_passing()
        longest = max(await asyncio.gather(*(refused(bus.publish(build(SOURCE, number))) for number in range(10))))
        proxy.pass_on()
    assert longest < 11


async def test_a_reset_each_second(lab: Lab, redis: Server, long_form: bool, measured):
    """For 10 s, or a minute: all that is on its way is cut off, and everything goes on between the resets."""
    rounds, slowest = 60 if long_form else 10, 0.0
    async with Proxy(redis.port, plain=True) as proxy:
        load = Load(lab, behind(proxy))
        await load.start()
        for _ in range(rounds):
            await asyncio.sleep(1)
            proxy.reset()
            slowest = max(slowest, await load.goes_on(1))
        assert not lab.history("failed", "unknown")
        exactly(*await load.judge(measured, rounds, connections=proxy.connections, recovery=slowest))
    assert slowest < 5


@pytest.mark.parametrize("kind", ["slow", "chopped"])
async def test_a_bad_line_is_no_dead_one(lab: Lab, redis: Server, long_form: bool, kind: str, measured):
    """100 ms each way, or pieces of 1 to 7 bytes: no connection is given up."""
    async with Proxy(redis.port, plain=True) as proxy:
        proxy.delay, proxy.chopped = (0.1, False) if kind == "slow" else (0.0, True)
        load = Load(lab, behind(proxy))
        await load.start()
        connections = proxy.connections
        began, before = time.monotonic(), len(lab.history("ok"))
        await asyncio.sleep(60 if long_form else 5)
        await load.goes_on(5)
        rate = (len(lab.history("ok")) - before) / (time.monotonic() - began)
        assert proxy.connections == connections
        assert not lab.history("failed", "unknown", "stale")
        exactly(*await load.judge(measured, 1, confirmed_a_second=rate))
    assert not (await lab.verdict()).duplicates


async def test_a_wake_up_line_that_died_in_silence(lab: Lab, redis: Server):
    """Nobody asks on the line of wake-ups: no event waits longer than a second, and the line is made anew."""
    async with line_to(redis) as (proxy, broker), EventBus(lab.url) as bus:
        await lab.declare(lease=60.0)

        async def woken(number: int) -> float:
            waiting = asyncio.create_task(broker.fetch(SUBSCRIPTION, limit=1, wait=10))
            await asyncio.sleep(0.2)
            began = time.monotonic()
            await bus.publish(build(SOURCE, number))
            (lease,) = await waiting
            assert lease.event.event_id == f"test-{number}"
            return time.monotonic() - began

        await lab.until(lambda: proxy.connections == 2)
        assert min([await woken(number) for number in range(5)]) < 0.2
        proxy.strand()
        await refused(broker.ping())  # the line of calls is given up after 5 s; the next call dials again
        assert await woken(5) < 1.5
        await asyncio.sleep(12)
        assert max([await woken(number) for number in range(6, 11)]) < 0.2


# ---------------------------------------------------------------------------------------------------- lost answers


async def test_the_answer_of_a_publish_is_lost(lab: Lab, redis: Server, long_form: bool):
    """It is stored once: the same again is known; a bus says it again by itself."""
    rounds = 100 if long_form else 5
    async with line_to(redis) as (proxy, broker), EventBus(behind(proxy)) as bus:
        for number in range(rounds):
            event = build(SOURCE, 2 * number)
            await swallowed(proxy, "append", partial(broker.publish, [event]))
            (again,) = await broker.publish([event])
            assert again.duplicate
            assert again.position is not None
            assert again.position.offset == 2 * number + 1
            proxy.swallow = SCRIPTS["append"].sha.encode()
            receipt = await bus.publish(build(SOURCE, 2 * number + 1))
            assert not proxy.swallow, "it was swallowed"
            assert receipt.duplicate
    assert await lab.stored() == [f"test-{number}" for number in range(2 * rounds)]


@pytest.mark.parametrize("guarded", [True, False])
async def test_the_answer_of_a_fetch_is_lost(lab: Lab, redis: Server, long_form: bool, guarded: bool):
    """What it leased comes with the next fetch, as if it had not been: uncharged, long before the lease ends."""
    rounds = 50 if long_form else 5
    await lab.declare(lease=60.0)
    async with line_to(redis) as (proxy, broker):
        for number in range(rounds):
            await broker.publish([build(SOURCE, 3 * number + n) for n in range(3)])
            await swallowed(proxy, "fetch", lambda: broker.fetch(SUBSCRIPTION, limit=3, wait=0))
            if not guarded:  # whoever has no note of the answer that was lost waits for the lease's end
                async with EventBus(lab.url) as bus:
                    assert not await bus.broker.fetch(SUBSCRIPTION, limit=3, wait=0.2)
                return
            began = time.monotonic()
            leases = await broker.fetch(SUBSCRIPTION, limit=3, wait=0)
            assert time.monotonic() - began < 1
            assert [lease.event.event_id for lease in leases] == [f"test-{3 * number + n}" for n in range(3)]
            assert {(lease.failures, lease.crashes, lease.attempts) for lease in leases} == {(0, 0, ())}
            assert await broker.settle(SUBSCRIPTION, [Ack(lease.token) for lease in leases]) == 3


async def test_the_answer_of_a_settlement_is_lost(lab: Lab, redis: Server):
    """It was carried out, once: asked again, it is stale."""
    await lab.declare(lease=60.0)
    async with line_to(redis) as (proxy, broker):
        await broker.publish([build(SOURCE, n) for n in range(2)])
        first, second = await broker.fetch(SUBSCRIPTION, limit=2, wait=0)
        orders: list[Settlement] = [Ack(first.token), Retry(second.token, delay=0, error="failed")]
        await swallowed(proxy, "settle", lambda: broker.settle(SUBSCRIPTION, orders))
        assert await broker.settle(SUBSCRIPTION, orders) == 0
        (lease,) = await broker.fetch(SUBSCRIPTION, limit=2, wait=0)
        assert (lease.event.event_id, lease.failures, lease.crashes) == ("test-1", 1, 0)
        assert await broker.settle(SUBSCRIPTION, [Ack(lease.token)]) == 1


@pytest.mark.parametrize("script", ["append", "fetch", "settle", "beat"])
async def test_answers_are_lost_again_and_again(lab: Lab, redis: Server, long_form: bool, script: str, measured):
    """Of one kind, to a bus that publishes to itself: handled once each, and nothing is charged to any event."""
    rounds = 50 if long_form else 5
    handled: list[str] = []
    async with Proxy(redis.port, plain=True) as proxy, EventBus(behind(proxy)) as bus:

        def handler(event: Event) -> None:
            assert event.retry_count == 0
            handled.append(event.event_id)

        await bus.subscribe("load.#", handler, SUBSCRIPTION, lease=60.0)
        for number in range(rounds):
            proxy.swallow = SCRIPTS[script].sha.encode()
            for n in range(5):
                await bus.publish(build(SOURCE, 5 * number + n))
            await lab.until(lambda: not proxy.swallow)
            await lab.until(lambda number=number: len(set(handled)) == 5 * (number + 1))
        await asyncio.sleep(0.5)  # what came twice would come now
        await empty(bus, SUBSCRIPTION)
        assert proxy.lost == rounds
        measured(rounds, published=5 * rounds, connections=proxy.connections)
    assert sorted(handled) == sorted(f"test-{number}" for number in range(5 * rounds))


# ---------------------------------------------------------------------------------------------------- absent


async def test_a_bus_without_a_server_says_so_at_once():
    bus = EventBus(f"redis://127.0.0.1:{free_port()}")
    assert await refused(bus.start()) < 1
    await bus.stop()


def test_a_service_waits_for_its_server(tmp_path: Path, redis: Server, long_form: bool, measured):
    """Live, not ready, and ready within 5 s of the server's start, which may be a minute later."""
    redis.kill()
    url = f"redis://127.0.0.1:{redis.port}"
    with running(tmp_path, "wowevent.service", PORT="0", REDIS_URL=url) as process:
        service = address(tmp_path)
        deadline = time.monotonic() + (60 if long_form else 3)
        while time.monotonic() < deadline:
            answer = httpx.get(f"{service}/ready")
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
            assert httpx.get(f"{service}/health").json()["redis"] == "unreachable"
            assert process.poll() is None
            time.sleep(0.25)
        redis.start()
        began = time.monotonic()
        until(lambda: httpx.get(f"{service}/ready").status_code == 200, "readiness")
        measured(1, recovery=time.monotonic() - began)
        assert time.monotonic() - began < 5
        assert httpx.post(f"{service}/events", json={"topic": "a"}).status_code == 202
        assert end(process) == 0
