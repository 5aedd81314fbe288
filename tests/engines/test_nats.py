"""What is the NATS engine's own: what others do in its account, its lines, its streams, its locks and its delays."""

# ruff: noqa: SLF001 - to see what the server has given an instance, a test has to reach inside

import asyncio
import gc
import logging
import socket
import time
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from msgspec import structs
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
    has,
    later,
    numbers,
    once_it_works,
    read,
    take,
    take_all,
    take_one,
)
from tests.faults.proxy import Proxy
from tests.servers import Server, nats_emptied, nats_running, nats_server, says
from wowevent import Event
from wowevent.broker import (
    Ack,
    Bury,
    DeadQuery,
    Extend,
    Lease,
    Query,
    Reason,
    Retention,
    Retry,
    Settlement,
    Subscription,
)
from wowevent.brokers import open_broker
from wowevent.brokers.nats import NatsBroker, consumers, counting, lanes, locks, session, stream
from wowevent.brokers.nats import link as link_module
from wowevent.brokers.nats.driver import Connection
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.messages import Message
from wowevent.brokers.nats.registry import Known
from wowevent.brokers.nats.serving import Serving
from wowevent.brokers.nats.tags import copied, tag_of
from wowevent.codec import encode
from wowevent.errors import (
    BrokerError,
    BrokerUnavailable,
    Closed,
    NotPermitted,
    NotSupported,
    PayloadTooLarge,
    PositionLost,
    StorageFull,
    SubscriptionNotFound,
)
from wowevent.expiry import Expiry
from wowevent.tag import Tag

TOPIC = "task.created"


@pytest.fixture(scope="module")
def named(request: pytest.FixtureRequest) -> None:
    if "nats" not in request.config.getoption("--broker").split(","):
        pytest.skip("--broker does not name nats")
    shared_nats.url()  # now: starting it would block the loop of the first test


@pytest.fixture
async def rig(named: None, tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig("nats", tmp_path)
    yield rig
    await rig.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server waits for two seconds; what is declared with a lease of one is looked after all the time."""
    monkeypatch.setattr(consumers, "_LEAST", 2.0)
    monkeypatch.setattr(consumers, "_MARGIN", 0.2)
    monkeypatch.setattr(session, "_TOUCH", 0.3)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock whose holder says nothing is free after two seconds."""
    monkeypatch.setattr(locks, "LOCK", 2.0)
    monkeypatch.setattr(session, "LOCK", 2.0)
    monkeypatch.setattr(session, "_TOUCH", 0.3)


def opened(rig: Rig, **settings: Any) -> NatsBroker:
    """One more instance."""
    broker = rig.broker(**settings)
    assert isinstance(broker, NatsBroker)
    return broker


def session_of(broker: NatsBroker) -> session.Session:
    assert broker._entrance.session is not None
    return broker._entrance.session


def link_of(broker: NatsBroker) -> Link:
    return session_of(broker).link


def known_of(broker: NatsBroker, id: str = WORKER) -> Known:
    return broker._registry.known[id]


@asynccontextmanager
async def by_a_line(rig: Rig) -> AsyncIterator[tuple[NatsBroker, Proxy]]:
    """One more instance of the same log, and the line by which it reaches the server."""
    where = urlsplit(shared_nats.url())
    namespace = opened(rig)._names.prefix.split(".")[1]
    async with Proxy(int(where.port or 0), plain=True) as proxy:
        broker = NatsBroker([f"nats://127.0.0.1:{proxy.port}"], namespace=namespace, clock=rig.clock)
        try:
            yield broker, proxy
        finally:
            await broker.close()


def kill(broker: NatsBroker) -> None:
    """It says no more, not even goodbye: to the server and to the others it was killed."""
    cut(broker)
    broker._entrance.closed = True  # else it would join again


def cut(broker: NatsBroker) -> None:
    """Its line broke."""
    link = link_of(broker)
    link.fail(BrokerUnavailable("cut"))
    transport: Any = link._connection._transport
    transport._io_writer.transport.abort()


@asynccontextmanager
async def stranger() -> AsyncIterator[Link]:
    """Somebody else in the same account."""
    link = await Link.dial([shared_nats.url()], {})
    try:
        yield link
    finally:
        await link.close()


async def delete(name: str) -> None:
    """Somebody deletes a stream."""
    async with stranger() as link:
        await link.ask(f"STREAM.DELETE.{name}")


async def delete_consumer(where: str, name: str) -> None:
    async with stranger() as link:
        await link.ask(f"CONSUMER.DELETE.{where}.{name}")


async def gather(broker: NatsBroker, count: int, seconds: float = 10.0) -> list[Lease]:
    """Lease and acknowledge until so many came, each fetch apart."""
    found: list[Lease] = []

    async def more() -> bool:
        leases = await take(broker)
        assert len(leases) <= 1 or not any(lease.crashes for lease in leases)
        found.extend(leases)
        assert await acknowledge(broker, leases) == len(leases)
        return len(found) >= count

    await eventually(more, seconds)
    return found


def streams(broker: NatsBroker) -> dict[str, str]:
    names = broker._names
    return {kind: getattr(names, kind) for kind in ("log", "again", "later", "dead", "control")}


async def passes(rig: Rig, broker: NatsBroker) -> None:
    """A beat, in which whoever is there looks around."""
    await rig.advance(6)
    await once_it_works(broker.ping)


# ------------------------------------------------------------------------------------------------ strangers

HEADERS = {
    "none": b"",
    "no text": b"Wow: \xff\xfe\r\n",
    "no JSON": b"Wow: x\r\n",
    "no time": b"Wow-At: nan\r\n",
    "deep": b"Wow: " + b"[" * 30_000 + b"\r\n",
    "another's": b"A: b\r\n",
}


async def test_an_event_that_a_stranger_publishes_is_delivered(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker, patterns=("task.*",))
    async with stranger() as link:
        sent = [
            Message(f"{broker._names.prefix}n.{TOPIC}", encode(event(n=n)), each)
            for n, each in enumerate(HEADERS.values())
        ]
        await link.store(sent)
    leases = await take(broker)
    assert numbers(leases) == list(range(len(HEADERS)))
    assert {(lease.failures, lease.crashes, lease.redelivered) for lease in leases} == {(0, 0, False)}
    assert await acknowledge(broker, leases) == len(HEADERS)
    assert numbers(await read(broker)) == list(range(len(HEADERS)))
    assert link_of(broker).error is None


async def test_a_read_since_a_moment_leaves_out_nothing_for_the_sake_of_what_bears_no_time(rig: Rig) -> None:
    broker, began = opened(rig), rig.clock.time()
    await broker.publish(events(3))
    async with stranger() as link:
        await link.store([Message(f"{broker._names.prefix}n.{TOPIC}", encode(event(n=n))) for n in range(3, 43)])
    await broker.publish([event(n=n) for n in range(43, 46)])
    assert numbers(await read(broker, since=began - 1)) == list(range(46))


async def test_a_strangers_codec_may_escape_a_slash(rig: Rig) -> None:
    broker = opened(rig)
    await broker.publish([event(n=0, correlation_id="order/7")])
    async with stranger() as link:
        body = encode(event(n=1, correlation_id="order/7")).replace(b"/", rb"\/")
        await link.store([Message(f"{broker._names.prefix}n.{TOPIC}", body)])
    assert numbers(await read(broker, correlation_id="order/7")) == [0, 1]


NO_EVENTS = {"text": b"hello", "nothing": b"", "no text": b"\xff\xfe", "another envelope": b'{"v":1}'}


async def test_what_a_stranger_publishes_that_is_no_event_is_a_dead_letter(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([event(n=0)])
    async with stranger() as link:
        await link.store([Message(f"{broker._names.prefix}n.{TOPIC}", body) for body in NO_EVENTS.values()])
    await broker.publish([event(n=1)])
    assert numbers(await take_all(broker)) == [0, 1]
    letters = await broker.dead(DeadQuery())
    assert [letter.reason for letter in letters] == [Reason.DESERIALIZATION_ERROR] * len(NO_EVENTS)
    assert {letter.event.topic for letter in letters} == {"damaged"}


NO_ENTRIES = {
    "s.empty": b"",
    "s.text": b"hello",
    "s.list": b"[]",
    "s.deep": b'{"id":' + b"[" * 50_000,
    "s.bare": b'{"id":"bare","begins":1}',
    "s.damaged": b'{"id":"damaged","begins":1,"specs":[{"behind":0,"text":"no"}]}',
    "s.elsewhere": b'{"id":"worker","begins":1,"removed":true}',
    "log": b"hello",
    "i.x": b"\xc1",
    "i.y": b"\x82\xa4word\xa4here\xa6sender" + b"\x91" * 50_000,
    "x": b"of a newer version",
}


async def test_what_a_stranger_writes_where_all_look_is_passed_over(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    async with stranger() as link:
        prefix = broker._names.prefix
        await link.store([Message(f"{prefix}c.{where}", body) for where, body in NO_ENTRIES.items()])
        await link.store([Message(f"{prefix}k.x", b"\xff"), Message(f"{prefix}c.f._bus.x", b"\xff")])
    await broker.publish([event(n=1)])
    assert numbers(await take_all(broker)) == [1]
    newcomer = opened(rig)
    assert [info.subscription.id for info in await newcomer.subscriptions()] == [WORKER]
    assert numbers(await read(newcomer)) == [1]
    assert link_of(broker).error is None


async def test_what_somebody_calls_that_raises_breaks_the_line_and_is_said(rig: Rig) -> None:
    broker = opened(rig)
    await broker.open()
    link = link_of(broker)
    inbox = link.new_inbox()
    link.hear(inbox, lambda *_: 1 / 0)  # type: ignore[arg-type]
    link.send(inbox)
    await eventually(lambda: link.error is not None)
    await broker.ping()


# ------------------------------------------------------------------------------------------------ crashes


@pytest.mark.usefixtures("quick")
async def test_what_a_killed_instance_had_comes_again_as_suspects_each_alone(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, lease=1.0)
    await one.publish([event(n=0), event(n=1, priority=9), event(n=2)])
    assert len(await take(one)) == 3
    await two.publish([event(n=3)])
    kill(one)
    found = await gather(two, 4)
    assert numbers(found)[:1] == [3]
    assert {(lease.event.payload["n"], lease.crashes) for lease in found} == {(0, 1), (1, 1), (2, 1), (3, 0)}
    assert [each.error for lease in found[1:] for each in lease.attempts] == ["the lease ended unsettled"] * 3


@pytest.mark.usefixtures("quick")
async def test_each_instance_that_it_kills_is_a_crash(rig: Rig) -> None:
    last = opened(rig)
    await declare(last, lease=1.0)
    await last.publish([event()])
    for crashes in range(3):
        doomed = opened(rig)
        found: list[Lease] = []

        async def comes(doomed: NatsBroker = doomed, found: list[Lease] = found) -> bool:
            found += await take(doomed)
            return bool(found)

        await eventually(comes)
        assert [lease.crashes for lease in found] == [crashes]
        kill(doomed)
    assert [lease.crashes for lease in await gather(last, 1)] == [3]


@pytest.mark.usefixtures("quick")
async def test_fetches_at_the_same_time_look_into_a_crash_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, lease=1.0)
    await one.publish(events(6))
    assert len(await take(one)) == 6
    kill(one)
    await two.fetch(WORKER, limit=0, wait=0)
    serving = session_of(two).serving(WORKER)
    asked = serving._successors.gone_on

    async def slowly(*args: Any) -> bool:
        await asyncio.sleep(0.05)
        return await asked(*args)

    monkeypatch.setattr(serving._successors, "gone_on", slowly)
    found: list[Lease] = []

    async def more() -> bool:
        for leases in await asyncio.gather(*(take(two) for _ in range(3))):
            assert len(leases) <= 1  # a suspect comes alone
            found.extend(leases)
            await acknowledge(two, leases)
        return len(found) >= 6

    await eventually(more)
    assert sorted(numbers(found)) == [0, 1, 2, 3, 4, 5]
    assert {lease.crashes for lease in found} == {1}


async def test_leases_outlast_a_line_that_broke(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    await broker.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(6)])
    leases = list(await take(broker))
    for n in (0, 1):  # what comes once more, too
        await broker.settle(WORKER, [Retry(leases[n].token)])
    leases = [*leases[2:], *await take(broker)]
    for _ in range(3):
        cut(broker)
        await broker.ping()
    retried, done = leases[0], leases[1:]
    assert await broker.settle(WORKER, [Retry(retried.token, error="once")]) == 1
    assert await acknowledge(broker, done) == 5
    cut(broker)
    found = await take_all(other)
    assert [(lease.failures, lease.crashes) for lease in found] == [(1, 0)]
    assert (await broker.subscriptions())[0].leased == 0


@pytest.mark.usefixtures("quick")
async def test_leases_are_ours_as_long_as_the_server_hears_so(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker, lease=1.0)
    await broker.publish(events(3))
    (lease,) = await take(broker, limit=1)
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=2, wait=60))
    leases = await waiting
    await asyncio.sleep(5)
    assert not await take(other)
    assert await acknowledge(broker, [lease, *leases]) == 3


@pytest.mark.usefixtures("quick")
async def test_a_lease_that_was_cut_short_elsewhere_is_looked_after_in_time(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker, lease=30.0)
    await broker.publish([event()])
    lease = await take_one(broker)
    await declare(other, lease=1.0)
    await broker.ping()
    await asyncio.sleep(4)
    assert not await take(other)
    assert await acknowledge(broker, [lease]) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", ["asleep", "unheard"])
async def test_a_late_answer_is_refused(rig: Rig, how: str) -> None:
    other = opened(rig)
    async with by_a_line(rig) as (broker, proxy):
        await declare(broker, lease=1.0)
        await broker.publish([event()])
        lease = await take_one(broker)
        if how == "asleep":
            ticking = session_of(broker)._ticking
            assert ticking is not None
            ticking.cancel()
        else:
            proxy.stop_passing()
        found: list[Lease] = []

        async def comes() -> bool:
            found.extend(await take(other))
            return bool(found)

        await eventually(comes)
        proxy.pass_on()
        assert [each.crashes for each in found] == [1]
        assert await broker.settle(WORKER, [Retry(lease.token), Extend(lease.token, 5.0)]) == 0
        assert await acknowledge(broker, [lease]) == 0
        assert await acknowledge(other, found) == 1
        await asyncio.sleep(2.5)
        assert not await take(broker)
        assert not await take(other)


SUCCESSORS: dict[str, Any] = {
    "retry": lambda token: Retry(token, error="once"),
    "retry later": lambda token: Retry(token, 5.0, "once"),
    "give back": lambda token: Retry(token, charge=False),
    "bury": lambda token: Bury(token, Reason.REJECTED, "no"),
}


async def one_of_it(rig: Rig, broker: NatsBroker, name: str) -> None:
    """There is one event, and it comes once: here, or with the dead letters."""
    await rig.advance(6)
    found: list[Lease] = []

    async def settled() -> bool:
        await rig.advance(6)  # a beat, by which somebody else sends on what is delayed
        leases = await take(broker)
        found.extend(leases)
        await acknowledge(broker, leases)
        return len(found) + len(await broker.dead(DeadQuery())) > 0

    await eventually(settled)
    await asyncio.sleep(2.5)
    found += await take_all(broker)
    assert (len(found), len(await broker.dead(DeadQuery()))) == ((0, 1) if name == "bury" else (1, 0))


@pytest.mark.usefixtures("quick", "brief")
@pytest.mark.parametrize("name", SUCCESSORS)
@pytest.mark.parametrize("again", [False, True])
async def test_a_kill_between_the_copy_and_the_answer_delivers_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str, again: bool
) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, lease=1.0)
    await one.publish([event()])
    if again:  # of what comes once more it holds, too
        await one.settle(WORKER, [Retry((await take_one(one)).token, charge=False)])
    lease = await take_one(one)

    async def killed(*_: Any) -> int:
        kill(one)
        raise BrokerUnavailable("killed")

    monkeypatch.setattr(session_of(one).serving(WORKER).lanes, "ack", killed)
    with pytest.raises(BrokerUnavailable):
        await one.settle(WORKER, [SUCCESSORS[name](lease.token)])
    await one_of_it(rig, two, name)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", SUCCESSORS)
async def test_a_copy_that_is_written_twice_is_one(rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    broker = opened(rig)
    await declare(broker, lease=1.0)
    await broker.publish([event()])
    order = SUCCESSORS[name]((await take_one(broker)).token)
    serving = session_of(broker).serving(WORKER)
    with monkeypatch.context() as patch:
        patch.setattr(serving.lanes, "ack", _lost)
        with pytest.raises(BrokerUnavailable):
            await broker.settle(WORKER, [order])
    assert await broker.settle(WORKER, [order]) == 1
    await one_of_it(rig, broker, name)


async def _lost(*_: Any) -> int:
    raise BrokerUnavailable("the answer was lost")


@pytest.mark.parametrize("name", ["retry later", "bury"])
async def test_what_went_on_and_was_not_answered_is_no_crash_when_its_lease_ends(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    broker = opened(rig)
    await declare(broker, lease=1.0)
    await broker.publish([event()])
    lease = await take_one(broker)
    with monkeypatch.context() as patch:
        patch.setattr(session_of(broker).serving(WORKER).lanes, "ack", _lost)
        with pytest.raises(BrokerUnavailable):
            await broker.settle(WORKER, [SUCCESSORS[name](lease.token)])
    await one_of_it(rig, broker, name)


async def test_a_lease_that_was_to_be_settled_and_was_not_ends_in_its_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([event()])
    lease = await take_one(broker)
    serving = session_of(broker).serving(WORKER)
    waits = asyncio.Event()

    async def hangs(*_: Any) -> int:
        await waits.wait()
        raise BrokerUnavailable("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(serving.lanes, "ack", hangs)
        settling = asyncio.create_task(acknowledge(broker, [lease]))
        await asyncio.sleep(0.05)
        await rig.clock.advance(31)  # its lease would have ended meanwhile
        waits.set()
        with pytest.raises(BrokerUnavailable):
            await settling
    await rig.clock.advance(0.1)
    await eventually(lambda: not serving.leases)
    assert [each.crashes for each in await take(broker)] == [1]


async def test_a_lease_that_ends_while_it_is_settled_is_settled_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish(events(2))
    leases = await take(broker)
    serving = session_of(broker).serving(WORKER)
    again = serving._context.consumers.again

    async def slowly(id: str) -> None:
        await again(id)
        await rig.clock.advance(31)

    with monkeypatch.context() as patch:
        patch.setattr(serving._context.consumers, "again", slowly)
        counts = await asyncio.gather(
            broker.settle(WORKER, [Retry(lease.token, error="x") for lease in leases]),
            broker.settle(WORKER, [Retry(lease.token, error="y") for lease in leases]),
        )
    await serving.expiry.flush()
    found = await gather(broker, 2)
    assert sum(counts) in (0, 2)
    assert sorted(numbers(found)) == [0, 1]
    assert not await take(broker)


async def test_what_is_given_back_keeps_its_order(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one)
    await one.publish(events(40))
    first = await take(one, limit=4)
    waiting = asyncio.create_task(one.fetch(WORKER, limit=10, wait=60))
    leases = await waiting
    back = [Retry(lease.token, charge=False) for lease in (*first, *leases)]
    await one.settle(WORKER, list(reversed(back)))
    held = asyncio.create_task(one.fetch(WORKER, limit=5, wait=60))
    await held
    serving = session_of(one).serving(WORKER)
    await serving.consume(20)  # of both sources something is here
    await eventually(lambda: len(serving.lanes) > 15)
    again = [Retry(lease.token, charge=False) for lease in await held]
    await one.settle(WORKER, again)
    await one.detach(WORKER)
    assert len(serving.lanes) == 0
    found = await take_all(two, limit=1)
    assert numbers(found) == list(range(40))
    assert {(lease.failures, lease.crashes) for lease in found} == {(0, 0)}


async def test_whatever_a_handler_says_of_its_failure_can_be_kept(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([event()])
    for n in range(4):
        order: Settlement = Retry((await take_one(broker)).token, error=f"{n}" * 100_000)
        assert await broker.settle(WORKER, [order]) == 1
    lease = await take_one(broker)
    assert (lease.failures, [each.number for each in lease.attempts]) == (4, [1, 2, 3, 4])
    assert await broker.settle(WORKER, [Bury(lease.token, Reason.TIMEOUT, "e" * 70_000, "t" * 200_000 + "end")]) == 1
    (letter,) = await broker.dead(DeadQuery())
    assert letter.traceback.endswith("tend")
    assert letter.error.startswith("eee")


async def test_an_event_that_the_server_would_not_take_is_said_before_it_breaks_the_line(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    room = link_of(broker)._most - 40_960
    fits = event(n=1)
    longest = Event(
        topic=TOPIC, source_agent="tester", payload={"n": 1, "x": "x" * (room - len(encode(event(n=1))) - 20)}
    )
    assert room - 100 < len(encode(longest)) <= room
    for sent in (
        Event(topic=TOPIC, source_agent="tester", payload={"x": "x" * room}),
        Event(
            topic=TOPIC,
            source_agent="tester",
            payload={"x": "x" * room},
            not_before=datetime.now(UTC) + timedelta(days=1),
        ),
        Event(topic="_reply.x", source_agent="tester", payload={"x": "x" * (room + 50_000)}),
    ):
        with pytest.raises(PayloadTooLarge, match="max_payload"):
            await broker.publish([sent])
    await broker.publish([longest, fits])
    lease, _ = await take(broker)
    assert await broker.settle(WORKER, [Retry(lease.token, error="e" * 100_000)]) == 1
    assert link_of(broker).error is None


# ------------------------------------------------------------------------------------------------ what was deleted


@pytest.mark.parametrize("source", ["u", "n", "an", "s"])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_consumer_that_somebody_deleted_is_made_again(rig: Rig, source: str, waits: bool) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    await broker.publish([event(n=0)])
    await broker.settle(WORKER, [Retry((await take_one(broker)).token)])
    await take_all(broker)
    await other.open()
    where = broker._names.log if source in ("u", "n") else broker._names.again
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=5, wait=60 if waits else 0))
    if waits:
        serving = session_of(broker).serving(WORKER)
        await eventually(lambda: serving.lanes.consuming)
        await broker.ping()
    else:
        await waiting
    await delete_consumer(where, broker._names.consumer(WORKER, source))
    await other.publish([event(n=1, priority=9 if source == "u" else 5)])
    found: list[int] = []
    if waits:
        leases = await asyncio.wait_for(waiting, 5)
        await acknowledge(broker, leases)
        found = numbers(leases)
    for _ in range(3):
        found += numbers(await once_it_works(lambda: take_all(broker)))
    assert 1 in found
    await other.publish([event(n=2)])
    await broker.settle(WORKER, [Retry((await take_one(broker)).token)])
    assert numbers(await take_all(broker)) == [2]
    info = await other.info(WORKER)
    assert info is not None
    assert (info.ready, info.leased) == (0, 0)


async def test_what_a_deleted_consumer_gave_cannot_be_settled_and_breaks_no_line(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one)
    await one.publish(events(3))
    leases = await take(one)
    await two.open()
    await delete_consumer(one._names.log, one._names.consumer(WORKER, "n"))
    assert numbers(await once_it_works(lambda: take_all(two))) == [0, 1, 2]
    began = asyncio.get_running_loop().time()
    assert await acknowledge(one, leases) == 0
    assert asyncio.get_running_loop().time() - began < 3
    assert link_of(one).error is None
    assert not await take(two)


async def test_an_answer_that_no_consumer_knows_is_refused_in_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([event()])
    leases = await take(broker)
    names = broker._names
    serving = session_of(broker).serving(WORKER)
    monkeypatch.setattr(serving, "check", lambda: None)  # as if it had not been told yet
    await delete_consumer(names.log, names.consumer(WORKER, "n"))
    await session_of(broker).consumers.make(WORKER)
    assert await asyncio.wait_for(acknowledge(broker, leases), 9) == 0
    assert link_of(broker).error is None
    assert len(await take(broker)) == 1


async def test_what_was_removed_and_declared_again_is_another_one(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one)
    await one.publish(events(2))
    leases = await take(one)
    await two.remove(WORKER)
    await declare(two, start="first")
    taken = await take(two)
    assert numbers(taken) == [0, 1]
    assert await acknowledge(one, leases) == 0
    assert await acknowledge(two, taken) == 2
    await two.publish([event(n=2)])
    leases = await take(one)
    assert numbers(leases) == [2]
    cut(one)  # it hears of neither
    await two.remove(WORKER)
    await declare(two, start="first")
    taken = await take(two)
    assert numbers(taken) == [0, 1, 2]
    assert await acknowledge(one, leases) == 0
    assert await acknowledge(two, taken) == 3


async def test_to_detach_amid_a_fetch_costs_no_line_and_no_event(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish(events(10))
    serving, line = session_of(broker).serving(WORKER), link_of(broker)
    found: list[Lease] = []
    for _ in range(10):
        fetching = asyncio.create_task(take(broker, limit=1))
        while not any(feed._now is not None and not feed._now.done() for feed in serving.lanes._feeds.values()):
            assert not fetching.done()
            await asyncio.sleep(0)
        await asyncio.wait_for(broker.detach(WORKER), 5)  # what was asked for is on its way just now
        found += await asyncio.wait_for(fetching, 5)
    assert link_of(broker) is line
    assert await acknowledge(broker, found) == len(found)
    found += await take_all(broker)
    assert sorted(numbers(found)) == list(range(10))
    assert {lease.crashes for lease in found} == {0}


async def test_a_subscription_that_another_instance_removed_costs_the_others_no_lease(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    for id in (WORKER, "removed"):
        await declare(broker, id)
    await broker.publish([event()])
    leases = await take(broker)
    await take_all(broker, "removed")
    waiting = asyncio.create_task(broker.fetch("removed", limit=5, wait=60))
    line = link_of(broker)
    await eventually(lambda: session_of(broker).serving("removed").lanes.consuming)
    await other.remove("removed")
    with pytest.raises(SubscriptionNotFound):
        await asyncio.wait_for(waiting, 5)
    await asyncio.sleep(0.3)
    assert line.error is None
    assert await acknowledge(broker, leases) == 1


async def test_what_a_node_does_not_know_of_yet_is_put_to_it_again() -> None:
    """A stream of a cluster is there before each of its nodes has heard of it: nobody answers a publish until then."""
    async with stranger() as link, stranger() as maker:
        name = f"late-{uuid4().hex}"
        messages = [Message(f"{name}.{number}", b"{}") for number in range(3)]
        publishing = asyncio.create_task(link.publish(messages))
        await asyncio.sleep(0.1)
        await maker.ask(f"STREAM.CREATE.{name}", name=name, subjects=[f"{name}.>"])
        confirms = await publishing
        assert [confirm.seq for confirm in confirms] == [1, 2, 3]
        await maker.ask(f"STREAM.DELETE.{name}")
        with pytest.raises(BrokerUnavailable, match="stream is gone"):
            await link.publish(messages)


async def test_a_log_that_was_deleted_begins_anew_and_says_what_is_gone(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    await other.open()
    await broker.publish(events(5))
    (first, *_, last) = await read(broker)
    lease = await take_one(broker)
    await delete(broker._names.log)
    with pytest.raises(BrokerUnavailable):
        await broker.publish([event(n=7)])
    await once_it_works(lambda: broker.publish([event(n=8)]))
    assert "deleted" in caplog.text
    assert (await broker.ping()).head.epoch != first.position.epoch
    assert numbers(await read(broker)) == [8]
    for position in (first.position, last.position):
        with pytest.raises(PositionLost):
            await read(broker, after=position)
        with pytest.raises(PositionLost):
            await declare(broker, "late", start=position)
    with pytest.raises(PositionLost):
        await take(broker)
    leases = list(await take(broker))
    await once_it_works(lambda: other.publish([event(n=9)]))
    leases += await once_it_works(lambda: take(other))
    assert numbers(leases) == [8, 9]
    assert {lease.position.epoch for lease in leases if lease.position} == {(await broker.ping()).head.epoch}
    assert await acknowledge(broker, [lease]) == 0
    assert await acknowledge(broker, leases[:1]) == 1
    assert await acknowledge(other, leases[1:]) == 1


@pytest.mark.parametrize("kind", ["log", "again", "later", "dead", "control"])
async def test_a_stream_that_somebody_deleted_is_missed_by_who_says_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    await other.open()
    await broker.publish([event(n=0), later(rig, 3600, 1)])
    await broker.settle(WORKER, [Retry((await take_one(broker)).token, error="once")])
    await broker.settle(WORKER, [Bury((await take_one(broker)).token, Reason.REJECTED)])
    epoch = (await broker.ping()).head.epoch
    await delete(streams(broker)[kind])
    await passes(rig, broker)
    assert [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (
        f"a stream was deleted, and all that was in it; it is made anew stream={streams(broker)[kind]}" in caplog.text
    )
    await passes(rig, other)
    told = 0
    for each in (broker, other):
        with suppress(PositionLost):
            await each.fetch(WORKER, limit=1, wait=0)
            told -= 1
        told += 1
    assert told == (kind in ("log", "again", "later"))
    assert ((await other.ping()).head.epoch != epoch) is (kind == "log")
    # And all of it works as before.
    await other.publish([event(n=2), later(rig, 5, 3)])
    lease = next(each for each in await take(other) if each.event.payload["n"] == 2)
    await other.settle(WORKER, [Retry(lease.token, error="once")])
    await rig.advance(6)
    found = await gather(other, 2)
    assert sorted((each.event.payload["n"], each.failures) for each in found) == [(2, 1), (3, 0)]
    await other.publish([event(n=4)])
    await other.settle(WORKER, [Bury((await take_one(other)).token, Reason.REJECTED)])
    assert len(await broker.dead(DeadQuery())) == (1 if kind == "dead" else 2)


async def test_what_all_must_know_is_said_again_by_who_knows_it(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, patterns=("task.*",))
    await declare(two, "second", ("plan.*",))
    await one.publish(events(3))
    await two.open()
    place = (await one.ping()).head
    await delete(one._names.control)
    await passes(rig, two)
    newcomer = opened(rig)
    assert {info.subscription.id for info in await newcomer.subscriptions()} == {WORKER, "second"}
    assert (await newcomer.ping()).head == place
    assert await read(newcomer, after=place) == []
    await once_it_works(lambda: declare(one, patterns=("plan.*",)))
    assert numbers(await take_all(newcomer)) == [0, 1, 2]
    await newcomer.publish([event("plan.x", 5)])
    assert numbers(await take_all(one)) == [5]


async def test_names_of_messages_are_not_those_of_a_stream_before(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)

    async def buried_from_again(n: int) -> None:
        await broker.publish([event(n=n)])
        await broker.settle(WORKER, [Retry((await take_one(broker)).token)])
        await broker.settle(WORKER, [Bury((await take_one(broker)).token, Reason.REJECTED)])

    await buried_from_again(1)
    await delete(broker._names.again)
    await passes(rig, broker)
    with suppress(PositionLost):
        await take(broker)
    await buried_from_again(2)
    assert sorted(letter.event.payload["n"] for letter in await broker.dead(DeadQuery())) == [1, 2]


async def test_who_follows_a_log_that_was_deleted_is_told(rig: Rig) -> None:
    mender, reader = opened(rig), opened(rig)
    await mender.publish([event(n=0)])
    following = reader.read(Query(), follow=True)
    assert (await anext(following)).event.payload["n"] == 0
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0.05)
    await delete(mender._names.log)
    await passes(rig, mender)
    await once_it_works(lambda: mender.publish([event(n=1)]))
    await once_it_works(reader.ping)
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(waiting, 5)
    again = reader.read(Query(), follow=True)
    assert (await asyncio.wait_for(anext(again), 5)).event.payload["n"] == 1


@pytest.mark.parametrize("who", ["control", "delays", "tail"])
async def test_a_follower_that_hears_nothing_gives_its_line_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr(session, "_TOUCH", 0.1)
    monkeypatch.setattr(session, "_SILENT", 7.0)
    broker = opened(rig)
    await broker.open()
    following = broker.read(Query(), follow=True)
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0.1)
    here, link = session_of(broker), link_of(broker)
    (tail,) = here.tails
    follower = {"control": here.control._follower, "delays": here.delays._follower, "tail": tail._follower}[who]
    assert follower is not None
    await delete_consumer(follower._stream, follower._name)
    await eventually(lambda: link.error is not None, 15)
    with pytest.raises(BrokerUnavailable):
        await waiting


# ------------------------------------------------------------------------------------------------ declarations


async def test_a_backlog_is_read_by_the_declaration_that_it_was_published_under(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker, patterns=("a.*",))
    await broker.publish([event("a.x", 1), event("b.x", 2)])
    await declare(other, patterns=("b.*",))
    await broker.publish([event("a.x", 3), event("b.x", 4), event("b.x", 5, priority=9)])
    await declare(broker, patterns=("a.*", "c"))
    await other.publish([event("a.x", 6), event("b.x", 7), event("c", 8)])
    assert sorted(numbers(await take_all(other))) == [1, 4, 5, 6, 8]
    await declare(broker, patterns=("#",))
    assert not await take(broker)
    assert len(known_of(broker).specs) == 1


@pytest.mark.parametrize("exclusive", [False, True])
async def test_exclusive_is_switched_over_a_backlog(rig: Rig, exclusive: bool) -> None:
    broker = opened(rig)
    await declare(broker, exclusive=exclusive)
    await broker.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(6)])
    assert len(await take(broker, limit=2)) == 2
    await declare(broker, exclusive=not exclusive)
    await broker.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(6, 12)])
    found = numbers(await take_all(broker))
    assert len(found) == len(set(found)) == 10
    assert set(range(6, 12)) <= set(found)
    assert not await take(broker)


async def test_exclusive_switched_on_and_off_brings_nothing_back(rig: Rig) -> None:
    broker = opened(rig)
    sent = iter(range(1000))

    async def some() -> list[int]:
        await broker.publish([event(n=next(sent), priority=9 if n % 2 else 5) for n in range(6)])
        return numbers(await take_all(broker))

    found: list[int] = []
    for exclusive in (True, False, False, True, True, False):
        await declare(broker, exclusive=exclusive)
        found += await some()
        await declare(broker, patterns=("#", "x"), exclusive=exclusive)
    found += await some()
    assert len(found) == len(set(found)) == 42


async def test_a_declaration_over_a_consumer_that_is_gone_forgets_nothing(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish(events(3))
    await delete_consumer(broker._names.log, broker._names.consumer(WORKER, "n"))
    await declare(broker, patterns=("#", "x"))
    assert numbers(await take_all(broker)) == [0, 1, 2]


async def test_a_consumer_of_another_life_is_not_taken_for_ours(rig: Rig) -> None:
    broker = opened(rig)
    await broker.publish(events(4))
    names = broker._names
    config = {
        "ack_policy": "explicit",
        "deliver_policy": "by_start_sequence",
        "filter_subjects": [f"{names.prefix}n.x"],
    }
    async with stranger() as link:
        for lane, first in (("u", 1), ("n", 3)):
            name = names.consumer(WORKER, lane)
            more = {"name": name, "durable_name": name, "opt_start_seq": first}
            await link.ask(f"CONSUMER.CREATE.{names.log}.{name}", stream_name=names.log, config=config | more)
    await declare(broker, start="first")
    assert numbers(await take_all(broker)) == [0, 1, 2, 3]
    await broker.publish([event(n=4, priority=9)])
    assert numbers(await take_all(broker)) == [4]


@pytest.mark.parametrize("made", ["by us", "by the server's own measure"])
async def test_a_log_has_room_for_thousands_of_subscriptions(rig: Rig, made: str) -> None:
    """A server allows 1,000 consumers a stream where nothing is said."""
    broker = opened(rig)
    names = broker._names
    async with stranger() as link:
        if made != "by us":
            subjects = [f"{names.prefix}{lane}.>" for lane in "unUN"]
            await link.ask(f"STREAM.CREATE.{names.log}", name=names.log, subjects=subjects, max_consumers=1_000)
        await broker.publish([event(n=1)])
        for name in (names.log, names.again):
            assert (await link.ask(f"STREAM.INFO.{name}"))["config"]["max_consumers"] == 100_000


OTHERS: dict[str, dict[str, Any]] = {
    "of another kind of acknowledgement": {
        "ack_policy": "all",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": 1,
    },
    "that begins elsewhere": {"ack_policy": "explicit", "deliver_policy": "last"},
    "that is told where to deliver": {"ack_policy": "explicit", "deliver_policy": "all", "deliver_subject": "nobody"},
}


@pytest.mark.parametrize("how", ["declare", "join"])
@pytest.mark.parametrize("name", OTHERS)
async def test_a_consumer_that_cannot_become_ours_is_made_anew(rig: Rig, name: str, how: str) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish(events(3))
    leases = await take(broker, limit=1)
    names = broker._names
    consumer = names.consumer(WORKER, "n")
    await delete_consumer(names.log, consumer)
    async with stranger() as link:
        config = {"name": consumer, "durable_name": consumer, "filter_subjects": [f"{names.prefix}n.x"]}
        await link.ask(f"CONSUMER.CREATE.{names.log}.{consumer}", stream_name=names.log, config=config | OTHERS[name])
    if how == "declare":
        await declare(broker, patterns=("#", "x"))
    else:
        cut(broker)
    assert numbers(await once_it_works(lambda: take_all(broker))) == [0, 1, 2]
    assert await acknowledge(broker, leases) == 0
    await broker.publish([event(n=3)])
    assert numbers(await take_all(broker)) == [3]


async def test_a_consumer_that_is_told_where_to_deliver_is_found_out_by_who_fetches(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish(events(2))
    names = broker._names
    consumer = names.consumer(WORKER, "n")
    await delete_consumer(names.log, consumer)
    async with stranger() as link:
        config = {"name": consumer, "durable_name": consumer, **OTHERS["that is told where to deliver"]}
        await link.ask(f"CONSUMER.CREATE.{names.log}.{consumer}", stream_name=names.log, config=config)
    assert numbers(await once_it_works(lambda: take_all(broker))) == [0, 1]


# ------------------------------------------------------------------------------------------------ locks


@pytest.mark.usefixtures("brief")
async def test_a_lock_is_kept_as_long_as_its_holder_says_so_and_free_when_it_closes(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True)
    await one.publish(events(3))
    assert numbers(await take(one, limit=1)) == [0]
    for _ in range(4):
        await asyncio.sleep(1)
        assert not await take(two)
    assert len(session_of(one).locks.held) == 2  # delays, too
    await one.close()
    assert sorted(numbers(await gather(two, 3))) == [0, 1, 2]


@pytest.mark.usefixtures("brief", "quick")
async def test_a_lock_is_taken_over_from_one_that_is_gone_and_what_it_had_comes_first(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True, lease=3.0)
    await one.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(6)])
    leases = await take(one, limit=3)
    assert numbers(leases) == [0, 1, 2]
    kill(one)
    began = asyncio.get_running_loop().time()
    found = await gather(two, 6, 15)
    assert asyncio.get_running_loop().time() - began > 1.5
    assert numbers(found) == [0, 1, 2, 3, 4, 5]
    assert [lease.crashes for lease in found] == [1, 1, 1, 0, 0, 0]


@pytest.mark.usefixtures("brief")
async def test_who_said_nothing_of_its_lock_for_too_long_leases_nothing_by_it(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True)
    await one.publish(events(4))
    assert await acknowledge(one, await take(one, limit=1)) == 1
    ticking = session_of(one)._ticking
    assert ticking is not None
    ticking.cancel()  # as one whose words do not come through
    found: list[int] = []

    async def taken_over() -> bool:
        found.extend(numbers(await take(two, limit=1)))
        return bool(found)

    await eventually(taken_over)
    assert found == [1]
    assert not await take(one)


async def test_a_line_that_broke_costs_no_lock(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True)
    await one.publish(events(4))
    leases = await take(one, limit=1)
    for _ in range(2):
        cut(one)
        assert not await take(two)
        assert numbers(await take(one, limit=1)) != []
    assert set(session_of(one).locks.held) == {f"one.{WORKER}", "later"}
    assert await acknowledge(one, leases) == 1


async def test_a_lock_that_is_renewed_twice_at_once_is_kept(rig: Rig) -> None:
    broker = opened(rig)
    await broker.open()
    here = session_of(broker).locks
    for _ in range(5):
        assert all(await asyncio.gather(*(here.lock("later") for _ in range(4))))
    assert set(here.held) == {"later"}


async def test_who_waits_for_a_lock_hears_that_it_is_free(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True)
    await one.publish(events(2))
    leases = await take(one, limit=1)
    waiting = asyncio.create_task(two.fetch(WORKER, limit=1, wait=600))
    await asyncio.sleep(0.1)
    await one.detach(WORKER)
    await acknowledge(one, leases)
    assert numbers(await asyncio.wait_for(waiting, 5)) == [1]


# ------------------------------------------------------------------------------------------------ what is idle


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for ahead is over after 0.3 s; what the server says nothing of is noticed soon."""
    monkeypatch.setattr(lanes, "_EXPIRES", 0.3)
    monkeypatch.setattr(stream, "_LATE", 0.3)
    monkeypatch.setattr(session, "_TOUCH", 0.2)


@pytest.fixture
def pulls(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What consumers are asked for from now on."""
    asked: list[bytes] = []
    send = link_module.Link.send

    def heard(self: Link, subject: str, body: bytes = b"", *more: Any) -> None:
        if subject.startswith("$JS.API.CONSUMER.MSG.NEXT."):
            asked.append(body)
        send(self, subject, body, *more)

    monkeypatch.setattr(link_module.Link, "send", heard)
    return asked


def _ahead(pulls: list[bytes]) -> int:
    return sum(b"expires" in body for body in pulls)


@pytest.mark.usefixtures("short")
async def test_what_gets_nothing_is_asked_for_again_and_its_fetch_is_not_woken(rig: Rig, pulls: list[bytes]) -> None:
    broker = opened(rig)
    await declare(broker)
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=4, wait=600))
    await eventually(lambda: _ahead(pulls) == 2)
    serving, before = session_of(broker).serving(WORKER), len(pulls)
    (sleeper,) = serving.lanes.news.waiting
    await eventually(lambda: _ahead(pulls) >= 2 + 2 * 3)
    assert serving.lanes.news.waiting == [sleeper]
    assert all(b"expires" in body for body in pulls[before:])
    await broker.publish([event(n=0), event(n=1, priority=9)])
    leases = list(await asyncio.wait_for(waiting, 5))
    leases += await take(broker)
    assert sorted(numbers(leases)) == [0, 1]
    assert await acknowledge(broker, leases) == 2


async def test_a_fetch_whose_wait_is_over_asks_for_nothing(
    rig: Rig, pulls: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a router's clients are over at about the same time; each asked the server twice, and all others here."""
    broker = opened(rig)
    await declare(broker)
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=4, wait=5))
    await eventually(lambda: _ahead(pulls) == 2)
    before, synced = len(pulls), 0
    sync = session.Session.sync

    async def counted(self: session.Session) -> None:
        nonlocal synced
        synced += 1
        await sync(self)

    monkeypatch.setattr(session.Session, "sync", counted)
    await eventually(lambda: bool(session_of(broker).serving(WORKER).lanes.news.waiting))
    await rig.clock.advance(6)
    assert await asyncio.wait_for(waiting, 5) == []
    assert (len(pulls), synced) == (before, 0)
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=4, wait=5))
    await broker.publish([event(n=1)])
    assert numbers(await asyncio.wait_for(waiting, 5)) == [1]


@pytest.mark.usefixtures("short")
async def test_what_nobody_waits_for_is_not_asked_for_again(rig: Rig, pulls: list[bytes]) -> None:
    """Who is busy, or paused, would have events that others could handle."""
    one, two = opened(rig), opened(rig)
    await declare(one)
    waiting = asyncio.create_task(one.fetch(WORKER, limit=4, wait=600))
    await eventually(lambda: _ahead(pulls) == 2)
    await two.publish([event(n=0)])
    leases = await asyncio.wait_for(waiting, 5)
    feeds = session_of(one).serving(WORKER).lanes._feeds.values()
    await eventually(lambda: not any(feed.asked for feed in feeds))
    before = len(pulls)
    await asyncio.sleep(0.5)
    assert len(pulls) == before
    await two.publish([event(n=1, priority=9)])
    assert numbers(await take(two)) == [1]
    assert await acknowledge(one, leases) == 1


@pytest.mark.usefixtures("short")
async def test_who_waits_for_an_exclusive_subscription_asks_for_nothing_without_its_lock(
    rig: Rig, pulls: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True)
    waiting = asyncio.create_task(one.fetch(WORKER, limit=1, wait=600))
    await eventually(lambda: _ahead(pulls) == 1)
    monkeypatch.setattr(session_of(one).locks, "holds", lambda _what: False)
    monkeypatch.setattr(session_of(one).locks, "lock", _refused)  # another one has it
    await asyncio.sleep(0.5)
    before = len(pulls)
    await two.publish([event(n=1)])
    await asyncio.sleep(0.5)
    assert len(pulls) == before
    assert len(session_of(one).serving(WORKER).lanes) == 0
    waiting.cancel()


async def _refused(_what: str) -> bool:
    return False


@pytest.mark.usefixtures("short")
async def test_what_the_server_forgets_that_it_was_asked_for_is_asked_for_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several nodes the one that was asked may be gone: nobody says so, and the line to another one is well."""
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    await other.open()
    send, lost = link_module.Link.send, 0

    def losing(self: Link, subject: str, body: bytes = b"", *more: Any) -> None:
        nonlocal lost
        if b"expires" in body and lost < 2:
            lost += 1
        else:
            send(self, subject, body, *more)

    monkeypatch.setattr(link_module.Link, "send", losing)
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=4, wait=600))
    await eventually(lambda: lost == 2)
    await other.publish([event(n=0), event(n=1, priority=9)])
    leases = await asyncio.wait_for(waiting, 5)
    assert numbers(leases) == [1, 0]
    assert await acknowledge(broker, leases) == 2


async def test_subscriptions_that_have_nothing_cost_no_task(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(rig)
    ids = [f"idle-{number}" for number in range(5)]
    for id in ids:
        await declare(broker, id)
        assert not await take(broker, id)
    here, called = session_of(broker), list[str]()
    assert here._ticking is not None
    here._ticking.cancel()
    flush, touch = Expiry.flush, Serving.touch

    async def flushed(self: Expiry) -> None:
        called.append("flush")
        await flush(self)

    async def touched(self: Serving) -> None:
        called.append(f"touch {self.id}")
        await touch(self)

    monkeypatch.setattr(Expiry, "flush", flushed)
    monkeypatch.setattr(Serving, "touch", touched)
    await broker.ping()
    here._tick()
    await asyncio.sleep(0.05)
    assert not called
    await broker.publish([event()])
    assert len(await take(broker, ids[0])) == 1
    here._ticking.cancel()
    here._tick()
    await eventually(lambda: called == [f"touch {ids[0]}"])
    await rig.clock.advance(31)
    await broker.ping()
    assert [lease.crashes for lease in await take(broker, ids[0])] == [1]


async def test_many_that_begin_to_serve_at_once_say_so_together(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = opened(rig), opened(rig)
    await two.open()
    ids = [f"crowd-{number}" for number in range(30)]
    await asyncio.gather(*(declare(one, id) for id in ids))
    store, said = link_module.Link.store, 0

    async def counted(self: Link, messages: Sequence[Message]) -> Any:
        nonlocal said
        said += self is link_of(one) and ".c.i." in messages[0].subject
        return await store(self, messages)

    monkeypatch.setattr(link_module.Link, "store", counted)
    await asyncio.gather(*(one.fetch(id, limit=0, wait=0) for id in ids))
    assert said < 10
    assert [info.consumers for info in await two.subscriptions()] == [1] * 30


async def test_the_numbers_of_many_are_asked_for_together(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(rig)
    ids = [f"crowd-{number}" for number in range(135)]  # with more consumers than the server lists in one page
    await asyncio.gather(*(declare(broker, id, patterns=(f"{id}.*",)) for id in ids))
    await broker.publish([event(f"{id}.x", n, priority=p) for id in ids[-3:] for n in range(5) for p in (5, 9)])
    for id, orders in ((ids[-1], (Retry("", 60), Bury("", Reason.REJECTED))), (ids[-2], (Retry("", 60), Retry("", 0)))):
        for order in orders:
            await broker.settle(id, [structs.replace(order, token=(await take_one(broker, id)).token)])
    ask, asked = link_module.Link.ask, list[str]()

    async def counted(self: Link, what: str, **arguments: Any) -> dict[str, Any]:
        asked.append(what)
        return await ask(self, what, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(link_module.Link, "ask", counted)
        infos = {info.subscription.id: info for info in await broker.subscriptions()}
    assert len(asked) < 15
    assert set(infos) == set(ids)
    for id in ids[-4:]:
        assert infos[id] == await broker.info(id)
    found = [(info.ready, info.leased, info.delayed, info.dead) for info in (infos[id] for id in ids[-4:])]
    assert found == [(0, 0, 0, 0), (10, 0, 0, 0), (9, 0, 1, 0), (8, 0, 1, 1)]


async def test_the_driver_has_no_queues_of_ours(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await take(broker)
    assert not link_of(broker)._connection._subs
    before = len(link_of(broker)._connection.hear)
    await broker.detach(WORKER)
    assert len(link_of(broker)._connection.hear) == before - 2


# ------------------------------------------------------------------------------------------------ delays


async def test_what_cannot_be_read_among_the_delayed_holds_up_nothing_and_is_tried_seldom(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    prefix = broker._names.prefix
    now = rig.clock.time()
    async with stranger() as link:
        await link.store(
            [
                Message(f"{prefix}l.e.x", b"hello"),
                Message(f"{prefix}l.e.y", b"hello", b"Wow: \xff\r\n"),
                copied(f"{prefix}l.e.z", b"hello", Tag(at=now, due=now, leaving=True)),
                copied(f"{prefix}l.r.w.x", b"hello", Tag(at=now, due=now, target="x")),
                copied(f"{prefix}l.r.w.y", b"hello", Tag(at=now, due=now, target="$JS.API.INFO x 0\r\n\r\nPUB y")),
                copied(f"{prefix}l.r.w.z", b"hello", Tag(at=now, due=now, target=f"{prefix}a.x.y z.n")),
            ]
        )
    await broker.publish([later(rig, 5, 1)])
    await rig.advance(6)
    assert numbers(await gather(broker, 1)) == [1]
    waiting = session_of(broker).delays
    await eventually(lambda: len(waiting._due) == 6)
    assert min(due for due, _ in waiting._due) > rig.clock.time() + 500
    await rig.advance(700)
    await broker.publish([later(rig, 5, 2)])
    await rig.advance(6)
    assert numbers(await gather(broker, 1)) == [2]
    assert len(waiting._due) == 6


@pytest.mark.parametrize("claimed", [False, True])
async def test_the_next_one_sends_on_what_is_delayed_when_the_first_is_gone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, claimed: bool
) -> None:
    first = opened(rig)
    await declare(first)
    sent = [later(rig, 60, n, event_id=f"e-{n}") for n in range(20)]
    await first.publish(sent)
    await first.publish([event(n=20)])
    await first.settle(WORKER, [Retry((await take_one(first)).token, 60.0, "once")])
    second = opened(rig)
    await second.open()
    assert session_of(second).delays._follower is None
    if claimed:
        monkeypatch.setattr(link_of(first), "store", _lost)
        await rig.advance(61)
        assert not await second.cancel("e-3")  # it cannot be taken back any more
        assert numbers(await read(second)) == [20]
    kill(first)
    await eventually(lambda: session_of(second).delays._follower is not None, 3)
    await rig.advance(61)
    await eventually(lambda: has(second, 21))
    found = await gather(second, 21)
    assert sorted(numbers(found)) == list(range(21))
    assert {lease.failures for lease in found if lease.event.payload["n"] == 20} == {1}
    await rig.advance(61)
    assert not await take(second)
    assert sorted(numbers(await read(second))) == list(range(21))


async def test_who_was_away_while_another_one_sent_on_sends_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one)
    await one.publish([event(n=1), later(rig, 30, 2)])
    await one.settle(WORKER, [Retry((await take_one(one)).token, 30.0, "once")])
    await two.open()
    here, link = session_of(one).delays, link_of(one)
    assert here._watching is not None
    here._watching.cancel()  # as one that is stopped: it neither says that it is here nor hears of the other
    publish, store = link.publish, link.store
    sent: list[Message] = []
    claimed, goes_on = asyncio.Event(), asyncio.Event()

    async def waits(messages: Sequence[Message]) -> Any:
        confirms = await publish(messages)
        claimed.set()
        await goes_on.wait()
        return confirms

    async def noted(messages: Sequence[Message]) -> Any:
        sent.extend(messages)
        return await store(messages)

    with monkeypatch.context() as patch:
        patch.setattr(link, "publish", waits)
        patch.setattr(link, "store", noted)
        await rig.clock.advance(31)
        await asyncio.wait_for(claimed.wait(), 5)
        await eventually(lambda: session_of(two).delays._follower is not None, 3)
        assert sorted(numbers(await gather(two, 2))) == [1, 2]
        goes_on.set()
        assert here._releasing is not None
        await asyncio.wait([here._releasing])
    assert [each for each in sent if ".i." not in each.subject] == []


async def test_the_next_one_has_what_is_delayed_at_once_when_the_first_closes(rig: Rig) -> None:
    first, second = opened(rig), opened(rig)
    await first.publish([later(rig, 60, n) for n in range(3)])
    await second.open()
    await first.close()
    await eventually(lambda: len(session_of(second).delays._due) == 3)


async def test_what_is_cancelled_before_it_is_claimed_does_not_leave(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, other = opened(rig), opened(rig)
    await broker.publish([later(rig, 5, 1, event_id="e-1"), later(rig, 5, 2, event_id="e-2")])
    link = link_of(broker)
    publish = link.publish
    held = asyncio.Event()

    async def waits(messages: Sequence[Message]) -> Any:
        if any(tag_of(b"NATS/1.0\r\n" + each.headers + b"\r\n").leaving for each in messages):
            held.set()
            assert await other.cancel("e-1")  # between the look and the claim
        return await publish(messages)

    monkeypatch.setattr(link, "publish", waits)
    await rig.advance(6)
    await asyncio.wait_for(held.wait(), 5)
    await eventually(lambda: has(other, 1))
    await rig.advance(5)
    assert numbers(await read(other)) == [2]
    assert not await other.cancel("e-2")


async def test_what_left_between_others_cannot_be_cancelled(rig: Rig) -> None:
    broker = opened(rig)
    await broker.publish([later(rig, 60, n, event_id=f"e-{n}") for n in range(3)])
    delays, names = session_of(broker).delays, broker._names
    found = await link_of(broker).get(names.later, subject=names.held("e-1"))
    assert found is not None
    assert await delays._delete(found.seq)
    assert not await delays._delete(found.seq)  # of a hole the server says something else than of what never was
    assert not await delays._delete(found.seq + 100)
    assert await delays._delete(found.seq + 1)
    assert not await delays._delete(found.seq + 1)


async def test_what_is_cancelled_by_one_of_two_while_it_is_due_never_comes(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one)
    await two.open()
    await one.publish([later(rig, 10, n, event_id=f"e-{n}") for n in range(30)])

    async def cancel(broker: NatsBroker, n: int) -> int | None:
        await asyncio.sleep(n / 1000)
        return n if await broker.cancel(f"e-{n}") else None

    await rig.clock.advance(9.9)
    tries = [cancel(broker, n) for n in range(30) for broker in (one, two)]
    *said, _ = await asyncio.gather(*tries, rig.advance(1))
    cancelled = [n for n in said if n is not None]
    assert len(cancelled) == len(set(cancelled))  # of two who cancel, one is told that it did
    wanted = sorted(set(range(30)) - set(cancelled))
    await eventually(lambda: has(two, len(wanted)))
    await rig.advance(5)
    assert sorted(numbers(await read(two))) == wanted


# ------------------------------------------------------------------------------------------------ the log


async def test_a_reader_that_takes_its_time_reads_all(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_FORGOTTEN", 0.5)  # seconds after which the server forgets it
    monkeypatch.setattr(stream, "PAGE", 10)
    broker = opened(rig)
    await broker.publish(events(25))
    found: list[int] = []
    async for stored in broker.read(Query()):
        found.append(stored.event.payload["n"])
        if len(found) in (10, 20):
            await asyncio.sleep(2.5)
    assert found == list(range(25))


async def test_what_the_limits_take_before_a_reader_that_is_under_way_is_told_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAGE", 10)
    broker = opened(rig)
    everything = [n for n in range(1, 31) if n % 7]
    await broker.publish([event(TOPIC if n in everything else "_bus.x", n) for n in range(1, 31)])
    reading = broker.read(Query())
    found = [(await anext(reading)).event.payload["n"]]
    async with stranger() as link:
        await link.ask(f"STREAM.PURGE.{broker._names.log}", seq=21)
    lost: list[int | None] = []
    while 30 not in found:
        try:
            found.append((await anext(reading)).event.payload["n"])
        except PositionLost as error:
            lost.append(error.lost)
    assert lost == [10]
    assert found == [n for n in everything if n <= 10 or n >= 21]
    with pytest.raises(StopAsyncIteration):
        await anext(reading)


async def test_what_the_limits_take_at_the_end_of_what_is_read_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAGE", 10)
    broker = opened(rig)
    await broker.publish(events(20))
    reading = broker.read(Query())
    await anext(reading)
    async with stranger() as link:
        await link.ask(f"STREAM.PURGE.{broker._names.log}")
    await broker.publish(events(5))
    for _ in range(9):
        await anext(reading)
    with pytest.raises(PositionLost) as lost:
        await anext(reading)
    assert lost.value.lost == 10
    with pytest.raises(StopAsyncIteration):
        await anext(reading)


async def test_a_hole_in_the_log_is_not_what_its_limits_took(rig: Rig) -> None:
    broker = opened(rig)
    await broker.publish(events(9))
    async with stranger() as link:
        await link.ask(f"STREAM.MSG.DELETE.{broker._names.log}", seq=5, no_erase=True)
    assert numbers(await read(broker)) == [0, 1, 2, 3, 5, 6, 7, 8]


async def test_who_reads_on_while_nothing_is_gone_is_told_nothing(rig: Rig) -> None:
    broker = opened(rig)
    await broker.publish([event("_bus.x" if n % 3 == 0 else TOPIC, n) for n in range(40)])
    async with stranger() as link:
        await link.ask(f"STREAM.PURGE.{broker._names.log}", seq=11)
    assert numbers(await read(broker)) == [n for n in range(10, 40) if n % 3]
    assert numbers(await read(broker, patterns=("_bus.*", "x"))) == [n for n in range(10, 40) if not n % 3]


@pytest.mark.parametrize("priority", [5, 9])
async def test_facts_outlive_the_log_in_both_lanes(rig: Rig, priority: int) -> None:
    broker = opened(rig, retention=Retention(max_count=5))
    await broker.publish(
        [event("_bus.a", 1, priority=5), event("_bus.a", 2, priority=9), event("_bus.b", 3, priority=9)]
    )
    await broker.publish([event("_bus.b", 4, priority=priority)])
    places = [stored.position for stored in await read(broker, patterns=("_bus.#",))]
    await broker.publish(events(20))
    await rig.advance(11)
    assert len(await read(broker)) == 5
    newcomer = opened(rig)
    found = await read(newcomer, patterns=("_bus.#",))
    assert numbers(found) == [2, 4]
    assert [stored.position for stored in found] == places
    await newcomer.publish([event("_bus.a", 5, priority=priority)])
    assert numbers(await read(broker, patterns=("_bus.#",))) == [4, 5]
    await broker.publish(events(20))
    await rig.advance(11)
    assert numbers(await read(newcomer, patterns=("_bus.#",))) == [4, 5]
    assert numbers(await read(newcomer, patterns=("_bus.#",), after=places[1])) == [5]


async def test_only_what_the_limits_took_unread_is_lost_and_it_is_counted_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Retention(max_bytes=20_000)
    one, two = opened(rig, retention=limits), opened(rig, retention=limits)
    await declare(one, "quick")
    await declare(one, "slow")
    await two.open()
    await one.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(300)])
    janitors = [session_of(each)._janitor for each in (one, two)]
    asked = janitors[0]._keep_facts
    seen: list[Lease] = []

    async def meanwhile(upto: int) -> None:
        await asked(upto)
        seen.extend(await take_all(one, "quick"))  # what is read now is not lost

    assert len(await take_all(one, "quick", limit=50)) == 300
    await one.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(300)])
    for each in janitors:
        monkeypatch.setattr(each, "_keep_facts", meanwhile)
    await asyncio.gather(*(each.trim() for each in janitors))
    assert len(seen) == 300
    left = len(await read(two))
    assert left < 600
    with pytest.raises(PositionLost) as lost:
        await take(two, "slow")
    assert lost.value.lost == 600 - left
    assert len(await take_all(two, "slow")) == left
    assert not await take(one, "quick")
    assert "trim" not in session_of(one).locks.held


async def bury_by_hand(broker: NatsBroker, count: int) -> None:
    """So many letters of the subscription, and one that is another one's."""
    body, now = encode(event()), time.time()
    names = broker._names
    letters = [f"{names.letters(WORKER)}.x{n}" for n in range(count)] + [f"{names.letters('another')}.x"]
    async with stranger() as link:
        for first in range(0, len(letters), 1_000):
            tags = [Tag(at=now, buried=now + count - n) for n in range(first, first + 1_000)]
            some = zip(letters[first : first + 1_000], tags, strict=False)
            await link.store([copied(subject, body, tag) for subject, tag in some])


def _measuring(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each answer has from now on."""
    request = link_module.Link.request
    sizes: list[int] = []

    async def measured(self: Link, subject: str, *more: Any, again: bool = False) -> tuple[bytes, bytes]:
        answer = await request(self, subject, *more, again=again)
        sizes.append(len(answer[0]))
        return answer

    monkeypatch.setattr(link_module.Link, "request", measured)
    return sizes


async def test_thousands_of_letters_are_counted_without_being_listed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_LISTED", 2_999)
    broker = opened(rig)
    for id in (WORKER, "other"):
        await declare(broker, id)
    await bury_by_hand(broker, 3_000)
    sizes = _measuring(monkeypatch)
    info = await broker.info(WORKER)
    assert info is not None
    assert info.dead == 3_000
    assert [info.dead for info in await broker.subscriptions()] == [3_000, 0]
    assert max(sizes) < 4_000


async def test_of_many_letters_the_first_are_found(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(rig)
    await declare(broker)
    await bury_by_hand(broker, 1_200)
    found = await broker.dead(DeadQuery(limit=7))
    assert [letter.id.rpartition("-")[2] for letter in found] == [f"x{n}" for n in range(1_199, 1_192, -1)]
    assert len(await broker.dead(DeadQuery(limit=10_000))) == 1_200


@pytest.mark.slow
async def test_more_letters_than_the_server_lists_are_counted_exactly(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await bury_by_hand(broker, 100_050)
    info = await broker.info(WORKER)
    assert info is not None
    assert info.dead == 100_050


async def test_limits_that_take_nothing_read_one_event(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(rig, retention=Retention(max_age=3600.0, max_bytes=10**9))
    await broker.publish(events(50))
    asked: list[str] = []
    request = link_module.Link.request

    async def noted(self: Link, subject: str, *more: Any, again: bool = False) -> tuple[bytes, bytes]:
        asked.append(subject.removeprefix("$JS.API."))
        return await request(self, subject, *more, again=again)

    monkeypatch.setattr(link_module.Link, "request", noted)
    await session_of(broker)._janitor.trim()
    assert asked == [f"STREAM.INFO.{broker._names.log}", f"DIRECT.GET.{broker._names.log}"]


@pytest.mark.parametrize("replicas", [1, 3])
async def test_of_a_stream_with_replicas_nothing_is_to_be_deleted_to_see_whether_it_can_write(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    broker = opened(rig)
    await broker.open()
    session_of(broker).storage.learn(broker._names.log, replicas)
    asked: list[str] = []
    request = link_module.Link.request

    async def noted(self: Link, subject: str, *more: Any, again: bool = False) -> tuple[bytes, bytes]:
        asked.append(subject.removeprefix("$JS.API."))
        return await request(self, subject, *more, again=again)

    monkeypatch.setattr(link_module.Link, "request", noted)
    await broker.ping()
    assert (f"STREAM.MSG.DELETE.{broker._names.log}" in asked) is (replicas == 1)


# ------------------------------------------------------------------------------------------------ lines and servers


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
