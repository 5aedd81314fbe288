"""Queues are agents, too, and what dies in them is told to its sender."""

from __future__ import annotations

import asyncio

import pytest

from tests.blocking.conftest import Open, Seen, task
from wowevent import AgentInfo, Event, EventBus, RetryPolicy, directory


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is asked notices ten times as soon."""
    monkeypatch.setattr(directory, "_LOOK", 0.1)


async def _agents(url: str) -> dict[str, AgentInfo]:
    async with EventBus(url) as asking:
        return {info.name: info for info in await asking.agents()}


def test_a_queue_that_is_consumed_is_online(opened: Open, url: str) -> None:
    bus = opened()
    bus.subscribe("work", ["task.*.*"], Seen())
    bus.start_consuming("work", blocking=False)
    bus.publish(task())
    found = asyncio.run(_agents(url))
    assert {name: info.state for name, info in found.items()} == {"tester": "online", "work": "online"}
    assert found["tester"].publishes == ("task.created",)


async def _told(url: str, count: int) -> list[Event]:
    """What the sender is told, so many tellings; its subscription is remembered from the first call on."""
    found: list[Event] = []
    all_there = asyncio.Event()

    async def take(event: Event) -> None:
        found.append(event)
        all_there.set()

    async with EventBus(url) as bus:
        await bus.subscribe("_bus.dead_letter", take, "tester")
        if count:
            async with asyncio.timeout(10):
                await all_there.wait()
    return found


def test_a_sender_is_told_what_died_in_a_queue(opened: Open, url: str) -> None:
    bus = opened(retry=RetryPolicy(max_retries=0))
    bus.subscribe("work", ["task.*.*"], Seen(fails=1))
    asyncio.run(_told(url, 0))
    bus.start_consuming("work", blocking=False)
    mine = task()
    bus.publish(mine)
    (telling,) = asyncio.run(_told(url, 1))
    assert (telling.parent_event_id, telling.payload["subscription"]) == (mine.event_id, "work")
