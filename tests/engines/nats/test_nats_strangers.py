"""What others do in the account of the NATS engine: messages that are not ours, streams of ours that are deleted."""

# ruff: noqa: SLF001 - to see what the server has given an instance, a test has to reach inside

import asyncio
import logging
from contextlib import suppress
from uuid import uuid4

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import (
    WORKER,
    acknowledge,
    declare,
    event,
    events,
    later,
    numbers,
    once_it_works,
    read,
    take,
    take_all,
    take_one,
)
from tests.engines.nats.own import (
    TOPIC,
    cut,
    delete,
    delete_consumer,
    gather,
    link_of,
    opened,
    passes,
    session_of,
    stranger,
    streams,
)
from wowevent.broker import Bury, DeadQuery, Lease, Query, Reason, Retry
from wowevent.brokers.nats import session
from wowevent.brokers.nats.messages import Message
from wowevent.codec import encode
from wowevent.errors import BrokerUnavailable, PositionLost, SubscriptionNotFound

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
