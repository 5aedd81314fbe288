"""Delayed retries and delayed publishes: they hold up nothing, and survive what the log survives (rule 6)."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import (
    WORKER,
    declare,
    event,
    events,
    has,
    info,
    later,
    numbers,
    read,
    same,
    take,
    take_all,
    take_one,
)
from wowevent.broker import Retry

# --- retries ------------------------------------------------------------------------------------------------------


async def test_a_delayed_retry_comes_when_it_is_due_and_holds_up_nothing(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(3))
    await broker.settle(WORKER, [Retry((await take_one(broker)).token, 10, "failed")])
    assert same(broker, (await info(broker)).delayed, 1)
    assert numbers(await take_all(broker)) == [1, 2]
    await rig.advance(9.9)
    assert not await take(broker)
    await rig.advance(0.2)
    assert (await take_one(broker)).failures == 1


async def test_a_waiting_fetch_gets_a_retry_when_it_is_due(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    await broker.settle(WORKER, [Retry((await take_one(broker)).token, 10, "failed")])
    fetch = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=60))
    await rig.advance(9)
    assert not fetch.done()
    await rig.advance(2)
    assert numbers(await fetch) == [0]


async def test_a_delayed_retry_survives_a_reopening(rig: Rig):
    before = rig.broker()
    await declare(before)
    await before.publish([event()])
    await before.settle(WORKER, [Retry((await take_one(before)).token, 60, "failed")])
    await before.close()
    after = rig.broker()
    assert not await take(after)
    await rig.advance(61)
    assert (await take_one(after)).failures == 1


# --- publishes ----------------------------------------------------------------------------------------------------


async def test_a_delayed_event_is_outside_the_log_until_it_is_due(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    (answer,) = await broker.publish([later(rig, 10, n=1)])
    assert (answer.position, answer.duplicate) == (None, False)
    await broker.publish([event(n=2)])
    await rig.advance(9)
    assert numbers(await read(broker)) == numbers(await take_all(broker)) == [2]
    await rig.advance(2)
    other = rig.broker()
    await eventually(lambda: info_ready(other))
    assert numbers(await read(broker)) == [2, 1]
    assert numbers(await take_all(broker)) == [1]


async def info_ready(broker: Any) -> int:
    return (await info(broker)).ready


async def test_delayed_events_leave_in_the_order_of_their_moments(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one)
    await one.publish([later(rig, 30, n=3), later(rig, 20, n=2)])
    await two.publish([later(rig, 10, n=1)])
    await rig.advance(31)
    await eventually(lambda: is_ready(one, 3))
    assert numbers(await take_all(one)) == [1, 2, 3]


async def is_ready(broker: Any, count: int) -> bool:
    return (await info(broker)).ready == count


async def test_a_waiting_fetch_and_a_follower_get_a_delayed_event_when_it_is_due(rig: Rig):
    publisher, consumer = rig.broker(), rig.broker()
    await declare(consumer)
    fetch = asyncio.create_task(consumer.fetch(WORKER, limit=1, wait=60))
    await publisher.publish([later(rig, 10)])
    await rig.advance(11)
    async with asyncio.timeout(5):
        assert numbers(await fetch) == [0]


async def test_a_moment_that_has_passed_is_now(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    (answer,) = await broker.publish([later(rig, -10)])
    assert answer.position is not None or not broker.capabilities.positions
    assert numbers(await read(broker)) == numbers(await take_all(broker)) == [0]


async def test_one_that_is_held_is_stored_once_whoever_publishes_it_again_and_when(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one)
    sent = later(rig, 10)
    await one.publish([sent])
    (ahead,) = await two.publish([sent])
    await rig.advance(11)
    (behind,) = await two.publish([sent])
    assert (ahead.duplicate, behind.duplicate) == (True, True)
    await eventually(lambda: is_ready(one, 1))
    await rig.breathe()
    assert numbers(await take_all(one)) == numbers(await read(one)) == [0]


async def test_a_delayed_event_survives_that_everyone_is_gone_when_it_is_due(rig: Rig):
    before = rig.broker()
    await declare(before)
    await before.publish([later(rig, 10)])
    await before.close()
    await rig.advance(60)
    after = rig.broker()
    fetch = asyncio.create_task(after.fetch(WORKER, limit=1, wait=5))
    await rig.advance(0.1)
    async with asyncio.timeout(5):
        assert numbers(await fetch) == [0]


async def test_a_cancelled_event_never_leaves(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one)
    sent, kept = later(rig, 10, n=1), later(rig, 10, n=2)
    await one.publish([sent, kept])
    assert await two.cancel(sent.event_id)
    assert not await one.cancel(sent.event_id)
    await rig.advance(11)
    await eventually(lambda: is_ready(one, 1))
    assert numbers(await take_all(one)) == [2]


async def test_what_has_left_cannot_be_cancelled(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    sent, now = later(rig, 10), event(n=1)
    await broker.publish([sent, now])
    await rig.advance(11)
    await eventually(lambda: is_ready(broker, 2))
    assert not await broker.cancel(sent.event_id)
    assert not await broker.cancel(now.event_id)
    assert not await broker.cancel("unknown")


async def test_what_two_instances_delayed_leaves_once(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await asyncio.gather(one.ping(), two.ping())
    await declare(one)
    same = [later(rig, 10, n, event_id=f"same-{n}") for n in range(20)]
    results = await asyncio.gather(one.publish(same), two.publish(same))
    first, second = ([each.duplicate for each in result] for result in results)
    assert [a + b for a, b in zip(first, second, strict=True)] == [1] * 20
    await rig.advance(11)
    await eventually(lambda: has(one, 20))
    await rig.advance(5)
    assert sorted(numbers(await read(two))) == list(range(20))
    assert sorted(numbers(await take_all(two))) == list(range(20))
