"""GET /conversations/{id}: the tree of a conversation, and what of it may be seen."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from wowevent import Event, EventBus, Reject


async def told(bus: EventBus) -> Event:
    """A root with two children, of which one is a dead letter; the root."""

    async def plan(event: Event) -> None:
        for topic in ("task.good", "task.bad"):
            await bus.publish(Event(topic=topic, source_agent="planner"))

    async def work(event: Event) -> None:
        if event.topic == "task.bad":
            raise Reject("never")

    await bus.subscribe("plan.*", plan, "planner")
    await bus.subscribe("task.*", work, "worker")
    root = Event(topic="plan.made", source_agent="boss", correlation_id="order/7")
    await bus.publish(root)
    await bus.join(5)
    return root


async def test_the_tree(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    root = await told(engine_bus)
    answers = [await engine_client.get(f"/conversations/{id}") for id in (root.event_id, quote("order/7", safe=""))]
    assert [answer.status_code for answer in answers] == [200, 200]
    found = answers[0].json()
    assert answers[1].json() == found
    assert (found["id"], found["failures"], found["more"]) == ("order/7", 1, False)
    assert {(step["depth"], step["topic"], step["cause"]) for step in found["steps"]} == {
        (0, "plan.made", None), (1, "task.good", root.event_id), (1, "task.bad", root.event_id),
    }  # fmt: skip
    (failure,) = next(step for step in found["steps"] if step["topic"] == "task.bad")["failures"]
    assert (failure["subscription"], failure["reason"], failure["error"]) == ("worker~task.*", "rejected", "never")


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("job-9", 404, "conversation_not_found"),
        ("a%20b", 400, "invalid_event"),
        ("job-9?limit=0", 400, "invalid_event"),
        ("job-9?limit=10001", 400, "invalid_event"),
        ("job-9?pattern=x", 400, "invalid_event"),
    ],
)
async def test_what_is_refused(client: httpx.AsyncClient, path: str, status: int, error: str) -> None:
    answer = await client.get(f"/conversations/{path}")
    assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_a_limit_that_was_reached(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.publish_many([Event(topic="a", correlation_id="c") for _ in range(3)])
    found = (await client.get("/conversations/c?limit=2")).json()
    assert (len(found["steps"]), found["more"]) == (2, True)
