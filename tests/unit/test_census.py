"""Who is served, as receipts know it: asked for while somebody wants to know, and never for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.conformance.engines import eventually
from wowevent import BrokerUnavailable, Event, EventBus, census
from wowevent.broker import Present, Subscription, SubscriptionInfo
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.census import Census


class Engine:
    """One that counts the questions, and answers when it is let."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(MemoryLog())
        self.asked = self.fresh = 0
        self.down = False
        self.free = asyncio.Event()
        self.free.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    async def subscriptions(self) -> Sequence[SubscriptionInfo]:
        raise AssertionError("who is served is asked without the numbers of each")

    async def presence(self, *, fresh: bool = True) -> Sequence[Present]:
        self.asked += 1
        self.fresh += fresh
        await self.free.wait()
        if self.down:
            raise BrokerUnavailable("the line is cut")
        return await self.broker.presence(fresh=fresh)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def known(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Census]:
    monkeypatch.setattr(census, "_PERIOD", 0.05)
    monkeypatch.setattr(census, "_SOON", 0.01)
    known = Census(engine)
    yield known
    await known.close()


async def declare(engine: Engine, *ids: str) -> None:
    for id in ids:
        await engine.broker.declare(Subscription(id=id, patterns=("#",)))


async def keep(known: Census) -> None:
    known.begin()
    await known.known()


async def test_what_nobody_serves_is_named_once_it_is_known(known: Census, engine: Engine) -> None:
    await declare(engine, "idle", "busy")
    await engine.broker.fetch("busy", limit=0, wait=0)
    assert known.unserved(("idle", "busy")) == ()
    await keep(known)
    assert known.unserved(("idle", "busy", "later")) == ("idle",)


async def test_what_is_named_is_looked_at_again_soon(
    known: Census, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "_PERIOD", 60)
    await declare(engine, "idle")
    await keep(known)
    known.asked = True
    assert known.unserved(("idle",)) == ("idle",)
    await engine.broker.fetch("idle", limit=0, wait=0)
    await eventually(lambda: known.unserved(("idle",)) == (), 1)


async def test_where_nobody_wants_to_know_nobody_asks(known: Census, engine: Engine) -> None:
    await keep(known)
    await eventually(lambda: not known.ready, 1)
    assert engine.asked == 1
    assert known.served is None


async def test_an_engine_that_does_not_answer_keeps_a_receipt_for_a_moment_only(
    known: Census, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "_PATIENCE", 0.05)
    engine.free.clear()
    async with asyncio.timeout(1):
        await keep(known)
    assert known.served is None


async def test_an_old_answer_is_none_once_the_engine_is_away(known: Census, engine: Engine) -> None:
    await declare(engine, "idle")
    await keep(known)
    assert known.served == frozenset()
    engine.down = known.asked = True
    await eventually(lambda: known.served is None, 1)
    engine.down, known.asked = False, True
    known.begin()  # as the next publish does, should nobody have asked for too long meanwhile
    await eventually(lambda: known.served == frozenset(), 1)


async def test_many_first_receipts_ask_little(engine: Engine) -> None:
    await declare(engine, "idle")
    async with EventBus(engine) as bus:
        receipts = await asyncio.gather(*(bus.publish(Event(topic="a.b", payload={"n": n})) for n in range(100)))
    assert {receipt.matched for receipt in receipts} == {1}
    assert {receipt.unserved for receipt in receipts} == {("idle",)}
    assert engine.asked <= 2


async def test_the_first_look_hears_all_and_the_later_ones_ask_nobody(known: Census, engine: Engine) -> None:
    await keep(known)
    assert (engine.asked, engine.fresh) == (1, 1)
    known.asked = True
    await eventually(lambda: engine.asked == 2, 1)
    known.asked = True
    await eventually(lambda: engine.asked == 3, 1)
    assert engine.fresh == 1


async def test_a_receipt_of_what_the_bus_serves_itself_waits_for_no_look(engine: Engine) -> None:
    engine.free.clear()
    async with EventBus(engine) as bus:
        await bus.subscribe("own.*", lambda event: None, "me")
        async with asyncio.timeout(0.5):  # a look would be waited for a second
            receipt = await bus.publish(Event(topic="own.a"))
        assert (receipt.matched, receipt.unserved) == (1, ())
        engine.free.set()


async def test_behind_such_a_receipt_one_of_what_others_may_serve_waits(engine: Engine) -> None:
    async with EventBus(engine) as bus:
        await bus.subscribe("own.*", lambda event: None, "me")
        await engine.broker.declare(Subscription(id="idle", patterns=("other.*",)))
        assert (await bus.publish(Event(topic="own.a"))).unserved == ()
        assert (await bus.publish(Event(topic="other.a"))).unserved == ("idle",)


async def test_where_nothing_matches_nobody_asks(engine: Engine) -> None:
    async with EventBus(engine) as bus:
        await bus.publish(Event(topic="a.b"))
        await asyncio.sleep(0)
    assert engine.asked == 0
