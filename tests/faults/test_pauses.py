"""A pause while the engine is killed and started again: nothing comes before somebody resumes, and then all of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.engines import eventually
from tests.faults.conftest import Engine
from tests.faults.rabbit import YOUNG
from wowevent import BrokerUnavailable, Event, EventBus

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BACK = 30.0  # seconds within which everything goes on, once the engine answers


async def reached(url: str) -> EventBus:
    """One more, as soon as the engine lets it in: a server that answers may still be looking for its queues."""
    bus = EventBus(url)
    async with asyncio.timeout(BACK):
        while True:
            try:
                await bus.start()
            except BrokerUnavailable:
                await asyncio.sleep(0.1)
            else:
                return bus


def task(n: int, **fields: Any) -> Event:
    return Event(topic="task.created", payload={"n": n}, **fields)


async def test_it_outlives_a_kill_of_the_engine_and_so_does_what_it_holds(engine: Engine) -> None:
    if engine.restart is None:
        pytest.skip("a file has no server that could be killed")
    handled = list[int]()
    async with EventBus(engine.url) as bus:
        await bus.subscribe("task.*", lambda event: handled.append(event.payload["n"]), "worker", order_by="topic")
        await bus.pause(agent="worker", reason="quota")
        await bus.pause(correlation_id="job")
        await bus.publish_many([task(0), task(1)])
        await asyncio.sleep(YOUNG)
        await asyncio.to_thread(engine.restart)
        async with await reached(engine.url) as later:
            assert [(pause.scope, pause.reason) for pause in await later.pauses()] == [
                ("agent", "quota"), ("conversation", "")
            ]  # fmt: skip
            await later.publish_many([task(2), task(3, correlation_id="job")])
            await asyncio.sleep(1.0)
            assert handled == []
            await later.resume(agent="worker")
            await eventually(lambda: handled == [0, 1, 2], BACK)
            await asyncio.sleep(0.5)
            assert handled == [0, 1, 2]
            await later.resume(correlation_id="job")
            await eventually(lambda: handled == [0, 1, 2, 3], BACK)
