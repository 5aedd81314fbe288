"""Reading the log: what history finds, what a follower sees, the live path of replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.engines import Rig
from tests.conformance.making import beyond, declare, event, events, numbers, read, store, take_all
from wowevent import PositionLost
from wowevent.broker import Position, Query, Stored

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


async def next_of(log: AsyncIterator[Stored], count: int = 1) -> list[int]:
    async with asyncio.timeout(5):
        return numbers([await anext(log) for _ in range(count)])


QUERIES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [0, 1, 2, 3]),
    ({"patterns": ("task.*",)}, [0, 1]),
    ({"patterns": ("task.created", "plan.#")}, [0, 2]),
    ({"start_time": NOON + timedelta(seconds=1)}, [1, 2, 3]),
    ({"end_time": NOON + timedelta(seconds=1)}, [0, 1]),
    ({"start_time": NOON + timedelta(seconds=1), "end_time": NOON + timedelta(seconds=2)}, [1, 2]),
    ({"correlation_id": "c-1"}, [1, 3]),
    ({"conversation": "c-1"}, [1, 3]),
    ({"conversation": "id-2"}, [2]),
    ({"conversation": "id"}, []),
    ({"conversation": "c-0", "patterns": ("task.*",), "limit": 1}, [0]),
    ({"event_ids": ("id-0", "id-3", "id-9")}, [0, 3]),
    ({"event_ids": ()}, []),
    ({"limit": 2}, [0, 1]),
    ({"limit": 0}, []),
    ({"patterns": ("*.*",), "correlation_id": "c-1", "limit": 1}, [1]),
    ({"patterns": ("_bus.*",)}, [4]),
]


@pytest.mark.parametrize(("query", "found"), QUERIES)
async def test_history_finds_what_is_asked_for(rig: Rig, query: dict[str, Any], found: list[int]):
    broker = rig.broker()
    topics = ["task.created", "task.done", "plan.created", "agent.started", "_bus.note"]
    await broker.publish(
        [
            event(t, n, event_id=f"id-{n}", correlation_id=f"c-{n % 2}", timestamp=NOON + timedelta(seconds=n))
            for n, t in enumerate(topics)
        ]
    )
    assert numbers(await read(broker, **query)) == found


async def test_history_since_a_moment_begins_there_and_leaves_out_nothing_behind_it(rig: Rig):
    broker = rig.broker()
    moments = []
    for start in range(0, 900, 300):
        moments.append(rig.clock.time())
        await broker.publish([event(n=n, correlation_id=f"c-{n % 2}") for n in range(start, start + 300)])
        await rig.advance(100)
    for moment, first in zip([*moments, moments[0] - 1000, moments[1] + 50], (0, 300, 600, 0, 600), strict=True):
        found = numbers(await read(broker, since=moment - 1))
        assert found[first - 900 :] == list(range(first, 900))
        assert len(found) <= 900 - max(0, first - 300)  # some of what lies before may come, and not all
    odd = numbers(await read(broker, since=moments[2] - 1, conversation="c-1"))
    assert odd[-150:] == list(range(601, 900, 2))


@pytest.mark.parametrize("count", [0, 1])
async def test_history_since_a_moment_of_a_log_that_has_little(rig: Rig, count: int):
    broker = rig.broker()
    await broker.publish(events(count))
    for moment in (0.0, rig.clock.time() - 1):
        assert len(await read(broker, since=moment)) == count
    await read(broker, since=rig.clock.time() + 10**6)


async def test_history_behind_a_position(rig: Rig):
    broker = rig.broker()
    positions = await store(broker, events(5))
    assert numbers(await read(broker, after=positions[2])) == [3, 4]
    assert numbers(await read(broker, after=positions[4])) == []


async def test_history_up_to_a_position(rig: Rig):
    broker = rig.broker()
    places = await store(broker, [event("task.created" if n % 2 else "plan.created", n) for n in range(6)])
    epoch, last = places[-1].epoch, places[-1].offset
    assert numbers(await read(broker, upto=places[3])) == [0, 1, 2, 3]
    assert numbers(await read(broker, upto=places[4], after=places[1], patterns=("task.*",))) == [3]
    assert numbers(await read(broker, upto=places[3], limit=2)) == [0, 1]
    assert numbers(await read(broker, upto=Position(epoch, last + 1000))) == [0, 1, 2, 3, 4, 5]
    for upto, after in ((Position(epoch, 0), None), (places[1], places[1]), (places[1], places[3])):
        assert numbers(await read(broker, upto=upto, after=after)) == []


async def test_a_long_history_comes_whole_and_in_order(rig: Rig):
    broker = rig.broker()
    for start in range(0, 3000, 500):
        await broker.publish([event(n=n) for n in range(start, start + 500)])
    found = await read(broker)
    assert numbers(found) == list(range(3000))
    assert [s.position.offset for s in found] == list(range(1, 3001))
    assert [s.stored_at for s in found] == sorted(s.stored_at for s in found)


async def test_stored_at_never_decreases_even_if_the_clock_is_set_back(rig: Rig):
    broker = rig.broker()
    await broker.publish([event(n=0)])
    rig.clock.jump(-3600)
    await broker.publish([event(n=1)])
    first, second = await read(broker)
    assert first.stored_at <= second.stored_at


async def test_reading_moves_no_cursor(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(3))
    await read(broker)
    assert numbers(await take_all(broker)) == [0, 1, 2]
    assert numbers(await read(broker)) == [0, 1, 2]


async def test_a_reader_may_stop_early_and_another_start(rig: Rig):
    broker = rig.broker()
    await broker.publish(events(600))
    log: Any = broker.read(Query())
    assert await next_of(log, 2) == [0, 1]
    await log.aclose()
    assert len(await read(broker)) == 600


@pytest.mark.parametrize("position", [Position("elsewhere", 1), Position("elsewhere", 0)])
async def test_the_position_of_another_log_is_lost(rig: Rig, position: Position):
    broker = rig.broker()
    await broker.publish(events(3))
    with pytest.raises(PositionLost):
        await read(broker, after=position)


async def test_a_position_that_was_never_reached_is_lost(rig: Rig):
    broker = rig.broker()
    (position,) = await store(broker, [event()])
    with pytest.raises(PositionLost):
        await read(broker, after=Position(position.epoch, position.offset + beyond(broker)))


async def test_a_recreated_log_has_another_epoch(rig: Rig):
    first, second = rig.broker(), rig.another_log().broker()
    (a,), (b,) = await store(first, [event()]), await store(second, [event()])
    assert a.epoch != b.epoch
    with pytest.raises(PositionLost):
        await read(second, after=a)


async def test_the_head_is_where_the_log_ends_now(rig: Rig):
    broker = rig.broker()
    before = (await broker.ping()).head
    positions = await store(broker, events(3))
    head = (await broker.ping()).head
    assert not before.covers(positions[0])
    assert head.covers(positions[-1])
    if broker.capabilities.positions:
        assert (before.offset, head) == (0, positions[-1])
    assert numbers(await read(broker, after=before)) == [0, 1, 2]
    assert numbers(await read(broker, after=head)) == []
    assert (await broker.ping()).latency >= 0


# --- following ----------------------------------------------------------------------------------------------------


async def test_a_follower_gets_what_is_there_and_what_comes(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await one.publish([event(n=0)])
    log: Any = one.read(Query(), follow=True)
    assert await next_of(log) == [0]
    waiting = asyncio.create_task(next_of(log, 2))
    await one.publish([event(n=1)])
    await two.publish([event(n=2)])
    assert await waiting == [1, 2]
    await log.aclose()


async def test_a_follower_may_begin_at_the_end(rig: Rig):
    broker = rig.broker()
    await broker.publish([event(n=0)])
    log: Any = broker.read(Query(patterns=("task.*",)), after=(await broker.ping()).head, follow=True)
    waiting = asyncio.create_task(next_of(log))
    await rig.breathe()
    await broker.publish([event("plan.created", 1), event(n=2)])
    assert await waiting == [2]
    await log.aclose()


async def test_a_follower_stops_at_its_limit(rig: Rig):
    broker = rig.broker()
    await broker.publish(events(3))
    async with asyncio.timeout(5):
        assert numbers([s async for s in broker.read(Query(limit=2), follow=True)]) == [0, 1]


async def test_ten_followers_each_see_everything(rig: Rig):
    brokers = [rig.broker() for _ in range(3)]
    head = (await brokers[0].ping()).head
    logs: list[Any] = [brokers[n % 3].read(Query(), after=head, follow=True) for n in range(10)]
    readers = [asyncio.create_task(next_of(log, 300)) for log in logs]
    await rig.breathe()
    for start in range(0, 300, 50):
        await brokers[start % 3].publish([event(n=n) for n in range(start, start + 50)])
    assert await asyncio.gather(*readers) == [list(range(300))] * 10
    for log in logs:
        await log.aclose()


# --- the live path ------------------------------------------------------------------------------------------------


async def test_replies_go_to_followers_and_never_into_the_history(rig: Rig):
    asker, answerer = rig.broker(), rig.broker()
    await asker.publish([event(n=0)])
    head = (await asker.ping()).head
    log: Any = asker.read(Query(patterns=("_reply.me",)), after=head, follow=True)
    waiting = asyncio.create_task(next_of(log))
    await rig.breathe()
    await answerer.publish([event("_reply.you", 1), event("_reply.me", 2)])
    assert await waiting == [2]
    await log.aclose()
    assert numbers(await read(asker)) == [0]
    assert numbers(await read(asker, patterns=("_reply.#",))) == []
    if asker.capabilities.positions:
        assert (await asker.ping()).head == head
    assert numbers(await read(asker, after=head)) == []
