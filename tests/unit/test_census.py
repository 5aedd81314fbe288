"""Who is served, as receipts know it: asked for while somebody wants to know, and never for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.conformance.engines import eventually
from wowevent import BrokerUnavailable, Event, EventBus, census
from wowevent.broker import Subscription, SubscriptionInfo
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.census import Census


class Engine:
    """One that counts the questions, and answers when it is let."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(MemoryLog())
        self.asked = 0
        self.down = False
        self.free = asyncio.Event()
        self.free.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    async def subscriptions(self) -> Sequence[SubscriptionInfo]:
        self.asked += 1
        await self.free.wait()
        if self.down:
            raise BrokerUnavailable("the line is cut")
        return await self.broker.subscriptions()


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


async def test_what_nobody_serves_is_named_once_it_is_known(known: Census, engine: Engine) -> None:
    await declare(engine, "idle", "busy")
    await engine.broker.fetch("busy", limit=0, wait=0)
    assert known.unserved(("idle", "busy")) == ()
    await known.keep()
    assert known.unserved(("idle", "busy", "later")) == ("idle",)


async def test_what_is_named_is_looked_at_again_soon(
    known: Census, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "_PERIOD", 60)
    await declare(engine, "idle")
    await known.keep()
    known.asked = True
    assert known.unserved(("idle",)) == ("idle",)
    await engine.broker.fetch("idle", limit=0, wait=0)
    await eventually(lambda: known.unserved(("idle",)) == (), 1)


async def test_where_nobody_wants_to_know_nobody_asks(known: Census, engine: Engine) -> None:
    await known.keep()
    await eventually(lambda: not known.ready, 1)
    assert engine.asked == 1
    assert known.served is None


async def test_an_engine_that_does_not_answer_keeps_a_receipt_for_a_moment_only(
    known: Census, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "_PATIENCE", 0.05)
    engine.free.clear()
    async with asyncio.timeout(1):
        await known.keep()
    assert known.served is None


async def test_an_old_answer_is_none_once_the_engine_is_away(known: Census, engine: Engine) -> None:
    await declare(engine, "idle")
    await known.keep()
    assert known.served == frozenset()
    engine.down = known.asked = True
    await eventually(lambda: known.served is None, 1)
    engine.down, known.asked = False, True
    await eventually(lambda: known.served == frozenset(), 1)


async def test_many_first_receipts_ask_little(engine: Engine) -> None:
    await declare(engine, "idle")
    async with EventBus(engine) as bus:
        receipts = await asyncio.gather(*(bus.publish(Event(topic="a.b", payload={"n": n})) for n in range(100)))
    assert {receipt.matched for receipt in receipts} == {1}
    assert {receipt.unserved for receipt in receipts} == {("idle",)}
    assert engine.asked <= 2
