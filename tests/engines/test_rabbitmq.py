"""What is the RabbitMQ engine's own: what others do in its virtual host, its connections, its delays and its log."""

# ruff: noqa: SLF001 - to see what the server has given an instance, a test has to reach inside

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import aiormq
import msgspec
import pytest
from pamqp.commands import Basic

from tests.conformance.engines import Rig, eventually
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
from tests.servers import Server, rabbitmq_running
from wowevent.broker import (
    Ack,
    Bury,
    DeadQuery,
    Lease,
    Query,
    Reason,
    Redeliver,
    Retry,
    Subscription,
)
from wowevent.brokers import open_broker
from wowevent.brokers.rabbitmq import RabbitMQBroker, control, delays
from wowevent.brokers.rabbitmq.lanes import Lanes
from wowevent.brokers.rabbitmq.letters import Letters
from wowevent.brokers.rabbitmq.link import Link
from wowevent.brokers.rabbitmq.live import Live
from wowevent.brokers.rabbitmq.outlet import Outlet
from wowevent.brokers.rabbitmq.registry import LANES, Registry, Returned
from wowevent.brokers.rabbitmq.tags import number_of
from wowevent.brokers.rabbitmq.young import Young
from wowevent.codec import encode
from wowevent.errors import BrokerUnavailable, NotPermitted, PositionLost, SubscriptionNotFound

TOPIC = "task.created"
KEY = f"{TOPIC}.normal"


@pytest.fixture(scope="module")
def named(request: pytest.FixtureRequest) -> None:
    if "rabbitmq" not in request.config.getoption("--broker").split(","):
        pytest.skip("--broker does not name rabbitmq")


@pytest.fixture
async def rig(named: None, tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig("rabbitmq", tmp_path)
    yield rig
    await rig.close()


def opened(rig: Rig) -> RabbitMQBroker:
    """One more instance."""
    broker = rig.broker()
    assert isinstance(broker, RabbitMQBroker)
    return broker


def url_of(rig: Rig) -> str:
    """Of its virtual host."""
    broker = rig._brokers[0] if rig._brokers else opened(rig)
    assert isinstance(broker, RabbitMQBroker)
    return broker._url


def registry_of(broker: RabbitMQBroker) -> Registry:
    assert broker._entrance.session is not None
    return broker._entrance.session.control.registry


@asynccontextmanager
async def by_a_line(rig: Rig) -> AsyncIterator[tuple[RabbitMQBroker, Proxy]]:
    """One more instance, and the line by which it reaches the server."""
    url = url_of(rig)
    port = int(url.rpartition("/")[0].rpartition(":")[2])
    async with Proxy(port, plain=True) as proxy:
        broker = RabbitMQBroker(url.replace(f":{port}", f":{proxy.port}"), clock=rig.clock)
        try:
            yield broker, proxy
        finally:
            await broker.close()


async def cut(broker: RabbitMQBroker, proxy: Proxy) -> None:
    """Cut its line, without a goodbye; return once it knows."""
    session = broker._entrance.session
    assert session is not None
    proxy.reset()
    await eventually(lambda: session.broken)


@asynccontextmanager
async def stranger(rig: Rig) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    """Somebody else in the same virtual host."""
    connection = await aiormq.connect(url_of(rig))
    try:
        yield await connection.channel()
    finally:
        await connection.close()
        for _ in range(3):
            await asyncio.sleep(0)


# ------------------------------------------------------------------------------------------------ refused


def _exchanged(link: Link, outlet: Outlet) -> bool:
    return link._outlets["history"] is not outlet and outlet._writing.done()


async def test_what_the_server_refuses_is_said_and_published_by_another_channel_next(rig: Rig) -> None:
    """Refused once, a channel may be refused for ever: so of a leader that died. Here it is a full queue."""
    broker = opened(rig)
    await declare(broker)
    async with stranger(rig) as channel:
        await channel.queue_declare("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        await channel.queue_bind("full", "agent_events", "task.full.#")
        await broker.publish([event(n=0, topic="task.full")])
        assert broker._entrance.session is not None
        link = broker._entrance.session.link
        channels = len(link._out.channels)
        for n in range(1, 4):
            before = link._outlets["history"]
            others = asyncio.gather(*(broker.publish([event(n=100 * n + m)]) for m in range(50)))
            with pytest.raises(BrokerUnavailable, match="Nack"):
                await broker.publish([event(n=n, topic="task.full")])
            await others  # who waited on that channel is answered
            await eventually(partial(_exchanged, link, before))
        await channel.queue_delete("full")
    await broker.publish([event(n=4, topic="task.full")])
    await eventually(lambda: len(link._out.channels) == channels)
    assert link.error is None
    assert {4, *(100 * n + m for n in range(1, 4) for m in range(50))} <= set(numbers(await take(broker, limit=500)))


# ------------------------------------------------------------------------------------------------ strangers


async def test_an_event_that_a_stranger_publishes_is_delivered(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker, patterns=("task.*",))
    headers: list[Any] = [None, {"wowevent": 5}, {"wowevent": "no JSON"}, {"x-delivery-count": "many"}]
    async with stranger(rig) as channel:
        for n, each in enumerate(headers):
            properties = Basic.Properties(headers=each)
            await channel.basic_publish(
                encode(event(n=n)), exchange="agent_events", routing_key=KEY, properties=properties
            )
    leases = await take(broker)
    assert numbers(leases) == [0, 1, 2, 3]
    assert {(lease.failures, lease.crashes, lease.redelivered) for lease in leases} == {(0, 0, False)}
    assert await acknowledge(broker, leases) == 4
    assert numbers(await read(broker)) == [0, 1, 2, 3]


async def test_a_read_since_a_moment_leaves_out_nothing_for_the_sake_of_what_bears_no_time(rig: Rig) -> None:
    broker, began = opened(rig), rig.clock.time()
    await broker.publish(events(3))
    async with stranger(rig) as channel:
        for n in range(3, 63):
            await channel.basic_publish(encode(event(n=n)), exchange="agent_events", routing_key=KEY)
    await broker.publish([event(n=n) for n in range(63, 66)])
    for _ in range(30):  # each leaves a marker
        await broker.ping()
    assert numbers(await read(broker, since=began - 1)) == list(range(66))
    await read(broker, since=began + 100)  # it ends


NO_EVENTS = {"text": b"hello", "nothing": b"", "no text": b"\xff\xfe", "another envelope": b'{"v":1}'}


async def test_what_a_stranger_publishes_that_is_no_event_is_a_dead_letter(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([event(n=0)])
    async with stranger(rig) as channel:
        for body in NO_EVENTS.values():
            await channel.basic_publish(body, exchange="agent_events", routing_key=KEY)
    await broker.publish([event(n=1)])
    assert numbers(await take_all(broker)) == [0, 1]
    letters = await broker.dead(DeadQuery())
    assert [letter.reason for letter in letters] == [Reason.DESERIALIZATION_ERROR] * len(NO_EVENTS)
    assert {letter.event.topic for letter in letters} == {"damaged"}
    assert numbers(await read(broker)) == [0, 1]  # they are no part of the log


async def test_what_a_stranger_writes_where_we_talk_to_each_other_is_passed_over(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    await other.open()
    names = broker._names
    deep = b"\x82\xa4word\xa4here\xa6sender" + b"\x91" * 50_000
    async with stranger(rig) as channel:
        for body in (b"", b"\xc1", b"hello", b"\x81\xa4type\xa5newer", deep):
            await channel.basic_publish(body, routing_key=names.control)
            await channel.basic_publish(body, exchange=names.live, routing_key="all")
            await channel.basic_publish(body, exchange=names.reserved, routing_key="_bus.x.normal")
            await channel.basic_publish(body, routing_key=names.history)
    await broker.publish([event(n=1)])
    assert numbers(await take_all(other)) == [1]
    newcomer = opened(rig)
    assert [info.subscription.id for info in await newcomer.subscriptions()] == [WORKER]
    assert numbers(await read(newcomer)) == [1]


async def test_an_id_that_is_being_stored_is_waited_for(rig: Rig) -> None:
    broker = opened(rig)
    sent = event(n=1)
    answers = await asyncio.gather(*(broker.publish([sent]) for _ in range(5)))
    assert [answer.duplicate for (answer,) in answers] == [False, True, True, True, True]
    assert numbers(await read(broker)) == [1]


async def test_an_id_is_waited_for_while_another_of_its_batch_is_being_delayed(rig: Rig) -> None:
    broker = opened(rig)
    await broker.open()
    sent = event(n=1)
    batches = [[later(rig, 60, n), sent] for n in range(3)]
    answers = await asyncio.gather(*(broker.publish(batch) for batch in batches))
    assert [answer.duplicate for _, answer in answers] == [False, True, True]
    assert numbers(await read(broker)) == [1]


async def test_what_cannot_be_read_among_the_delayed_holds_up_nothing_and_is_tried_seldom(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    async with stranger(rig) as channel:
        await channel.basic_publish(b"hello", routing_key=broker._names.later)
    await broker.publish([later(rig, 5, 1)])
    await rig.advance(6)
    await eventually(lambda: _comes(broker, [1]))
    assert broker._entrance.session is not None
    waiting = broker._entrance.session.delays._due
    await eventually(lambda: len(waiting) == 1)
    ((due, _, message, _),) = waiting
    assert message.body == b"hello"
    assert due > rig.clock.time() + 500


async def _comes(broker: RabbitMQBroker, wanted: list[int]) -> bool:
    leases = await take(broker)
    await acknowledge(broker, leases)
    assert numbers(leases) in ([], wanted)
    return bool(leases)


# ------------------------------------------------------------------------------------------------ many subscriptions


async def test_to_join_asks_as_much_however_many_subscriptions_there_are(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router that replaces another one serves at once, with hundreds of names in the log."""
    calls = 0
    call = Link.call

    def counted(link: Link, work: Any) -> Any:
        nonlocal calls
        calls += 1
        return call(link, work)

    async def joining() -> int:
        before = calls
        await opened(rig).open()
        return calls - before

    monkeypatch.setattr(Link, "call", counted)
    broker = opened(rig)
    await declare(broker)
    few = await joining()
    for number in range(20):
        await declare(broker, f"agent-{number}", (f"task.t{number}",))
    assert abs(await joining() - few) <= 2  # who else is there answers in one turn or in two


async def test_who_declares_what_is_declared_waits_for_nobody_who_changes_it(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    await other.open()
    session = other._entrance.session
    assert session is not None
    async with session.link.lock(session.names.lock(f"declare.{WORKER}")):
        await asyncio.wait_for(declare(broker), 5)
        changing = asyncio.create_task(declare(broker, WORKER, ("task.*",)))
        await asyncio.sleep(0.5)
        assert not changing.done()
    assert (await changing).subscription.patterns == ("task.*",)


async def test_a_fetch_waits_for_what_a_detach_gives_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies before the others, in its old place."""
    broker = opened(rig)
    await declare(broker)
    coming = asyncio.create_task(broker.fetch(WORKER, limit=2, wait=5))
    await broker.publish([event(n=0)])
    leases = [*await coming]
    await broker.publish([event(n=1)])
    session = broker._entrance.session
    assert session is not None
    lanes, append = session.serving(WORKER).lanes, session.control.append
    await eventually(lambda: len(lanes) == 1)

    async def slow(entry: Any) -> Any:
        if isinstance(entry, Returned):
            await asyncio.sleep(0.5)
        return await append(entry)

    monkeypatch.setattr(session.control, "append", slow)
    leaving = asyncio.create_task(broker.detach(WORKER))
    await eventually(lambda: not len(lanes))
    await broker.publish([event(n=2)])
    leases += await broker.fetch(WORKER, limit=5, wait=5)
    await leaving
    assert numbers(leases) == [0, 1, 2]


@pytest.fixture
def busy(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes 50 ms for each message that it is asked for."""
    look = Lanes.look

    async def slow(lanes: Lanes, ask: set[int]) -> None:
        await rig.clock.advance(0.05 if ask else 0.0)
        await look(lanes, ask)

    monkeypatch.setattr(Lanes, "look", slow)


@pytest.mark.usefixtures("busy")
async def test_a_lease_begins_when_its_fetch_ends(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker, lease=0.8)
    await broker.publish([event(n=n) for n in range(30)])
    leases = await broker.fetch(WORKER, limit=30, wait=0)  # 1.5 s
    await rig.clock.advance(0.7)
    assert await acknowledge(broker, leases) == 30


async def test_a_dead_letter_has_its_id_of_the_event_whichever_copy_was_buried(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([event()])
    ids = []
    for _ in range(2):
        (lease,) = await take(broker)
        assert await broker.settle(WORKER, [Bury(lease.token, Reason.REJECTED, "not this one")]) == 1
        (letter,) = await broker.dead(DeadQuery())
        ids.append(letter.id)
        assert await broker.resolve([Redeliver(letter.id)]) == 1
    assert len(set(ids)) == 1


async def test_a_lease_that_ends_while_the_queue_of_dead_letters_is_made_was_too_late(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, make = opened(rig), Letters.make
    await declare(broker, lease=0.5)
    await broker.publish([event()])
    (lease,) = await take(broker)

    async def slow(letters: Letters, id: str) -> None:
        await rig.clock.advance(0.8)
        await make(letters, id)

    monkeypatch.setattr(Letters, "make", slow)
    assert await broker.settle(WORKER, [Bury(lease.token, Reason.REJECTED, "not this one")]) == 0
    (again,) = await take(broker)
    assert again.crashes == 1
    assert await broker.settle(WORKER, [Ack(again.token)]) == 1


@pytest.mark.usefixtures("busy")
async def test_who_begins_to_consume_does_not_ask_for_each_event_before_the_first_is_handled(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([event(n=n) for n in range(60)])
    leases = [*await broker.fetch(WORKER, limit=60, wait=5)]  # 3 s, if each was asked for
    assert 0 < len(leases) <= 10
    while len(leases) < 60:
        leases += await broker.fetch(WORKER, limit=60, wait=5)
    assert numbers(leases) == list(range(60))


async def test_a_consumer_that_leaves_while_events_come_makes_no_suspects(rig: Rig) -> None:
    """The server counts as given back what was on its way to it, and nobody but the server saw."""
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    sent, crashes, seen = 0, 0, set[int]()
    for _ in range(40):
        waiting = asyncio.create_task(broker.fetch(WORKER, limit=100, wait=5))
        coming = [asyncio.create_task(other.publish([event(n=sent + n)])) for n in range(20)]
        sent += len(coming)
        leases = [*await waiting]
        await broker.settle(WORKER, [Ack(lease.token) for lease in leases])
        await broker.detach(WORKER)
        await asyncio.gather(*coming)
        while some := await other.fetch(WORKER, limit=100, wait=0):
            await other.settle(WORKER, [Ack(lease.token) for lease in some])
            leases += some
        await other.detach(WORKER)
        crashes += sum(lease.crashes for lease in leases)
        seen.update(numbers(leases))
    assert seen == {*range(sent)}
    assert crashes == 0


# ------------------------------------------------------------------------------------------------ what was deleted


@pytest.mark.parametrize("name", [WORKER, f"{WORKER}#urgent"])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_queue_of_a_subscription_that_somebody_deleted_is_made_again(rig: Rig, name: str, waits: bool) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    await other.open()
    await take(broker)
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=5, wait=60 if waits else 0))
    if waits:
        session = broker._entrance.session
        assert session is not None
        await eventually(lambda: session.serving(WORKER).lanes.consuming)
    else:
        await waiting
    async with stranger(rig) as channel:
        await channel.queue_delete(name)
    if waits:
        with pytest.raises(BrokerUnavailable):
            await waiting
    with pytest.raises(PositionLost):  # what lay in it is gone
        await once_it_works(lambda: take(broker))
    await other.publish([event(n=1), event(n=2, priority=9)])
    assert sorted(numbers(await take_all(broker))) == [1, 2]


async def test_a_subscription_that_another_instance_removed_costs_the_others_no_lease(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    for id in (WORKER, "removed"):
        await declare(broker, id)
    await broker.publish([event()])
    leases = await take(broker)
    await take_all(broker, "removed")
    waiting = asyncio.create_task(broker.fetch("removed", limit=5, wait=60))
    session = broker._entrance.session
    assert session is not None
    await eventually(lambda: session.serving("removed").lanes.consuming)
    await other.remove("removed")
    with pytest.raises(SubscriptionNotFound):
        await asyncio.wait_for(waiting, 5)
    await asyncio.sleep(0.3)  # the server says that its queues are gone, too
    assert not session.broken
    assert await acknowledge(broker, leases) == 1


async def test_who_is_there_is_asked_of_no_queue_and_without_fresh_of_nobody(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = opened(rig)
    await declare(broker)
    await declare(broker, "idle")
    await broker.fetch(WORKER, limit=0, wait=0)
    session = broker._entrance.session
    assert session is not None

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("nobody is to be asked")

    for call in ("ask", "apart"):
        monkeypatch.setattr(session.link, call, refuse)
    assert [each.consumers for each in await broker.presence()] == [1, 0]
    for call in ("call", "publish"):
        monkeypatch.setattr(session.link, call, refuse)
    assert [each.consumers for each in await broker.presence(fresh=False)] == [1, 0]
    monkeypatch.undo()


async def test_who_is_there_is_known_by_what_was_said_before_the_question(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive, late = Live._arrive, 0.1

    def slowly(live: Live, message: Any) -> None:
        asyncio.get_running_loop().call_later(late, arrive, live, message)

    monkeypatch.setattr(Live, "_arrive", slowly)
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    assert [each.consumers for each in await other.presence()] == [0]
    await broker.fetch(WORKER, limit=0, wait=0)
    assert [each.consumers for each in await other.presence(fresh=False)] == [0], "it is under way"
    assert [each.consumers for each in await other.presence()] == [1]


async def test_a_newcomer_waits_for_the_answers_to_its_hello(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Live._answer

    async def slowly(live: Live, newcomer: str) -> None:
        await asyncio.sleep(0.1)
        await answer(live, newcomer)

    monkeypatch.setattr(Live, "_answer", slowly)
    broker, newcomer = opened(rig), opened(rig)
    await declare(broker)
    await broker.fetch(WORKER, limit=0, wait=0)
    assert [each.consumers for each in await newcomer.presence(fresh=False)] == [1]


@pytest.mark.parametrize("name", ["agent_events", "agent_events#reserved"])
async def test_an_exchange_that_somebody_deleted_is_made_again_with_its_bindings(rig: Rig, name: str) -> None:
    broker = opened(rig)
    await declare(broker, patterns=("#", "_bus.#"))
    topic = TOPIC if name == "agent_events" else "_bus.t"
    async with stranger(rig) as channel:
        await channel.exchange_delete(name)
    with pytest.raises(BrokerUnavailable):
        await broker.publish([event(topic, 1)])
    await once_it_works(lambda: broker.publish([event(topic, 2)]))
    assert numbers(await take_all(broker)) == [2]
    assert numbers(await read(broker)) == ([2] if topic == TOPIC else [])


async def test_an_exchange_that_somebody_deleted_is_missed_by_who_publishes_nothing(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    async with stranger(rig) as channel:
        await channel.exchange_delete("agent_events")
        await rig.advance(6)  # a beat
        await eventually(lambda: once_it_works(broker.ping))
        await channel.basic_publish(encode(event(n=1)), exchange="agent_events", routing_key=KEY)
    assert numbers(await take_all(broker)) == [1]


async def test_the_queue_of_what_is_delayed_is_made_again(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    async with stranger(rig) as channel:
        await channel.queue_delete(broker._names.later)
    await once_it_works(lambda: broker.publish([later(rig, 5, 1)]))
    await rig.advance(6)
    await eventually(lambda: _comes(broker, [1]))


async def test_a_history_that_somebody_deleted_begins_anew_and_old_positions_are_lost(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish(events(3))
    (first, *_, last) = await read(broker)
    async with stranger(rig) as channel:
        await channel.queue_delete(broker._names.history)
    await rig.advance(6)
    await once_it_works(lambda: broker.publish([event(n=3)]))
    assert (await broker.ping()).head.epoch != first.position.epoch
    assert numbers(await read(broker)) == [3]
    for position in (first.position, last.position):
        with pytest.raises(PositionLost):
            await read(broker, after=position)
        with pytest.raises(PositionLost):
            await declare(broker, "late", start=position)
    assert numbers(await take_all(broker)) == [0, 1, 2, 3]  # what was routed is where it was


async def test_who_follows_a_history_that_was_deleted_is_told_and_goes_on(rig: Rig) -> None:
    mender, reader = opened(rig), opened(rig)
    await mender.publish([event(n=0)])
    following = reader.read(Query(), follow=True)
    assert (await anext(following)).event.payload["n"] == 0
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0.05)
    async with stranger(rig) as channel:
        await channel.queue_delete(mender._names.history)
    assert mender._entrance.session is not None
    mender._entrance.session.link.fail(BrokerUnavailable("as its beat would"))  # the first to see it makes it again
    await once_it_works(lambda: mender.publish([event(n=1)]))
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(waiting, 5)
    again = reader.read(Query(), follow=True)
    assert (await asyncio.wait_for(anext(again), 5)).event.payload["n"] == 1


# ------------------------------------------------------------------------------------------------ joining


async def test_instances_that_begin_a_log_together_agree_on_it(rig: Rig) -> None:
    brokers = [opened(rig) for _ in range(5)]
    await asyncio.gather(*(broker.open() for broker in brokers))
    assert len({(await broker.ping()).head.epoch for broker in brokers}) == 1
    await asyncio.gather(*(declare(broker) for broker in brokers))
    await asyncio.gather(*(broker.publish([event(n=n)]) for n, broker in enumerate(brokers)))
    assert sorted(numbers(await take_all(brokers[0]))) == [0, 1, 2, 3, 4]
    assert len(await read(brokers[4])) == 5
    for broker in brokers:
        await broker.fetch(WORKER, limit=0, wait=0)
    assert [(await broker.subscriptions())[0].consumers for broker in brokers] == [5] * 5


async def test_an_instance_that_joins_while_others_come_and_go_knows_who_is_there(rig: Rig) -> None:
    first = opened(rig)
    await declare(first)
    await first.fetch(WORKER, limit=0, wait=0)
    await first.declare(Subscription(id="live~1", patterns=("#",), durable=False))

    async def visit() -> None:
        visitor = opened(rig)
        await visitor.fetch(WORKER, limit=0, wait=0)
        await visitor.close()

    async def join() -> RabbitMQBroker:
        broker = opened(rig)
        await broker.fetch(WORKER, limit=0, wait=0)
        return broker

    joined = await asyncio.gather(join(), visit(), join(), visit(), join())
    for broker in (first, *(each for each in joined if each is not None)):
        info = await broker.info(WORKER)
        assert info is not None
        assert info.consumers == 4
    for _ in range(5):
        assert await opened(rig).info("live~1") is not None  # the first thing that a newcomer asks


async def test_the_presence_of_an_instance_that_died_ends_after_fifteen_seconds(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    async with by_a_line(rig) as (dying, proxy):
        await dying.fetch(WORKER, limit=0, wait=0)
        await dying.declare(Subscription(id="live~1", patterns=("#",), durable=False))
        session = dying._entrance.session
        assert session is not None
        assert [info.consumers for info in await broker.subscriptions()] == [1, 1]
        await cut(dying, proxy)
        await rig.advance(14)
        assert [info.consumers for info in await broker.subscriptions()] == [1, 1]
        await rig.advance(7)
        assert [(info.subscription.id, info.consumers) for info in await broker.subscriptions()] == [(WORKER, 0)]
        assert (await broker.publish([event()]))[0].matched == (WORKER,)
        assert session.instance in registry_of(broker).instances
        assert broker._entrance.session is not None
        broker._entrance.session.live._since -= 20  # it is there for long enough to have heard everyone
        await rig.advance(6)
        await eventually(lambda: session.instance not in registry_of(broker).instances)
        assert len(registry_of(broker).instances) == 1


async def test_a_control_log_that_is_compacted_says_the_same_to_a_newcomer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_SNAPSHOT", 8_000)
    monkeypatch.setitem(control.LIMITS, "x-max-length-bytes", 24_000)
    monkeypatch.setitem(control.LIMITS, "x-stream-max-segment-size-bytes", 4_000)
    broker, other = opened(rig), opened(rig)
    await declare(broker, "first", ("a.*",))
    await broker.publish(
        [event("_bus.first", 1), later(rig, 3600, 1, event_id="held"), later(rig, 3600, event_id="no")]
    )
    assert await broker.cancel("no")
    await other.open()
    for n in range(6):
        await asyncio.gather(
            *(broker.publish([event(f"_bus.t.{k}", n, event_id=f"{n}-{k}") for k in range(20)]) for _ in range(2)),
            declare(other, WORKER, (f"task.{n}",)),
        )
        await rig.advance(5)
    await broker.subscriptions()
    async with stranger(rig) as channel:
        assert await _first_offset(channel, broker._names.control) > 0  # its beginning is gone
    newcomer = opened(rig)
    await newcomer.open()
    for each in (broker, other, newcomer):
        await each.subscriptions()
    states = [_all_of(each) for each in (broker, other, newcomer)]
    assert states[0] == states[1] == states[2]
    assert await newcomer.cancel("held")
    assert not await newcomer.cancel("no")
    facts = {stored.event.topic: stored.event.payload["n"] for stored in await read(newcomer, patterns=("_bus.#",))}
    assert facts == {"_bus.first": 1, **{f"_bus.t.{k}": 5 for k in range(20)}}


def _all_of(broker: RabbitMQBroker) -> Any:
    kept = msgspec.msgpack.decode(registry_of(broker).snapshot().state)
    kept["instances"].sort()
    return kept


async def _first_offset(channel: aiormq.abc.AbstractChannel, stream: str) -> int:
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def arrive(message: aiormq.abc.DeliveredMessage) -> None:
        if not found.done():
            found.set_result(int(str((message.header.properties.headers or {})["x-stream-offset"])))

    await channel.basic_qos(prefetch_count=1)
    await channel.basic_consume(stream, arrive, arguments={"x-stream-offset": "first"})
    return await found


# ------------------------------------------------------------------------------------------------ delays


async def test_what_waits_for_long_is_written_anew_and_comes_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delays, "_AGAIN", 4.0)
    broker = opened(rig)
    await declare(broker)
    await broker.publish([later(rig, 19, 1)])
    await broker.publish([event(n=2)])
    await broker.settle(WORKER, [Retry((await take_one(broker)).token, 19, "failed")])
    session = broker._entrance.session
    assert session is not None
    written: set[int] = set()
    for _ in range(9):
        await rig.advance(2)
        await eventually(lambda: len(session.delays._due) == 2)
        written |= {number_of(message) for _, _, message, _ in session.delays._due}
        assert not await take(broker)
    assert len(written) >= 8  # four times each
    await rig.advance(2)
    leases: list[Lease] = []
    while len(leases) < 2:
        leases += await take(broker)
    assert sorted((lease.event.payload["n"], lease.failures) for lease in leases) == [(1, 0), (2, 1)]
    await rig.advance(20)
    assert not await take(broker)
    async with stranger(rig) as channel:
        later_queue = await channel.queue_declare(broker._names.later, passive=True)
        assert later_queue.message_count == 0


async def test_the_next_one_holds_what_is_delayed_when_the_first_is_gone(rig: Rig) -> None:
    async with by_a_line(rig) as (first, proxy):
        await declare(first)
        await first.publish([later(rig, 60, n) for n in range(20)])
        second, third = opened(rig), opened(rig)
        await second.open()
        await third.open()
        assert second._entrance.session is not None
        assert third._entrance.session is not None
        holds = second._entrance.session.delays, third._entrance.session.delays
        assert [len(each._due) for each in holds] == [0, 0]
        await cut(first, proxy)
        await eventually(lambda: sorted(len(each._due) for each in holds) == [0, 20])
        holder, heir = (second, third) if len(holds[0]._due) else (third, second)
        await holder.close()
        await eventually(lambda: len(heir._entrance.session.delays._due) == 20)  # type: ignore[union-attr]
        await rig.advance(61)
        await eventually(lambda: has(heir, 20))
        assert sorted(numbers(await take_all(heir))) == list(range(20))
        assert sorted(numbers(await read(heir))) == list(range(20))


async def test_what_is_cancelled_by_one_of_two_while_it_is_due_never_comes(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one)
    await two.open()
    await one.publish([later(rig, 10, n, event_id=f"e-{n}") for n in range(30)])

    async def cancel(broker: RabbitMQBroker, n: int) -> int | None:
        await asyncio.sleep(n / 1000)
        return n if await broker.cancel(f"e-{n}") else None

    rig.clock.jump(0)
    await rig.clock.advance(9.9)
    tries = [cancel(broker, n) for n in range(30) for broker in (one, two)]
    *said, _ = await asyncio.gather(*tries, rig.advance(1))
    cancelled = [n for n in said if n is not None]
    assert len(cancelled) == len(set(cancelled))  # of two who cancel, one is told that it did
    wanted = sorted(set(range(30)) - set(cancelled))
    await eventually(lambda: has(two, len(wanted)))
    await rig.advance(5)
    assert sorted(numbers(await read(two))) == wanted


# ------------------------------------------------------------------------------------------------ leases


async def test_what_is_given_back_untouched_counts_no_crash_for_another_and_keeps_its_place(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one)
    await one.publish(events(6))
    for n in range(3):
        broker = (one, two)[n % 2]
        leases = await take(broker, limit=4)
        assert numbers(leases) == [0, 1, 2, 3]
        back = [Retry(lease.token, charge=False) for lease in leases]
        assert await broker.settle(WORKER, back) == 4
        await broker.detach(WORKER)  # what it was given ahead goes back, too
        await eventually(lambda: _ready(one, 6))  # nobody answers that they are back
    leases = await take(two)
    assert numbers(leases) == [0, 1, 2, 3, 4, 5]
    assert {(lease.failures, lease.crashes, len(lease.attempts)) for lease in leases} == {(0, 0, 0)}


async def _ready(broker: RabbitMQBroker, count: int) -> bool:
    (info,) = await broker.subscriptions()
    return info.ready == count


async def test_what_was_given_back_and_then_lost_is_one_crash(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([event()])
    async with by_a_line(rig) as (dying, proxy):
        for _ in range(3):
            await dying.settle(WORKER, [Retry((await take_one(dying)).token, charge=False)])
        await take_one(dying)
        await cut(dying, proxy)
        await eventually(lambda: _crashes(broker, 1))


async def _crashes(broker: RabbitMQBroker, crashes: int) -> bool:
    leases = await take(broker)
    assert [lease.crashes for lease in leases] in ([], [crashes])
    return bool(leases)


@pytest.mark.parametrize("another", [False, True])
async def test_what_was_leased_when_a_connection_broke_comes_again(rig: Rig, another: bool) -> None:
    async with by_a_line(rig) as (broker, proxy):
        await declare(broker)
        await broker.publish(events(3))
        leases = await take(broker)
        await cut(broker, proxy)
        heir = opened(rig) if another else broker
        found: list[Lease] = []
        while len(found) < 3:
            more = await take(heir)
            assert not another or len(more) <= 1  # each alone: any of them may have killed who had it
            found += more
            await acknowledge(heir, more)
        assert sorted(numbers(found)) == [0, 1, 2]
        assert {lease.crashes for lease in found} == {int(another)}  # who lives says that it was the line
        assert await acknowledge(broker, leases) == 0


@pytest.mark.parametrize("reconnected", [False, True])
async def test_what_was_finished_while_a_connection_was_broken_is_not_handled_again(
    rig: Rig, reconnected: bool
) -> None:
    async with by_a_line(rig) as (broker, proxy):
        await declare(broker)
        await broker.publish(events(3))
        await broker.settle(WORKER, [Retry((await take_one(broker)).token, error="once")])
        leases = await take(broker)
        assert sorted(lease.failures for lease in leases) == [0, 0, 1]
        done = [lease for lease in leases if lease.event.payload["n"] != 1]
        await cut(broker, proxy)
        if reconnected:
            await broker.ping()
        assert await acknowledge(broker, done) == 0
        await broker.publish([event(n=3)])
        assert sorted(numbers(await take_all(broker))) == [1, 3]


async def test_the_server_gives_no_more_ahead_than_was_asked_for(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=2, wait=60))
    session = broker._entrance.session
    assert session is not None
    lanes = session.serving(WORKER).lanes
    await eventually(lambda: lanes.consuming)
    await other.publish(events(100))
    first = list(await waiting)
    await eventually(lambda: len(lanes._open) == 2)
    await asyncio.sleep(0.1)
    assert len(lanes._open) == 2
    more = await broker.fetch(WORKER, limit=20, wait=60)
    await eventually(lambda: len(lanes._open) >= 20)
    await asyncio.sleep(0.1)
    assert len(lanes._open) <= 2 + 2 + 20  # what the consumer before had given stays
    assert len(await take(other, limit=50)) == 50
    await acknowledge(broker, [*first, *more])


async def test_an_answer_for_many_says_nothing_of_what_is_still_open(rig: Rig) -> None:
    random = Random(7)
    async with by_a_line(rig) as (broker, proxy):
        await declare(broker)
        done: set[int] = set()
        await broker.publish([event(n=n, priority=random.choice((5, 9))) for n in range(120)])
        leases: list[Lease] = []
        while len(leases) < 120:
            leases += await broker.fetch(WORKER, limit=random.randrange(1, 40), wait=random.choice((0, 60)))
            for _ in range(random.randrange(3)):
                some = random.sample(leases, random.randrange(len(leases) // 2 + 1))
                todo = [lease for lease in some if lease.event.payload["n"] not in done]
                assert await acknowledge(broker, todo) == len(todo)
                done |= set(numbers(todo))
        assert not await take(broker)  # who has answered this has heard all that was said before
        await cut(broker, proxy)
        other = opened(rig)
        found: list[int] = []
        await eventually(lambda: _gather(other, found, 120 - len(done)))
        assert sorted(found) == sorted(set(range(120)) - done)
        assert 20 < len(done) < 115


async def test_an_answer_for_many_says_nothing_of_what_is_still_on_its_way(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that was asked for gets here later than what was delivered behind it: the driver wakes who asked."""
    async with by_a_line(rig) as (broker, proxy):
        await declare(broker)
        await broker.publish([event(n=0, priority=9)])
        session = broker._entrance.session
        assert session is not None
        lanes = session.serving(WORKER).lanes
        await lanes.open()
        channel = lanes._channel
        assert channel is not None
        await session.link.consume(channel, lanes.queues[2], partial(lanes._arrive, 2), tag="plain")
        get = channel.basic_get

        async def get_late(queue: str) -> Any:
            message = await get(queue)
            await broker.publish([event(n=1)])
            await eventually(lambda: lanes.here[2])
            return message

        monkeypatch.setattr(channel, "basic_get", get_late)
        await lanes.look({1})
        ((plain,), (urgent,)) = lanes.here[2], lanes.here[1]
        assert urgent.number < plain.number
        await lanes.ack([plain.number])
        await lanes.reach()
        await cut(broker, proxy)
    assert numbers(await take_all(opened(rig))) == [0]


async def test_no_answer_overtakes_one_for_many(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to the server may have to wait, as under load: a message is answered once all the same."""
    broker, random = opened(rig), Random(1)
    await declare(broker)
    session = broker._entrance.session
    assert session is not None
    monkeypatch.setattr(session.link._feed.write_queue, "_maxsize", 1)

    async def settled(lease: Lease) -> int:
        for _ in range(random.randrange(20)):
            await asyncio.sleep(0)
        return await acknowledge(broker, [lease])

    for _ in range(5):
        await broker.publish(events(200))
        leases: list[Lease] = []
        while len(leases) < 200:
            leases += await broker.fetch(WORKER, limit=200, wait=5)
        assert sum(await asyncio.gather(*(settled(lease) for lease in leases))) == 200
    assert broker._entrance.session is session
    assert not session.broken
    assert not await take_all(broker)


async def _gather(broker: RabbitMQBroker, found: list[int], count: int) -> bool:
    found += numbers(await take_all(broker))
    return len(found) >= count


async def _gathered(broker: RabbitMQBroker, found: list[int], wanted: set[int]) -> bool:
    found += numbers(await take_all(broker))
    return wanted <= set(found)


async def test_the_lock_of_an_exclusive_subscription_ends_with_its_connection(rig: Rig) -> None:
    other = opened(rig)
    async with by_a_line(rig) as (first, proxy):
        await declare(first, exclusive=True)
        await first.publish(events(2))
        assert numbers(await take(first, limit=1)) == [0]
        assert not await take(other)
        await cut(first, proxy)
        found: list[int] = []
        await eventually(lambda: _gather(other, found, 2))
        assert found == [0, 1]


# ------------------------------------------------------------------------------------------------ young queues


def noted(broker: RabbitMQBroker, id: str = WORKER) -> bool:
    """Whether the control log says that its queues survive a kill of the server."""
    return LANES in registry_of(broker).known[id].made


async def test_a_new_subscription_is_noted_a_beat_later_and_nobody_asks_its_queues(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened(rig)
    await declare(one)
    assert not noted(one)
    await rig.advance(6)
    await eventually(lambda: noted(one))

    async def refuse(_: Young, id: str) -> None:
        raise AssertionError(f"{id} is known to be well")

    monkeypatch.setattr(Young, "_prove", refuse)
    two = opened(rig)
    await two.open()
    await rig.advance(6)
    assert noted(two)


async def test_of_one_that_nobody_noted_who_comes_next_asks_the_queues_and_takes_nothing(rig: Rig) -> None:
    one = opened(rig)
    await declare(one)
    await declare(one, "idle")
    await one.publish([*events(20), event(n=20, priority=9)])
    await one.close()  # before its first beat
    rig.clock.jump(11)
    two = opened(rig)
    await two.open()
    await eventually(lambda: noted(two) and noted(two, "idle"))
    leases = await take(two)
    assert numbers(leases) == [20, *range(20)]
    assert {lease.crashes for lease in leases} == {0}
    assert len(await take(two, "idle")) == 21


async def test_of_one_that_nobody_noted_who_is_there_asks_too(rig: Rig) -> None:
    """Nobody has to come for it."""
    one, two = opened(rig), opened(rig)
    await two.open()
    await declare(one)
    await one.close()  # before its first beat
    await rig.advance(6)
    assert not noted(two)
    await rig.advance(6)
    await eventually(lambda: noted(two))


async def test_a_queue_that_does_not_answer_is_made_anew_and_its_subscription_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both queues the urgent one alone is silent: the other keeps what it has."""
    one = opened(rig)
    await declare(one)
    await one.publish(events(3))
    await one.close()
    rig.clock.jump(11)
    answers = Young._answers

    async def silent(young: Young, id: str, queue: str) -> bool:
        return not queue.endswith("#urgent") and await answers(young, id, queue)

    monkeypatch.setattr(Young, "_answers", silent)
    two = opened(rig)
    await two.open()
    await eventually(lambda: registry_of(two).known[WORKER].emptied)
    monkeypatch.undo()
    await rig.advance(6)
    await eventually(lambda: noted(two))
    with pytest.raises(PositionLost):
        await once_it_works(lambda: take(two))
    assert numbers(await take_all(two)) == [0, 1, 2]
    await two.publish([event(n=3), event(n=4, priority=9)])
    assert sorted(numbers(await take_all(two))) == [3, 4]


# ------------------------------------------------------------------------------------------------ connections


async def test_a_wrong_password_is_not_permitted_and_an_unknown_host_is_said(rig: Rig) -> None:
    url = url_of(rig)
    for wrong in (url.replace("//", "//guest:wrong@"), url.replace("//", "//nobody:x@")):
        broker = open_broker(wrong)
        with pytest.raises(NotPermitted):
            await broker.ping()
        with pytest.raises(NotPermitted):
            await broker.publish([event()])
        await broker.close()
    broker = open_broker(f"{url}-unknown")
    with pytest.raises((NotPermitted, BrokerUnavailable), match="virtual host"):
        await broker.ping()
    await broker.close()
    broker = open_broker("amqp://127.0.0.1:1/")
    with pytest.raises(BrokerUnavailable):
        await broker.ping()
    await broker.close()


@pytest.fixture
def server(named: None, tmp_path: Path) -> Iterator[Server]:
    """One that may be stopped."""
    with rabbitmq_running(tmp_path / "server") as server:
        yield server


@pytest.mark.slow
async def test_a_server_that_says_nothing_is_given_up_within_ten_seconds(server: Server) -> None:
    url = f"amqp://127.0.0.1:{server.port}/"
    broker, other = RabbitMQBroker(url), RabbitMQBroker(url)
    for id in (WORKER, "other"):
        await declare(broker, id)
    await broker.publish(events(2))
    lease, second = await take(broker)
    await other.open()
    server.pause()
    try:
        for which in (broker, other):  # one with a link that is there, one that has to dial anew at once
            if which is other:
                assert other._entrance.session is not None
                other._entrance.session.link.fail(BrokerUnavailable("lost"))
        todo = {f"{name} {n}": call for n, each in enumerate((broker, other)) for name, call in calls(each).items()}
        todo["settle"] = lambda: broker.settle(WORKER, [Ack(lease.token), Retry(second.token, delay=1.0)])
        took = await asyncio.gather(*(given_up(call) for call in todo.values()))
        assert {name: seconds for name, seconds in zip(todo, took, strict=True) if not seconds < 10.5} == {}
    finally:
        server.resume()
    await broker.publish([event(n=2)])
    found: list[int] = []
    await eventually(lambda: _gathered(other, found, {0, 1, 2}))
    assert set(found) - {9} == {0, 1, 2}  # what was not confirmed may be there all the same
    await asyncio.gather(broker.close(), other.close())


async def test_of_a_line_that_broke_nothing_stays(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it had: handed out, lying here, asked for. A router has many lines in its life."""
    caplog.set_level(1_000, "aiormq.connection")  # what is kept of a log line keeps its traceback
    async with by_a_line(rig) as (broker, proxy):
        await declare(broker)
        for _ in range(3):
            await once_it_works(partial(broker.publish, events(20)))
            assert await once_it_works(partial(broker.fetch, WORKER, limit=2, wait=5))
            session = broker._entrance.session
            assert session is not None
            old: list[weakref.ref[Any]] = [
                weakref.ref(session),
                weakref.ref(session.link),
                weakref.ref(session.serving(WORKER)),
            ]
            del session
            await cut(broker, proxy)
            await once_it_works(broker.ping)
            await eventually(lambda: gc.collect() >= 0 and [ref() for ref in old] == [None] * 3)  # noqa: B023 - called here
