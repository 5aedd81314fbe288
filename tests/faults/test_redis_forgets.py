"""A Redis server that forgets: the whole log, its scripts, a key; and one that has no memory left, or a new master."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.proxy import Proxy
from tests.faults.redis import KEY, answer_of, say
from tests.faults.worker import Publisher, build, publish_noted
from tests.servers import Server, free_port, redis_server
from wowevent import Event, EventBus, RequestTimeout
from wowevent.broker import Ack, Bury, Lease, Reason, Retention, Retry, Settlement, Subscription
from wowevent.brokers import open_broker
from wowevent.brokers.redis import RedisBroker
from wowevent.errors import BrokerError, BrokerUnavailable, PositionLost, StorageFull, SubscriptionNotFound
from wowevent.testing import ManualClock, settle

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

SOURCE = Publisher(url="", journal="", name="test")


async def eventually(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Return once it is so."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what it looks at tells nobody
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------------------- the log


class Household:
    """Two buses on one log: named, shared and live subscriptions, and one that answers."""

    def __init__(self, url: str) -> None:
        self.one = EventBus(url)
        self.two = EventBus(url)
        self.seen: dict[str, list[int]] = defaultdict(list)
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        """Make them all."""
        for bus in (self.one, self.two):
            await bus.start()
            await bus.subscribe("load.#", self._handler("shared"), "shared")
        await self.one.subscribe("load.#", self._handler("alone"), "alone")
        await self.two.subscribe("load.#", self._handler("live"))
        await self.two.subscribe("ask", lambda event: event.payload["n"] + 1)
        await self.one.subscribe("ask.named", lambda event: event.payload["n"] + 2, "answering")
        return self

    async def __aexit__(self, *_: object) -> None:
        """End."""
        await self.one.stop()
        await self.two.stop()

    def _handler(self, name: str) -> Callable[[Event], None]:
        return lambda event: self.seen[name].append(event.payload["n"])

    async def goes_on(self) -> None:
        """Everything that is published now, by either bus, comes to everybody, and questions are answered."""
        await self._settled()
        numbers = [next(self._numbers) for _ in range(6)]
        for number in numbers:
            await (self.one, self.two)[number % 2].publish(Event(topic="load.made", payload={"n": number}))
        for name in ("shared", "alone", "live"):
            await eventually(partial(self._has, name, numbers))
            assert len(self.seen[name]) == len(set(self.seen[name]))
        assert await self.one.request("ask", {"n": 1}) == 2
        assert await self.two.request("ask.named", {"n": 1}) == 3

    def _has(self, name: str, numbers: Sequence[int]) -> bool:
        return set(numbers) <= set(self.seen[name])

    async def _settled(self) -> None:
        """Both have found out, and their live readers too: what was said at that moment is gone for those."""
        for bus, topic in ((self.one, "ask"), (self.two, "ask.named")):
            async with asyncio.timeout(10):
                while True:
                    try:
                        await bus.request(topic, {"n": 0}, timeout=1.0)
                        break
                    except (BrokerError, RequestTimeout):
                        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "order",
    [
        "later",
        "earlier",
    ],
)
async def test_an_emptied_log_begins_anew(  # noqa: PLR0917 - fixtures
    lab: Lab,
    redis: Server,
    long_form: bool,
    order: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """FLUSHALL: a new epoch, an ERROR line of each bus, PositionLost once for each subscription, and all goes on.

    Epochs have no order: it goes on also when the new one sorts before the old one.
    """
    names = range(1, 10**6) if order == "later" else range(10**6, 1, -1)
    epochs = (f"{number:08x}" for number in names)
    monkeypatch.setattr("secrets.token_hex", lambda _: next(epochs))
    async with Household(lab.url) as household:
        await household.goes_on()
        for _ in range(10 if long_form else 2):
            epoch = (await household.one.broker.ping()).head.epoch
            caplog.clear()
            assert (await say(redis, "FLUSHALL")).startswith("+OK")
            receipt = await household.one.publish(Event(topic="load.made", payload={"n": -time.monotonic_ns()}))
            assert receipt.position is not None
            assert receipt.position.epoch != epoch
            await household.goes_on()
            assert caplog.text.count("the log was emptied or replaced, or lost") == 2
            for name in ("shared", "alone", "answering"):
                assert caplog.text.count(f"subscription lost unread events subscription={name}~") == 1


async def test_a_token_of_the_old_log_settles_nothing_in_the_new_one(lab: Lab, redis: Server):
    """Both count instances and positions from their beginning: a token must name more than these."""
    old = open_broker(lab.url, clock=ManualClock())  # no beat of which finds out before we look
    await old.declare(Subscription(id=SUBSCRIPTION, patterns=("load.#",)))
    await old.publish([build(SOURCE, 0)])
    (held,) = await old.fetch(SUBSCRIPTION, limit=1, wait=1)
    await say(redis, "FLUSHALL")
    new = open_broker(lab.url)
    await new.declare(Subscription(id=SUBSCRIPTION, patterns=("load.#",)))
    await new.publish([build(SOURCE, 1)])
    (other,) = await new.fetch(SUBSCRIPTION, limit=1, wait=1)
    with pytest.raises(BrokerUnavailable):
        await old.settle(SUBSCRIPTION, [Ack(held.token)])
    assert await old.settle(SUBSCRIPTION, [Ack(held.token)]) == 0
    assert await new.settle(SUBSCRIPTION, [Ack(other.token)]) == 1
    await old.close()
    await new.close()


async def test_joining_anew_leaves_others_alone(lab: Lab, redis: Server):
    """Who joins the new log late must not take somebody else's leave from it."""
    late, early = (open_broker(lab.url, clock=ManualClock()) for _ in range(2))  # no beat of theirs finds out first
    for broker in (late, early):
        await broker.ping()
    await say(redis, "FLUSHALL")
    live = Subscription(id="there", patterns=("a",), durable=False)
    await late.close()
    with pytest.raises(BrokerUnavailable):
        await early.declare(live)
    await early.declare(live)
    assert [info.subscription.id for info in await early.subscriptions()] == ["there"]
    await early.close()


async def test_while_the_new_log_is_joined_nothing_goes_astray(lab: Lab, redis: Server):
    """Subscriptions have other numbers there: what is published meanwhile must not go by the old ones."""
    async with Proxy(redis.port, plain=True) as proxy:
        slow = open_broker(f"redis://127.0.0.1:{proxy.port}")
        await slow.declare(Subscription(id="mine", patterns=("mine.#",)))
        await say(redis, "FLUSHALL")
        fresh = open_broker(lab.url)
        await fresh.declare(Subscription(id="theirs", patterns=("theirs.#",)))
        proxy.delay = 0.05
        calls = []
        for _ in range(60):  # joining takes several round trips of 0.1 s
            calls.append(asyncio.ensure_future(slow.publish([Event(topic="mine.made")])))
            await asyncio.sleep(0.02)
        results = await asyncio.gather(*calls, return_exceptions=True)
        proxy.delay = 0.0
        stored = [result for result in results if not isinstance(result, BaseException)]
        assert len(stored) > 10
        assert not await fresh.fetch("theirs", limit=100, wait=0)
        leases: list[Lease] = []
        with pytest.raises(PositionLost):
            await fresh.fetch("mine", limit=100, wait=0)
        while found := await fresh.fetch("mine", limit=100, wait=0.1):
            leases += found
        assert len(leases) == len(stored)
        for broker in (slow, fresh):
            await broker.close()


async def test_forgotten_scripts_are_sent_again(lab: Lab, redis: Server, long_form: bool):
    """SCRIPT FLUSH, under load: nobody notices."""
    async with Household(lab.url) as household:
        for _ in range(50 if long_form else 5):
            assert (await say(redis, "SCRIPT", "FLUSH")).startswith("+OK")
            await household.goes_on()


# ---------------------------------------------------------------------------------------------------- a key


async def test_a_deleted_subscription_is_told_and_can_be_made_again(
    lab: Lab, redis: Server, caplog: pytest.LogCaptureFixture
):
    """Its hash is gone, as an eviction would take it: who waits for events is told at once, and nothing hangs."""
    await lab.declare()
    seen: list[str] = []
    async with EventBus(lab.url) as bus, EventBus(lab.url) as other:
        settings: dict[str, Any] = {"subscriber_agent": "declared", "subscription": SUBSCRIPTION, "lease": 1.0}
        handle = await bus.subscribe("load.#", lambda event: seen.append(event.event_id), **settings)
        await bus.publish(build(SOURCE, 0))
        await eventually(lambda: seen == ["test-0"])
        waiting = asyncio.ensure_future(other.broker.fetch(SUBSCRIPTION, limit=1, wait=30))
        await asyncio.sleep(0.1)
        assert await say(redis, "DEL", f"{KEY}:q:1") == ":1\r\n"
        with pytest.raises(SubscriptionNotFound):
            await asyncio.wait_for(waiting, 3)
        await eventually(lambda: not handle.active)
        assert "subscription was removed, its consumer ends" in caplog.text
        health = await bus.health()
        assert health["status"] == "unhealthy"
        assert health["details"]["not_served"] == [SUBSCRIPTION]
        assert await other.info(SUBSCRIPTION) is None
        await bus.publish(build(SOURCE, 1))
        await handle.cancel()
        await bus.subscribe("load.#", lambda event: seen.append(event.event_id), **settings)
        await bus.publish(build(SOURCE, 2))
        await eventually(lambda: "test-2" in seen)
        assert caplog.text.count("subscription lost unread events") == 1
        assert (await bus.health())["status"] == "healthy"


# ---------------------------------------------------------------------------------------------------- memory


@pytest.fixture
async def small(lab: Lab, redis: Server) -> AsyncIterator[RedisBroker]:
    """A broker on a server with 2 MiB left, and a lab that knows about it."""
    await lab.declare(lease=60.0)
    used = int((await say(redis, "INFO", "memory")).split("used_memory:")[1].split()[0])
    await say(redis, "CONFIG", "SET", "maxmemory", str(used + 2 * 2**20))
    broker = open_broker(lab.url)
    assert isinstance(broker, RedisBroker)
    yield broker
    await broker.close()


async def test_full_memory_is_told_and_got_over(lab: Lab, redis: Server, small: RedisBroker, measured):
    """StorageFull at once and nothing half stored; reading and settling go on, and publishing once there is room."""
    source = Publisher(url="", journal="", name="p", padding=20_000)
    async with EventBus(small) as bus:
        with lab.journal("test") as journal:
            number = itertools.count()
            began = time.monotonic()
            while journal.last != "failed":
                began = time.monotonic()
                await publish_noted(bus, journal, [build(source, next(number)) for _ in range(3)])
            slowest = time.monotonic() - began
            assert slowest < 5
            stored = await lab.stored()  # a new instance joins, and reads
            assert stored == [entry.id for entry in lab.history("ok")]
            info = await bus.info(SUBSCRIPTION)
            assert info is not None
            assert info.ready == len(stored) > 30
            with pytest.raises(StorageFull):
                await bus.publish(build(source, next(number)), delay=60)
            leases = await small.fetch(SUBSCRIPTION, limit=30, wait=0)
            orders: list[Settlement] = [Ack(lease.token) for lease in leases[:10]]
            orders += [Retry(lease.token, delay=0.1, error="x" * 100) for lease in leases[10:20]]
            orders += [Bury(lease.token, Reason.REJECTED, "x" * 100) for lease in leases[20:]]
            assert await small.settle(SUBSCRIPTION, orders) == 30
            for lease in leases[:10]:
                journal.write("effect", lease.event.event_id)
            await say(redis, "CONFIG", "SET", "maxmemory", "0")
            last = build(source, next(number))
            await publish_noted(bus, journal, [last])
            assert lab.history("ok", id=last.event_id)
    drain = await lab.drain(lease=60.0)
    report = await lab.verdict()
    measured(1, report, refused=len(lab.history("failed")), slowest=slowest, drain=drain)
    assert len(await lab.dead()) == 10
    assert not report.broken()
    assert report.handled == report.ok - set(await lab.dead())


async def fill(broker: RedisBroker) -> None:
    """Until it is refused."""
    for _ in range(1_000):
        await broker.publish([Event(topic="load.made", payload={"text": "x" * 20_000})])


async def test_the_logs_limits_make_room_in_full_memory_though_a_delayed_event_finds_none(lab: Lab, small: RedisBroker):
    limited = open_broker(lab.url, retention=Retention(max_age=2.0))
    assert isinstance(limited, RedisBroker)
    due = datetime.now(UTC) + timedelta(seconds=1)
    await limited.publish([Event(topic="load.due", not_before=due, payload={"text": "x" * 20_000})])
    with pytest.raises(StorageFull):
        await fill(limited)
    room = 0
    async with asyncio.timeout(30):
        while room < 30:
            try:
                await limited.publish([Event(topic="load.made", payload={"text": "x" * 20_000})])
                room += 1
            except StorageFull:
                await asyncio.sleep(0.5)
    await limited.close()


async def test_full_memory_with_a_broken_line(redis: Server, small: RedisBroker):
    """The line is made anew, and scripts are sent again, while the server has no room."""
    event = Event(topic="load.made", payload={"text": "x" * 20_000})
    await small.publish([event])
    with pytest.raises(StorageFull):
        await fill(small)
    await say(redis, "SCRIPT", "FLUSH")
    await say(redis, "CLIENT", "KILL", "TYPE", "normal")
    with suppress(BrokerUnavailable):  # the one that finds out, unless the loop was told before
        await small.ping()
    (lease,) = await small.fetch(SUBSCRIPTION, limit=1, wait=0)
    assert await small.settle(SUBSCRIPTION, [Ack(lease.token)]) == 1


# ---------------------------------------------------------------------------------------------------- presence


async def test_who_was_away_for_long_is_there_again(redis: Server):
    """After 15 s of silence others take an instance to be gone; when it speaks again, it serves what it served."""
    clock, later = ManualClock(), ManualClock()
    url = f"redis://127.0.0.1:{redis.port}"
    away, there = open_broker(url, clock=later), open_broker(url, clock=clock)
    live = Subscription(id="live", patterns=("a",), durable=False)
    await away.declare(Subscription(id=SUBSCRIPTION, patterns=("a",)))
    await away.declare(live)
    await away.fetch(SUBSCRIPTION, limit=0, wait=0)
    await there.ping()

    async def consumers() -> dict[str, int]:
        return {info.subscription.id: info.consumers for info in await there.subscriptions()}

    async def advance(moved: ManualClock, broker: object) -> None:
        for _ in range(22):
            await moved.advance(1.0)
            for _ in range(3):
                await broker.ping()  # type: ignore[attr-defined]
                await settle()

    assert await consumers() == {SUBSCRIPTION: 1, "live": 1}
    await advance(clock, there)
    assert await consumers() == {SUBSCRIPTION: 0}
    await advance(later, away)
    assert not await away.fetch(SUBSCRIPTION, limit=1, wait=0)
    assert await consumers() == {SUBSCRIPTION: 1, "live": 1}
    await away.close()
    await there.close()


# ---------------------------------------------------------------------------------------------------- a new master


class Watched:
    """A master, a replica, and one Sentinel, which is enough to agree."""

    def __init__(self, folder: Path) -> None:
        first, second = (redis_server(folder / name) for name in ("first", "second"))
        second = redis_server(folder / "second", "--replicaof", "127.0.0.1", str(first.port))
        self.servers = (first, second)
        port = free_port()
        (folder / "sentinel").mkdir()
        (folder / "sentinel" / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\n"
            f"sentinel monitor mymaster 127.0.0.1 {first.port} 1\n"
            "sentinel down-after-milliseconds mymaster 1000\n"
            "sentinel failover-timeout mymaster 5000\n"
        )
        self.sentinel = Server(["redis-server", "sentinel.conf", "--sentinel"], port, folder / "sentinel")
        self.url = f"redis+sentinel://127.0.0.1:{port}/mymaster"

    def start(self) -> None:
        for server in (*self.servers, self.sentinel):
            server.start()

    def kill(self) -> None:
        for server in (*self.servers, self.sentinel):
            server.kill()

    def master(self) -> Server:
        """Whom the Sentinel calls so."""
        answer = answer_of(self.sentinel, "SENTINEL", "get-master-addr-by-name", "mymaster")
        return next(server for server in self.servers if f"\r\n{server.port}\r\n" in answer)

    def steady(self) -> bool:
        """Whether the replica has all, and the Sentinel knows it."""
        master = self.master()
        (other,) = [server for server in self.servers if server is not master]
        facts = answer_of(other, "INFO", "replication")
        known = answer_of(self.sentinel, "SENTINEL", "replicas", "mymaster")
        return (
            f"master_port:{master.port}" in facts
            and "master_link_status:up" in facts
            and f"{other.port}" in known
            and "s_down" not in known
            and "disconnected" not in known
        )


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    """Started, and all of one mind."""
    group = Watched(folder)
    try:
        await asyncio.to_thread(group.start)
        yield group
    finally:
        await asyncio.to_thread(group.kill)


async def test_a_new_master(lab: Lab, long_form: bool, request: pytest.FixtureRequest, measured):
    """The master is killed: the Sentinel makes the replica one, and everybody goes there by himself.

    Replication is asynchronous: what was confirmed and not sent on yet is lost. How much is measured, and no promise;
    nor is it that an event which was seen, lost and published again has its old position.
    """
    if not long_form or "redis" not in request.config.getoption("--broker").split(","):
        pytest.skip("a failover is for the long form")
    rounds, windows = 5, []
    async with watched(lab.folder) as group:
        lab.url = group.url
        await lab.until(group.steady, timeout=60)
        await lab.declare(lease=5.0)
        consumer = lab.consumer(concurrency=4, lease=5.0)
        await lab.written(1, "ready", process=consumer.name)
        publisher = lab.publisher(tasks=1)
        for _ in range(rounds):
            await lab.written(len(lab.history("ok")) + 300, "ok", timeout=60)
            await lab.until(group.steady, timeout=60)
            killed = group.master()
            killed.kill()
            began = time.monotonic()
            await lab.until(lambda killed=killed: group.master() is not killed, timeout=60)
            for what in ("ok", "acked"):
                await lab.until(lambda what=what, began=began: lab.history(what)[-1].time > began + 0.5, timeout=60)
            times = [entry.time for entry in lab.history("ok") if entry.time > began - 1]
            windows.append(max(after - before for before, after in itertools.pairwise(times)))
            await asyncio.to_thread(killed.start)
        publisher.kill()
        consumer.kill()
        drain = await lab.drain(lease=5.0)
        stored = await lab.stored()
        report = await lab.verdict()
    given: dict[str, set[str]] = defaultdict(set)
    for entry in lab.history("ok", "delivered"):
        given[entry.position].add(entry.id)
    twice = sum(len(ids) > 1 for ids in given.values())
    measured(rounds, report, window=max(windows), positions_given_twice=twice, drain=drain)
    assert len(stored) == len(set(stored))
    assert not report.unexpected | report.altered
    assert max(windows) < 15
