"""bus.follow over each engine: the history, and then what comes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from tests.conformance.engines import Rig
from tests.conformance.making import event, events
from wowevent import Event, InvalidEvent, InvalidTopic, Position, PositionLost
from wowevent.broker import Stored


async def take(following: Any, count: int) -> list[int]:
    """`n` of the next events."""
    async with asyncio.timeout(5):
        found: list[Stored] = [await anext(following) for _ in range(count)]
    return [stored.event.payload["n"] for stored in found]


async def test_what_was_and_what_comes(rig: Rig):
    bus, other = await rig.bus(), await rig.bus()
    await bus.publish_many(events(3))
    async with aclosing(bus.follow("task.*")) as following:
        assert await take(following, 3) == [0, 1, 2]
        waiting = asyncio.create_task(take(following, 2))
        await rig.breathe()
        assert not waiting.done()
        await other.publish_many([event("plan.made", 8), event(n=3), event(n=4)])
        assert await waiting == [3, 4]


async def test_behind_a_position(rig: Rig):
    bus = await rig.bus()
    receipts = await bus.publish_many(events(4))
    places = [stored.position async for stored in bus.history()]
    assert not bus.capabilities.positions or [receipt.position for receipt in receipts] == places
    async with aclosing(bus.follow(after=places[1])) as following:
        assert await take(following, 2) == [2, 3]
        await bus.publish(event(n=4))
        assert await take(following, 1) == [4]


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ({}, [0, 1, 2, 3]),
        ({"pattern": ["task.*", "x"]}, [0, 1, 2]),
        ({"types": ["task.started"]}, [1, 3]),
        ({"priorities": ["high"]}, [2]),
        ({"min_priority": 3, "pattern": "task.*"}, [0, 2]),
        ({"sources": ["b"]}, [1, 2]),
        ({"sources": ["b"], "min_priority": "high"}, [2]),
    ],
)
async def test_the_filters_of_a_subscription(rig: Rig, wish: dict[str, Any], found: list[int]):
    """An event that is meant for one agent is seen too: this is the log."""
    bus = await rig.bus()
    await bus.publish_many(
        [
            event("task.created", 0, source_agent="a"),
            event("task.started", 1, source_agent="b", priority=2),
            event("task.done", 2, source_agent="b", priority=7, target_agent="worker"),
            event("plan", 3, event_type="task.started"),
        ]
    )
    async with aclosing(bus.follow(**wish)) as following:
        assert await take(following, len(found)) == found


async def test_of_another_log_it_is_lost_and_begins_anew(rig: Rig):
    bus = await rig.bus()
    await bus.publish_many(events(2))
    with pytest.raises(PositionLost):
        await take(bus.follow(after=Position("another", 1)), 1)
    async with aclosing(bus.follow()) as following:
        assert await take(following, 2) == [0, 1]


async def test_it_ends_when_the_engine_is_closed(rig: Rig):
    bus = await rig.bus()
    await bus.publish(Event(topic="a", payload={"n": 1}))
    following = bus.follow()
    assert await take(following, 1) == [1]
    ending = asyncio.create_task(anext(following, None))
    await rig.breathe()
    await bus.broker.close()
    async with asyncio.timeout(5):
        assert await ending is None


async def test_what_cannot_be_followed_is_refused_at_once(rig: Rig):
    bus = await rig.bus()
    with pytest.raises(InvalidTopic):
        bus.follow("a**")
    with pytest.raises(InvalidTopic):
        bus.follow([])
    with pytest.raises(InvalidEvent):
        bus.follow(min_priority=11)
