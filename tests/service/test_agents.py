"""/agents: who is there; of what who asks may hear."""

from __future__ import annotations

import httpx

from tests.service.guarded import Guarded
from wowevent import Event, EventBus
from wowevent.broker import Subscription


async def nothing(event: Event) -> None:
    """A handler."""


async def test_who_is_there(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.subscribe("task.*", nothing, "worker")
    await bus.broker.declare(Subscription(id="idle", patterns=("idle.*",), agent="sleeper"))
    await bus.publish(Event(topic="plan.made", source_agent="planner"))
    found = (await client.get("/agents")).json()["agents"]
    assert [(each["name"], each["state"]) for each in found] == [
        ("planner", "online"), ("sleeper", "offline"), ("worker", "online"),
    ]  # fmt: skip
    planner, sleeper, worker = found
    assert (planner["publishes"], planner["subscriptions"]) == (["plan.made"], [])
    assert (sleeper["last_seen"], sleeper["processes"], sleeper["subscriptions"][0]["consumers"]) == (None, [], 0)
    assert worker["processes"][0]["serves"] == ["worker~task.*"]


async def test_a_receipt_counts_who_is_not_served(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.broker.declare(Subscription(id="idle", patterns=("task.*",)))
    await bus.subscribe("task.*", nothing, "worker")
    (receipt,) = (await client.post("/events", json={"topic": "task.created"})).json()["receipts"]
    assert (receipt["matched"], receipt["unserved"]) == (2, 1)


async def test_of_others_is_shown_what_may_be_heard_of_them(guarded: Guarded) -> None:
    for pattern, agent in (("task.*", "ours"), ("secret.*", "ours"), ("secret.*", "theirs")):
        await guarded.bus.subscribe(pattern, nothing, agent)
    for topic, source in (("task.done", "ours"), ("secret.told", "ours"), ("secret.told", "spy"), ("a.b", "worker")):
        await guarded.bus.publish(Event(topic=topic, source_agent=source))
    async with guarded.having("worker", subscribe=["task.#"]) as client:
        found = (await client.get("/agents")).json()["agents"]
        assert [each["name"] for each in found] == ["ours", "worker"]
        ours, own = found
        assert [each["id"] for each in ours["subscriptions"]] == ["ours~task.*"]
        assert (ours["publishes"], ours["processes"]) == (["task.done"], [])
        assert (own["publishes"], len(own["processes"])) == (["a.b"], 1)
    async with guarded.having("boss", admin=["#"]) as client:
        found = (await client.get("/agents")).json()["agents"]
        assert [each["name"] for each in found] == ["ours", "spy", "theirs", "worker"]
        assert all(each["processes"] for each in found)
    async with guarded.having("mute", publish=["#"]) as client:
        assert (await client.get("/agents")).status_code == 403
