"""bus.replay_into over each engine: a range of the log as new events, at a speed, up to where the log ended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, events
from wowevent import Event, EventBus, InvalidEvent, InvalidTopic, Position, ReplayConfig

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
AT_ONCE = ReplayConfig(speed_multiplier=0)


async def copies(bus: EventBus, topic: str = "again") -> list[Event]:
    return [stored.event async for stored in bus.history(topic)]


async def test_new_events_of_the_same_content(rig: Rig):
    bus = await rig.bus()
    parent = event(n=0)
    original = event(
        "task.done", 1, event_type="order.placed", correlation_id="c", parent_event_id=parent.event_id, priority=8,
        trace_id="t", execution_id="e", ttl_seconds=60, max_retries=2, reply_to="a.b", hops=5, headers={"a": "b"},
        timestamp=NOON, source_service="shop", target_agent="worker",
    )  # fmt: skip
    await bus.publish_many([parent, original])
    assert await bus.replay_into("again", AT_ONCE) == 2
    first, second = await copies(bus)
    assert (first.replay_of, second.replay_of) == (parent.event_id, original.event_id)
    assert first.event_id not in {parent.event_id, original.event_id, second.event_id}
    assert (second.topic, second.reply_to, second.hops) == ("again", None, 0)
    now = datetime.fromtimestamp(rig.clock.time(), UTC)
    assert abs(second.timestamp - now) < timedelta(seconds=5)
    for name in (
        "event_type", "payload", "correlation_id", "parent_event_id", "priority", "trace_id", "execution_id",
        "ttl_seconds", "max_retries", "headers", "source_agent", "source_service", "target_agent",
    ):  # fmt: skip
        assert getattr(second, name) == getattr(original, name), name


async def test_subscribers_get_them_as_any_other_event(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("again", seen, "worker")
    await bus.publish_many(events(250))
    assert await bus.replay_into("again") == 250
    await bus.join(10)
    assert seen.numbers == list(range(250))
    assert not any(delivery.replayed for delivery in seen.deliveries)


async def test_it_never_meets_its_own_events(rig: Rig):
    bus = await rig.bus()
    await bus.publish_many(events(150, "again"))
    assert await bus.replay_into("again", ReplayConfig(speed_multiplier=0, pattern="again")) == 150
    assert len(await copies(bus)) == 300


async def test_nor_does_a_handler_that_publishes_what_is_replayed(rig: Rig):
    bus = await rig.bus()
    await bus.publish_many(events(5))

    async def handler(seen: Event) -> None:
        await bus.publish(event(n=100 + seen.payload["n"]))

    assert await bus.replay(handler, AT_ONCE) == 5


async def test_as_far_apart_as_they_were(rig: Rig):
    bus = await rig.bus()
    await bus.publish_many([event(n=n, timestamp=NOON + timedelta(seconds=10 * n)) for n in range(3)])
    replaying = asyncio.create_task(bus.replay_into("again", ReplayConfig(speed_multiplier=2)))
    for passed, count in ((0, 1), (4, 1), (2, 2), (5, 3)):
        await rig.advance(passed)
        await eventually(partial(has, bus, count))
    assert await replaying == 3


async def has(bus: EventBus, count: int) -> bool:
    return len(await copies(bus)) == count


async def test_progress_is_told_step_by_step(rig: Rig):
    bus, told = await rig.bus(), list[tuple[int, Position]]()
    receipts = await bus.publish_many(events(250))
    places = [stored.position async for stored in bus.history()]
    assert not bus.capabilities.positions or [receipt.position for receipt in receipts] == places
    await bus.replay_into("again", AT_ONCE, progress=lambda *each: told.append(each))
    assert told == [(count, places[count - 1]) for count in (100, 200, 250)]


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_progress_is_what_was_published_whenever_it_is_cancelled(rig: Rig, turns: int):
    bus, told = await rig.bus(), [0]
    await bus.publish_many(events(1000))
    replaying = asyncio.create_task(bus.replay_into("again", AT_ONCE, progress=lambda count, _: told.append(count)))
    await eventually(lambda: len(told) > 1)
    for _ in range(turns):
        await asyncio.sleep(0)
    replaying.cancel()
    await asyncio.gather(replaying, return_exceptions=True)
    await rig.breathe()
    assert len(await copies(bus)) == told[-1]


@pytest.mark.parametrize(
    ("topic", "config", "error"),
    [
        ("a.*", {}, InvalidTopic),
        ("_bus.x", {}, InvalidTopic),
        ("", {}, InvalidTopic),
        ("a", {"speed_multiplier": -1}, InvalidEvent),
        ("a", {"speed_multiplier": float("nan")}, InvalidEvent),
        ("a", {"speed_multiplier": float("inf")}, InvalidEvent),
        ("a", {"pattern": "a**"}, InvalidTopic),
        ("a", {"max_events": -1}, InvalidEvent),
    ],
)
async def test_what_cannot_be_replayed_is_refused(rig: Rig, topic: str, config: dict[str, Any], error: type[Exception]):
    bus = await rig.bus()
    await bus.publish(event())
    with pytest.raises(error):
        await bus.replay_into(topic, ReplayConfig(**config))
    assert len([stored async for stored in bus.history()]) == 1
