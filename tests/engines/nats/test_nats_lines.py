"""Lines to NATS servers: passwords, users and their rights, what breaks, what is full."""

# ruff: noqa: SLF001 - to see what the server has given an instance, a test has to reach inside

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import ServerVersion

from tests.conformance.engines import Rig, eventually, shared_nats
from tests.conformance.making import (
    WORKER,
    acknowledge,
    calls,
    declare,
    event,
    events,
    given_up,
    numbers,
    once_it_works,
    read,
    take,
    take_all,
)
from tests.engines.nats.own import TOPIC, by_a_line, cut, kill, link_of, opened, session_of, stranger, streams
from tests.servers import Server, nats_emptied, nats_running, nats_server, says
from wowevent import Event
from wowevent.broker import Ack, DeadQuery, Lease, Query, Retention, Retry, Subscription
from wowevent.brokers import open_broker
from wowevent.brokers.nats import NatsBroker
from wowevent.brokers.nats import link as link_module
from wowevent.brokers.nats.driver import Connection
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.messages import Message
from wowevent.errors import (
    BrokerError,
    BrokerUnavailable,
    Closed,
    NotPermitted,
    NotSupported,
    PositionLost,
    StorageFull,
)


async def test_what_waits_for_a_line_that_broke_is_told_at_once(rig: Rig) -> None:
    async with by_a_line(rig) as (broker, proxy):
        for id in (WORKER, "other"):
            await declare(broker, id)
        await take(broker, "other")
        await broker.publish(events(3))
        leases = await take(broker)
        proxy.stop_passing()
        under_way = [asyncio.create_task(call()) for call in calls(broker).values()]
        under_way += [asyncio.create_task(acknowledge(broker, leases)), asyncio.create_task(take(broker))]
        under_way.append(asyncio.create_task(session_of(broker).serving("other").lanes.fill(2, 1, set())))
        await asyncio.sleep(0.2)
        proxy.reset()
        done, _ = await asyncio.wait(under_way, timeout=3)
        assert len(done) == len(under_way)
        assert all(isinstance(each.exception(), BrokerUnavailable) for each in done)
        proxy.pass_on()
        assert await acknowledge(broker, leases) == 3


async def test_a_close_leaves_no_reader_behind(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([*events(1_200), event("_bus.x", 1)])
    following = broker.read(Query(), follow=True)
    await anext(following)
    past = broker.read(Query())
    await anext(past)
    left = broker.read(Query())
    await anext(left)
    await left.aclose()
    await read(broker, patterns=("_bus.#",))
    await broker.dead(DeadQuery())
    names = streams(broker)
    assert await _consumers(names) != {f"{WORKER}-n", f"{WORKER}-u"}
    await broker.close()
    with pytest.raises(Closed):
        _ = [each async for each in past]
    await eventually(lambda: _is(names, {f"{WORKER}-n", f"{WORKER}-u"}))


async def _consumers(names: dict[str, str]) -> set[str]:
    async with stranger() as link:
        found = await asyncio.gather(*(link.ask(f"CONSUMER.NAMES.{name}") for name in names.values()))
    return {name for each in found for name in each["consumers"] or ()}


async def _is(names: dict[str, str], wanted: set[str]) -> bool:
    return await _consumers(names) == wanted


async def test_what_is_answered_bit_by_bit_is_no_silence(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(rig)
    await broker.open()
    monkeypatch.setattr(link_module, "SILENCE", 0.3)
    link = link_of(broker)
    left = 5
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def more() -> None:
        nonlocal left
        left -= 1
        if left:
            asyncio.get_running_loop().call_later(0.2, more)
        else:
            answer.set_result(None)

    more()
    await link._answered(answer, lambda: left)
    assert link.error is None
    link._answers[b"silent"] = asyncio.get_running_loop().create_future()
    with pytest.raises(BrokerUnavailable, match="no answer"):
        await link._answered(link._answers[b"silent"], lambda: 7)


async def test_what_changes_nothing_is_asked_once_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was asked may be gone with the question: a stream's leader, say, and another one answers."""
    monkeypatch.setattr(link_module, "_AGAIN", 0.2)
    monkeypatch.setattr(link_module, "SILENCE", 3.0)
    broker = opened(rig)
    await broker.open()
    async with stranger() as link:
        send, put = link.send, list[str]()

        def lossy(subject: str, body: bytes = b"", reply: str = "", headers: bytes = b"") -> None:
            put.append(subject)
            if len(put) > 2:
                send(subject, body, reply, headers)

        monkeypatch.setattr(link, "send", lossy)
        name = broker._names.log
        assert (await link.ask(f"STREAM.INFO.{name}"))["config"]["name"] == name
        assert put == [f"$JS.API.STREAM.INFO.{name}"] * 3
        put.clear()
        with suppress(BrokerError):
            await link.get(name, seq=1)
        assert put[:3] == [f"$JS.API.DIRECT.GET.{name}"] * 3
        put.clear()
        with pytest.raises(BrokerUnavailable, match="no answer"):
            await link.ask(f"STREAM.PURGE.{name}")
        assert put == [f"$JS.API.STREAM.PURGE.{name}"]


async def test_an_instance_is_found_by_its_first_server_that_answers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "sample", lambda servers, _count: servers)
    url = shared_nats.url()
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    try:
        for servers in ([f"nats://127.0.0.1:{port}", url], ["nats://127.0.0.1:1", url], [url, "nats://127.0.0.1:1"]):
            broker = NatsBroker(servers, namespace="found")
            await broker.ping()
            await broker.close()
    finally:
        silent.close()


@pytest.mark.parametrize("version", ["2.10.29", "1.4.0", "2.9.99"])
async def test_a_server_that_is_too_old_is_not_supported(
    named: None, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(Connection, "connected_server_version", ServerVersion(version))
    broker = NatsBroker([shared_nats.url()], namespace="old")
    with pytest.raises(NotSupported, match=rf"server {version} is older than 2\.11") as raised:
        await broker.ping()
    assert raised.value.__cause__ is not raised.value
    await broker.close()


@pytest.mark.parametrize("version", ["2.11.0", "2.12.0-RC.1", "3.0.0"])
async def test_a_server_that_is_new_enough_is(named: None, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(Connection, "connected_server_version", ServerVersion(version))
    link = await Link.dial([shared_nats.url()], {})
    assert link.version == version
    await link.close()


USERS = """
accounts {
  full { users: [{ user: full, password: full }], jetstream: { max_file: 1Mb, max_mem: 64Mb } }
  crowded { users: [{ user: crowded, password: crowded }], jetstream: { max_file: 1Mb, max_mem: 64Mb } }
  few { users: [{ user: few, password: few }], jetstream: { max_file: 64Mb, max_mem: 64Mb, max_consumers: 40 } }
  none { users: [{ user: none, password: none }] }
  some { users: [{ user: some, password: some, permissions: { publish: { deny: "wow.*.n.>" } } }], jetstream: enabled }
  deaf { users: [{ user: deaf, password: deaf, permissions: { subscribe: { deny: "_INBOX.>" } } }], jetstream: enabled }
  anyone { users: [{ user: anyone, password: anyone }], jetstream: enabled }
  SYS { users: [{ user: sys, password: sys }] }
}
system_account: SYS
no_auth_user: anyone
"""


@pytest.fixture(scope="module")
def guarded(named: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that knows who may do what."""
    with nats_running(tmp_path_factory.mktemp("guarded"), USERS, sync="10s") as server:
        yield server


def as_user(server: Server, user: str, password: str | None = None) -> NatsBroker:
    broker = open_broker(f"nats://{user}:{password or user}@127.0.0.1:{server.port}")
    assert isinstance(broker, NatsBroker)
    return broker


@pytest.mark.parametrize(("user", "password"), [("full", "wrong"), ("nobody", "x")])
async def test_a_wrong_password_is_not_permitted(guarded: Server, user: str, password: str) -> None:
    broker = as_user(guarded, user, password)
    for call in (broker.ping, lambda: broker.publish([event()])):
        with pytest.raises(NotPermitted):
            await call()
    await broker.close()


async def test_what_a_user_may_not_publish_is_not_permitted_and_nothing_else_suffers(guarded: Server) -> None:
    broker = as_user(guarded, "some")
    await declare(broker)
    with pytest.raises(NotPermitted):
        await broker.publish([event()])
    await broker.publish([event(n=1, priority=9)])
    assert numbers(await take_all(broker)) == [1]
    await broker.close()


async def test_who_may_not_hear_answers_is_told(guarded: Server) -> None:
    broker = as_user(guarded, "deaf")
    with pytest.raises((NotPermitted, BrokerUnavailable)):
        await asyncio.wait_for(broker.ping(), 12)
    await broker.close()


async def test_an_account_that_allows_few_consumers_is_good_for_as_many(guarded: Server) -> None:
    broker = as_user(guarded, "few")
    await declare(broker)
    await broker.publish([event(n=1)])
    assert numbers(await take_all(broker)) == [1]
    await broker.close()


async def test_an_account_without_jetstream_is_said(guarded: Server) -> None:
    broker = as_user(guarded, "none")
    with pytest.raises(BrokerUnavailable, match=r"(?i)jetstream"):
        await broker.ping()
    await broker.close()


async def test_a_server_without_jetstream_is_said(named: None, tmp_path: Path) -> None:
    server = nats_server(tmp_path)
    file = tmp_path / "nats.conf"
    file.write_text(f'listen: "127.0.0.1:{server.port}"\n')
    server._answers = lambda port: says(port, b"").startswith(b"INFO")
    await asyncio.to_thread(server.start)
    try:
        broker = NatsBroker([f"nats://127.0.0.1:{server.port}"])
        with pytest.raises(BrokerUnavailable, match="JetStream does not answer; is it switched on"):
            await broker.ping()
        await broker.close()
    finally:
        server.kill()


async def test_nobody_there_is_said_soon() -> None:
    broker = NatsBroker(["nats://127.0.0.1:1"])
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(broker.ping(), 3)
    await broker.close()


async def test_a_storage_that_is_full_is_said_and_all_works_again_when_there_is_room(guarded: Server) -> None:
    broker = as_user(guarded, "full")
    await declare(broker)
    sent = await _until_full(broker)
    assert 50 < sent < 500
    with pytest.raises(StorageFull):
        await broker.publish([_bulky(9_999)])
    with pytest.raises(StorageFull):
        await broker.publish([event(n=1, not_before=datetime.now(UTC) + timedelta(days=1), headers={"x": "y" * 4_000})])
    leases = list(await take(broker, limit=10))
    assert numbers(leases) == list(range(10))
    assert await acknowledge(broker, leases[:5]) == 5  # reading and acknowledging go on
    with pytest.raises(StorageFull):
        await broker.settle(WORKER, [Retry(lease.token, error="e" * 20_000) for lease in leases[5:]])
    assert len(await read(broker)) == sent
    async with _as(guarded, "full") as link:
        await link.ask(f"STREAM.PURGE.{broker._names.log}", seq=sent // 2)

    async def stored() -> bool:
        with suppress(StorageFull):
            await broker.publish([_bulky(10_000)])
            return True
        return False

    await eventually(stored)
    assert link_of(broker).error is None
    await broker.close()


async def _until_full(broker: NatsBroker) -> int:
    for sent in range(2_000):
        try:
            await broker.publish([_bulky(sent)])
        except StorageFull:
            return sent
    raise AssertionError("it is never full")


def _bulky(n: int) -> Event:
    return Event(topic=TOPIC, source_agent="tester", payload={"n": n, "fill": "x" * 4_000})


@asynccontextmanager
async def _as(server: Server, user: str) -> AsyncIterator[Link]:
    link = await Link.dial([f"nats://127.0.0.1:{server.port}"], {"user": user, "password": user})
    try:
        yield link
    finally:
        await link.close()


class Crowded:
    def __init__(self, server: Server, rig: Rig) -> None:
        self._url = f"nats://crowded:crowded@127.0.0.1:{server.port}"
        self._rig = rig
        self.brokers: list[NatsBroker] = []

    def broker(self, **settings: Any) -> NatsBroker:
        """One more instance."""
        broker = open_broker(self._url, clock=self._rig.clock, **settings)
        assert isinstance(broker, NatsBroker)
        self.brokers.append(broker)
        return broker

    async def passes(self, seconds: float = 6.0) -> None:
        """With so many, a beat."""
        await self._rig.clock.advance(seconds)
        await self.brokers[-1].ping()

    async def fill(self, broker: NatsBroker) -> int:
        """Until nothing fits any more, not even what an instance says of itself; how many events that were."""
        sent = await _until_full(broker)
        for size in (1_000, 100, 1):
            for n in range(2_000):
                lock = Message(broker._names.lock(f"{size}-{n}"), b"x" * size)
                (confirm,) = await link_of(broker).publish([lock])
                if confirm.error is not None:
                    break
        return sent


@pytest.fixture
async def crowded(guarded: Server, rig: Rig) -> AsyncIterator[Crowded]:
    """An account that has room for about a MB."""
    await asyncio.to_thread(nats_emptied, guarded.port, "crowded")
    account = Crowded(guarded, rig)
    yield account
    await asyncio.gather(*(broker.close() for broker in account.brokers))


async def test_who_joins_a_full_store_reads_and_acknowledges_all_of_it(crowded: Crowded) -> None:
    one = crowded.broker()
    await declare(one)
    sent = await crowded.fill(one)
    kill(one)
    two = crowded.broker()
    await crowded.passes(1)  # what would be noted is not what is there
    assert numbers(await take(two, limit=1)) == [0]
    serving = session_of(two).serving(WORKER)
    await serving.consume(3)
    await eventually(lambda: len(serving.lanes) == 3)
    await two.detach(WORKER)  # these cannot be given back, and are kept from nobody
    assert len(serving.lanes) == 0
    await two.declare(Subscription(id=WORKER, patterns=("#",)))
    left = numbers(await take_all(two, limit=100))
    assert left == list(range(4, sent))
    assert len(await read(two)) == sent
    info = await two.info(WORKER)
    assert info is not None
    assert (info.ready, info.leased, info.consumers) == (0, 4, 1)
    await two.detach(WORKER)
    for new in (Subscription(id="new", patterns=("#",)), Subscription(id=WORKER, patterns=("task.*",))):
        with pytest.raises(StorageFull):  # what would have to be remembered is not promised
            await two.declare(new)


@pytest.mark.usefixtures("quick")
async def test_what_a_killed_instance_had_comes_from_a_full_store_each_alone(crowded: Crowded) -> None:
    one = crowded.broker()
    await declare(one, lease=1.0)
    sent = await crowded.fill(one)
    assert numbers(await take(one, limit=3)) == [0, 1, 2]
    kill(one)
    found: list[Lease] = []
    two = crowded.broker()

    async def more() -> bool:
        leases = list(await two.fetch(WORKER, limit=100, wait=0))
        suspects = [lease for lease in leases if lease.crashes]
        assert not suspects or len(leases) == 1
        if suspects:  # the next one comes when this one is settled
            leases += await two.fetch(WORKER, limit=100, wait=0)
            assert [lease for lease in leases if lease.crashes] == suspects
        assert await acknowledge(two, leases) == len(leases)
        found.extend(leases)
        return len(found) >= sent

    await eventually(more)
    assert sorted(numbers(found)) == list(range(sent))
    assert {lease.event.payload["n"]: lease.crashes for lease in found if lease.crashes} == {0: 1, 1: 1, 2: 1}


async def test_an_exclusive_subscription_of_a_full_store_says_why_nobody_has_it(crowded: Crowded) -> None:
    one = crowded.broker()
    await declare(one, exclusive=True)
    await crowded.fill(one)
    with pytest.raises(StorageFull):
        await take(crowded.broker(), limit=1)


async def test_what_is_to_be_told_of_a_full_store_is_told_when_that_can_be_noted(crowded: Crowded) -> None:
    one = crowded.broker()
    await declare(one)
    await session_of(one).control.note(WORKER, untold=True, lost=3)
    await crowded.fill(one)
    leases = await take(one, limit=2)
    assert numbers(leases) == [0, 1]
    await session_of(one).purge(one._names.log, f"{one._names.prefix}n.>")
    with pytest.raises(PositionLost):
        await once_there_is_room(lambda: take(one))
    assert await take(one) == []


async def once_there_is_room(call: Any) -> Any:
    """What it returns, or raises but that there is none."""
    for _ in range(100):
        with suppress(StorageFull):
            if found := await call():
                return found
        await asyncio.sleep(0.05)
    raise AssertionError("there is no room")


async def test_a_store_that_is_full_is_emptied_by_the_logs_limits(crowded: Crowded) -> None:
    limits = Retention(max_bytes=300_000)
    writer = crowded.broker()
    await declare(writer)
    await writer.publish([event("_bus.x", 1), event("_bus.y", 2)])
    await crowded.fill(writer)
    kill(writer)
    keeper = crowded.broker(retention=limits)
    await keeper.open()

    async def passes() -> bool:
        await crowded.passes()
        with suppress(StorageFull):
            await keeper.publish([_bulky(10_000)])
            return True
        return False

    async def trimmed() -> bool:
        """The facts, too, for which there is room now."""
        await crowded.passes()
        return (await session_of(keeper).ends())[0] > 2

    async def few_left() -> bool:
        """The limits may take the next one while it is read: that is said, and read again."""
        with suppress(PositionLost):
            return len(await read(keeper)) < 100
        return False

    await eventually(passes)
    await eventually(trimmed)
    assert numbers(await read(keeper, patterns=("_bus.#",))) == [1, 2]
    await eventually(few_left)
    with pytest.raises(PositionLost) as lost:
        await take(keeper)
    assert lost.value.lost is not None


async def test_a_log_that_is_full_says_so_and_the_rest_goes_on(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    names = broker._names
    async with stranger() as link:
        config = (await link.ask(f"STREAM.INFO.{names.log}"))["config"]
        await link.ask(f"STREAM.UPDATE.{names.log}", **config | {"max_bytes": 60_000})
        assert 5 < await _until_full(broker) < 19
        leases = list(await take(broker))
        assert await broker.settle(WORKER, [Retry(leases[0].token, error="once")]) == 1
        assert await acknowledge(broker, leases[1:]) == len(leases) - 1
        assert numbers(await take_all(broker)) == [0]
        await link.ask(f"STREAM.PURGE.{names.log}")
    await broker.publish([_bulky(30)])
    assert numbers(await take_all(broker)) == [30]


@pytest.mark.slow
async def test_a_server_that_says_nothing_is_given_up_within_ten_seconds(named: None, tmp_path: Path) -> None:
    server = nats_server(tmp_path)
    await asyncio.to_thread(server.start)
    url = [f"nats://127.0.0.1:{server.port}"]
    broker, other = NatsBroker(url), NatsBroker(url)
    try:
        for id in (WORKER, "other"):
            await declare(broker, id)
        await broker.publish(events(2))
        lease, second = await take(broker)
        await other.open()
        server.pause()
        cut(other)  # one with a line that is there, one that has to dial anew at once
        todo = {f"{name} {n}": call for n, each in enumerate((broker, other)) for name, call in calls(each).items()}
        todo["settle"] = lambda: broker.settle(WORKER, [Ack(lease.token), Retry(second.token, delay=1.0)])
        took = await asyncio.gather(*(given_up(call) for call in todo.values()))
        assert {name: seconds for name, seconds in zip(todo, took, strict=True) if not seconds < 10.5} == {}
        server.resume()
        await once_it_works(lambda: broker.publish([event(n=2)]))
        found: list[int] = []

        async def comes() -> bool:
            found.extend(numbers(await take_all(other)))
            return {0, 1, 2} <= set(found)

        await eventually(comes, 45)
        assert set(found) - {9} == {0, 1, 2}  # what was not confirmed may be there all the same
    finally:
        server.resume()
        await asyncio.gather(broker.close(), other.close())
        server.kill()


async def test_who_is_there_is_known_by_what_was_said_before_the_question(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    await other.presence()
    assert other._entrance.session is not None
    link, follower = other._entrance.session.link, other._entrance.session.control._follower
    assert follower is not None
    come = follower.next

    async def slowly() -> Any:
        item = await come()
        await asyncio.sleep(0.1)
        return item

    monkeypatch.setattr(follower, "next", slowly)
    await declare(broker, "idle")  # is what the follower waits for by now
    await other.presence()
    await broker.fetch(WORKER, limit=0, wait=0)
    assert [each.consumers for each in await other.presence(fresh=False)] == [0, 0], "it is under way"
    assert [each.consumers for each in await other.presence()] == [1, 0]
    monkeypatch.setattr(link, "ask", None)  # without `fresh` nobody is asked
    assert [each.consumers for each in await other.presence(fresh=False)] == [1, 0]
    monkeypatch.undo()


async def test_what_is_given_back_comes_before_what_was_delivered_ahead(rig: Rig):
    broker = opened(rig)
    await declare(broker)
    coming = asyncio.create_task(broker.fetch(WORKER, limit=3, wait=5.0))
    await broker.publish([event(n=0)])
    (lease,) = await coming
    await broker.publish([event(n=1)])
    await broker.publish([event(n=2)])
    await broker.settle(WORKER, [Retry(lease.token, charge=False)])
    order: list[int] = []
    while len(order) < 3:
        order += numbers(await broker.fetch(WORKER, limit=3, wait=5.0))
    assert order == [0, 1, 2]


async def test_of_a_line_that_broke_nothing_stays(rig: Rig) -> None:
    """Whatever it had: handed out, lying here, asked for. A router has many lines in its life."""
    async with by_a_line(rig) as (broker, proxy):
        await declare(broker)
        for _ in range(3):
            await once_it_works(partial(broker.publish, events(20)))
            await once_it_works(partial(broker.fetch, WORKER, limit=2, wait=5))
            old: list[weakref.ref[Any]] = [weakref.ref(session_of(broker)), weakref.ref(link_of(broker))]
            proxy.reset()
            await eventually(lambda: session_of(broker).broken)
            await once_it_works(broker.ping)
            await eventually(lambda: gc.collect() >= 0 and [ref() for ref in old] == [None] * 2)  # noqa: B023 - called here
