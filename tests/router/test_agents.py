"""Clients of the router are agents as others are: there while they are connected, told what became of their events."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.router.conftest import Join, Serve, bus_of, eventually
from wowevent import EventBus


@pytest.fixture
async def asking(url: str) -> AsyncIterator[EventBus]:
    """One more process, which wants to know."""
    async with EventBus(url) as bus:
        yield bus


async def states(bus: EventBus) -> dict[str, str]:
    return {info.name: info.state for info in await bus.agents()}


async def test_clients_are_there_while_they_are_connected(serve: Serve, join: Join, asking: EventBus):
    router = await serve()
    named, silent = await join(router, agent="planner"), await join(router, agent="listener")
    await named.subscribe("task.*", name="worker")
    await silent.subscribe("task.*")
    await named.publish("plan.made", source_agent="planner")
    found = {info.name: info for info in await asking.agents()}
    assert {name: info.state for name, info in found.items()} == dict.fromkeys(
        ("listener", "planner", "worker"), "online"
    )
    assert found["planner"].publishes == ("plan.made",)
    (process,) = found["worker"].processes
    assert process.id == bus_of(router).attendance.process
    assert process.serves == tuple(each.id for each in found["worker"].subscriptions) == ("worker~task.*",)
    await silent.socket.close()

    async def has_left() -> bool:
        return (await states(asking)).get("listener") == "offline"

    await eventually(has_left)
    assert (await states(asking))["worker"] == "online"


async def test_a_message_to_nobody_is_reported_to_the_client_that_sent_it(serve: Serve, join: Join):
    router = await serve()
    client, other = await join(router, agent="planner"), await join(router, agent="other")
    await client.subscribe("_bus.undeliverable")
    await other.subscribe("_bus.undeliverable")
    sent = await client.publish("task.created", source_agent="planner", target_agent="nobody")
    told = (await client.event())["event"]
    assert (told["topic"], told["target_agent"]) == ("_bus.undeliverable", "planner")
    assert (told["parent_event_id"], told["payload"]["target"]) == (sent["event_id"], "nobody")
    await other.nothing()


async def test_a_client_is_told_of_the_dead_letter_that_another_client_made(serve: Serve, join: Join):
    router = await serve()
    client, worker = await join(router, agent="planner"), await join(router)
    await client.subscribe("_bus.dead_letter")
    await worker.subscribe("task.*", name="worker")
    sent = await client.publish("task.created", source_agent="planner")
    got = await worker.event()
    await worker.ask("nack", subscription_id=got["subscription_id"], tokens=[got["token"]], reject=True, error="never")
    told = (await client.event())["event"]
    assert told["payload"] == {
        "event_id": sent["event_id"],
        "topic": "task.created",
        "subscription": "worker~task.*",
        "reason": "rejected",
        "error": "never",
    }
