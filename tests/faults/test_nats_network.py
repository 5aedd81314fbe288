"""Bad lines to a NATS server, one that is not there, and one that has no room: told in time, stored once, got over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.checker import Report
from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.load import UNANSWERED, Load, refused
from tests.faults.nats import LEASE, cramped_server, line_to, restart, stream, tell
from tests.faults.worker import Publisher, build, publish_noted
from tests.processes import address, end, running, until
from tests.servers import Server, free_port, nats_running
from wowevent import Event, EventBus
from wowevent.broker import Ack, Broker, Retry
from wowevent.brokers import open_broker
from wowevent.errors import BrokerUnavailable, StorageFull

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("nats")]

FOR_LONG = {"test_lines_that_died_in_silence"}

SOURCE = Publisher(url="", journal="", name="test")
LARGE = Publisher(url="", journal="", name="large", padding=50_000)
_ENOUGH = 500  # of these no small disk holds


@pytest.fixture(autouse=True)
def forgiving(lab: Lab) -> None:
    """What was acknowledged when the server or a line died may come once more."""
    lab.forgiven = UNANSWERED


def once(_: Report, stored: Sequence[str]) -> None:
    """Each is there once."""
    assert len(stored) == len(set(stored))


# ---------------------------------------------------------------------------------------------------- bad lines


async def test_a_black_hole(lab: Lab, nats: Server, long_form: bool, measured):
    """Nothing passes: every call says so within 10 s; all resumes within 15 s."""
    rounds, longest, slowest = 5 if long_form else 1, 0.0, 0.0
    async with line_to(nats) as (proxy, url), EventBus(url) as bus:
        broker = open_broker(url)
        await broker.ping()
        load = Load(lab, url, lease=LEASE)
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
        once(*await load.judge(measured, rounds, longest=longest, recovery=slowest))
    assert longest < 11
    assert slowest < 15


async def test_a_reset_each_second(lab: Lab, nats: Server, long_form: bool, measured):
    """For some seconds, or a minute: all that is on its way is cut off, and everything goes on between the resets."""
    rounds, slowest = 60 if long_form else 3, 0.0
    async with line_to(nats) as (proxy, url):
        load = Load(lab, url, lease=LEASE)
        await load.start()
        for _ in range(rounds):
            await asyncio.sleep(1)
            proxy.reset()
            slowest = max(slowest, await load.goes_on(1))
        assert not lab.history("failed", "unknown")
        once(*await load.judge(measured, rounds, connections=proxy.connections, recovery=slowest))
    assert slowest < 5


@pytest.mark.parametrize("kind", ["slow", "chopped"])
async def test_a_bad_line_is_no_dead_one(lab: Lab, nats: Server, long_form: bool, kind: str, measured):
    """100 ms each way, or pieces of 1 to 7 bytes: no connection is given up."""
    async with line_to(nats) as (proxy, url):
        proxy.delay, proxy.chopped = (0.1, False) if kind == "slow" else (0.0, True)
        load = Load(lab, url, lease=LEASE)
        await load.start()
        connections = proxy.connections
        began, before = time.monotonic(), len(lab.history("ok"))
        await asyncio.sleep(60 if long_form else 3)
        await load.goes_on(5)
        rate = (len(lab.history("ok")) - before) / (time.monotonic() - began)
        assert proxy.connections == connections
        assert not lab.history("failed", "unknown", "stale")
        report, stored = await load.judge(measured, 1, confirmed_a_second=rate)
        once(report, stored)
    assert not report.duplicates


async def test_lines_that_died_in_silence(lab: Lab, nats: Server, measured):
    """Who only waits is told by nobody: it asks, and has what came meanwhile."""
    handled: list[str] = []
    async with line_to(nats) as (proxy, url), EventBus(url) as bus, EventBus(lab.url) as other:
        await bus.subscribe("load.#", lambda event: handled.append(event.event_id), SUBSCRIPTION, lease=LEASE)
        await other.publish(build(SOURCE, 0))
        await lab.until(lambda: handled == ["test-0"])
        proxy.strand()
        began = time.monotonic()
        await other.publish(build(SOURCE, 1))
        await lab.until(lambda: handled == ["test-0", "test-1"], timeout=40)
        took = time.monotonic() - began
    measured(1, recovery=took)
    assert took < 30


# ---------------------------------------------------------------------------------------------------- lost answers


async def test_the_answer_of_a_publish_is_lost(lab: Lab, nats: Server, long_form: bool):
    """It is stored once: the same again is known, at its place; a bus says it again by itself."""
    rounds = 100 if long_form else 5
    async with line_to(nats) as (proxy, url), EventBus(url) as bus:
        broker = open_broker(url)
        await broker.ping()
        for number in range(rounds):
            event = build(SOURCE, 2 * number)
            proxy.swallow = event.event_id.encode()
            await refused(broker.publish([event]))
            (again,) = await broker.publish([event])
            assert again.duplicate
            assert again.position is not None
            assert again.position.offset == 2 * number + 1
            proxy.swallow = f"test-{2 * number + 1}".encode()
            receipt = await bus.publish(build(SOURCE, 2 * number + 1))
            assert not proxy.swallow, "it was swallowed"
            assert receipt.duplicate
        await broker.close()
    assert await lab.stored() == [f"test-{number}" for number in range(2 * rounds)]


async def test_the_answer_of_a_fetch_is_lost(lab: Lab, nats: Server, measured):
    """What the server gave away comes once more when it has heard nothing of it, counted as a crash; none is lost."""
    await lab.declare(lease=1.0)
    async with line_to(nats) as (proxy, url):
        broker = open_broker(url)
        await broker.publish([build(SOURCE, 0)])
        assert await broker.fetch(SUBSCRIPTION, limit=0, wait=0) == []  # it is joined, and asks for nothing else
        proxy.swallow = b"CONSUMER.MSG.NEXT.wow-default-log.work-n"
        await refused(broker.fetch(SUBSCRIPTION, limit=1, wait=0))
        began = time.monotonic()
        while not (leases := await broker.fetch(SUBSCRIPTION, limit=1, wait=1)):
            assert time.monotonic() - began < 20
        measured(1, recovery=time.monotonic() - began)
        (lease,) = leases
        assert (lease.event.event_id, lease.failures, lease.crashes) == ("test-0", 0, 1)
        assert await broker.settle(SUBSCRIPTION, [Ack(lease.token)]) == 1
        await broker.close()


async def test_the_answer_of_a_settlement_is_lost(lab: Lab, nats: Server):
    """It was carried out; asked again, it does no harm: no event comes that was acknowledged, a retry comes once."""
    await lab.declare(lease=60.0)
    async with line_to(nats) as (proxy, url):
        broker = open_broker(url)
        await broker.publish([build(SOURCE, n) for n in range(2)])
        first, second = await broker.fetch(SUBSCRIPTION, limit=2, wait=5)
        for mark, order in ((b"+ACK", Ack(first.token)), (b"+ACK", Retry(second.token, delay=0, error="failed"))):
            proxy.swallow = mark
            await refused(broker.settle(SUBSCRIPTION, [order]))
            await broker.settle(SUBSCRIPTION, [order])
        (lease,) = await broker.fetch(SUBSCRIPTION, limit=2, wait=1)
        assert (lease.event.event_id, lease.failures, lease.crashes) == ("test-1", 1, 0)
        assert await broker.settle(SUBSCRIPTION, [Ack(lease.token)]) == 1
        assert await broker.fetch(SUBSCRIPTION, limit=2, wait=1) == []
        info = await broker.info(SUBSCRIPTION)
        assert info is not None
        assert (info.ready, info.leased, info.delayed) == (0, 0, 0)
        await broker.close()


# ---------------------------------------------------------------------------------------------------- absent


async def test_a_bus_without_a_server_says_so_at_once():
    bus = EventBus(f"nats://127.0.0.1:{free_port()}")
    assert await refused(bus.start()) < 1
    await bus.stop()


def test_a_service_waits_for_its_server(tmp_path: Path, nats: Server, long_form: bool, measured):
    """Live, not ready, and ready within 5 s of the server's start, which may be a minute later."""
    nats.kill()
    url = f"nats://127.0.0.1:{nats.port}"
    with running(tmp_path, "wowevent.service", PORT="0", WOWEVENT_URL=url) as process:
        service = address(tmp_path)
        deadline = time.monotonic() + (60 if long_form else 2)
        while time.monotonic() < deadline:
            answer = httpx.get(f"{service}/ready")
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
            assert httpx.get(f"{service}/health").json()["nats"] == "unreachable"
            assert process.poll() is None
            time.sleep(0.25)
        nats.start()
        began = time.monotonic()
        until(lambda: httpx.get(f"{service}/ready").status_code == 200, "readiness")
        took = time.monotonic() - began
        measured(1, recovery=took)
        assert took < 5
        assert httpx.post(f"{service}/events", json={"topic": "a"}).status_code == 202
        assert end(process) == 0


# ---------------------------------------------------------------------------------------------------- no room


async def fill(lab: Lab) -> tuple[int, str, float]:
    """Publish until it is refused: how many were confirmed, what was said, and after how many seconds."""
    async with EventBus(lab.url) as bus:
        with lab.journal("filler") as journal:
            for number in range(_ENOUGH):
                began = time.monotonic()
                await asyncio.wait_for(publish_noted(bus, journal, [build(LARGE, number)]), 20)
                if journal.last != "ok":
                    (refusal,) = lab.history("failed", "unknown")
                    return number, refusal.note, time.monotonic() - began
    raise AssertionError("it is never full")


async def read_and_acknowledge(broker: Broker, count: int) -> None:
    """What is there can be handled."""
    left = count
    while left:
        leases = await broker.fetch(SUBSCRIPTION, limit=min(20, left), wait=5)
        assert leases
        left -= await broker.settle(SUBSCRIPTION, [Ack(lease.token) for lease in leases])


async def test_an_account_that_is_full(lab: Lab, tmp_path: Path, measured):
    """It says StorageFull at once; what is there is delivered and acknowledged; with room again, all resumes."""
    users = "  lab: { users: [{ user: lab, password: lab }], jetstream: { max_file: 8M } }\n"
    with nats_running(tmp_path / "full", f"accounts {{\n{users}}}\nno_auth_user: lab") as server:
        lab.url = f"nats://127.0.0.1:{server.port}"
        await lab.declare(lease=60.0)
        broker = open_broker(lab.url)
        count, said, longest = await fill(lab)
        assert "StorageFull" in said
        (held,) = await broker.fetch(SUBSCRIPTION, limit=1, wait=5)
        with pytest.raises(StorageFull):
            await broker.settle(SUBSCRIPTION, [Retry(held.token, error="no room for it")])
        assert await broker.settle(SUBSCRIPTION, [Ack(held.token)]) == 1
        await read_and_acknowledge(broker, count - 1)
        await tell(server, f"STREAM.PURGE.{stream('log')}")
        began = time.monotonic()
        (appended,) = await broker.publish([build(SOURCE, 0)])
        (lease,) = await broker.fetch(SUBSCRIPTION, limit=1, wait=5)
        took = time.monotonic() - began
        assert lease.event.event_id == "test-0"
        assert appended.position == lease.position
        await broker.close()
    measured(1, confirmed=count, longest=longest, recovery=took)
    assert longest < 5
    assert took < 15


async def test_a_disk_that_is_full(lab: Lab, tmp_path: Path, measured):
    """The server answers no publish, and none until it is started anew: all say so, and nothing is lost.

    What is there is delivered and acknowledged meanwhile, to who joins then, too.
    """
    with cramped_server(tmp_path / "cramped", "16m") as (server, ballast):
        lab.url = f"nats://127.0.0.1:{server.port}"
        await lab.declare(lease=LEASE)
        idle = open_broker(lab.url)
        await idle.ping()
        count, said, longest = await fill(lab)
        assert "StorageFull" in said
        assert "restarted" in said
        broker, probe = open_broker(lab.url), open_broker(lab.url)
        await read_and_acknowledge(broker, 10)
        began = time.monotonic()
        for call in (broker.publish([build(SOURCE, 0)]), broker.ping(), probe.ping(), idle.ping()):
            with pytest.raises(StorageFull, match="stores nothing until its server is restarted"):
                await call
        told = time.monotonic() - began
        ballast.unlink()
        with pytest.raises(StorageFull):  # the server does not notice that there is room
            await probe.ping()
        await read_and_acknowledge(broker, 10)
        with lab.journal("read") as journal:
            for number in range(20):
                journal.write("effect", f"large-{number}")
        await restart(server)
        began = time.monotonic()
        async with EventBus(lab.url) as bus:
            await bus.publish(Event(topic="other"))
            assert (await bus.health())["status"] == "healthy"
        took = time.monotonic() - began
        async with asyncio.timeout(15):
            while True:
                with suppress(BrokerUnavailable):
                    await probe.ping()
                    break
        for each in (broker, probe, idle):
            await each.close()
        await lab.drain(lease=LEASE)
        stored = [id for id in await lab.stored() if id.startswith("large")]
        report = await lab.verdict()
    measured(1, report, longest=longest, told_after=told, recovery=took)
    assert count == len(report.ok)
    assert not lab.broken(report)
    assert len(stored) == len(set(stored))
    assert report.ok <= set(stored)
    assert longest < 10
    assert told < 2
    assert took < 15
