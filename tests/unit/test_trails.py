"""Asking who got an event: what others say that is none of ours is left out, and stopping ends the waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.conformance.engines import eventually
from wowevent import BrokerUnavailable, Closed, Event, EventBus, directory, trails
from wowevent.broker import LIVE, Appended
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.directory import Directory
from wowevent.roll import Roll


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_LOOK", 0.02)
    monkeypatch.setattr(trails, "_ANSWERS", 0.1)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def bus(log: MemoryLog) -> AsyncIterator[EventBus]:
    async with EventBus(MemoryBroker(log)) as bus:
        yield bus


@pytest.fixture
async def working(log: MemoryLog) -> AsyncIterator[EventBus]:
    """A process that delivered something."""
    async with EventBus(MemoryBroker(log)) as bus:
        await bus.subscribe("a.*", nothing, "worker")
        await bus.publish(Event(topic="a.b", event_id="e1"))
        await bus.join(1)
        yield bus


async def nothing(event: Event) -> None:
    """A handler."""


async def test_where_nobody_else_is_nobody_is_waited_for() -> None:
    async with EventBus("memory://") as bus, asyncio.timeout(0.05):
        assert await bus.deliveries("e1") == []
        assert [stored async for stored in bus.history("_bus.#")] == []


async def test_questions_leave_no_more_than_their_slots(bus: EventBus, working: EventBus) -> None:
    for n in range(4):
        assert len(await bus.deliveries(f"e{n}")) == (n == 1)
    facts = bus._directory.facts("trail")  # noqa: SLF001 - what lies in the control log
    assert len(facts) <= 4


async def test_who_asks_says_once_what_it_knows_itself(bus: EventBus, working: EventBus) -> None:
    assert len(await working.deliveries("e1")) == 1


async def test_answers_of_strangers_are_left_out(
    bus: EventBus, working: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    await bus.deliveries("e1")
    answers: list[dict[str, Any]] = [{}, {"question": 5}, {"question": "q", "deliveries": [{"subscription": "x"}]}]
    for payload in answers:
        await working.broker.publish([Event(topic=bus._trails._topic, payload=payload)])  # noqa: SLF001 - the asker's own
    await eventually(lambda: caplog.text.count("an answer that is none of ours") == 3, 1)
    assert len(await bus.deliveries("e1")) == 1


@pytest.mark.parametrize(
    "question", [{}, {"event": 5, "to": f"{LIVE}x"}, {"event": "e1", "to": "a.b"}, {"event": "e1"}], ids=str
)
async def test_questions_of_strangers_are_not_answered(
    bus: EventBus, working: EventBus, log: MemoryLog, question: dict[str, Any]
) -> None:
    broker = MemoryBroker(log)
    mouth = Directory(broker)
    roll = Roll(mouth, "trail", bus._clock, keep=60)  # noqa: SLF001 - the same time
    await roll.add("q1", question)
    await asyncio.sleep(0.1)
    assert [stored async for stored in bus.history("a.*")][1:] == []
    assert len(await bus.deliveries("e1")) == 1
    await roll.close()
    await mouth.close()
    await broker.close()


async def test_who_does_not_hear_itself_says_so(
    bus: EventBus, working: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would say of an event that nobody got it."""
    assert len(await bus.deliveries("e1")) == 1
    publish = bus.broker.publish

    async def nothing_arrives(events: Sequence[Event]) -> Sequence[Appended]:
        return await publish([event for event in events if not event.topic.startswith(LIVE)])

    async def refuse(_events: object) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(trails, "_HEARS", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(bus.broker, "publish", nothing_arrives)
        patch.setattr(working.broker, "publish", refuse)
        with pytest.raises(BrokerUnavailable):
            await bus.deliveries("e1")
    assert len(await bus.deliveries("e1")) == 1


async def test_nobody_knocks_where_nobody_listens_any_more(bus: EventBus, working: EventBus) -> None:
    await bus.deliveries("e1")
    ear = bus._trails._ear  # noqa: SLF001 - what ends it
    await ear.close()
    async with asyncio.timeout(1):
        with pytest.raises(Closed):
            await ear.still(bus._trails._knock)  # noqa: SLF001


async def test_stopping_ends_the_waiting(bus: EventBus, working: EventBus) -> None:
    asking = asyncio.create_task(bus.deliveries("e1"))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(1):
        await bus.stop()
        with pytest.raises(Closed):
            await asking


async def test_an_answer_that_cannot_be_said_is_logged(
    bus: EventBus, working: EventBus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_events: object) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(working.broker, "publish", refuse)
    assert await bus.deliveries("e1") == []
    assert "could not be told" in caplog.text
