"""The bus over each engine: history, replay, delayed publishes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, events, unsettled
from wowevent import Event, InvalidEvent, ReplayConfig, current

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

QUERIES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [0, 1, 2, 3]),
    ({"pattern": "task.*"}, [0, 1, 2]),
    ({"pattern": ["plan.*", "task.done"]}, [2, 3]),
    ({"start_time": "2030-01-01T12:00:10"}, [1, 2, 3]),
    ({"start_time": NOON + timedelta(seconds=10), "end_time": datetime(2030, 1, 1, 12, 0, 20)}, [1, 2]),  # noqa: DTZ001
    ({"correlation_id": "c-1"}, [1, 3]),
]


async def published(rig: Rig, **settings: Any) -> Any:
    bus = await rig.bus(**settings)
    topics = ["task.created", "task.started", "task.done", "plan.created"]
    await bus.publish_many(
        [
            event(t, n, event_id=f"id-{n}", correlation_id=f"c-{n % 2}", timestamp=NOON + timedelta(seconds=10 * n))
            for n, t in enumerate(topics)
        ]
    )
    return bus


@pytest.mark.parametrize(("query", "found"), [*QUERIES, ({"limit": 2}, [0, 1])])
async def test_history(rig: Rig, query: dict[str, Any], found: list[int]):
    bus = await published(rig)
    stored = [item async for item in bus.history(**query)]
    assert [item.event.payload["n"] for item in stored] == found
    assert all(item.stored_at and item.position for item in stored)


async def test_history_behind_a_receipt(rig: Rig):
    bus = await rig.bus()
    receipts = await bus.publish_many(events(4))
    after = [item async for item in bus.history()][1].position
    assert receipts[1].position == (after if bus.capabilities.positions else None)
    assert [item.event.payload["n"] async for item in bus.history(after=after)] == [2, 3]


@pytest.mark.parametrize(("query", "found"), [*QUERIES, ({"max_events": 1}, [0]), ({"event_ids": ["id-3"]}, [3])])
async def test_replay_hands_over_the_original_events(rig: Rig, query: dict[str, Any], found: list[int]):
    bus, seen, live = await published(rig), Seen(), Seen()
    await bus.subscribe("#", live, "live")
    assert await bus.replay(seen, ReplayConfig(speed_multiplier=0, **query)) == len(found)
    assert seen.numbers == found
    originals = {item.event.event_id: item async for item in bus.history()}
    for got, delivery in zip(seen.events, seen.deliveries, strict=True):
        assert bytes(got.body) == bytes(originals[got.event_id].event.body)
        assert (got.timestamp, got.headers) == (originals[got.event_id].event.timestamp, {})
        assert (delivery.replayed, delivery.position) == (True, originals[got.event_id].position)
    assert live.numbers == []
    assert current() is None


@pytest.mark.parametrize(("speed", "seconds"), [(1.0, [0, 10, 20, 30]), (2.0, [0, 5, 10, 15]), (0, [0, 0, 0, 0])])
async def test_replay_at_a_speed(rig: Rig, speed: float, seconds: list[float]):
    bus, seen = await published(rig), Seen()
    seen.clock = rig.clock
    began = rig.clock.monotonic()
    replaying = asyncio.create_task(bus.replay(seen, ReplayConfig(speed_multiplier=speed)))
    for _ in range(31):
        await rig.breathe()
        await rig.advance(1)
    assert await replaying == 4
    assert [at - began for at in seen.times] == pytest.approx(seconds, abs=1.1)


async def test_what_a_handler_raises_ends_the_replay(rig: Rig):
    bus, seen = await published(rig), Seen(lambda e, _a: OSError("stop") if e.payload["n"] == 1 else None)
    with pytest.raises(OSError, match="stop"):
        await bus.replay(seen, ReplayConfig(speed_multiplier=0))
    assert seen.numbers == [0, 1]
    assert current() is None


async def test_a_replay_moves_no_cursor(rig: Rig):
    bus, seen = await published(rig), Seen()
    await (await bus.subscribe("#", seen, "worker", start="first")).cancel()
    before = await unsettled(bus)
    await bus.replay(lambda event: None)
    assert (before, await unsettled(bus)) == (4 - len(seen.events),) * 2


async def test_what_is_published_in_a_replay_inherits_nothing(rig: Rig):
    bus = await published(rig)

    async def handler(event: Event) -> None:
        await bus.publish(Event(topic="again.seen", payload=event.payload))

    await bus.replay(handler, ReplayConfig(speed_multiplier=0, pattern="plan.*"))
    (again,) = [item.event async for item in bus.history("again.*")]
    assert (again.parent_event_id, again.hops, again.correlation_id) == (None, 0, again.event_id)


async def test_a_replay_inside_a_handler_leaves_its_delivery_alone(rig: Rig):
    bus = await published(rig)
    found: list[Any] = []

    async def handler(event: Event) -> None:
        await bus.replay(lambda event: None, ReplayConfig(speed_multiplier=0, max_events=2))
        found.append(current())
        await bus.publish(Event(topic="after.replay"))

    await bus.subscribe("start.replay", handler, "worker")
    first = Event(topic="start.replay")
    await bus.publish(first)
    await bus.join(5)
    (last,) = [item.event async for item in bus.history("after.*")]
    assert found[0] is not None
    assert last.parent_event_id == first.event_id


async def test_a_replay_backwards_in_time_is_refused(rig: Rig):
    bus = await rig.bus()
    with pytest.raises(InvalidEvent):
        await bus.replay(Seen(), ReplayConfig(speed_multiplier=-1))


# --- delayed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["delay", "timedelta", "at", "naive text"])
async def test_a_delayed_event_comes_when_it_is_due(rig: Rig, named: str):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    moment = datetime.fromtimestamp(rig.clock.time() + 10, UTC)
    ways: dict[str, dict[str, Any]] = {
        "delay": {"delay": 10},
        "timedelta": {"delay": timedelta(seconds=10)},
        "at": {"at": moment},
        "naive text": {"at": moment.replace(tzinfo=None).isoformat()},
    }
    receipt = await bus.publish(event(n=1), **ways[named])
    assert receipt.position is None
    await bus.publish(event(n=2))
    await eventually(seen.count(1))
    await rig.advance(9)
    assert seen.numbers == [2]
    await rig.advance(1.5)
    await eventually(seen.count(2))
    assert seen.numbers == [2, 1]


async def test_a_delayed_event_can_be_cancelled_until_it_left(rig: Rig):
    bus, other, seen = await rig.bus(), await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    one = await bus.publish(event(n=1), delay=10)
    two = await bus.publish(event(n=2), delay=10)
    assert await other.cancel(one.event_id)
    assert not await other.cancel(one.event_id)
    await rig.advance(11)
    await eventually(seen.count(1))
    assert seen.numbers == [2]
    assert not await bus.cancel(two.event_id)


@pytest.mark.parametrize(
    "wrong", [{"delay": -1}, {"delay": float("nan")}, {"delay": "soon"}, {"at": "tomorrow"}], ids=str
)
async def test_a_moment_that_is_none_is_refused(rig: Rig, wrong: dict[str, Any]):
    bus = await rig.bus()
    with pytest.raises(InvalidEvent):
        await bus.publish(event(), **wrong)
