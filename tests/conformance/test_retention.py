"""Limits of the log: never a silent gap (rule 5), the soft limit spares what is unread, the unserved lapse."""

from __future__ import annotations

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import (
    WORKER,
    declare,
    event,
    events,
    info,
    numbers,
    read,
    same,
    store,
    take,
    take_all,
)
from wowevent import Event, PositionLost
from wowevent.broker import Ack, Broker, Retention


async def let_it_trim(rig: Rig, broker: Broker, n: int = 99) -> None:
    """Whatever moment an engine trims at: a publish, and some seconds after it."""
    await broker.publish([event(n=n)])
    await rig.advance(12)
    await broker.publish([event(n=n + 1)])
    await rig.advance(12)


async def test_the_age_limit_is_hard_and_told_once(rig: Rig):
    broker = rig.broker(retention=Retention(max_age=100))
    await declare(broker)
    await broker.publish(events(3))
    await rig.advance(105)
    await let_it_trim(rig, broker)
    assert same(broker, (await info(broker)).lost, 3)
    with pytest.raises(PositionLost) as caught:
        await take(broker)
    assert same(broker, caught.value.lost, 3)
    assert numbers(await take_all(broker)) == [99, 100]
    assert same(broker, (await info(broker)).lost, 0)


async def test_the_byte_limit_is_hard_and_told_once(rig: Rig):
    broker = rig.broker(retention=Retention(max_bytes=200_000))
    await declare(broker)
    for n in range(10):
        await broker.publish([Event(topic="task.created", payload={"n": n, "text": "x" * 50_000})])
    await let_it_trim(rig, broker)
    if not broker.capabilities.bounds_unread:
        assert numbers(await take_all(broker)) == [*range(10), 99, 100]
        return
    with pytest.raises(PositionLost) as caught:
        await take(broker)
    rest = numbers(await take_all(broker))
    assert rest == [*range(10 - len(rest) + 2, 10), 99, 100]
    assert caught.value.lost == 12 - len(rest)
    assert 3 <= len(rest) <= 6


async def test_what_is_in_a_handlers_hands_is_not_lost(rig: Rig):
    broker = rig.broker(retention=Retention(max_age=100))
    await declare(broker, lease=1000)
    await broker.publish(events(1))
    (lease,) = await take(broker)
    await rig.advance(105)
    await let_it_trim(rig, broker)
    assert await broker.settle(WORKER, [Ack(lease.token)]) == 1
    assert same(broker, (await info(broker)).lost, 0)


async def test_a_reader_is_told_of_the_gap(rig: Rig):
    broker = rig.broker(retention=Retention(max_age=100))
    positions = await store(broker, events(5))
    await rig.advance(105)
    await let_it_trim(rig, broker)
    assert numbers(await read(broker)) == [99, 100]
    with pytest.raises(PositionLost) as caught:
        await read(broker, after=positions[1])
    assert same(broker, caught.value.lost, 3)
    assert numbers(await read(broker, after=positions[4])) == [99, 100]


async def test_positions_are_never_used_again(rig: Rig):
    broker = rig.broker(retention=Retention(max_age=100))
    before = await store(broker, events(5))
    await rig.advance(1000)
    await let_it_trim(rig, broker)
    await broker.close()
    (after,) = await store(rig.broker(), [event()])
    assert after.epoch == before[-1].epoch
    assert after.offset > before[-1].offset


async def test_the_count_limit_drops_nothing_that_is_unread(rig: Rig):
    broker = rig.broker(retention=Retention(max_count=100))
    await declare(broker)
    for start in range(0, 1000, 50):
        await broker.publish([event(n=n) for n in range(start, start + 50)])
        await rig.advance(2)
    assert numbers(await take_all(broker)) == list(range(1000))


async def test_the_count_limit_bounds_what_everyone_has_left_behind(rig: Rig):
    broker = rig.broker(retention=Retention(max_count=100))
    await declare(broker)
    for start in range(0, 1000, 50):
        await broker.publish([event(n=n) for n in range(start, start + 50)])
        await take_all(broker)
        await rig.advance(12)
    if broker.capabilities.bounds_unread:  # else on a grain of the engine's own
        await eventually(lambda: _at_most(broker, 250))
    assert numbers(await read(broker))[-1] == 999


async def _at_most(broker: Broker, count: int) -> bool:
    return len(await read(broker)) <= count


# --- unserved -----------------------------------------------------------------------------------------------------


async def test_a_subscription_that_nobody_serves_lapses_and_is_told(rig: Rig):
    broker = rig.broker(retention=Retention(unserved_after=1000))
    await declare(broker)
    await broker.publish(events(3))
    await rig.advance(990)
    assert not (await info(broker)).lapsed
    await rig.advance(30)
    await let_it_trim(rig, broker)
    found = await info(broker)
    assert (found.lapsed, found.ready) == (True, 0)
    with pytest.raises(PositionLost) as caught:
        await take(broker)
    assert same(broker, caught.value.lost, 5)
    await broker.publish([event(n=7)])
    assert numbers(await take_all(broker)) == [7]
    assert not (await info(broker)).lapsed


async def test_a_subscription_that_is_served_never_lapses(rig: Rig):
    broker = rig.broker(retention=Retention(unserved_after=100))
    await declare(broker)
    await broker.fetch(WORKER, limit=0, wait=0)
    await broker.publish(events(3))
    for _ in range(4):
        await rig.advance(60)
        await broker.fetch(WORKER, limit=0, wait=0)
    await let_it_trim(rig, broker)
    assert not (await info(broker)).lapsed
    assert numbers(await take_all(broker)) == [0, 1, 2, 99, 100]


async def test_only_the_one_that_nobody_serves_gives_way(rig: Rig):
    broker = rig.broker(retention=Retention(unserved_after=1000))
    await declare(broker, "served")
    await declare(broker, "forgotten")
    await broker.publish(events(3))
    for _ in range(6):
        await rig.advance(200)
        await broker.fetch("served", limit=0, wait=0)
    await let_it_trim(rig, broker)
    assert numbers(await take_all(broker, "served")) == [0, 1, 2, 99, 100]
    with pytest.raises(PositionLost):
        await take(broker, "forgotten")
