"""Saying how much is done: only while somebody looks, by who begins meanwhile too, and with a last word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.conformance.engines import eventually
from wowevent import BrokerUnavailable, Event, EventBus, directory, pulses
from wowevent.broker import Appended
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.pulse import Vitals
from wowevent.testing import ManualClock

PERIOD = 0.02  # seconds


class Line:
    """An engine behind a line that can be cut, and the pulses and looks that were said on it."""

    def __init__(self, log: MemoryLog | None, clock: ManualClock) -> None:
        self.broker = MemoryBroker(log, clock=clock)
        self.down = False
        self.mute = False
        self.pulses: list[dict[str, Any]] = []
        self.looks: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        if self.down:
            raise BrokerUnavailable("the line is cut")
        self.pulses += [event.payload for event in events if event.topic == pulses.TOPIC and event.payload["process"]]
        self.looks += sum(event.topic.startswith("_bus.pulse.") for event in events)
        if self.mute:  # what is said is heard by nobody
            events = [event for event in events if event.topic != pulses.TOPIC]
        return await self.broker.publish(events)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """All who are asked answer in a moment, and say more in the next."""
    monkeypatch.setattr(directory, "_LOOK", 0.02)
    monkeypatch.setattr(pulses, "_ANSWERS", 0.1)
    monkeypatch.setattr(pulses, "_YOUNG", 0.1)
    monkeypatch.setattr(pulses, "PERIOD", PERIOD)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def line(log: MemoryLog, clock: ManualClock) -> Line:
    return Line(log, clock)


@pytest.fixture
async def bus(line: Line, clock: ManualClock) -> AsyncIterator[EventBus]:
    async with EventBus(line, clock=clock) as bus:
        yield bus


@pytest.fixture
def eye(log: MemoryLog, clock: ManualClock) -> Line:
    return Line(log, clock)


@pytest.fixture
async def looking(eye: Line, clock: ManualClock) -> AsyncIterator[EventBus]:
    """One more process, which wants to know."""
    async with EventBus(eye, clock=clock) as bus:
        yield bus


async def nothing(event: Event) -> None:
    """A handler."""


def whole(vitals: Vitals) -> bool:
    return vitals.samples[-1].whole


def last(vitals: Vitals) -> tuple[float, float]:
    return vitals.samples[-1].published, vitals.samples[-1].delivered


async def test_nobody_says_anything_where_nobody_looks(bus: EventBus, line: Line) -> None:
    await bus.subscribe("a.*", nothing, "worker")
    await bus.publish(Event(topic="a.b"))
    await asyncio.sleep(0.1)
    assert (line.pulses, line.looks) == ([], 0)


async def test_who_looks_sees_what_all_do(bus: EventBus, looking: EventBus, eye: Line, clock: ManualClock) -> None:
    await bus.subscribe("a.*", nothing, "worker")
    vitals = await looking.pulses.look()
    assert {each.process for each in vitals.there(looking.pulses.now)} == {
        bus.attendance.process, looking.attendance.process,
    }  # fmt: skip
    await bus.publish_many([Event(topic="a.b") for _ in range(8)])
    await looking.publish_many([Event(topic="c.d") for _ in range(4)])
    await bus.join(1)
    clock._move(clock.monotonic() + 2)  # noqa: SLF001 - at once, so that no sample is of one second alone
    await eventually(lambda: last(vitals) == (6.0, 4.0), 2)
    assert vitals.samples[-1].failed == 0
    assert vitals.since is not None
    assert await looking.pulses.look() is vitals
    assert eye.looks == 1  # who looks on asks nobody again


async def test_who_looks_on_asks_again_before_the_others_fall_silent(
    bus: EventBus, line: Line, looking: EventBus, eye: Line, clock: ManualClock
) -> None:
    seen = await looking.pulses.look(), await bus.pulses.look()
    for minute in range(3):
        for _ in range(3):
            await clock.advance(20)
            await asyncio.sleep(0.1)
        await eventually(lambda: [len(vitals.there(bus.pulses.now)) for vitals in seen] == [2, 2], 2)
        assert 3 + minute <= eye.looks + line.looks <= 4 + 4 * minute  # one of them is enough, both do no harm


async def test_they_fall_silent_when_nobody_looks_any_more(
    bus: EventBus, looking: EventBus, line: Line, clock: ManualClock
) -> None:
    await looking.pulses.look()
    await eventually(lambda: len(line.pulses) > 2, 1)
    await looking.stop()
    await clock.advance(61)
    await asyncio.sleep(0.1)
    said = len(line.pulses)
    await asyncio.sleep(0.1)
    assert len(line.pulses) == said


async def test_samples_are_taken_until_nobody_wanted_them_for_ten_minutes(
    looking: EventBus, clock: ManualClock
) -> None:
    vitals = await looking.pulses.look()
    for passed in (599, 2):
        await clock.advance(passed)
        await asyncio.sleep(0.1)
        taken = len(vitals.samples)
        await asyncio.sleep(0.1)
        assert (len(vitals.samples) > taken) == (passed == 599)
    again = await looking.pulses.look()
    assert again is not vitals
    assert len(again.samples) < 5


async def test_who_begins_while_somebody_looks_says_so_too(
    looking: EventBus, log: MemoryLog, clock: ManualClock
) -> None:
    vitals = await looking.pulses.look()
    async with EventBus(MemoryBroker(log, clock=clock), clock=clock):
        await eventually(lambda: len(vitals.there(looking.pulses.now)) == 2, 2)
    assert len(vitals.there(looking.pulses.now)) == 1


async def test_who_does_one_thing_and_ends_has_one_word(looking: EventBus, log: MemoryLog, clock: ManualClock) -> None:
    vitals, line = await looking.pulses.look(), Line(log, clock)
    async with EventBus(line, clock=clock) as short:
        await short.publish(Event(topic="a.b"))
    (word,) = line.pulses
    assert (word["published"], word["gone"]) == (1, True)
    await eventually(lambda: max(each.published for each in vitals.samples) == 0.5, 2)
    silent = Line(log, clock)
    async with EventBus(silent, clock=clock):
        pass
    assert silent.pulses == []


async def test_a_look_of_long_ago_is_nobodys(looking: EventBus, log: MemoryLog, clock: ManualClock) -> None:
    await looking.pulses.look()
    await looking.stop()
    await clock.advance(700)
    line = Line(log, clock)
    async with EventBus(line, clock=clock):
        await asyncio.sleep(0.3)
    assert line.pulses == []


async def test_an_engine_that_is_away_keeps_nobody_from_what_is_done_here(  # noqa: PLR0917 - fixtures
    line: Line,
    bus: EventBus,
    log: MemoryLog,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pulses, "_FIRST", 0.1)
    await bus.publish_many([Event(topic="a.b") for _ in range(8)])
    await clock.advance(2)
    line.down = True
    vitals = await bus.pulses.look()
    assert last(vitals)[0] == 4.0
    assert not vitals.samples[-1].whole
    await eventually(lambda: len(vitals.samples) > 5, 1)
    assert caplog.text.count("nobody can be asked now") == 1
    line.down = False
    async with EventBus(MemoryBroker(log, clock=clock), clock=clock):
        await eventually(lambda: len(vitals.there(bus.pulses.now)) == 2, 3)


async def test_where_nobody_else_is_nobody_is_waited_for(clock: ManualClock) -> None:
    line = Line(None, clock)
    async with EventBus(line, clock=clock) as bus:
        async with asyncio.timeout(0.05):
            vitals = await bus.pulses.look()
        assert [each.process for each in vitals.there(bus.pulses.now)] == [bus.attendance.process]
        assert [stored async for stored in bus.history("_bus.#")] == []
    assert line.pulses == []


async def test_a_pulse_that_none_of_ours_wrote_is_left_out(
    looking: EventBus, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    vitals = await looking.pulses.look()
    damaged: list[dict[str, Any]] = [
        {},
        {"process": 5},
        {"process": "p", "published": "x"},
        {"process": "p", "published": -1},
        {"process": "p", "delivered": 2**60},
        {"process": "p", "seconds": -2.0},
        {"process": "p", "longest": 1e300},
        {"process": "p", "marks": [[1]]},
        {"process": "p", "marks": [[70_000, 1]]},  # would be no number of 32 bits,
        {"process": "p", "marks": [[0x7FC0, 1]]},  # and this would be none at all
        {"process": "p", "marks": [[1, -1]]},
        {"process": "p", "routers": [{"clients": -1, "named": 0, "events_processed": 0, "since": 1.0}]},
        {"process": "p", "jobs": [{"kind": "replay"}]},
    ]
    for payload in damaged:
        await line.broker.publish([Event(topic=pulses.TOPIC, payload=payload)])
    await eventually(lambda: caplog.text.count("a pulse that is none of ours") == len(damaged), 1)
    taken = len(vitals.samples)
    await eventually(lambda: len(vitals.samples) > taken, 1)
    assert len(vitals.there(looking.pulses.now)) == 1


async def test_who_does_not_hear_itself_knows_nothing_of_the_others(
    bus: EventBus, line: Line, looking: EventBus, eye: Line, clock: ManualClock
) -> None:
    vitals = await looking.pulses.look()
    assert whole(vitals)
    line.mute = eye.mute = True
    await asyncio.sleep(0.05)  # what was under way is heard
    await clock.advance(2 * PERIOD)
    await eventually(lambda: not whole(vitals), 1)
    assert not looking.pulses.whole
    line.mute = eye.mute = False
    heard = clock.monotonic()
    await eventually(lambda: looking.pulses._heard == heard, 1)  # noqa: SLF001 - the moment
    assert not looking.pulses.whole  # the others need a moment to come back, too
    await clock.advance(PERIOD)
    await asyncio.sleep(0.05)
    assert not whole(vitals)
    await clock.advance(PERIOD)
    await eventually(lambda: whole(vitals), 1)
    assert len(vitals.there(looking.pulses.now)) == 2


async def test_who_looks_again_much_later_does_not_take_the_time_between_for_trouble(
    bus: EventBus, looking: EventBus, clock: ManualClock
) -> None:
    await looking.pulses.look()
    await clock.advance(700)
    await asyncio.sleep(0.1)
    vitals = await looking.pulses.look()
    assert vitals.samples[0].whole
    assert len(vitals.there(looking.pulses.now)) == 2


async def test_who_looks_anew_is_answered_by_those_who_speak_already(
    bus: EventBus, looking: EventBus, log: MemoryLog, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulses, "PERIOD", 5.0)
    await looking.pulses.look()
    async with EventBus(MemoryBroker(log, clock=clock), clock=clock) as another:
        vitals = await another.pulses.look()
        assert len(vitals.there(another.pulses.now)) == 3


async def test_after_the_end_nothing_begins(clock: ManualClock) -> None:
    async with EventBus("memory://", clock=clock) as bus:
        pass
    await bus.pulses.look()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "wowevent:pulses"]


async def test_stopping_while_somebody_waits_for_the_first_look_ends_the_wait(
    looking: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulses, "_ANSWERS", 5.0)
    waiting = asyncio.create_task(looking.pulses.look())
    await asyncio.sleep(0.05)
    async with asyncio.timeout(1):
        await looking.stop()
        await waiting
