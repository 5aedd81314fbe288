"""The store of events that stands alone, and the replayer over it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.making import Seen, event, events
from wowevent import (
    Event,
    EventBus,
    EventReplayer,
    EventStore,
    InvalidEvent,
    InvalidTopic,
    Position,
    PositionLost,
    ReplayConfig,
    ReplayControl,
    Stored,
)
from wowevent.testing import ManualClock, TestBus

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
TOPICS = ["task.created", "task.started", "task.done", "plan.created"]


def store_of_four(**settings: Any) -> EventStore:
    store = EventStore(**settings)
    for n, topic in enumerate(TOPICS):
        store.store(
            event(topic, n, event_id=f"id-{n}", correlation_id=f"c-{n % 2}", timestamp=NOON + timedelta(seconds=10 * n))
        )
    return store


async def numbers(found: AsyncIterator[Stored]) -> list[int]:
    return [stored.event.payload["n"] async for stored in found]


QUERIES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [0, 1, 2, 3]),
    ({"pattern": "task.*"}, [0, 1, 2]),
    ({"pattern": ["plan.*", "task.done"]}, [2, 3]),
    ({"start_time": "2030-01-01T12:00:10"}, [1, 2, 3]),
    ({"start_time": NOON + timedelta(seconds=10), "end_time": datetime(2030, 1, 1, 12, 0, 20)}, [1, 2]),  # noqa: DTZ001
    ({"start_time": "2030-01-01T14:00:10+02:00", "end_time": "2030-01-01T12:00:20Z"}, [1, 2]),
    ({"correlation_id": "c-1"}, [1, 3]),
    ({"correlation_id": "c-1", "pattern": "plan.*"}, [3]),
    ({"correlation_id": "c-9"}, []),
]


@pytest.mark.parametrize(("query", "found"), [*QUERIES, ({"limit": 2}, [0, 1]), ({"limit": 0}, [])])
async def test_events_are_found(query: dict[str, Any], found: list[int]):
    store = store_of_four()
    assert [each.payload["n"] for each in store.get_events(**query)] == found
    assert await numbers(store.history(**query)) == found


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"start_time": "yesterday"}, InvalidEvent),
        ({"end_time": 5}, InvalidEvent),
        ({"limit": -1}, InvalidEvent),
        ({"pattern": "task*"}, InvalidTopic),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused(query: dict[str, Any], error: type[Exception]):
    store = store_of_four()
    with pytest.raises(error):
        store.get_events(**query)
    with pytest.raises(error):
        store.history(**query)


def test_the_newest_are_kept_and_the_index_is_bounded_with_them():
    store = EventStore(max_size=100)
    for n in range(10_000):
        store.store(event(n=n, correlation_id=f"c-{n // 3}"))
    assert len(store) == 100
    assert [each.payload["n"] for each in store.get_events()] == list(range(9900, 10_000))
    assert [each.payload["n"] for each in store.get_events(correlation_id="c-3300")] == [9900, 9901, 9902]
    assert store.get_events(correlation_id="c-3299") == []
    related = store._related  # noqa: SLF001 - what it holds cannot be seen from outside
    assert len(related) == 34
    assert sum(map(len, related.values())) == 100


def test_ten_thousand_are_kept_unless_told_otherwise():
    store = EventStore()
    for each in events(10_001):
        store.store(each)
    assert len(store) == 10_000
    assert store.get_events()[0].payload["n"] == 1


def test_clear_forgets_all():
    store = store_of_four()
    store.clear()
    assert (len(store), store.get_events(), store.get_events(correlation_id="c-1")) == (0, [], [])
    store.store(event(n=7))
    assert [each.payload["n"] for each in store.get_events()] == [7]


def test_what_is_no_event_is_refused():
    store = EventStore()
    for wrong in (None, {"topic": "a"}, "a"):
        with pytest.raises(InvalidEvent):
            store.store(wrong)  # type: ignore[arg-type]
    assert len(store) == 0
    with pytest.raises(ValueError, match="max_size"):
        EventStore(max_size=0)


async def test_the_history_has_positions_and_goes_on_behind_one():
    store = store_of_four(clock=ManualClock(1000.0))
    found = [stored async for stored in store.history()]
    assert [stored.position.offset for stored in found] == [1, 2, 3, 4]
    assert {stored.stored_at for stored in found} == {1000.0}
    assert await numbers(store.history(after=found[1].position)) == [2, 3]
    assert await numbers(store.history(correlation_id="c-1", after=found[1].position)) == [3]
    assert await numbers(store.history(after=found[3].position)) == []


async def test_a_position_whose_events_are_gone_is_told():
    store = EventStore(max_size=2)
    for each in events(2):
        store.store(each)
    (first, _) = [stored async for stored in store.history()]
    store.store(event(n=2))
    assert await numbers(store.history(after=first.position)) == [1, 2]
    store.store(event(n=3))
    with pytest.raises(PositionLost, match="1 events") as raised:
        await numbers(store.history(after=first.position))
    assert raised.value.lost == 1
    for foreign in (Position("other", 1), Position(first.position.epoch, 99)):
        with pytest.raises(PositionLost):
            await numbers(store.history(after=foreign))


async def test_what_is_stored_while_it_is_read_disturbs_nobody():
    store = store_of_four()
    found = []
    async for stored in store.history():
        found.append(stored.event.payload["n"])
        store.store(event(n=100))
    assert found == [0, 1, 2, 3]


def test_threads_may_store_while_others_read():
    store = EventStore(max_size=500)

    def write() -> None:
        for each in events(2000, correlation_id="c"):
            store.store(each)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(store.get_events(correlation_id="c")) <= 500
    for thread in threads:
        thread.join()
    assert len(store) == len(store.get_events(correlation_id="c")) == 500


async def test_it_can_be_the_handler_of_a_subscription():
    async with TestBus() as bus:
        store = EventStore()
        await bus.subscribe("task.*", store.store, "archive")
        await bus.publish_many([*events(3), event("plan.made", 9)])
        await bus.join(5)
        assert [each.payload["n"] for each in store.get_events()] == [0, 1, 2]


# --- replayed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"), [*QUERIES, ({"max_events": 2}, [0, 1]), ({"event_ids": ["id-3", "id-0", "x"]}, [0, 3])]
)
async def test_a_range_is_replayed(query: dict[str, Any], found: list[int]):
    seen = Seen()
    store = store_of_four()
    assert await EventReplayer(store).replay(seen, ReplayConfig(speed_multiplier=0, **query)) == len(found)
    assert seen.numbers == found
    assert all(delivery.replayed for delivery in seen.deliveries)
    assert [each.event_id for each in seen.events] == [f"id-{n}" for n in found]


async def test_without_a_configuration_all_of_it_at_once():
    sync: list[Event] = []
    assert await EventReplayer(store_of_four()).replay(sync.append) == 4
    assert [each.payload["n"] for each in sync] == [0, 1, 2, 3]


@pytest.mark.parametrize(("speed", "at"), [(1.0, [0, 10, 20, 30]), (2.0, [0, 5, 10, 15]), (0, [0, 0, 0, 0])])
async def test_at_a_speed(speed: float, at: list[float]):
    clock, seen = ManualClock(), Seen()
    seen.clock = clock
    replayer = EventReplayer(store_of_four(), clock=clock)
    task = asyncio.create_task(replayer.replay(seen, ReplayConfig(speed_multiplier=speed)))
    await clock.advance(60)
    assert await task == 4
    assert seen.times == pytest.approx(at)


async def test_it_is_paused_and_cancelled():
    clock, seen, control = ManualClock(), Seen(), ReplayControl()
    replayer = EventReplayer(store_of_four(), clock=clock)
    task = asyncio.create_task(replayer.replay(seen, ReplayConfig(speed_multiplier=1), control=control))
    await clock.advance(11)
    control.pause()
    await clock.advance(1000)
    assert (control.state, seen.numbers) == ("paused", [0, 1])
    control.resume()
    await clock.advance(10)
    assert seen.numbers == [0, 1, 2]
    control.cancel()
    assert await task == 3


async def test_what_a_handler_raises_ends_it():
    seen = Seen(lambda e, _a: OSError("stop") if e.payload["n"] == 1 else None)
    with pytest.raises(OSError, match="stop"):
        await EventReplayer(store_of_four()).replay(seen)
    assert seen.numbers == [0, 1]


@pytest.mark.parametrize("since", ["2030-01-01T12:00:20", NOON + timedelta(seconds=20)], ids=["text", "time"])
async def test_an_agent_that_was_away_catches_up_from_a_time(since: Any):
    seen = Seen()
    replayer = EventReplayer(store_of_four())
    assert await replayer.catch_up(seen, since) == 2
    assert seen.numbers == [2, 3]
    assert await replayer.catch_up(seen, since, "task.*") == 1


async def test_an_agent_goes_on_where_it_failed():
    store, control = store_of_four(), ReplayControl()
    replayer = EventReplayer(store)
    failing = Seen(lambda e, _a: OSError("stop") if e.payload["n"] == 2 else None)
    with pytest.raises(OSError, match="stop"):
        await replayer.catch_up(failing, NOON, control=control)
    assert control.position is not None
    seen = Seen()
    assert await replayer.catch_up(seen, control.position) == 2
    assert seen.numbers == [2, 3]


async def test_it_takes_a_store_or_a_bus():
    async with EventBus("memory://") as bus:
        await bus.publish_many(events(2))
        assert await EventReplayer(bus).replay(Seen()) == 2
    with pytest.raises(TypeError, match="EventStore"):
        EventReplayer([])  # type: ignore[arg-type]
