"""The bus when its engine is in trouble (rule 3): it backs off, charges nobody, and health tells the truth."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.cut import Cut, bus_on
from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, events, same, unsettled
from wowevent import BrokerUnavailable, Event, EventBus, PositionLost, Retention, RetryPolicy
from wowevent.broker import Broker


@pytest.fixture
async def cut(rig: Rig) -> Cut:
    return Cut(rig.broker())


async def test_health_tells_the_truth(rig: Rig, cut: Cut):
    name = rig.engine
    bus = EventBus(cut, clock=rig.clock)
    health = await bus.health()
    assert (health["status"], health[name], health["event_bus"]) == ("unhealthy", "connected", "not started")
    await bus.start()
    health = await bus.health()
    assert (health["status"], health[name], health["event_bus"]) == ("healthy", "connected", "running")
    assert health["details"]["promise"]
    cut.down |= {"ping"}
    health = await bus.health()
    assert (health["status"], health[name], health["event_bus"]) == ("unhealthy", "unreachable", "running")
    assert "cut" in health["details"]["error"]
    cut.down.clear()
    assert (await bus.health())["status"] == "healthy"
    await bus.stop()
    assert (await bus.health())["event_bus"] == "stopped"


async def test_health_counts_dead_letters_and_names_the_lapsed(rig: Rig):
    bus = await rig.bus(retention=Retention(unserved_after=100))
    served = Seen(lambda _e, _a: OSError("broken"))
    await bus.subscribe("task.*", served, "served", retry=RetryPolicy(max_retries=0))
    forgotten = await bus.subscribe("task.*", Seen(), "forgotten")
    await forgotten.cancel()
    await bus.publish(event())
    await bus.join(5)
    await rig.advance(101)
    await bus.publish(event())
    await rig.advance(12)
    await bus.publish(event())
    await bus.join(5)
    await eventually(bus.dead_letters.list)
    details = (await bus.health())["details"]
    assert (details["subscriptions"], details["served"]) == (2, 1)
    assert details["lapsed"] == [forgotten.subscription_id]
    assert details["dead_letters"] == 3


async def test_a_consumer_that_lost_events_says_so_and_goes_on(rig: Rig, caplog: pytest.LogCaptureFixture):
    bus, seen = await rig.bus(retention=Retention(max_age=100)), Seen()
    await (await bus.subscribe("task.*", seen, "worker")).cancel()
    await bus.publish_many(events(3))
    await rig.advance(110)
    await bus.publish(event(n=10))
    await rig.advance(12)
    await bus.publish(event(n=11))
    await rig.breathe()
    handle = await bus.subscribe("task.*", seen, "worker")
    await eventually(seen.count(2))
    assert seen.numbers == [10, 11]
    assert "subscription lost unread events" in caplog.text
    counts = (await bus.health())["details"]["here"][handle.subscription_id]
    assert same(bus, counts["lost"] or None, 3), "what the engine cannot number is said in the log alone"


async def test_a_publish_is_tried_again_until_the_engine_answers(rig: Rig, cut: Cut):
    bus, seen = await bus_on(cut, rig), Seen()
    await bus.subscribe("task.*", seen, "worker")
    cut.down.add("publish")
    publishing = asyncio.create_task(bus.publish(event(n=1)))
    await rig.advance(3)
    assert not publishing.done()
    cut.down.clear()
    await rig.advance(2)
    assert await publishing
    await eventually(seen.count(1))
    await bus.stop()


async def test_a_publish_whose_answer_was_lost_is_stored_once(rig: Rig, cut: Cut):
    bus, seen = await bus_on(cut, rig), Seen()
    await bus.subscribe("task.*", seen, "worker")
    cut.down.add("answer of publish")
    publishing = asyncio.create_task(bus.publish(event(n=1)))
    while not publishing.done():
        await rig.advance(0.1)
    assert await publishing
    await eventually(seen.count(1))
    await bus.join(5)
    assert len([item async for item in bus.history()]) == 1
    await bus.stop()


async def test_a_publish_gives_up_after_ten_seconds(rig: Rig, cut: Cut):
    bus = await bus_on(cut, rig)
    cut.down.add("publish")
    publishing = asyncio.create_task(bus.publish(event(n=1)))
    await rig.advance(12)
    (end,) = await asyncio.gather(publishing, return_exceptions=True)
    assert isinstance(end, BrokerUnavailable)
    await bus.stop()


async def test_consumers_resume_by_themselves_and_nobody_is_charged(rig: Rig, cut: Cut):
    bus, other, seen = await bus_on(cut, rig), await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event(n=0))
    await bus.join(5)
    cut.down |= {"fetch", "settle"}
    await other.publish_many([event(n=n) for n in range(1, 4)])
    await rig.advance(8)
    cut.down.clear()
    await rig.advance(8)
    await eventually(seen.count(4))
    await eventually(lambda: _settled(other))
    assert sorted(seen.numbers) == [0, 1, 2, 3]
    assert {delivery.attempt for delivery in seen.deliveries} == {1}
    await bus.stop()


async def _settled(bus: EventBus) -> bool:
    return await unsettled(bus) == 0


async def test_a_start_without_an_engine_fails_and_can_be_tried_again(rig: Rig, cut: Cut):
    bus = EventBus(cut, clock=rig.clock)
    cut.down.add("ping")
    with pytest.raises(BrokerUnavailable):
        await bus.start()
    cut.down.clear()
    await bus.start()
    assert await bus.publish(event())
    await bus.stop()


async def test_live_subscribers_go_on_behind_a_gap(rig: Rig, caplog: pytest.LogCaptureFixture):
    seen, gap = Seen(), Gap(rig.broker())
    bus = await bus_on(gap, rig)
    await bus.subscribe("task.*", seen)
    gap.down.add("ping")  # where the log ends cannot be asked at once either
    await eventually(lambda: "lost events" in caplog.text)
    await rig.advance(3)
    gap.down.clear()
    await rig.advance(6)
    await bus.publish(event(n=1))
    await eventually(seen.count(1))
    await bus.stop()


class Gap(Cut):
    """Its first follower finds that the events behind its position are gone."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.found = False

    def read(self, *args: Any, **kwargs: Any) -> Any:
        if self.found or not kwargs.get("follow"):
            return self._broker.read(*args, **kwargs)
        self.found = True
        return self._lost()

    async def _lost(self) -> Any:
        raise PositionLost("gone", 3)
        yield  # type: ignore[unreachable]  # makes it an async generator, as every read is


async def test_a_stop_ends_though_the_engine_does_not_answer(rig: Rig, cut: Cut):
    bus, gate, began = await bus_on(cut, rig), asyncio.Event(), asyncio.Event()

    async def busy(_event: Event) -> None:
        began.set()
        await gate.wait()

    await bus.subscribe("task.*", busy, "worker")
    await bus.publish(event())
    await began.wait()
    cut.down |= {"info", "settle"}
    async with asyncio.timeout(10):
        await bus.stop(timeout=1)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("wowevent")]
