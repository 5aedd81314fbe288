"""Saying that one is there: when, how often, how much; and what becomes of it when the engine is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from tests.conformance.engines import eventually
from wowevent import BrokerUnavailable, Event, EventBus, attendance
from wowevent.broker import Appended
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.testing import ManualClock


class Line:
    """An engine behind a line that can be cut, and what was said on it of who is there."""

    def __init__(self, log: MemoryLog | None) -> None:
        self.broker = MemoryBroker(log)
        self.down = False
        self.beats: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        if self.down:
            raise BrokerUnavailable("the line is cut")
        self.beats += [event.payload for event in events if event.topic == attendance.TOPIC]
        return await self.broker.publish(events)

    def said(self, count: int) -> Callable[[], bool]:
        """For `eventually`."""
        return lambda: len(self.beats) >= count


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def line(log: MemoryLog) -> Line:
    return Line(log)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are said at once, and all who are asked answer in a moment."""
    monkeypatch.setattr(attendance, "_APART", 0.0)
    monkeypatch.setattr(attendance, "_TOGETHER", 0.01)
    monkeypatch.setattr(attendance, "_ANSWERS", 0.1)


@pytest.fixture
async def bus(line: Line) -> AsyncIterator[EventBus]:
    async with EventBus(line) as bus:
        yield bus


async def nothing(event: Event) -> None:
    """A handler."""


async def test_who_has_nothing_to_say_says_nothing(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "PERIOD", 0.02)
    async with EventBus(line) as bus:
        await bus.publish(Event(topic="a.b"))
        await asyncio.sleep(0.1)
    assert line.beats == []


async def test_where_nobody_else_can_hear_it_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "PERIOD", 0.02)
    line = Line(None)
    async with EventBus(line, name="alone") as bus:
        await asyncio.sleep(0.1)
        (info,) = await bus.agents()
        assert (info.name, info.state) == ("alone", "online")
    assert line.beats == []


async def test_it_is_said_again_and_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "PERIOD", 0.02)
    async with EventBus(line, name="planner"):
        await eventually(line.said(5), 2)
    assert {tuple(beat["agents"]) for beat in line.beats[:-1]} == {("planner",)}
    assert line.beats[-1] == {"process": line.beats[0]["process"], "gone": True}


async def test_a_change_is_said_at_once_and_once(bus: EventBus, line: Line) -> None:
    first = await bus.subscribe("a.*", nothing, "one")
    await bus.subscribe("b.*", nothing, "two")
    await eventually(line.said(1), 1)
    await asyncio.sleep(0.05)
    (beat,) = line.beats
    assert (beat["agents"], beat["serves"]) == (["one", "two"], ["one~a.*", "two~b.*"])
    bus.attendance.change()
    await asyncio.sleep(0.05)
    assert len(line.beats) == 1  # nothing is another
    await first.cancel()
    await eventually(line.said(2), 1)
    assert line.beats[1]["agents"] == ["two"]


async def test_a_new_source_is_a_change_and_a_known_one_none(bus: EventBus, line: Line) -> None:
    for topic in ("a.b", "a.c"):
        await bus.publish(Event(topic=topic, source_agent="planner"))
    await eventually(line.said(1), 1)
    (source,) = line.beats[0]["publishes"]
    assert (source["agent"], source["topics"]) == ("planner", ["a.b", "a.c"])
    await bus.publish(Event(topic="a.b", source_agent="planner"))
    await asyncio.sleep(0.05)
    assert len(line.beats) == 1


async def test_what_is_said_of_sources_is_bounded(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "_SOURCES", 3)
    monkeypatch.setattr(attendance, "_TOPICS", 2)
    for n in range(5):
        await bus.publish(Event(topic="a.b", source_agent=f"s{n}"))
        await bus.publish(Event(topic=f"a.t{n}", source_agent="s4" if n == 4 else f"s{n}"))
        await bus.publish(Event(topic=f"a.u{n}", source_agent=f"s{n}"))
    said = {each.agent: each.topics for each in bus.attendance.beat().publishes}
    assert said == {f"s{n}": (f"a.t{n}", f"a.u{n}") for n in (2, 3, 4)}


async def test_who_publishes_for_others_says_when(log: MemoryLog) -> None:
    clock = ManualClock()
    async with EventBus(MemoryBroker(log, clock=clock), clock=clock) as bus:
        bus.attendance.front = True
        await bus.publish(Event(topic="a.b", source_agent="early"))
        await clock.advance(9)
        await bus.publish(Event(topic="a.b", source_agent="late"))
        await clock.advance(3)
        assert {each.agent: each.ago for each in bus.attendance.beat().publishes} == {"early": 12, "late": 3}
        bus.attendance.front = False
        assert {each.ago for each in bus.attendance.beat().publishes} == {0}


async def test_an_engine_that_is_away_is_said_once_and_the_next_beat_makes_up_for_it(
    bus: EventBus, line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attendance, "_AGAIN", 0.01)
    line.down = True
    await bus.subscribe("a.*", nothing, "one")
    await asyncio.sleep(0.1)
    assert caplog.text.count("cannot be said now") == 1
    line.down = False
    await eventually(line.said(1), 1)


async def test_a_goodbye_that_cannot_be_said_keeps_nobody(line: Line) -> None:
    bus = EventBus(line)
    await bus.start()
    await bus.subscribe("a.*", nothing, "one")
    await eventually(line.said(1), 1)
    line.down = True
    async with asyncio.timeout(2):
        await bus.stop()


async def test_who_asks_is_answered_at_once_by_all_and_hears_on(
    bus: EventBus, line: Line, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attendance, "_ANSWERS", 1.5)
    await bus.subscribe("a.*", nothing, "one")
    await eventually(line.said(1), 1)
    async with EventBus(MemoryBroker(log)) as asking:
        first, second = await asyncio.gather(asking.agents(), asking.agents())
        assert [(info.name, info.state) for info in first] == [("one", "online")]
        assert [info.name for info in second] == ["one"]
        async with asyncio.timeout(0.2):  # who hears already waits for nobody
            assert [info.name for info in await asking.agents()] == ["one"]
        hellos = [stored async for stored in asking.history("_bus.roster.*")]
        assert len(hellos) == 1


async def test_who_cannot_ask_is_told_and_may_ask_again(bus: EventBus, line: Line) -> None:
    line.down = True
    with pytest.raises(BrokerUnavailable):
        await bus.agents()
    line.down = False
    assert await bus.agents() == []


async def test_a_beat_that_none_of_ours_wrote_is_left_out(
    bus: EventBus, line: Line, log: MemoryLog, caplog: pytest.LogCaptureFixture
) -> None:
    await bus.subscribe("a.*", nothing, "one")
    async with EventBus(MemoryBroker(log)) as asking:
        await asking.agents()
        for payload in ({}, {"process": 5}, {"process": "p", "agents": "x"}, {"process": "p", "gone": "yes"}):
            await line.broker.publish([Event(topic=attendance.TOPIC, payload=payload)])
        await eventually(lambda: caplog.text.count("a beat that is none of ours") == 4, 1)
        assert [(info.name, info.state) for info in await asking.agents()] == [("one", "online")]
