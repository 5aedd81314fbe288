"""/dead-letters: listed, shown, redelivered, discarded; nothing by accident."""

import json
from typing import Any

import httpx
import pytest

from tests.conformance.engines import eventually
from wowevent import Event, EventBus, Reject
from wowevent.broker import Reason


class Worker:
    """Rejects what it gets until it is told better."""

    def __init__(self) -> None:
        self.well = False
        self.complaint = "no such customer"
        self.seen: list[int] = []

    async def __call__(self, event: Event) -> None:
        if not self.well:
            raise Reject(self.complaint)
        self.seen.append(event.payload["n"])


async def failed(bus: EventBus, *numbers: int, agent: str = "worker") -> Worker:
    """A worker whose events are dead letters."""
    worker = Worker()
    await bus.subscribe("task.*", worker, agent)
    for n in numbers:
        await bus.publish(Event(topic="task.created", payload={"n": n}, event_id=f"e-{n}", correlation_id=f"c-{n % 2}"))
    await bus.join(5)
    return worker


async def listed(client: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await client.get(f"/dead-letters{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["dead_letters"]
    return found


def numbers(letters: list[dict[str, Any]]) -> list[int]:
    return [letter["event"]["payload"]["n"] for letter in letters]


async def test_one_dead_letter_with_all_that_is_known(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    await failed(engine_bus, 1)
    (letter,) = await listed(engine_client)

    assert (letter["subscription"], letter["reason"], letter["event"]["event_id"]) == (
        "worker~task.*",
        "rejected",
        "e-1",
    )
    assert "no such customer" in letter["error"]
    assert [attempt["number"] for attempt in letter["attempts"]] == [1]
    assert letter["time"] == pytest.approx(letter["attempts"][0]["time"], abs=5)
    assert (await engine_client.get(f"/dead-letters/{letter['id']}")).json() == letter


async def test_an_error_that_utf_8_cannot_say_is_shown_escaped(client: httpx.AsyncClient, bus: EventBus) -> None:
    worker = Worker()
    worker.complaint = "half a character: \ud800"
    await bus.subscribe("task.*", worker, "worker")
    await bus.publish(Event(topic="task.created"))
    await bus.join(5)
    (letter,) = await listed(client)
    assert letter["error"].endswith("half a character: \\ud800")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [0, 1, 2, 3]),
        ("?subscription=worker", [0, 1, 2, 3]),
        ("?subscription=worker~task.*", [0, 1, 2, 3]),
        ("?reason=rejected", [0, 1, 2, 3]),
        ("?reason=timeout", []),
        ("?event_id=e-2", [2]),
        ("?correlation_id=c-1", [1, 3]),
        ("?correlation_id=c-1&event_id=e-2", []),
        ("?limit=4", [0, 1, 2, 3]),
    ],
)
async def test_the_filters(
    engine_client: httpx.AsyncClient, engine_bus: EventBus, query: str, found: list[int]
) -> None:
    await failed(engine_bus, *range(4))

    assert numbers(await listed(engine_client, query)) == found


async def test_there_may_be_more(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    await failed(engine_bus, *range(3))
    answer = (await engine_client.get("/dead-letters?limit=2")).json()

    assert (numbers(answer["dead_letters"]), answer["more"]) == ([0, 1], True)
    assert not (await engine_client.get("/dead-letters?limit=3")).json()["more"]


async def test_one_is_redelivered(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    worker = await failed(engine_bus, 1, 2)
    worker.well = True
    first, second = await listed(engine_client)
    answer = await engine_client.post(f"/dead-letters/{first['id']}/redeliver")

    assert (answer.status_code, answer.json()) == (200, {"redelivered": 1})
    await eventually(lambda: worker.seen == [1])
    assert await listed(engine_client) == [second]


async def test_one_is_discarded(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    worker = await failed(engine_bus, 1, 2)
    first, second = await listed(engine_client)

    assert (await engine_client.delete(f"/dead-letters/{first['id']}")).status_code == 204
    assert await listed(engine_client) == [second]
    assert worker.seen == []


@pytest.mark.parametrize(
    "id", ["nothing", "0", "9" * 18, "9" * 30, "9" * 128, "9" * 5000, "%00", "-1", "1.5", "%C3%A4", "redeliver"]
)
async def test_a_dead_letter_that_is_not_there(engine_client: httpx.AsyncClient, engine_bus: EventBus, id: str) -> None:
    await failed(engine_bus, 1)
    for answer in (
        await engine_client.get(f"/dead-letters/{id}"),
        await engine_client.delete(f"/dead-letters/{id}"),
        await engine_client.post(f"/dead-letters/{id}/redeliver"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (404, "dead_letter_not_found")
    assert len(await listed(engine_client)) == 1
    answer = await engine_client.post("/dead-letters/discard", json={"ids": [id]})
    assert (answer.status_code, answer.json()) == (200, {"discarded": 0})


CHOICES: list[tuple[dict[str, Any], list[int]]] = [
    ({"subscription": "worker"}, [0, 1, 2, 3]),
    ({"reason": "rejected"}, [0, 1, 2, 3]),
    ({"reason": "timeout"}, []),
    ({"event_id": "e-3"}, [3]),
    ({"correlation_id": "c-1", "subscription": None}, [1, 3]),
    ({"correlation_id": "c-1", "reason": "crashed"}, []),
]


@pytest.mark.parametrize(("choice", "chosen"), CHOICES)
async def test_several_by_filters(
    engine_client: httpx.AsyncClient, engine_bus: EventBus, choice: dict[str, Any], chosen: list[int]
) -> None:
    worker = await failed(engine_bus, *range(4))
    worker.well = True
    answer = await engine_client.post("/dead-letters/redeliver", json=choice)
    assert (answer.status_code, answer.json()) == (200, {"redelivered": len(chosen)})
    await eventually(lambda: sorted(worker.seen) == chosen)
    left = [n for n in range(4) if n not in chosen]
    assert numbers(await listed(engine_client)) == left
    answer = await engine_client.post("/dead-letters/discard", json={"subscription": "worker"})
    assert answer.json() == {"discarded": len(left)}
    assert await listed(engine_client) == []


async def test_several_by_ids(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    worker = await failed(engine_bus, *range(4))
    worker.well = True
    ids = [letter["id"] for letter in await listed(engine_client)]
    answer = await engine_client.post("/dead-letters/redeliver", json={"ids": [ids[0], ids[0], "unknown", ids[2]]})
    assert answer.json() == {"redelivered": 2}
    await eventually(lambda: sorted(worker.seen) == [0, 2])
    answer = await engine_client.post("/dead-letters/discard", json={"ids": ids})
    assert answer.json() == {"discarded": 2}


async def test_more_than_go_in_one_call(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    await engine_bus.subscribe("task.*", Worker(), "worker", concurrency=50)
    await engine_bus.publish_many([Event(topic="task.created", payload={"n": n}) for n in range(1100)])
    await engine_bus.join(20)
    answer = await engine_client.post("/dead-letters/discard", json={"subscription": "worker"})
    assert answer.json() == {"discarded": 1100}


JSON = "application/json"
REFUSED: dict[str, tuple[bytes, str, int]] = {
    "nothing": (b"", JSON, 400),
    "an empty object": (b"{}", JSON, 400),
    "no ids": (b'{"ids":[]}', JSON, 400),
    "ids that are null": (b'{"ids":null}', JSON, 400),
    "filters that are null": (b'{"subscription":null,"reason":null}', JSON, 400),
    "an empty name": (b'{"subscription":""}', JSON, 400),
    "ids and filters": (b'{"ids":["1"],"reason":"rejected"}', JSON, 400),
    "ids and a misspelt filter": (b'{"ids":["1"],"subscripton":"worker"}', JSON, 400),
    "a misspelt filter": (b'{"subscripton":"worker"}', JSON, 400),
    "an unknown reason": (b'{"reason":"bad luck"}', JSON, 400),
    "a limit": (b'{"limit":10}', JSON, 400),
    "a number as an id": (b'{"ids":[1]}', JSON, 400),
    "text as ids": (b'{"ids":"1"}', JSON, 400),
    "an id of an event that cannot be": (b'{"event_id":"a b"}', JSON, 400),
    "an array": (b'["1"]', JSON, 400),
    "not JSON": (b"{ids", JSON, 400),
    "a key twice": (b'{"ids":["1"],"ids":["2"]}', JSON, 400),
    "an unknown subscription": (b'{"subscription":"werker"}', JSON, 404),
    "no media type": (b'{"subscription":"worker"}', "", 415),
    "plain text": (b'{"subscription":"worker"}', "text/plain", 415),
    "a CloudEvent": (b'{"subscription":"worker"}', "application/cloudevents+json", 415),
    "too much": (json.dumps({"ids": ["1" * 1000] * 1200}).encode(), JSON, 413),
}


@pytest.mark.parametrize("verb", ["redeliver", "discard"])
@pytest.mark.parametrize(("body", "media", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_nothing_is_done_by_accident(  # noqa: PLR0917 - parameters of a test
    client: httpx.AsyncClient, bus: EventBus, verb: str, body: bytes, media: str, status: int
) -> None:
    await failed(bus, 1, 2)
    answer = await client.post(f"/dead-letters/{verb}", content=body, headers={"content-type": media})

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(await bus.dead_letters.list()) == 2


@pytest.mark.parametrize(
    ("query", "status"),
    [
        *((f"limit={limit}", 400) for limit in ("0", "1001", "-1", "x")),
        *(("reason=bad", 400), ("reason=", 400), ("event_id=a%20b", 400), ("correlation_id=", 400), ("topic=a", 400)),
        *(("subscription=werker", 404), ("subscription=", 404)),
    ],
)
async def test_a_wrong_question_is_refused(client: httpx.AsyncClient, bus: EventBus, query: str, status: int) -> None:
    await failed(bus, 1)
    assert (await client.get(f"/dead-letters?{query}")).status_code == status


async def test_pages_of_others_may_not_change_anything(client: httpx.AsyncClient, bus: EventBus) -> None:
    await failed(bus, 1)
    (letter,) = await listed(client)
    evil = {"origin": "https://evil.example"}
    for method, path, body in (
        ("GET", "/dead-letters", None),
        ("DELETE", f"/dead-letters/{letter['id']}", None),
        ("POST", f"/dead-letters/{letter['id']}/redeliver", None),
        ("POST", "/dead-letters/discard", {"reason": Reason.REJECTED}),
    ):
        assert (await client.request(method, path, json=body, headers=evil)).status_code == 403
    assert await listed(client) == [letter]
