"""TestBus: what users test their agents with; its clock moves when the test says so."""

from __future__ import annotations

import asyncio
import time

import pytest

from wowevent import Event, FailureReason, RetryPolicy
from wowevent.testing import TestBus


async def test_many_minutes_of_retries_takes_no_time():
    attempts: list[float] = []
    began = time.monotonic()
    async with TestBus() as bus:
        start = bus.clock.monotonic()

        async def failing(event: Event) -> None:
            attempts.append(bus.clock.monotonic() - start)
            raise OSError("on purpose")

        policy = RetryPolicy(max_retries=3, initial=60, multiplier=2)
        await bus.subscribe("task.*", failing, "worker", retry=policy)
        await bus.publish(Event(topic="task.created"))
        await bus.advance(1000)
        assert attempts == pytest.approx([0, 60, 180, 420])
        (letter,) = await bus.dead_letters.list()
        assert letter.reason is FailureReason.HANDLER_ERROR
    assert time.monotonic() - began < 5


async def test_advance_without_seconds_lets_what_is_under_way_happen():
    handled: list[str] = []
    async with TestBus() as bus:

        @bus.on("task.*", name="worker")
        async def handler(event: Event) -> None:
            handled.append(event.topic)

        await bus.advance()
        await bus.publish(Event(topic="task.created"))
        await bus.advance()
        assert handled == ["task.created"]


async def test_a_delayed_event_leaves_at_its_moment():
    times: list[float] = []
    async with TestBus() as bus:

        async def handler(event: Event) -> None:
            times.append(bus.clock.monotonic())

        await bus.subscribe("task.*", handler, "worker")
        for delay in (30, 10, 20):
            await bus.publish(Event(topic="task.created"), delay=delay)
        await bus.advance(60)
        assert times == pytest.approx([10, 20, 30])


async def test_an_event_expires_by_the_bus_s_clock():
    handled: list[Event] = []
    async with TestBus() as bus:
        handle = await bus.subscribe("task.*", handled.append, "worker")
        await handle.cancel()
        await bus.publish(Event(topic="task.created", ttl_seconds=60))
        await bus.advance(120)
        await bus.subscribe("task.*", handled.append, "worker")
        await bus.advance()
        assert handled == []


async def test_join_with_retries_ends_when_the_clock_is_moved():
    tries: list[int] = []
    async with TestBus() as bus:

        async def flaky(event: Event) -> None:
            tries.append(event.retry_count)
            if event.retry_count < 2:
                raise OSError("on purpose")

        await bus.subscribe("task.*", flaky, "worker")
        await bus.publish(Event(topic="task.created"))
        joining = asyncio.create_task(bus.join())
        await bus.advance(1)
        assert not joining.done()
        await bus.advance(2)
        await joining
        assert tries == [0, 1, 2]


async def test_every_test_bus_has_a_log_of_its_own():
    async with TestBus() as one, TestBus() as two:
        await one.publish(Event(topic="task.created"))
        assert [stored async for stored in two.history()] == []


async def test_it_takes_what_a_bus_takes():
    async with TestBus(name="the-agent", max_payload=10) as bus:
        await bus.publish(Event(topic="task.created"))
        (stored,) = [stored async for stored in bus.history()]
        assert stored.event.source_agent == "the-agent"
        assert (await bus.health())["memory"] == "connected"
