"""The planner: clocks that differ, engines that are emptied or away, and what it keeps away from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from tests.conformance.engines import eventually
from wowevent import (
    BrokerUnavailable,
    Closed,
    Event,
    EventBus,
    InvalidEvent,
    InvalidSchedule,
    InvalidTopic,
    PayloadTooLarge,
    schedules,
)
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.directory import Directory
from wowevent.testing import ManualClock, TestBus, settle

EPOCH = 1_800_000_000.0
START = datetime.fromtimestamp(EPOCH, UTC)
TICK = Event(topic="tick.now")


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    async with TestBus() as bus:
        bus.clock.jump(EPOCH - bus.clock.time())
        yield bus


async def fired(bus: EventBus) -> list[float]:
    """The moments, in seconds from the start."""
    return [(stored.event.timestamp - START).total_seconds() async for stored in bus.history("tick.*")]


class Crowd:
    """Buses over one log, each with a clock of its own, and the engine with the right one."""

    def __init__(self, *ahead: float) -> None:
        self.log = MemoryLog()
        self.clock = ManualClock(EPOCH)
        self.brokers = [MemoryBroker(self.log, clock=self.clock) for _ in ahead]
        self.clocks = [ManualClock(EPOCH + seconds) for seconds in ahead]
        self.buses = [EventBus(broker, clock=clock) for broker, clock in zip(self.brokers, self.clocks, strict=True)]

    async def __aenter__(self) -> list[EventBus]:
        for bus in self.buses:
            await bus.start()
        return self.buses

    async def __aexit__(self, *_: object) -> None:
        for bus in self.buses:
            await bus.stop(timeout=0)
        for broker in self.brokers:
            await broker.close()

    async def advance(self, seconds: float) -> None:
        """A second at a time, for all."""
        for _ in range(round(seconds)):
            for clock in (*self.clocks, self.clock):
                await clock.advance(1)

    async def heard(self) -> None:
        for bus in self.buses:
            await bus.schedules.list()


@pytest.mark.parametrize("ahead", [(0, 30, -30), (100, 0, 0), (-100, -50, 7)], ids=str)
async def test_clocks_that_differ_fire_each_moment_once(ahead: tuple[float, ...]) -> None:
    crowd = Crowd(*ahead)
    async with crowd as buses:
        start = START + timedelta(seconds=120)
        await buses[0].schedules.add("tick", TICK, every=10, start=start)
        await crowd.heard()
        await crowd.advance(175)
        assert await fired(buses[0]) == [120, 130, 140, 150, 160, 170]


async def test_a_clock_that_is_set_forward_goes_on_from_there(bus: TestBus) -> None:
    await bus.schedules.add("tick", TICK, every=60, start=START)
    await bus.advance(30)
    bus.clock.jump(3600)
    await bus.advance(36)
    assert await fired(bus) == [60, 3660]


async def test_an_engine_that_forgot_what_is_planned_is_told_again() -> None:
    crowd = Crowd(0)
    async with crowd as (bus,):
        await bus.schedules.add("tick", TICK, every=1000)
        await crowd.advance(10)
        crowd.log.delayed.clear()
        crowd.log.held.clear()
        crowd.log.seen.clear()
        await crowd.advance(995)
        assert await fired(bus) == [1000]


class Line:
    """An engine that can be away, and keeps what was asked of it."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.down = False
        self.slow: asyncio.Event | None = None
        """What a plan waits for."""
        self.planned: list[Event] = []
        self.cancelled: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    async def publish(self, events: Any) -> Any:
        plans = [event for event in events if event.topic == TICK.topic]
        self.planned += plans
        if plans and self.slow is not None:
            await self.slow.wait()
        self._check()
        return await self.broker.publish(events)

    async def cancel(self, id: str) -> bool:
        self._check()
        self.cancelled.append(id)
        return await self.broker.cancel(id)

    def _check(self) -> None:
        if self.down:
            raise BrokerUnavailable("the line is cut")


async def test_while_the_engine_is_away_it_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(EPOCH)
    line = Line(MemoryBroker(MemoryLog(), clock=clock))
    async with EventBus(line, clock=clock) as bus:
        await bus.schedules.add("tick", TICK, every=60)
        await clock.advance(30)
        line.down = True
        with caplog.at_level(logging.WARNING, "wowevent"):
            await clock.advance(100)
            line.down = False
            await clock.advance(51)
        said = [record for record in caplog.records if "schedules cannot be planned" in record.message]
        assert len(said) == 1
        assert await fired(bus) == [60, 180]  # the one that was held, and the next behind the silence
    await line.broker.close()


async def test_what_is_nearer_than_a_plan_may_be_is_left_to_others() -> None:
    clock = ManualClock(EPOCH)
    log = MemoryLog()
    line = Line(MemoryBroker(log, clock=clock))
    adds = EventBus(MemoryBroker(log, clock=clock), clock=clock)
    await adds.start()
    await adds.schedules.add("tick", TICK, every=60, start=START + timedelta(seconds=1.2))
    async with EventBus(line, clock=clock) as bus:
        await clock.advance(1)  # it begins to plan 0.2 s before the moment
        assert [(event.timestamp - START).total_seconds() for event in line.planned] == [61.2]
        await clock.advance(1)
        assert await fired(bus) == [1.2]
    await adds.stop()
    await adds.broker.close()
    await line.broker.close()


async def test_a_command_that_is_over_within_a_second_plans_nothing_of_others() -> None:
    clock, log = ManualClock(EPOCH), MemoryLog()
    async with EventBus(MemoryBroker(log, clock=clock), clock=clock) as adds:
        await adds.schedules.add("tick", TICK, every=60)
        line = Line(MemoryBroker(log, clock=clock))
        async with EventBus(line, clock=clock) as bus:
            await clock.advance(0.9)
            assert len(await bus.schedules.list()) == 1
        assert line.planned == []
        await line.broker.close()
        await adds.broker.close()


async def test_who_had_planned_it_takes_it_back_when_it_is_replaced() -> None:
    """Also what the one who replaces it does not know of: a plan by a clock that is ahead."""
    crowd = Crowd(0, 100)
    async with crowd as (right, ahead):
        await ahead.schedules.add("tick", TICK, every=60, start=START + timedelta(seconds=60))
        await crowd.heard()
        await crowd.advance(3)
        assert len(crowd.log.held) == 2  # the next moments of both clocks
        await right.schedules.remove("tick")
        await crowd.heard()
        await settle()
        assert crowd.log.held == {}
        await crowd.advance(300)
        assert await fired(right) == []


async def test_who_removes_it_takes_back_what_those_planned_who_are_gone() -> None:
    clock, log = ManualClock(EPOCH), MemoryLog()
    for step in ("add", "replace", "remove"):
        broker = MemoryBroker(log, clock=clock)
        async with EventBus(broker, clock=clock) as bus:
            if step == "remove":
                await bus.schedules.remove("tick")
            else:
                await bus.schedules.add("tick", TICK, every=60 if step == "add" else 70)
            assert len(log.held) == (0 if step == "remove" else 1)
        await broker.close()


async def test_who_does_not_want_what_comes_late_gives_it_a_ttl() -> None:
    clock, log, handled = ManualClock(EPOCH), MemoryLog(), list[Event]()
    for step in ("add", "come back"):
        broker = MemoryBroker(log, clock=clock)
        async with EventBus(broker, clock=clock) as bus:
            await bus.subscribe("tick.*", handled.append, "worker")
            if step == "add":
                await bus.schedules.add("tick", structs.replace(TICK, ttl_seconds=30.0), every=60)
            else:
                await clock.advance(59)
                assert (await fired(bus), handled) == ([60], [])
                await clock.advance(2)
                await eventually(lambda: len(handled) == 1)
                assert await fired(bus) == [60, 660]
        await broker.close()
        await clock.advance(600 if step == "add" else 0)


async def test_one_that_has_ended_costs_nothing_any_more(bus: TestBus) -> None:
    await bus.schedules.add(
        "tick", TICK, every=10, start=START + timedelta(seconds=5), until=START + timedelta(seconds=5)
    )
    await bus.advance(700)
    assert await fired(bus) == [5]
    info = await bus.schedules.get("tick")
    assert (info.next, info.last) == (None, START + timedelta(seconds=5))


async def test_no_more_than_there_is_room_for(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "MOST", 2)
    for name in ("a", "b"):
        await bus.schedules.add(name, TICK, every=60)
    with pytest.raises(InvalidSchedule, match="most"):
        await bus.schedules.add("c", TICK, every=60)
    await bus.schedules.add("a", TICK, every=61)
    assert [each.name for each in await bus.schedules.list()] == ["a", "b"]


async def test_the_same_again_is_planned_again_and_no_change(bus: TestBus) -> None:
    first = await bus.schedules.add("tick", TICK, every=60)
    await bus.advance(90)
    again = await bus.schedules.add("tick", Event(topic="tick.now"), every=60)
    assert (again.added, again.next) == (first.added, START + timedelta(seconds=120))
    await bus.advance(60)
    assert await fired(bus) == [60, 120]


async def test_what_often_fires_is_noted_seldom(bus: TestBus) -> None:
    await bus.schedules.add("tick", TICK, every=1)
    await bus.advance(35.5)
    assert len(await fired(bus)) == 35
    log = bus.broker._log.ring  # type: ignore[attr-defined]  # noqa: SLF001 - facts are read as the newest alone
    notes = [stored for stored in log if stored.event.topic.startswith("_bus.fired.")]
    assert len(notes) == 4
    info = await bus.schedules.get("tick")
    assert info.last is not None
    assert timedelta(0) <= START + timedelta(seconds=35) - info.last <= timedelta(seconds=10)


async def test_what_cannot_be_read_is_said_and_can_be_removed(bus: TestBus, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "wowevent"):
        directory = Directory(bus.broker)
        await directory.put("schedule", "odd", {"event": "{"})
        await directory.put("fired", "tick", {"moment": 7})
        assert await bus.schedules.list() == []
        await directory.close()
    assert any("a schedule cannot be read" in record.message for record in caplog.records)
    await bus.schedules.remove("odd")
    await bus.schedules.add("tick", TICK, every=60)
    await bus.advance(61)
    assert await fired(bus) == [60]


async def test_what_cannot_be_published_cannot_be_scheduled(bus: TestBus) -> None:
    add = bus.schedules.add
    with pytest.raises(InvalidTopic):
        await add("a", "_bus.x", every=60)
    with pytest.raises(PayloadTooLarge):
        await add("a", "tick", {"x": "x" * bus.max_payload}, every=60)
    with pytest.raises(InvalidSchedule, match="its own payload"):
        await add("a", TICK, {"n": 1}, every=60)
    with pytest.raises(InvalidEvent):
        await add("a b", TICK, every=60)
    with pytest.raises(InvalidSchedule):
        await add("a", TICK, every=0.5)
    assert await bus.schedules.list() == []


async def test_a_bus_that_does_not_run_adds_nothing() -> None:
    bus = TestBus()
    with pytest.raises(Closed):
        await bus.schedules.add("a", TICK, every=60)
    await bus.start()
    await bus.stop()
    for call in (bus.schedules.add("a", TICK, every=60), bus.schedules.list(), bus.schedules.remove("a")):
        with pytest.raises(Closed):
            await call


async def test_a_plan_that_is_overtaken_by_a_removal_is_taken_back() -> None:
    """The schedule goes while its next moment is on the way to the engine."""
    clock, log = ManualClock(EPOCH), MemoryLog()
    line = Line(MemoryBroker(log, clock=clock))
    async with EventBus(line, clock=clock) as bus:
        await bus.schedules.add("tick", TICK, every=60)
        line.slow = asyncio.Event()
        await clock.advance(61)  # the plan for 120 is under way
        directory = Directory(bus.broker)
        await directory.drop("schedule", "tick")
        assert await bus.schedules.list() == []
        line.slow.set()
        await clock.advance(5)
        assert len(line.planned) == 2
        assert log.held == {}
        await directory.close()
    await line.broker.close()
