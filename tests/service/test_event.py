"""GET /events/{id}: one event, who got it, what became of it; of what who asks may see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.service.guarded import Guarded
from wowevent import Event, EventBus, EventSchema, Reject, Retention, SchemaRegistry
from wowevent.broker import Subscription
from wowevent.codec import to_fields


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://", registry=SchemaRegistry()) as bus:
        yield bus


async def nothing(event: Event) -> None:
    """A handler."""


async def refuse(event: Event) -> None:
    raise Reject("never")


async def test_all_of_it(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.register_schema(EventSchema(event_type="task.created", version="1.2", json_schema={}))
    await bus.subscribe("task.*", nothing, "worker")
    await bus.subscribe("task.*", refuse, "critic")
    await bus.broker.declare(Subscription(id="others", patterns=("plan.*",)))
    event = Event(topic="task.created", payload={"n": 1})
    receipt = await bus.publish(event)
    await bus.join(5)
    await bus.broker.declare(Subscription(id="late", patterns=("task.#",)))
    found = (await client.get(f"/events/{event.event_id}")).json()
    assert (found["event"], found["position"]) == (to_fields(event), str(receipt.position))
    assert found["schema"] == {"version": "1.2"}
    assert {(each["subscription"], each["agent"], each["outcome"], each["error"]) for each in found["deliveries"]} == {
        ("worker~task.*", "worker", "acked", None),
        ("critic~task.*", "critic", "dead", "never"),
    }
    assert {each["process"] for each in found["deliveries"]} == {bus.attendance.process}
    assert all(each["attempt"] == 1 and 0 <= each["seconds"] < 1 for each in found["deliveries"])
    assert found["dead_letters"] == [letter.id for letter in await bus.dead_letters.list()]
    assert found["matched"] == ["critic~task.*", "late", "worker~task.*"]


@pytest.mark.parametrize("id", ["order-7", "a.b:c", "urn:x/y@z"])
async def test_by_any_id_and_no_other(client: httpx.AsyncClient, bus: EventBus, id: str) -> None:
    await bus.publish(Event(topic="a.b", correlation_id=id))  # which comes first, and is another
    await bus.publish(Event(topic="a.c", event_id=id))
    found = (await client.get(f"/events/{id}")).json()
    assert (found["event"]["topic"], found["schema"], found["deliveries"]) == ("a.c", None, [])


async def test_one_that_is_not_there(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.publish(Event(topic="a.b", correlation_id="order-7"))
    for id in ("order-7", "0199b3a1-0000-7000-8000-000000000000"):
        answer = await client.get(f"/events/{id}")
        assert (answer.status_code, answer.json()["error"]) == (404, "event_not_found")
    assert (await client.get("/events/a%00b")).status_code == 400


async def test_one_that_only_a_dead_letter_has(tmp_path: Path) -> None:
    async with EventBus("memory://", retention=Retention(max_count=1)) as bus:
        await bus.subscribe("task.*", refuse, "critic")
        event = Event(topic="task.created")
        await bus.publish(event)
        await bus.join(5)
        await bus.publish_many([Event(topic="a.b") for _ in range(200)])
        async with Guarded(bus, tmp_path / "tokens.json").having("boss", admin=["#"], replay=["#"]) as client:
            found = (await client.get(f"/events/{event.event_id}")).json()
        assert (found["event"]["event_id"], found["position"], found["stored_at"]) == (event.event_id, None, None)


async def test_who_does_not_administer_sees_what_it_may(bus: EventBus, tmp_path: Path) -> None:
    guarded = Guarded(bus, tmp_path / "tokens.json")
    await bus.subscribe("task.*", refuse, "critic")
    await bus.subscribe("#", nothing, "spy")
    event, other = Event(topic="task.created"), Event(topic="task.created", target_agent="critic")
    await bus.publish_many([event, other])
    await bus.join(5)
    async with guarded.having("worker", replay=["task.*"], subscribe=["task.*"]) as client:
        found = (await client.get(f"/events/{event.event_id}")).json()
        assert [(each["subscription"], each["error"]) for each in found["deliveries"]] == [("critic~task.*", None)]
        assert (found["matched"], found["dead_letters"]) == (["critic~task.*"], [])
        assert (await client.get(f"/events/{other.event_id}")).status_code == 404
    async with guarded.having("nurse", replay=["task.*"], subscribe=["task.*"], dead_letters=["task.*"]) as client:
        found = (await client.get(f"/events/{event.event_id}")).json()
        assert [each["error"] for each in found["deliveries"]] == ["never"]
        assert len(found["dead_letters"]) == 1
    async with guarded.having("blind", replay=["plan.*"], subscribe=["#"]) as client:
        assert (await client.get(f"/events/{event.event_id}")).status_code == 404
    async with guarded.having("boss", replay=["#"], admin=["#"]) as client:
        found = (await client.get(f"/events/{event.event_id}")).json()
        assert found["matched"] == ["critic~task.*", "spy~#"]
        assert (await client.get(f"/events/{other.event_id}")).status_code == 200
