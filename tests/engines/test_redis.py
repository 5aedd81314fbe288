"""What is the Redis engine's own: its clients and URLs, the server's settings, its connections, wake-ups and keys."""

# ruff: noqa: SLF001 - to lose a wake-up or to see what an instance waits for, a test has to reach inside

import asyncio
import contextlib
import gc
import itertools
import logging
import random
import statistics
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry as DriverRetry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from tests.conformance.engines import eventually
from tests.faults.proxy import Proxy
from tests.servers import (
    Server,
    certificate,
    free_port,
    redis_cluster,
    redis_running,
    redis_says,
    redis_sentinel,
)
from wowevent import Event, EventBus, RetryPolicy
from wowevent.broker import (
    Ack,
    Bury,
    DeadQuery,
    Extend,
    Lease,
    Position,
    Query,
    Reason,
    Retention,
    Retry,
    Stored,
    Subscription,
)
from wowevent.brokers import open_broker
from wowevent.brokers.redis import RedisBroker, past, session
from wowevent.brokers.redis import dial as dialling
from wowevent.brokers.redis import line as lines
from wowevent.brokers.redis.dial import dial_client, dial_url
from wowevent.brokers.redis.line import Line
from wowevent.brokers.redis.server import promise_of
from wowevent.brokers.redis.session import Session
from wowevent.client import EventRouterClient
from wowevent.directory import Directory
from wowevent.errors import (
    BrokerUnavailable,
    InvalidEvent,
    NoResponders,
    NotPermitted,
    NotSupported,
    PositionLost,
    StorageDamaged,
    SubscriptionNotFound,
)
from wowevent.router import EventRouter
from wowevent.testing import ManualClock

WORKER = "worker"
SECRET = "s3cr3t-p/w"  # with what a URL must quote
QUOTED = "s3cr3t-p%2Fw"


def event(n: int, topic: str = "task.created", **fields: Any) -> Event:
    return Event(topic=topic, payload={"n": n}, **fields)


def numbers(found: Sequence[Lease | Stored]) -> list[int]:
    return [item.event.payload["n"] for item in found]


async def declare(broker: RedisBroker, id: str = WORKER, **settings: Any) -> None:
    await broker.declare(Subscription(id=id, **{"patterns": ("#",)} | settings))


async def take(broker: RedisBroker, limit: int = 100, id: str = WORKER) -> Sequence[Lease]:
    return await broker.fetch(id, limit=limit, wait=0)


async def finish(broker: RedisBroker, id: str) -> list[int]:
    """Lease and acknowledge all that is ready."""
    found: list[int] = []
    while leases := await take(broker, id=id):
        found += numbers(leases)
        await broker.settle(id, [Ack(lease.token) for lease in leases])
    return found


async def read(broker: RedisBroker) -> list[Stored]:
    return [stored async for stored in broker.read(Query())]


class Log:
    """One log on a server that others use, too: its instances and buses, and the server behind their backs."""

    _numbers = itertools.count()

    def __init__(self, port: int) -> None:
        self.port = port
        self.name = f"log-{next(self._numbers)}"
        """The namespace, and the name of its connections."""
        self.admin: Redis = Redis(port=port)
        self.brokers: list[RedisBroker] = []
        self.buses: list[EventBus] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}?client_name={self.name}"

    @property
    def key(self) -> str:
        return f"wowevent:{{{self.name}}}"

    def open(self, server: Any = None, **settings: Any) -> RedisBroker:
        """One more instance."""
        broker = RedisBroker(server or self.url, **{"namespace": self.name} | settings)
        self.brokers.append(broker)
        return broker

    async def bus(self, server: Any = None, **settings: Any) -> EventBus:
        """One more bus, started."""
        bus = EventBus(server or self.url, **{"namespace": self.name} | settings)
        self.buses.append(bus)
        await bus.start()
        return bus

    async def connections(self) -> list[dict[str, str]]:
        """Those of this log."""
        found: list[dict[str, str]] = await self.admin.client_list()
        return [each for each in found if each["name"] == self.name]

    async def kill(self, command: str) -> None:
        """Cut those connections of this log whose last command this was."""
        doomed = [each["id"] for each in await self.connections() if each["cmd"].startswith(command)]
        assert doomed
        for id in doomed:
            await self.admin.client_kill_filter(_id=id)

    async def close(self) -> None:
        for bus in self.buses:
            await bus.stop(timeout=1)
        await asyncio.gather(*(broker.close() for broker in self.brokers))
        await self.admin.aclose()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that need nothing special of it."""
    with redis_running(tmp_path_factory.mktemp("redis"), "--appendfsync", "everysec") as server:
        yield server


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """A cluster."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def watcher(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Sentinel of the server for all."""
    sentinel = redis_sentinel(tmp_path_factory.mktemp("sentinel"), server)
    sentinel.start()
    yield sentinel
    sentinel.kill()


@pytest.fixture
async def log(server: Server) -> AsyncIterator[Log]:
    log = Log(server.port)
    yield log
    await log.close()


async def works(bus: EventBus) -> None:
    """Publish, handle, ask, look back."""
    seen: list[int] = []
    await bus.subscribe("task.*", lambda event: seen.append(event.payload["n"]), "worker")
    await bus.subscribe("math.double", lambda event: event.payload["n"] * 2, "doubler")
    for n in range(20):
        assert await bus.publish(event(n))
    await bus.join(timeout=10)
    assert seen == list(range(20))
    assert await bus.request("math.double", {"n": 21}) == 42
    assert numbers([stored async for stored in bus.history("task.*")]) == list(range(20))


# ------------------------------------------------------------------------------------------------ clients


def settings_of(client: Redis) -> dict[str, Any]:
    return dict(client.connection_pool.connection_kwargs)


@pytest.mark.parametrize("decoded", [False, True])
async def test_a_callers_client_serves_a_bus_and_stays_open_and_as_it_was(log: Log, decoded: bool) -> None:
    retry = DriverRetry(NoBackoff(), 7)
    client: Redis = Redis(
        port=log.port, decode_responses=decoded, retry=retry, socket_timeout=3.5, client_name=log.name
    )
    before = settings_of(client), client.get_retry()
    mine = f"mine-{log.name}"
    ended = asyncio.Event()

    async def use() -> int:
        """The caller's own work meanwhile: every answer is that of its question."""
        count = 0
        while not ended.is_set():
            count += 1
            assert await client.incr(mine) == count
            assert await client.echo(f"{count}") in {f"{count}", f"{count}".encode()}
        return count

    user = asyncio.create_task(use())
    bus = await log.bus(client)
    await works(bus)
    await bus.stop()
    ended.set()
    count = await user
    assert count > 20
    assert await client.get(mine) == (f"{count}" if decoded else f"{count}".encode())
    assert (settings_of(client), client.get_retry()) == before
    await client.aclose()
    await eventually(lambda: _none(log.connections()))


async def _none(found: Awaitable[list[Any]]) -> bool:
    return not await found


async def test_a_client_through_sentinel_serves_a_bus_and_stays_open(log: Log, watcher: Server) -> None:
    sentinel = Sentinel([("127.0.0.1", watcher.port)])
    client = sentinel.master_for("mymaster", decode_responses=True)
    bus = await log.bus(client)
    await works(bus)
    await bus.stop()
    assert await client.echo("still there") == "still there"
    await client.aclose()
    await sentinel.aclose()


@pytest.mark.parametrize("used_before", [False, True])
async def test_a_client_of_a_cluster_serves_a_bus_and_stays_open(
    nodes: tuple[Server, Server], used_before: bool
) -> None:
    client: RedisCluster = RedisCluster(port=nodes[0].port, host="127.0.0.1", decode_responses=True)
    if used_before:
        assert await client.set("theirs", "1")
    for namespace in ("first", "second", "third", "fourth"):  # of both servers
        async with EventBus(client, namespace=f"{namespace}-{used_before}") as bus:
            await works(bus)
    assert await client.set("theirs", "2")
    assert await client.get("theirs") == "2"
    await client.aclose()


async def test_a_bus_on_a_callers_client_is_served_by_a_router(log: Log) -> None:
    async with Redis(port=log.port) as client:
        bus = await log.bus(client)
        async with EventRouter(port=0, bus=bus) as router, EventRouterClient(url=router.url) as agent:
            heard: list[int] = []
            await agent.subscribe(["task.*"], callback=lambda event: heard.append(event.payload["n"]))
            await agent.publish("task.created", {"n": 1})
            await bus.publish(event(2))
            await eventually(lambda: sorted(heard) == [1, 2])
        await bus.stop()
        assert await client.ping()


def test_a_client_that_blocks_is_refused() -> None:
    with pytest.raises(NotSupported, match=r"redis\.asyncio"):
        EventBus(BlockingRedis())  # type: ignore[arg-type]


async def test_an_instance_asks_for_nothing_before_its_first_call(log: Log) -> None:
    broker = log.open()
    await asyncio.sleep(0.05)
    assert await log.connections() == []
    await broker.ping()
    assert await log.connections() != []


# ------------------------------------------------------------------------------------------------ URLs


async def test_every_way_to_a_server_works(server: Server, watcher: Server, nodes: tuple[Server, Server]) -> None:
    for number, url in enumerate(
        (
            f"redis://127.0.0.1:{server.port}/7",
            f"redis://127.0.0.1:{server.port}?db=8",
            f"redis+sentinel://127.0.0.1:{watcher.port}/mymaster/9",
            f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{watcher.port}/mymaster",
            f"redis+cluster://127.0.0.1:{nodes[0].port}",
            f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{nodes[1].port}/0",
        )
    ):
        async with EventBus(url, namespace=f"every-way-{number}") as bus:
            await works(bus)


async def test_a_database_is_one_log_and_another_one_another(log: Log) -> None:
    first, second = (log.open(f"redis://127.0.0.1:{log.port}/{n}") for n in (11, 12))
    await first.publish([event(1)])
    assert numbers(await read(first)) == [1]
    assert await read(second) == []


async def test_a_socket_of_the_file_system(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    with redis_running(tmp_path / "redis", "--unixsocket", str(socket)):
        async with EventBus(f"unix://{socket}?db=3") as bus:
            await works(bus)


async def test_tls_takes_a_certificate_that_it_is_told_to_trust_and_no_other(tmp_path: Path) -> None:
    trusted, key = certificate(tmp_path / "tls")
    port = free_port()
    files = ("--tls-cert-file", str(trusted), "--tls-key-file", str(key), "--tls-ca-cert-file", str(trusted))
    with redis_running(tmp_path / "redis", "--tls-port", str(port), "--tls-auth-clients", "no", *files):
        async with EventBus(f"rediss://127.0.0.1:{port}?ssl_ca_certs={trusted}") as bus:
            await works(bus)
        with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await EventBus(f"rediss://127.0.0.1:{port}").start()


async def test_a_password_and_a_user_with_rights_to_our_keys_alone(tmp_path: Path) -> None:
    with redis_running(tmp_path, "--requirepass", SECRET) as server:
        there = f"127.0.0.1:{server.port}"
        async with EventBus(f"redis://:{QUOTED}@{there}") as bus:
            await works(bus)
        async with Redis(port=server.port, password=SECRET) as admin:
            rights = ["~wowevent:*", "&wowevent:*", "+@all", "-@dangerous", "+info"]
            await admin.execute_command("ACL", "SETUSER", "bus", "on", f">{SECRET}", *rights)
        async with EventBus(f"redis://bus:{QUOTED}@{there}/3", namespace="own") as bus:
            await works(bus)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://h/prod", "number"),
        ("redis://h?strict=yes", "strict"),
        ("redis://h:port", "port"),
        ("redis://:hun#ter@h", "no fragment"),
        ("redis+cluster://:hun#ter@h", "no fragment"),
        ("redis://h?db=x", "db"),
        ("redis://h?appendonly=yes", "appendonly"),
        ("redis://h?ssl_ca_certs=x.pem", "ssl_ca_certs"),
        ("rediss://h?ssl_cert_reqs=some", "some"),
        ("redis://h?max_age=week", "week"),
        ("redis://h?max_aeg=3600", "max_aeg"),
        ("redis://h?", None),
        ("unix:///s?max_aeg=3600", "max_aeg"),
        ("unix://u:hun/ter@h", "no host"),
        ("redis+sentinel://h:1", "service"),
        ("redis+sentinel://h:1,/mymaster", "host"),
        ("redis+sentinel://h:1/mymaster/prod", "prod"),
        ("redis+sentinel://h:1/mymaster?sevrice=x", "sevrice"),
        ("redis+sentinel://h:x/mymaster", "port"),
        ("redis+cluster://h:1/3", "one database"),
        ("redis+cluster://h:1?db=3", "one database"),
        ("redis+cluster://h:1?ssl=perhaps", "perhaps"),
        ("redis+cluster://h:1?client_nmae=x", "client_nmae"),
        ("redis+cluster://", "host"),
    ],
)
def test_a_url_that_says_something_unknown_is_refused_before_anything_is_connected(url: str, what: str | None) -> None:
    if what is None:
        open_broker(url)
        return
    with pytest.raises(ValueError, match=what):  # where no loop runs, nothing can be connected
        open_broker(url)


def test_a_scheme_that_only_looks_like_redis_is_not_supported() -> None:
    with pytest.raises(NotSupported, match=r"redis\+tls"):
        open_broker("redis+tls://localhost")


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:{0}", "redis+sentinel://127.0.0.1:{0}/m", "redis+cluster://127.0.0.1:{0}"]
)
async def test_a_server_that_is_not_there_is_unavailable_at_once(url: str) -> None:
    bus = EventBus(url.format(free_port()))
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        await bus.start()
    assert time.monotonic() - started < 2
    await bus.stop()


async def test_dialling_can_be_cancelled_at_any_moment_and_leaves_nothing_open(
    log: Log, watcher: Server, nodes: tuple[Server, Server]
) -> None:
    sentinel = Sentinel([("127.0.0.1", watcher.port)])
    ours = f"?client_name={log.name}"
    for dial in (
        dial_url(f"redis://127.0.0.1:{log.port}{ours}", "key"),
        dial_url(f"redis+sentinel://127.0.0.1:{watcher.port}/mymaster{ours}", "key"),
        dial_url(f"redis+cluster://127.0.0.1:{nodes[0].port}{ours}", "wowevent:{a}"),
        dial_url(f"redis+cluster://127.0.0.1:{nodes[0].port}{ours}", "wowevent:{b}"),
        dial_client(sentinel.master_for("mymaster", client_name=log.name), "key"),
    ):
        for turns in itertools.count():
            dialling = asyncio.ensure_future(dial())
            for _ in range(turns):
                await asyncio.sleep(0)
            if dialling.done():
                await (await dialling).disconnect()
                break
            dialling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialling
    await eventually(lambda: _none(log.connections()))
    gc.collect()  # what is left open is a warning now, and so a failure
    await sentinel.aclose()


async def test_the_options_of_ours_and_of_the_driver_are_understood(log: Log) -> None:
    clock = ManualClock()
    url = f"{log.url}&max_age=100&max_count=1000&unserved_after=3600&strict=true&socket_keepalive=true"
    broker = open_broker(url, namespace=log.name, clock=clock)
    assert isinstance(broker, RedisBroker)
    log.brokers.append(broker)
    await broker.publish([event(1)])
    assert len(await log.connections()) >= 1  # client_name is the driver's
    await _pass(broker, clock, 60)
    await broker.publish([event(2)])
    await _pass(broker, clock, 60)
    assert numbers(await read(broker)) == [2]  # max_age is ours


async def test_a_wrong_password_is_not_permitted_and_not_tried_again(tmp_path: Path) -> None:
    with redis_running(tmp_path / "redis", "--requirepass", SECRET) as server:
        sentinel = redis_sentinel(tmp_path / "sentinel", server)
        sentinel.start()
        try:
            urls = (
                f"redis://:wrong@127.0.0.1:{server.port}",
                f"redis+sentinel://:wrong@127.0.0.1:{sentinel.port}/mymaster",
                f"redis+cluster://:wrong@127.0.0.1:{server.port}",
            )
            async with Redis(port=server.port, password=SECRET) as admin:
                for url in urls:
                    await admin.acl_log_reset()
                    bus = EventBus(url)
                    with pytest.raises(NotPermitted):
                        await asyncio.wait_for(bus.start(), 5)
                    await bus.stop()
                    assert [entry["count"] for entry in await admin.acl_log()] == [1]
            with pytest.raises(NotPermitted):
                await EventBus(f"redis://127.0.0.1:{server.port}").start()
        finally:
            sentinel.kill()


@pytest.mark.parametrize("part", [":l", ":we"], ids=["leased", "delayed"])
async def test_entries_that_others_took_are_lost_and_said(log: Log, part: str) -> None:
    broker = log.open()
    await declare(broker, lease=0.2)
    await broker.publish([event(n=1)])
    (lease,) = await take(broker)
    await broker.settle(WORKER, [Extend(lease.token, 0.1) if part == ":l" else Retry(lease.token, 0.1)])
    for key in await log.admin.keys(f"*{part}"):
        await log.admin.delete(key)
    await asyncio.sleep(0.3)
    assert not await take(broker)  # which finds out
    with pytest.raises(PositionLost) as caught:
        await take(broker)
    assert caught.value.lost == 1
    await broker.publish([event(n=2)])
    assert numbers(await take(broker)) == [2]


async def test_leases_that_others_took_together_are_lost_and_said(log: Log) -> None:
    """All of one fetch: nothing is left that would name one of them."""
    broker = log.open()
    await declare(broker, lease=0.2)
    await broker.publish([event(n=n) for n in range(3)])
    await broker.settle(WORKER, [Ack((await take(broker))[0].token)])
    assert await log.admin.delete(*await log.admin.keys(f"{log.key}*:l")) == 1
    await asyncio.sleep(0.3)
    assert not await take(broker)  # which finds out
    with pytest.raises(PositionLost) as caught:
        await take(broker)
    assert caught.value.lost == 2
    assert not await take(broker)


async def test_a_count_of_leases_that_others_took_leaves_none_without_an_end(log: Log) -> None:
    broker = log.open()
    await declare(broker, lease=0.2)
    await broker.publish([event(n=n) for n in range(3)])
    leases = await take(broker)
    assert await log.admin.delete(*await log.admin.keys(f"{log.key}*:b")) == 1
    await broker.settle(WORKER, [Ack(leases[0].token)])
    await asyncio.sleep(0.3)
    again = [*await take(broker), *await take(broker)]  # each alone, as suspects
    assert numbers(again) == [1, 2]
    assert [lease.crashes for lease in again] == [1, 1]


@pytest.mark.parametrize("part", [":d", ":w"], ids=["leases", "retries"])
async def test_times_that_others_took_are_set_anew(log: Log, part: str) -> None:
    """A lease ends half a minute later, a retry comes at once; without that they would stay for ever."""
    clock = ManualClock()
    broker = log.open(clock=clock)
    await declare(broker, lease=10.0)
    await broker.publish([event(n=1)])
    (lease,) = await take(broker)
    if part == ":w":
        await broker.settle(WORKER, [Retry(lease.token, 10.0)])
    assert await log.admin.delete(*await log.admin.keys(f"{log.key}*{part}")) == 1
    waiting = asyncio.ensure_future(broker.fetch(WORKER, limit=1, wait=100.0))
    for _ in range(35):
        await clock.advance(1.0)
        await asyncio.sleep(0.02)
    (lease,) = await asyncio.wait_for(waiting, 5)
    assert lease.crashes == int(part == ":d")


async def test_delayed_events_that_others_took_are_said_and_keep_nobody_waiting(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    broker = log.open()
    due = datetime.now(UTC) + timedelta(seconds=1)
    await broker.publish(
        [event(1, event_id="taken", not_before=due), event(2, not_before=due + timedelta(seconds=0.1))]
    )
    assert await log.admin.hdel(f"{log.key}:later:body", "taken") == 1
    await eventually(lambda: _is_there(broker, [2]))
    assert "a delayed event is lost" in caplog.text
    assert not await log.admin.zcard(f"{log.key}:later")


async def _is_there(broker: RedisBroker, expected: list[int]) -> bool:
    return numbers(await read(broker)) == expected


async def test_a_delayed_event_that_cannot_be_read_stays_and_is_looked_at_once_a_second(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = log.open()
    await broker.publish([event(1, event_id="newer", not_before=datetime.now(UTC) + timedelta(seconds=0.5))])
    await log.admin.hset(f"{log.key}:later:body", "newer", b'{"v":99}')
    beats, call = 0, Session.call

    async def counted(self: Session, name: str, *arguments: Any) -> Any:
        nonlocal beats
        beats += name == "beat"
        return await call(self, name, *arguments)

    monkeypatch.setattr(Session, "call", counted)
    await asyncio.sleep(3)
    assert 1 <= beats <= 6
    assert await log.admin.hexists(f"{log.key}:later:body", "newer")


async def test_leases_are_not_lost_with_the_past_that_cannot_be_taken_in(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = log.open()
    await broker.publish([event(n, "task.wanted" if n < 3 else "task.other") for n in range(1_000)])
    await declare(broker, patterns=("task.wanted",), start="first")
    take_in, failed = past.take_in, False

    async def cut(*given: Any) -> None:
        nonlocal failed
        if int(given[3][0]) > 1 and not failed:
            failed = True
            raise BrokerUnavailable("the line broke")
        await take_in(*given)

    monkeypatch.setattr(past, "take_in", cut)
    leases = list(await broker.fetch(WORKER, limit=20, wait=0.2))
    assert numbers(leases) == [0, 1, 2]
    await broker.settle(WORKER, [Ack(lease.token) for lease in leases])
    with pytest.raises(BrokerUnavailable):
        await take(broker)
    assert await take(broker) == []


async def test_who_was_served_until_now_does_not_lapse_with_the_instance_that_served_it(log: Log) -> None:
    """The limits may be kept between the end of its presence and the look that finds it."""
    clock = ManualClock()
    retention = Retention(unserved_after=100.0)
    serving, keeping = log.open(clock=clock, retention=retention), log.open(clock=clock, retention=retention)
    await declare(serving)
    await take(serving)
    await keeping.publish([event(1)])
    for _ in range(4):
        await _pass(keeping, clock, 60)
    assert await log.admin.zcard(f"{log.key}:present") == 2
    for each in (serving, keeping):
        assert each._entrance.session is not None
        await log.admin.zadd(f"{log.key}:present", {each._entrance.session.instance: 0})
    session = keeping._entrance.session
    assert session is not None
    await session.call("retain", "", "", "", 100_000.0)
    (info,) = await keeping.subscriptions()
    assert not info.lapsed
    assert numbers(await take(keeping)) == [1]


async def test_a_loss_of_nobody_knows_how_many_stays_one(log: Log) -> None:
    """It is declared again after an eviction, and paused; then the limits drop one of its events."""
    clock = ManualClock()
    broker = log.open(clock=clock, retention=Retention(max_age=100.0))
    await declare(broker)
    await log.admin.delete(*await log.admin.keys(f"{log.key}:q:*"))
    await declare(broker)
    await broker.publish([event(1)])
    async with asyncio.timeout(10):
        while await read(broker):
            await _pass(broker, clock, 60)
    with pytest.raises(PositionLost) as caught:
        await take(broker)
    assert caught.value.lost is None


async def test_who_reads_a_log_that_is_replaced_between_two_pages_is_told(log: Log) -> None:
    broker = log.open()
    for start in range(0, 3_000, 1_000):
        await broker.publish([event(n) for n in range(start, start + 1_000)])
    reading = broker.read(Query())
    assert (await anext(reading)).event.payload == {"n": 0}
    await log.admin.delete(*await log.admin.keys(f"{log.key}*"))
    await eventually(lambda: _stored(broker))
    with pytest.raises(PositionLost):
        async for _ in reading:
            pass


async def _stored(broker: RedisBroker) -> bool:
    try:
        await broker.publish([event(n) for n in range(500)])
    except BrokerUnavailable:
        return False
    return True


async def test_what_was_removed_while_it_was_served_keeps_nobody_from_a_new_log(log: Log) -> None:
    serving, other = log.open(clock=ManualClock()), log.open()  # no beat of which finds out before we look
    await declare(serving)
    await take(serving)
    await other.remove(WORKER)
    await serving.subscriptions()
    for key in await log.admin.keys(f"{log.key}*"):
        await log.admin.delete(key)
    with pytest.raises(BrokerUnavailable):  # which joins what is there now
        await serving.publish([event(n=1)])
    await serving.publish([event(n=2)])
    assert numbers(await read(serving)) == [2]


@pytest.fixture
async def joining(log: Log, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RedisBroker, asyncio.Event]]:
    """An instance that has joined a new log, and has not declared there yet what it serves; and what lets it."""
    broker, let = log.open(clock=ManualClock()), asyncio.Event()
    await declare(broker)
    await broker.publish([event(n) for n in range(10)])
    await take(broker, 10)
    session = broker._entrance.session
    assert session is not None
    again, epoch = session._declare_again, session.epoch

    async def later() -> None:
        await let.wait()
        await again()

    monkeypatch.setattr(session, "_declare_again", later)
    for key in await log.admin.keys(f"{log.key}*"):
        await log.admin.delete(key)
    looking = asyncio.create_task(broker.ping())
    while session.epoch == epoch:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.001)
    yield broker, let
    let.set()
    await looking


async def test_what_is_known_of_one_log_is_not_told_to_the_next(
    joining: tuple[RedisBroker, asyncio.Event],
) -> None:
    """A position of the old log would say that the new one lost its end, and make another one of it."""
    broker, let = joining
    (appended,) = await broker.publish([event(1)])
    let.set()
    assert appended.position == Position(broker._entrance.session.epoch, 1)  # type: ignore[union-attr]
    assert (await broker.ping()).head == appended.position
    assert "." not in appended.position.epoch


async def test_who_fetches_while_another_log_is_joined_is_served_there(
    joining: tuple[RedisBroker, asyncio.Event],
) -> None:
    broker, let = joining
    fetching = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=5))
    await asyncio.sleep(0.05)
    let.set()
    with pytest.raises(PositionLost):
        await fetching
    await broker.publish([event(1)])
    assert numbers(await take(broker)) == [1]


async def test_an_answer_that_comes_late_is_of_the_log_that_was_asked(log: Log) -> None:
    broker = log.open(clock=ManualClock())
    await broker.ping()
    session = broker._entrance.session
    assert session is not None
    answered, call = asyncio.Event(), session.call

    async def late(name: str, *arguments: Any) -> Any:
        answer = await call(name, *arguments)
        if name == "append":
            await answered.wait()
        return answer

    session.call = late  # type: ignore[method-assign]
    publishing = asyncio.create_task(broker.publish([event(n) for n in range(10)]))
    before = session.epoch
    while not await log.admin.exists(f"{log.key}:log"):  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.001)
    for key in await log.admin.keys(f"{log.key}*"):
        await log.admin.delete(key)
    await broker.ping()
    answered.set()
    assert {appended.position.epoch for appended in await publishing if appended.position} == {before}
    session.call = call  # type: ignore[method-assign]
    (after,) = await broker.publish([event(1)])
    assert after.position == Position(session.epoch, 1)
    assert session.epoch != before
    assert "." not in session.epoch


async def test_who_may_not_use_our_channels_is_told_at_start_and_stores_nothing(log: Log) -> None:
    await log.admin.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "+@all", "resetchannels")
    await declare(log.open())
    broker = log.open(f"redis://deaf:pw@127.0.0.1:{log.port}")
    with pytest.raises(NotPermitted, match="channels"):
        await broker.publish([event(1)])
    assert await read(log.brokers[0]) == []


async def test_no_password_is_ever_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []

    async def failing(url: str) -> None:
        bus = EventBus(url)
        try:
            await bus.start()
        except Exception as error:  # noqa: BLE001 - whatever it is: its text is looked at
            said.extend((str(error), repr(error), *traceback.format_exception(error)))
        said.extend((repr(bus), repr(bus.broker), str(vars(bus.broker))))
        await bus.stop()

    with redis_running(tmp_path, "--requirepass", SECRET) as server:
        there = f"127.0.0.1:{server.port}"
        bus = EventBus(f"redis://default:{QUOTED}@{there}")
        await bus.start()
        await works(bus)
        async with Redis(port=server.port, password=SECRET) as admin:
            await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
            await bus.publish(event(99))
            await bus.join(timeout=10)
            await admin.config_set("requirepass", "another")
            await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with pytest.raises(NotPermitted) as refused:
                await bus.publish(event(100))
            said.extend(traceback.format_exception(refused.value))
            await admin.config_set("requirepass", SECRET)
        await bus.stop(timeout=1)
        await failing(f"redis://default:{QUOTED}@{there}")
        await failing(f"redis+sentinel://default:{QUOTED}@{there}/mymaster")
        await failing(f"redis+cluster://default:{QUOTED}@{there}")
        await failing(f"redis://default:{QUOTED}@127.0.0.1:{free_port()}")
    for unquoted in (
        "redis://:{}@h/0",
        "redis://u:12/{}@h:1/0",
        "redis+sentinel://u:12/{}@h:1/m",
        "redis+cluster://u:{}@h",
    ):
        with pytest.raises(ValueError, match=r"port|password|number") as wrong:
            open_broker(unquoted.format(SECRET))
        said.extend(traceback.format_exception(wrong.value))
    text = "\n".join([*said, caplog.text])
    assert "redis" in text
    assert "s3cr3t" not in text


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("options", "promised", "safe"),
    [
        ((), "a power loss: every write is synced first", True),
        (("--appendfsync", "everysec"), "about the last second", True),
        (("--appendfsync", "no"), "what the system had not written", False),
        (("--appendonly", "no"), "its last snapshot, or to nothing", False),
        (("--maxmemory-policy", "allkeys-lru"), "deletes parts of the log (allkeys-lru)", False),
        (("--maxmemory-policy", "volatile-ttl"), "deletes parts of the log (volatile-ttl)", False),
    ],
)
async def test_the_servers_settings_are_the_promise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: Sequence[str], promised: str, safe: bool
) -> None:
    with redis_running(tmp_path, *options) as server:
        url = f"redis://127.0.0.1:{server.port}"
        async with EventBus(url) as bus:
            assert bus.capabilities.durable
            assert promised in bus.capabilities.promise
        warned = [record for record in caplog.records if "may forget" in record.getMessage()]
        assert bool(warned) is not safe
        assert all(record.levelno == logging.WARNING for record in warned)
        strict = EventBus(f"{url}?strict=true")
        if safe:
            await strict.start()
        else:
            with pytest.raises(NotSupported, match="may forget"):
                await strict.start()
        await strict.stop()


async def test_settings_that_may_not_be_read_promise_nothing(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    await log.admin.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "&*", "+@all", "-config")
    url = f"redis://guest:pw@127.0.0.1:{log.port}"
    broker = log.open(url)
    await broker.publish([event(1)])
    assert "does not let us read its settings" in broker.capabilities.promise
    assert "redis does not say its settings" in caplog.text
    with pytest.raises(NotSupported, match="unknown"):
        await log.open(url, strict=True).open()


class Saying:
    """A server that says what another one would of itself: versions that cannot be had."""

    def __init__(self, info: str) -> None:
        self._info = info.encode()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while count := int((await reader.readline())[1:] or 0):
                words = [await reader.readexactly(int((await reader.readline())[1:]) + 2) for _ in range(count)]
                if words[0] == b"INFO\r\n":
                    writer.write(b"$%d\r\n%b\r\n" % (len(self._info), self._info))
                elif words[0] == b"CONFIG\r\n":
                    writer.write(b"*4\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n")
                else:
                    writer.write(b"+OK\r\n")
        writer.close()


@pytest.mark.parametrize(
    ("info", "fits"),
    [
        ("redis_version:6.2.14", False),
        ("redis_version:7.0.0", True),
        ("redis_version:10.1.0", True),
        ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1", True),
        ("# Server", False),
    ],
)
async def test_a_server_that_is_too_old_is_not_supported(info: str, fits: bool) -> None:
    async with Saying(f"{info}\r\n") as old:
        line = Line(dial_url(f"redis://127.0.0.1:{old.port}", "key"))
        if fits:
            assert "every write is synced" in await promise_of(line, strict=True)
        else:
            with pytest.raises(NotSupported, match=r"7\.0 or newer"):
                await promise_of(line, strict=False)
        await line.close()


# ------------------------------------------------------------------------------------------------ one connection


async def test_a_publish_whose_answer_is_lost_was_sent_once_and_is_stored_once(log: Log) -> None:
    broker = log.open()
    async with Proxy(log.port, plain=True) as proxy, log.admin.monitor() as monitor:
        unlucky = log.open(f"redis://127.0.0.1:{proxy.port}")
        await unlucky.ping()
        lost = event(1)
        proxy.swallow = lost.event_id.encode()
        with pytest.raises(BrokerUnavailable):
            await unlucky.publish([lost])
        (again,) = await unlucky.publish([lost])
        assert again.duplicate
        assert numbers(await read(broker)) == [1]
        sent = 0
        await log.admin.echo("the end")
        while "the end" not in (said := await monitor.next_command())["command"]:
            sent += lost.event_id in said["command"] and said["command"].startswith("EVALSHA")
        assert sent == 2  # the one that was lost, and ours


@pytest.mark.parametrize("guarded", [True, False])
async def test_the_driver_tries_nothing_again_by_itself(monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    tried = 0
    if not guarded:
        monkeypatch.setattr(dialling, "once", lambda: DriverRetry(NoBackoff(), 7))

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    stubborn: Redis = Redis(port=port, retry=DriverRetry(NoBackoff(), 7))
    for dial in (dial_url(f"redis://127.0.0.1:{port}", "key"), dial_client(stubborn, "key")):
        tried = 0
        with pytest.raises(BrokerUnavailable):
            await dial()
        assert (tried == 1) is guarded
    await stubborn.aclose()
    server.close()
    await server.wait_closed()


async def test_a_follower_waits_on_a_connection_of_its_own_for_two_seconds_at_most(log: Log) -> None:
    broker = log.open()
    await broker.ping()
    async with log.admin.monitor() as monitor:
        follower: Any = aiter(broker.read(Query(), follow=True))
        first = asyncio.ensure_future(anext(follower))
        while True:
            words = (await monitor.next_command())["command"].split()
            if words[0] == "XREAD":
                break
        assert 0 < int(words[words.index("BLOCK") + 1]) <= 2000
    (waiting,) = [each for each in await log.connections() if each["cmd"] == "xread"]
    assert waiting["flags"] == "b"
    started = time.monotonic()
    await asyncio.gather(*(broker.ping() for _ in range(20)))  # which are not behind it
    assert time.monotonic() - started < 1
    await broker.publish([event(1)])
    assert (await first).event.payload["n"] == 1
    await follower.aclose()
    await eventually(lambda: _count(log.connections(), 2))  # the shared one, and that of wake-ups


async def _count(found: Awaitable[list[Any]], expected: int) -> bool:
    return len(await found) == expected


async def test_a_cut_connection_loses_nothing_that_was_leased_or_waits(log: Log) -> None:
    broker = log.open()
    await declare(broker)
    await broker.publish([event(n) for n in range(20)])
    held = await take(broker, 5)
    waiting = asyncio.ensure_future(anext(aiter(broker.read(Query(patterns=("later",)), follow=True))))
    await asyncio.sleep(0.05)
    await log.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with contextlib.suppress(BrokerUnavailable):  # the one that finds out
        await broker.ping()
    assert await broker.settle(WORKER, [Ack(lease.token) for lease in held]) == 5  # they are still ours
    assert await finish(broker, WORKER) == list(range(5, 20))
    with contextlib.suppress(BrokerUnavailable):  # a follower says so, and can be asked again
        await broker.publish([event(1, "later")])
        await waiting


async def test_what_a_lost_answer_had_leased_comes_at_once_uncharged(log: Log) -> None:
    async with Proxy(log.port, plain=True) as proxy:
        broker = log.open(f"redis://127.0.0.1:{proxy.port}")
        await declare(broker)
        await broker.publish([event(n) for n in range(20)])
        num, _ = await broker._entrance.session.find(WORKER)  # type: ignore[union-attr]
        proxy.swallow = f"${len(num)}\r\n{num}\r\n".encode()
        with pytest.raises(BrokerUnavailable):
            await take(broker, 10)
        again = await take(broker, 20)
        assert numbers(again) == list(range(20))
        assert {(lease.failures, lease.crashes, lease.attempts) for lease in again} == {(0, 0, ())}


async def test_a_loss_whose_answer_was_lost_is_told_again(log: Log) -> None:
    async with Proxy(log.port, plain=True) as proxy:
        broker = log.open(f"redis://127.0.0.1:{proxy.port}")
        num = await _lose(log, broker)
        proxy.swallow = f"${len(num)}\r\n{num}\r\n".encode()
        with pytest.raises(BrokerUnavailable):
            await take(broker)
        with pytest.raises(PositionLost) as caught:
            await take(broker)
        assert caught.value.lost == 3
        assert await take(broker) == []


async def test_a_loss_that_a_cancelled_fetch_would_have_been_told_is_told_the_next(log: Log) -> None:
    broker, told = log.open(), 0
    for turns in range(12):
        await _lose(log, broker)
        fetch = asyncio.ensure_future(take(broker))
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        fetch.cancel()
        (answer,) = await asyncio.gather(fetch, return_exceptions=True)
        if isinstance(answer, PositionLost):
            told += 1
            continue
        with pytest.raises(PositionLost) as caught:
            await take(broker)
        assert caught.value.lost == 3
    assert told < 12


async def _lose(log: Log, broker: RedisBroker) -> str:
    """Three events of the subscription are lost; returns its number."""
    await declare(broker)
    num, _ = await broker._entrance.session.find(WORKER)  # type: ignore[union-attr]
    await log.admin.hset(f"{log.key}:q:{num}", "lost", "3")
    return num


async def test_cancelled_calls_never_mix_up_the_answers_of_others(log: Log) -> None:
    broker = log.open()
    chance = random.Random(7)
    ids = [f"sub-{n}" for n in range(10)]
    for n, id in enumerate(ids):
        await declare(broker, id, patterns=(f"only.{n}",))

    async def publish(n: int) -> None:
        (stored,) = await broker.publish([event(n, f"only.{n % 10}")])
        places[n] = stored.position

    async def take_own(n: int) -> None:
        leases = await broker.fetch(ids[n % 10], limit=3, wait=0.05)
        assert {lease.event.topic for lease in leases} <= {f"only.{n % 10}"}
        await broker.settle(ids[n % 10], [Ack(lease.token) for lease in leases])

    async def look(n: int) -> None:
        info = await broker.info(ids[n % 10])
        assert info is not None
        assert info.subscription.id == ids[n % 10]
        line = broker._entrance.session.line  # type: ignore[union-attr]
        assert await line.call("ECHO", f"{n}") == f"{n}".encode()

    places: dict[int, Any] = {}
    tasks: list[asyncio.Task[None]] = []
    doomed: list[asyncio.Task[None]] = []
    for n in range(900):
        task = asyncio.create_task((publish, take_own, look)[n % 3](n))
        tasks.append(task)
        if chance.random() < 0.5:
            doomed.append(task)
        if chance.random() < 0.3:
            await asyncio.sleep(0)
        if doomed and chance.random() < 0.6:
            doomed.pop(chance.randrange(len(doomed))).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = [result for result in results if isinstance(result, asyncio.CancelledError)]
    assert len(cancelled) > 100
    assert [result for result in results if result is not None and result not in cancelled] == []
    stored = {each.event.payload["n"]: each.position for each in await read(broker)}
    assert len(places) > 50
    assert {n: stored[n] for n in places} == places


class _Forgetful(deque[asyncio.Future[Any]]):
    """What was sent, as who forgets the calls that were cancelled would have it."""

    def popleft(self) -> asyncio.Future[Any]:
        while self[0].cancelled():
            super().popleft()
        return super().popleft()


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_cancelled_call_has_its_answer_still(log: Log, monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    if not guarded:
        monkeypatch.setattr(lines, "deque", _Forgetful)
    line = Line(dial_url(f"redis://127.0.0.1:{log.port}", "key"))
    assert await line.call("ECHO", "0") == b"0"
    first, second = (asyncio.ensure_future(line.call("ECHO", word)) for word in ("a", "b"))
    while len(line._sent) < 2:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    first.cancel()
    assert await second == (b"b" if guarded else b"a")
    await line.close()


# ------------------------------------------------------------------------------------------------ deleted, trimmed


async def test_a_subscription_whose_keys_were_deleted_says_so_and_is_told_of_the_loss_when_it_is_declared_again(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await log.bus()
    seen: list[int] = []
    sub = await bus.subscribe("#", lambda event: seen.append(event.payload["n"]), subscription=WORKER)
    await bus.publish(event(1))
    await bus.join(timeout=5)
    broker = log.open()
    num, _ = await _find(broker, WORKER)
    await log.admin.delete(f"{log.key}:q:{num}")
    await bus.publish(event(2))
    await eventually(lambda: not sub.active)
    assert "subscription was removed, its consumer ends subscription=worker" in caplog.text
    for call in (take(broker), broker.settle(WORKER, [Ack("1.1.1")]), broker.purge(WORKER)):
        with pytest.raises(SubscriptionNotFound, match=WORKER):
            await call
    await sub.cancel()
    await bus.publish(event(3))
    await declare(broker)
    with pytest.raises(PositionLost) as lost:
        await take(broker)
    assert lost.value.lost is None
    assert await finish(broker, WORKER) == [2, 3]  # it does not begin at the end


async def _find(broker: RedisBroker, id: str) -> tuple[str, Subscription]:
    await broker.ping()
    assert broker._entrance.session is not None
    return await broker._entrance.session.find(id)


async def test_a_limit_of_events_spares_what_a_subscription_that_refers_to_the_log_has_not_read(log: Log) -> None:
    clock = ManualClock()
    broker = log.open(clock=clock, retention=Retention(max_count=10))
    quick = [f"quick-{n}" for n in range(5)]
    for id in [*quick, "slow"]:
        await declare(broker, id)
    await broker.publish([event(n) for n in range(100)])
    num, _ = await _find(broker, "slow")
    assert b"\n" not in (await log.admin.lrange(f"{log.key}:q:{num}:n", 0, 0))[0]  # it refers to the log
    for id in quick:
        assert await finish(broker, id) == list(range(100))
    later = await take(broker, 10, "slow")
    await broker.settle("slow", [Retry(lease.token, delay=3600.0, error="later") for lease in later])
    await declare(broker, "late", start="first")
    await _pass(broker, clock, 60)
    assert numbers(await read(broker)) == list(range(100))
    assert await finish(broker, "late") == list(range(100))
    assert await finish(broker, "slow") == list(range(10, 100))
    await _pass(broker, clock, 60)
    assert numbers(await read(broker)) == list(range(90, 100))  # nobody needs the others any more
    await _pass(broker, clock, 3600)
    assert await finish(broker, "slow") == list(range(10))  # a retry has its event with it


async def _pass(broker: RedisBroker, clock: ManualClock, seconds: float) -> None:
    """Let time pass, and the server hear of it."""
    step = 6.0 if seconds <= 60 else seconds / 4
    for _ in range(round(seconds / step)):
        await clock.advance(step)
        for _ in range(8):
            await broker.ping()


async def facts(broker: RedisBroker) -> list[Stored]:
    return [stored async for stored in broker.read(Query(patterns=("_bus.#",)))]


async def test_a_fact_that_others_took_is_said_and_those_behind_it_are_served(log: Log) -> None:
    broker = log.open()
    await broker.publish([event(n, f"_bus.t.{n}") for n in range(4)])
    assert await log.admin.hdel(f"{log.key}:facts:body", "_bus.t.1") == 1
    await log.admin.hset(f"{log.key}:facts:body", "_bus.t.2", "1\nno event")
    stored = broker.read(Query(patterns=("_bus.#",)))
    assert numbers([await anext(stored)]) == [0]
    with pytest.raises(StorageDamaged, match="position 2"):
        await anext(stored)
    with pytest.raises(StorageDamaged):
        await anext(stored)
    assert numbers([await anext(stored)]) == [3]
    with pytest.raises(StopAsyncIteration):
        await anext(stored)
    others = broker.read(Query(patterns=("_bus.t.0", "_bus.t.3")))  # who asks for others hears nothing of it
    assert numbers([each async for each in others]) == [0, 3]


async def test_facts_of_an_emptied_log_are_said_again_by_who_knows_them(tmp_path: Path) -> None:
    with redis_running(tmp_path) as server:
        log = Log(server.port)
        one, two = log.open(), log.open()
        here, there = Directory(one), Directory(two)
        told: list[tuple[str, Any]] = []
        there.watch("schema", lambda key, value: told.append((key, value)))
        await here.put("schema", "a", {"n": 1})
        await there.start()
        await log.admin.flushall()
        await eventually(lambda: _put(here, "b", {"n": 2}))
        await eventually(lambda: ("b", {"n": 2}) in told)
        assert told == [("a", {"n": 1}), ("b", {"n": 2})]
        assert {stored.event.payload["key"] for stored in await facts(one)} == {"a", "b"}
        await asyncio.gather(here.close(), there.close())
        await log.close()


async def _put(directory: Directory, key: str, value: dict[str, Any]) -> bool:
    """Whether it was taken: who has not looked since finds out that the log is another one."""
    try:
        await directory.put("schema", key, value)
    except BrokerUnavailable:
        return False
    return True


async def test_facts_of_a_log_that_lost_its_end_go_on_in_its_new_epoch(log: Log) -> None:
    writer, broker = log.open(), log.open()
    answers = await writer.publish([event(n, f"_bus.t.{n}") for n in range(3)])
    await writer.close()
    assert numbers(await facts(broker)) == [0, 1, 2]  # from here on it knows where the log ended
    await log.admin.hset(f"{log.key}:state", mapping={"head": 2})  # as of a moment before
    await log.admin.zrem(f"{log.key}:facts", "_bus.t.2")
    await eventually(lambda: _is_another(broker, answers[0].position))
    assert numbers(await facts(broker)) == [0, 1]
    with pytest.raises(PositionLost):
        await anext(broker.read(Query(patterns=("_bus.#",)), after=answers[0].position))


async def _is_another(broker: RedisBroker, position: Any) -> bool:
    return bool((await broker.ping()).head.epoch != position.epoch)


async def test_other_events_cost_no_command_more(log: Log) -> None:
    bus = await log.bus()
    async with log.admin.monitor() as monitor:
        await bus.broker.publish([event(n) for n in range(3)])
        await log.admin.echo("the end")
        said: list[str] = []
        while "the end" not in (command := (await monitor.next_command())["command"]):
            said.append(command)
    assert any(command.startswith("XADD") for command in said)
    assert not [command for command in said if ":facts" in command]


# ------------------------------------------------------------------------------------------------ wake-ups


async def test_a_thousand_named_subscriptions_take_under_ten_connections(log: Log) -> None:
    bus = await log.bus()
    seen: list[str] = []
    subs = [await bus.subscribe(f"to.{n}", lambda event: seen.append(event.topic), f"worker-{n}") for n in range(1000)]
    assert len(await log.connections()) < 10
    wanted = [f"to.{n}" for n in range(0, 1000, 37)]
    await bus.publish_many([event(1, topic) for topic in wanted])
    await eventually(lambda: sorted(seen) == sorted(wanted))
    assert len(await log.connections()) < 10
    for first in range(0, 1000, 50):  # all in one step would be long for a loop in debug mode
        await asyncio.gather(*(sub.cancel() for sub in subs[first : first + 50]))


async def test_another_instance_is_woken_within_a_tenth_of_a_second(log: Log) -> None:
    publisher, consumer = log.open(), log.open()
    await declare(consumer)
    await publisher.ping()
    took: list[float] = []
    for n in range(20):
        waiting = asyncio.create_task(consumer.fetch(WORKER, limit=1, wait=5))
        await asyncio.sleep(0.02)
        started = time.monotonic()
        await publisher.publish([event(n)])
        (lease,) = await waiting
        took.append(time.monotonic() - started)
        await consumer.settle(WORKER, [Ack(lease.token)])
    assert statistics.median(took) < 0.1
    assert max(took) < 0.5  # none waited for the next look


async def woken(publisher: RedisBroker, waiting: asyncio.Task[Sequence[Lease]]) -> float:
    """How long a waiting fetch took to have what was published."""
    started = time.monotonic()
    await publisher.publish([event(1)])
    assert numbers(await waiting) == [1]
    return time.monotonic() - started


async def test_a_note_that_got_lost_is_made_good_by_the_next_look(log: Log) -> None:
    publisher, consumer = log.open(), log.open()
    await declare(consumer)
    num, _ = await _find(publisher, WORKER)
    waiting = asyncio.create_task(consumer.fetch(WORKER, limit=1, wait=20))
    await asyncio.sleep(0.1)
    assert await log.admin.delete(f"{log.key}:q:{num}:f") == 1
    assert await woken(publisher, waiting) < 2


@pytest.fixture
def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look at what is due each second, only wake-ups bring anything."""
    monkeypatch.setattr(session, "_BEAT", 30.0)


async def test_a_wake_up_while_their_connection_is_cut_is_made_good_when_it_is_back(
    log: Log, never_looks: None
) -> None:
    publisher, consumer = log.open(), log.open()
    await declare(consumer)
    await publisher.ping()
    waiting = asyncio.create_task(consumer.fetch(WORKER, limit=1, wait=20))
    await asyncio.sleep(0.1)
    await log.kill("subscribe")
    assert await woken(publisher, waiting) < 1


async def test_a_wake_up_before_they_are_heard_is_made_good_when_they_are(log: Log, never_looks: None) -> None:
    publisher, consumer = log.open(), log.open()
    await declare(publisher)
    dial, dialled = consumer._dial, itertools.count()

    async def slow() -> Any:
        if next(dialled) == 1:  # behind the shared one comes that of wake-ups
            await asyncio.sleep(0.5)
        return await dial()

    consumer._dial = slow
    waiting = asyncio.create_task(consumer.fetch(WORKER, limit=1, wait=20))
    await asyncio.sleep(0.2)
    assert await woken(publisher, waiting) < 1


# ------------------------------------------------------------------------------------------------ keys


async def everything(bus: EventBus) -> None:
    """Leave something under every kind of key."""
    first = asyncio.Event()

    def failing(event: Event) -> None:
        first.set()
        raise ValueError("on purpose")

    await bus.subscribe("#", failing, "retrying", retry=RetryPolicy(max_retries=3, initial=3600))
    await bus.subscribe("task.*", failing, "burying", retry=RetryPolicy(max_retries=0))
    await bus.subscribe("task.*", lambda _: None)
    await bus.subscribe("math.double", lambda event: event.payload["n"] * 2, "doubler")
    assert await bus.request("math.double", {"n": 21}) == 42
    await bus.publish(event(1, priority=9))
    await bus.publish(event(2), delay=3600)
    await bus.broker.declare(Subscription(id="behind", patterns=("#",), start="first"))
    await bus.broker.declare(Subscription(id="unread", patterns=("#",)))
    await bus.publish_many([event(n, priority=1 + n % 10) for n in range(20)])
    leases = await bus.broker.fetch("unread", limit=10, wait=0)
    await bus.broker.settle("unread", [Bury(leases[0].token, Reason.REJECTED, "no")])
    await eventually(first.is_set)


def _text(name: bytes | str) -> str:
    return name if isinstance(name, str) else name.decode()


async def test_every_key_and_channel_begins_with_ours_and_lies_in_one_slot(log: Log) -> None:
    await log.admin.select(13)
    bus = await log.bus(f"redis://127.0.0.1:{log.port}/13")
    await everything(bus)
    keys = [_text(key) for key in await log.admin.keys()]
    assert len(keys) > 20
    assert [key for key in keys if key != log.key and not key.startswith(f"{log.key}:")] == []
    channels = [_text(channel) for channel in await log.admin.pubsub_channels("*log*")]
    assert [channel for channel in channels if channel.startswith(log.key)] != []
    async with log.admin.monitor() as monitor:  # nor is any other asked for
        await bus.publish(event(1))
        await log.admin.echo("the end")
        while "the end" not in (said := await monitor.next_command())["command"]:
            words = said["command"].split()
            assert said["client_type"] != "lua" or words[0] == "TIME" or words[1].startswith(log.key), said


async def test_two_namespaces_have_nothing_in_common(log: Log) -> None:
    one, other = await log.bus(), await log.bus(namespace=f"{log.name}-other")
    seen: list[str] = []
    await other.subscribe("task.*", lambda event: seen.append(event.topic), "retrying")
    await other.subscribe("task.*", lambda event: seen.append(event.topic))
    async with log.admin.monitor() as monitor:
        await everything(one)
        await log.admin.echo("the end")
        while "the end" not in (said := await monitor.next_command())["command"]:
            assert not said["command"].startswith(f"PUBLISH {log.key[:-1]}-other"), said
    await asyncio.sleep(0.2)
    assert seen == []
    assert [stored async for stored in other.history()] == []
    assert await other.dead_letters.list() == []
    assert await one.dead_letters.list() != []
    assert [info.subscription.agent for info in await other.subscriptions() if info.subscription.durable] == [
        "retrying"
    ]
    with pytest.raises(NoResponders):
        await other.request("math.double", {"n": 1})
    assert not await other.broker.dead(DeadQuery())


@pytest.mark.parametrize("namespace", ["a/b:c@d..", "..", "@", ":", "A-b_C.9", "n" * 128])
async def test_odd_names_that_are_allowed_are_names_like_any_other(log: Log, namespace: str) -> None:
    await log.admin.select(14)
    await log.admin.flushdb()
    url = f"redis://127.0.0.1:{log.port}/14"
    neighbour = await log.bus(url, namespace="neighbour")
    bus = await log.bus(url, namespace=namespace, name=namespace)
    seen: list[int] = []
    await bus.subscribe("task.*", lambda event: seen.append(event.payload["n"]), namespace, subscription=namespace)
    await bus.publish(event(1))
    await bus.join(timeout=5)
    assert seen == [1]
    info = await bus.info(namespace)
    assert info is not None
    await bus.remove(namespace)
    assert [stored async for stored in neighbour.history()] == []


@pytest.mark.parametrize(
    "namespace", ["}", "a}", "{a", "a}:b{", "a b", "a\r\nb", "a\0", "*", "a?", "[a]", "é", "n" * 129, ""]
)
def test_a_namespace_that_could_leave_its_braces_is_refused(namespace: str) -> None:
    with pytest.raises(InvalidEvent):
        open_broker("redis://localhost", namespace=namespace)
    with pytest.raises(InvalidEvent):
        RedisBroker("redis://localhost", namespace=namespace)


# ------------------------------------------------------------------------------------------------ a cluster


async def test_a_log_that_moves_to_another_server_of_the_cluster_is_followed(nodes: tuple[Server, Server]) -> None:
    url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
    key = b"wowevent:{moving}"
    (slot,) = _numbers_in(redis_says(nodes[0].port, b"CLUSTER KEYSLOT %b\r\n" % key))
    home, away = nodes if slot < 8192 else nodes[::-1]
    async with EventBus(url, namespace="moving") as bus, Redis(port=home.port) as here, Redis(port=away.port) as there:
        seen: list[int] = []
        await bus.subscribe("#", lambda event: seen.append(event.payload["n"]), "worker")
        await bus.publish_many([event(n) for n in range(50)])
        await eventually(lambda: len(seen) == 50)
        names = {"home": await here.cluster("MYID"), "away": await there.cluster("MYID")}
        await there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names["home"])
        await here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names["away"])
        publishing = asyncio.create_task(_one_by_one(bus, range(50, 70)))
        while keys := await here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            await here.execute_command("MIGRATE", "127.0.0.1", away.port, "", 0, 5000, "KEYS", *keys)
        for side in (there, here):
            await side.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names["away"])
        await publishing
        await eventually(lambda: sorted(seen) == list(range(70)))
        assert numbers([stored async for stored in bus.history()]) == list(range(70))
        assert await there.exists(f"{key.decode()}:log")


def _numbers_in(answer: bytes) -> list[int]:
    return [int(answer.strip()[1:])]


async def _one_by_one(bus: EventBus, which: range) -> None:
    for n in which:
        await bus.publish(event(n))
