"""What a subscription that waits asks of the NATS server, and that it is woken all the same."""

# ruff: noqa: SLF001 - to see what the server has given an instance, a test has to reach inside

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import WORKER, acknowledge, declare, event, numbers, take, take_one
from tests.engines.nats.own import link_of, opened, session_of
from wowevent.broker import Bury, Reason, Retry
from wowevent.brokers.nats import lanes, session, stream
from wowevent.brokers.nats import link as link_module
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.messages import Message
from wowevent.brokers.nats.serving import Serving
from wowevent.expiry import Expiry


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
