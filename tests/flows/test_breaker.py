"""A subscription whose handler fails for a while: it is slowed, paused, probed, and recovers; nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.engines import Rig, eventually, url_of
from tests.conformance.making import Seen, events
from wowevent import BreakerPolicy, Event, EventBus, RetryPolicy, Subscription
from wowevent.testing import TestBus

ENDLESS = RetryPolicy(max_retries=1000, initial=0.01, multiplier=1, maximum=0.01)


class Flaky:
    """A handler that fails some of its events while `broken`."""

    def __init__(self, every: int) -> None:
        self.broken = True
        self.calls = 0
        self.done: set[int] = set()
        self._every = every

    async def __call__(self, event: Event) -> None:
        self.calls += 1
        if self.broken and self.calls % self._every == 0:
            raise ConnectionError("the model does not answer")
        self.done.add(event.payload["n"])


class Course:
    """The states that a subscription went through."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.states: list[str] = []

    def look(self) -> str:
        state = self._subscription.state
        if not self.states or self.states[-1] != state:
            self.states.append(state)
        return state


async def test_with_a_clock_that_is_moved():
    async with TestBus() as bus:
        handler = Flaky(every=3)

        async def work(event: Event) -> None:
            await bus.clock.sleep(0.05)  # so that each state can be seen
            await handler(event)

        subscription = await bus.subscribe("task.*", work, "worker", retry=ENDLESS)
        course, sent = Course(subscription), 0
        course.look()
        while course.look() != "paused":
            assert sent < 2_000
            await bus.publish_many(events(10))
            sent += 10
            for _ in range(10):
                await bus.advance(0.1)
                course.look()
        calls = handler.calls
        await bus.advance(1)
        assert handler.calls == calls  # nothing comes through
        handler.broken = False
        for _ in range(2_000):
            await bus.advance(0.05)
            course.look()
        assert course.states[:4] == ["healthy", "slowed", "paused", "probing"]
        assert course.states[-1] == "healthy"
        assert handler.done == set(range(10))
        assert await bus.dead_letters.list() == []


async def test_who_never_recovers_is_probed_less_and_less_often():
    async with TestBus() as bus:
        handler = Flaky(every=1)
        await bus.subscribe("task.*", handler, "worker", retry=ENDLESS)
        await bus.publish_many(events(100))
        await bus.advance(60)
        before = handler.calls
        await bus.advance(600)
        assert 5 <= handler.calls - before <= 15  # one a minute


@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis"])
async def test_in_real_time(engine: str, tmp_path):
    policy = BreakerPolicy(window=2, minimum=10, patience=0.3, pause=0.3, longest=1, probes=3)
    async with EventBus(url_of(engine, tmp_path)) as bus:
        handler = Flaky(every=2)
        subscription = await bus.subscribe("task.*", handler, "worker", retry=ENDLESS, breaker=policy)
        course = Course(subscription)
        course.look()
        await bus.publish_many(events(200))
        await eventually(lambda: course.look() == "paused", 20)
        handler.broken = False
        await eventually(lambda: course.look() == "healthy" and len(course.states) > 3, 20)
        await bus.join(20)
        assert course.states[0] == "healthy"
        assert {"slowed", "paused"} <= set(course.states)
        assert handler.done == set(range(200))
        assert await bus.dead_letters.list() == []


async def test_others_go_on(rig: Rig):
    bus, seen, handler = await rig.bus(), Seen(), Flaky(every=1)
    failing = await bus.subscribe("task.*", handler, "failing", retry=ENDLESS)
    await bus.subscribe("task.*", seen, "well")
    await bus.publish_many(events(100))
    await eventually(seen.count(100))
    await eventually(lambda: failing.state in {"slowed", "paused"})
    assert handler.calls < 60


async def test_it_can_be_switched_off(rig: Rig):
    bus, handler = await rig.bus(), Flaky(every=1)
    subscription = await bus.subscribe("task.*", handler, "worker", retry=RetryPolicy(max_retries=0), breaker=False)
    await bus.publish_many(events(100))
    await bus.join(10)
    assert (handler.calls, subscription.state) == (100, "healthy")
    assert len(await bus.dead_letters.list(limit=200)) == 100


async def test_a_bus_stops_while_one_is_paused():
    async with TestBus() as bus:
        subscription = await bus.subscribe("task.*", Flaky(every=1), "worker", retry=ENDLESS)
        await bus.publish_many(events(100))
        await bus.advance(30)
        assert subscription.state == "paused"
        async with asyncio.timeout(5):
            await bus.stop()
