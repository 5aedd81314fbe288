"""Schedules: each moment is fired once among all processes, whoever of them is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event
from wowevent import Event, EventBus, ScheduleNotFound
from wowevent.broker import Appended, Broker

TOPIC = "tick.now"


def moment(rig: Rig, seconds: float = 0) -> datetime:
    return datetime.fromtimestamp(rig.clock.time(), UTC) + timedelta(seconds=seconds)


async def fired(bus: EventBus) -> list[Event]:
    return [stored.event async for stored in bus.history(TOPIC)]


async def comes(rig: Rig, bus: EventBus, count: int) -> None:
    """That many are fired; engines that look once a second are given a few to do so."""

    async def look() -> bool:
        await rig.advance(1)
        return len(await fired(bus)) >= count

    await eventually(look)


async def three(rig: Rig) -> list[EventBus]:
    """Buses that have begun to plan."""
    buses = [await rig.bus() for _ in range(3)]
    await rig.advance(2)
    return buses


async def known(buses: list[EventBus]) -> None:
    """Each has heard of what another has changed, as it would within a second."""
    for bus in buses:
        await bus.schedules.list()


async def test_each_moment_is_fired_once_whoever_plans_it(rig: Rig):
    buses, seen = await three(rig), Seen()
    await buses[1].subscribe("tick.*", seen, "worker")
    added = moment(rig)
    info = await buses[0].schedules.add("tick", event(TOPIC), every=60)
    assert (info.next, info.last, info.every) == (added + timedelta(seconds=60), None, 60)
    await known(buses)
    for count in (1, 2, 3):
        await rig.advance(59)
        await comes(rig, buses[0], count)
    await rig.advance(20)
    await eventually(seen.count(3))
    expected = [added + timedelta(seconds=seconds) for seconds in (60, 120, 180)]
    assert [each.timestamp for each in seen.events] == expected
    assert [each.timestamp for each in await fired(buses[2])] == expected
    assert {each.headers["schedule"] for each in seen.events} == {"tick"}
    assert len({each.event_id for each in seen.events}) == len({each.correlation_id for each in seen.events}) == 3
    (listed,) = await buses[2].schedules.list()
    assert (listed.name, listed.last, listed.next) == ("tick", expected[2], expected[2] + timedelta(seconds=60))


async def test_one_that_is_replaced_fires_as_the_new_one_alone(rig: Rig):
    buses = await three(rig)
    await buses[0].schedules.add("tick", event(TOPIC, 1), every=60)
    await known(buses)
    await rig.advance(30)
    await buses[1].schedules.add("tick", event(TOPIC, 2), every=60)
    await known(buses)
    await rig.advance(59)
    await comes(rig, buses[0], 1)
    await rig.advance(57)
    await comes(rig, buses[0], 2)
    assert [each.payload["n"] for each in await fired(buses[0])] == [2, 2]


async def test_the_same_again_changes_nothing(rig: Rig):
    buses = await three(rig)
    first = await buses[0].schedules.add("tick", TOPIC, {"n": 1}, every=60, priority="high")
    await rig.advance(30)
    again = await buses[1].schedules.add("tick", TOPIC, {"n": 1}, every=60, priority="high")
    assert (again.added, again.next) == (first.added, first.next)
    await rig.advance(29)
    await comes(rig, buses[0], 1)
    assert [each.timestamp for each in await fired(buses[0])] == [first.next]


class Hesitant:
    """The same engine, where what is said of schedules waits until it is let."""

    def __init__(self, broker: Broker) -> None:
        self.waits, self.let = asyncio.Event(), asyncio.Event()
        self._broker = broker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        if any(each.topic.startswith("_bus.schedule.") for each in events):
            self.waits.set()
            await self.let.wait()
        return await self._broker.publish(events)


@pytest.mark.parametrize("timing", [{"every": 60}, {"cron": "* * * * *"}], ids=["every", "cron"])
async def test_two_that_add_the_same_at_once_fire_its_first_moment_once(rig: Rig, timing: dict[str, Any]):
    one, watching, line = await rig.bus(), await rig.bus(), Hesitant(rig.broker())
    async with EventBus(line, clock=rig.clock) as other:
        second = asyncio.create_task(other.schedules.add("tick", TOPIC, {"n": 1}, **timing))
        await line.waits.wait()  # it has looked whether there is one
        await rig.clock.advance(0.01)
        await one.schedules.add("tick", TOPIC, {"n": 1}, **timing)
        await one.stop()  # so that it cannot take back what it has planned
        line.let.set()
        await second
        await rig.advance(61)
        await comes(rig, watching, 1)
        await rig.advance(5)
    times = [each.timestamp for each in await fired(watching)]
    assert all(after - before > timedelta(seconds=59) for before, after in pairwise(times)), times


async def test_one_that_is_removed_fires_no_more(rig: Rig):
    buses = await three(rig)
    await buses[0].schedules.add("tick", event(TOPIC), every=60)
    await known(buses)
    await rig.advance(2)
    await buses[1].schedules.remove("tick")
    await known(buses)
    await rig.advance(125)
    assert await fired(buses[0]) == []
    assert await buses[2].schedules.list() == []
    with pytest.raises(ScheduleNotFound):
        await buses[0].schedules.remove("tick")
    with pytest.raises(ScheduleNotFound):
        await buses[0].schedules.get("tick")


async def test_one_that_was_removed_and_is_added_again_fires(rig: Rig):
    (bus, *_) = await three(rig)
    start = moment(rig, 60)
    await bus.schedules.add("tick", event(TOPIC, 1), every=60, start=start)
    await bus.schedules.remove("tick")
    await bus.schedules.add("tick", event(TOPIC, 1), every=60, start=start)
    await rig.advance(59)
    await comes(rig, bus, 1)
    assert [each.timestamp for each in await fired(bus)] == [start]


async def test_it_begins_and_ends_when_it_says(rig: Rig):
    (bus, *_) = await three(rig)
    start = moment(rig, 20)
    until = start + timedelta(seconds=20)
    await bus.schedules.add("tick", event(TOPIC), every=10, start=start, until=until)
    await rig.advance(15)
    assert await fired(bus) == []
    await rig.advance(30)
    await comes(rig, bus, 3)
    assert [each.timestamp for each in await fired(bus)] == [start, start + timedelta(seconds=10), until]
    assert (await bus.schedules.get("tick")).next is None


async def test_it_goes_on_without_who_added_it(rig: Rig):
    adds, other = await rig.bus(), await rig.bus()
    added = moment(rig)
    await adds.schedules.add("tick", event(TOPIC), every=60)
    await known([other])
    await adds.stop()
    await rig.advance(59)
    await comes(rig, other, 1)
    await rig.advance(57)
    await comes(rig, other, 2)
    assert [each.timestamp for each in await fired(other)] == [added + timedelta(seconds=60 * n) for n in (1, 2)]


async def test_what_was_missed_while_nobody_was_there_comes_once(rig: Rig):
    adds = await rig.bus()
    added = moment(rig)
    await adds.schedules.add("tick", event(TOPIC), every=60)
    await adds.stop()
    await rig.clock.advance(600)
    later = await rig.bus()
    await rig.advance(5)
    await comes(rig, later, 1)
    await rig.advance(57)
    await comes(rig, later, 2)
    found = [each.timestamp - added for each in await fired(later)]
    assert found == [timedelta(seconds=60), timedelta(seconds=660)]


async def test_one_made_in_a_handler_stays_in_its_conversation(rig: Rig):
    bus = await rig.bus()
    seen = Seen()

    async def remind(asked: Event) -> None:
        await bus.schedules.add("reminder", TOPIC, every=60)

    await bus.subscribe("task.*", remind, "worker")
    await bus.subscribe("tick.*", seen, "reader")
    asked = event(correlation_id="job-1", hops=4)
    await bus.publish(asked)
    await bus.join(10)
    await rig.advance(59)
    await comes(rig, bus, 1)
    await eventually(seen.count(1))
    (found,) = seen.events
    assert (found.correlation_id, found.parent_event_id, found.hops) == ("job-1", asked.event_id, 5)
