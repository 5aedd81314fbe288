"""Subscriptions that somebody pauses: they get nothing, wherever they are served, and lose nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, events, unsettled
from wowevent import Event, SubscriptionConflict, SubscriptionNotFound

WITHIN = 5.0  # seconds for others to notice; they look once a second


async def test_what_comes_meanwhile_waits_and_comes_in_its_order(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    sub = await bus.subscribe("task.*", seen, "worker")
    await bus.pause("worker")
    assert bus.paused(sub.subscription_id)
    await bus.publish_many(events(20))
    await asyncio.sleep(0.1)
    assert seen.numbers == []
    assert await unsettled(bus) == 20
    await bus.resume("worker")
    assert not bus.paused(sub.subscription_id)
    await bus.join(10)
    assert seen.numbers == list(range(20))
    assert {delivery.attempt for delivery in seen.deliveries} == {1}


async def test_others_are_served(rig: Rig):
    bus, seen, other = await rig.bus(), Seen(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.subscribe("task.*", other, "other")
    await bus.pause("worker")
    await bus.publish_many(events(3))
    await eventually(other.count(3))
    assert seen.numbers == []


async def test_every_bus_heeds_it(rig: Rig):
    serving, asking, seen = await rig.bus(), await rig.bus(), Seen()
    sub = await serving.subscribe("task.*", seen, "worker")
    await asking.pause("worker")
    await eventually(lambda: serving.paused(sub.subscription_id), WITHIN)
    await asking.publish_many(events(3))
    await asyncio.sleep(0.1)
    assert seen.numbers == []
    await asking.resume("worker")
    await eventually(seen.count(3), WITHIN)


async def test_a_bus_that_comes_later_finds_it_paused(rig: Rig):
    first, seen = await rig.bus(), Seen()
    await (await first.subscribe("task.*", seen, "worker")).cancel()
    await first.pause("worker")
    await first.publish(event())
    later = await rig.bus(start=False)
    await later.subscribe("task.*", seen, "worker")
    await later.start()
    await asyncio.sleep(0.1)
    assert seen.numbers == []
    await later.resume("worker")
    await eventually(seen.count(1))


async def test_what_runs_is_finished_and_nothing_is_charged(rig: Rig):
    bus, began, gate, attempts = await rig.bus(), asyncio.Event(), asyncio.Event(), list[int]()

    async def work(event: Event) -> None:
        attempts.append(event.retry_count)
        began.set()
        await gate.wait()

    await bus.subscribe("task.*", work, "worker")
    await bus.publish(event())
    await began.wait()
    await bus.pause("worker")
    gate.set()
    await bus.join(10)
    info = await bus.info("worker")
    assert info is not None
    assert (attempts, info.ready, info.dead) == ([0], 0, 0)


async def test_a_name_stands_for_all_that_an_agent_has(rig: Rig):
    bus = await rig.bus()
    subs = [await bus.subscribe(pattern, Seen(), "worker") for pattern in ("task.*", "plan.*")]
    await bus.pause("worker")
    assert [bus.paused(sub.subscription_id) for sub in subs] == [True, True]
    await bus.resume(subs[0].subscription_id)
    assert [bus.paused(sub.subscription_id) for sub in subs] == [False, True]


async def test_twice_is_once(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.pause("worker")
    await bus.pause("worker")
    await bus.resume("worker")
    await bus.resume("worker")
    await bus.publish(event())
    await bus.join(10)
    assert seen.numbers == [0]


async def test_whom_nobody_knows_cannot_be_paused(rig: Rig):
    bus = await rig.bus()
    with pytest.raises(SubscriptionNotFound):
        await bus.pause("nobody")
    with pytest.raises(SubscriptionNotFound):
        await bus.resume("nobody")


async def test_a_live_one_cannot_be_paused_since_nothing_waits_for_it(rig: Rig):
    bus = await rig.bus()
    sub = await bus.subscribe("task.*", Seen())
    with pytest.raises(SubscriptionConflict):
        await bus.pause(sub.subscription_id)


async def test_what_is_removed_is_no_longer_paused(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.pause("worker")
    await bus.remove("worker")
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event())
    await bus.join(10)
    assert seen.numbers == [0]


async def test_a_paused_bus_stops_at_once(rig: Rig):
    bus = await rig.bus()
    await bus.subscribe("task.*", Seen(), "worker")
    await bus.pause("worker")
    await bus.publish(event())
    async with asyncio.timeout(5):
        await bus.stop()


async def test_join_says_that_it_waits_in_vain(rig: Rig):
    bus = await rig.bus()
    await bus.subscribe("task.*", Seen(), "worker")
    await bus.pause("worker")
    await bus.publish(event())
    with pytest.raises(TimeoutError):
        await bus.join(0.3)
