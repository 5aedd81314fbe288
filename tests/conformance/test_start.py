"""Where a new subscription begins: now, first, a time, a position."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.conformance.engines import Rig
from tests.conformance.making import WORKER, declare, event, events, info, numbers, store, take, take_all
from wowevent import PositionLost
from wowevent.broker import Filter, Position

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


async def test_new_begins_now(rig: Rig):
    broker = rig.broker()
    await broker.publish([event(n=0)])
    assert (await declare(broker)).ready == 0
    await broker.publish([event(n=1)])
    assert numbers(await take_all(broker)) == [1]


async def test_first_begins_with_the_log(rig: Rig):
    broker = rig.broker()
    await broker.publish([event(n=n) for n in range(3)])
    assert (await declare(broker, start="first")).ready == 3
    await broker.publish([event(n=3)])
    assert numbers(await take_all(broker)) == [0, 1, 2, 3]


async def test_a_time_begins_with_the_events_of_then(rig: Rig):
    broker = rig.broker()
    await broker.publish([event(n=n, timestamp=NOON + timedelta(hours=n)) for n in range(4)])
    await declare(broker, start=NOON + timedelta(hours=2))
    assert numbers(await take_all(broker)) == [2, 3]


async def test_a_position_begins_behind_it(rig: Rig):
    broker = rig.broker()
    positions = await store(broker, events(4))
    await declare(broker, start=positions[1])
    assert numbers(await take_all(broker)) == [2, 3]


async def test_a_position_of_another_log_is_refused(rig: Rig):
    broker = rig.broker()
    await broker.publish([event()])
    with pytest.raises(PositionLost):
        await declare(broker, start=Position("elsewhere", 1))
    assert await broker.info(WORKER) is None


async def test_the_past_is_matched_filtered_and_laned_like_the_present(rig: Rig):
    broker = rig.broker()
    await broker.publish(
        [
            event(n=0),
            event("plan.created", n=1),
            event(n=2, target_agent="somebody"),
            event(n=3, source_agent="stranger"),
            event(n=4, priority=9),
        ]
    )
    wish = Filter(sources=frozenset({"tester"}))
    await declare(broker, patterns=("task.*",), start="first", filter=wish)
    assert numbers(await take_all(broker)) == [4, 0]


async def test_a_keyed_subscription_reads_the_past_by_its_keys(rig: Rig):
    broker = rig.broker()
    await broker.publish([event(n=0, priority=9), event(n=1, priority=5)])
    await declare(broker, patterns=("task.created.critical",), keyed=True, start="first")
    assert numbers(await take_all(broker)) == [0]


async def test_start_means_nothing_for_one_that_exists(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event(n=0), event(n=1)])
    await take_all(broker)
    await declare(broker, start="first")
    assert not await take(broker)


async def test_replies_and_the_buss_own_events_are_not_part_of_the_past(rig: Rig):
    broker = rig.broker()
    await broker.publish([event("_bus.note"), event("_reply.x"), event(n=1)])
    await declare(broker, start="first")
    assert numbers(await take_all(broker)) == [1]


async def test_a_large_past_comes_whole(rig: Rig):
    broker = rig.broker()
    for start in range(0, 5000, 1000):
        await broker.publish([event(n=n) for n in range(start, start + 1000)])
    assert (await declare(broker, start="first")).ready == 5000
    assert numbers(await take_all(broker, limit=999)) == list(range(5000))
    assert (await info(broker)).ready == 0
