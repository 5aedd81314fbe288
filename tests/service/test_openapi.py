"""GET /openapi.json is valid, says all that there is, and what it says is so."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from tests.keys import Keys
from tests.service.described import Described
from wowevent import Event, EventBus, Reject, SchemaRegistry
from wowevent.broker import Subscription
from wowevent.codec import to_fields
from wowevent.service import create_app, drain
from wowevent.service.openapi import document
from wowevent.service.pages import ROUTES


def named(path: str) -> str:
    """The path of something that is not there."""
    return re.sub(r"\{\w+\}", "x", path)


METHODS = [(path, method) for path, methods in document()["paths"].items() for method in methods]


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    """One that can do all that is described."""
    async with EventBus("memory://", registry=SchemaRegistry()) as bus:
        yield bus


async def test_it_is_served(client: httpx.AsyncClient) -> None:
    answer = await client.get("/openapi.json")

    assert answer.status_code == 200
    assert answer.json() == document()
    assert (await client.get("/openapi.json", headers={"origin": "https://evil.example"})).status_code == 403


async def test_where_tokens_are_asked_for_it_says_so(bus: EventBus, tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    app = create_app(bus, keyring=keys.ring())
    transport, headers = httpx.ASGITransport(app), {"authorization": f"Bearer {keys.all_of('alice')}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://bus", headers=headers) as client:
        described = (await client.get("/openapi.json")).json()
        validate(described)
        for path, methods in described["paths"].items():
            for method, operation in methods.items():
                assert operation.get("security") in (None, [{"token": []}])
                answer = await client.request(method, named(path), headers={"authorization": ""})
                assert (answer.status_code == 401) is ("security" in operation)
    await drain(app)


def test_it_is_valid() -> None:
    validate(document())
    assert document()["openapi"].startswith("3.1.")


def test_every_route_and_method_is_described_and_no_other() -> None:
    routes = {
        (re.sub(r":\w+\}", "}", route.path), method.lower())  # type: ignore[attr-defined]
        for route in create_app(None).routes
        if route not in ROUTES  # pages are for people
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    assert routes == set(METHODS)


@pytest.mark.parametrize(("path", "methods"), document()["paths"].items())
async def test_another_method_is_told_which_there_are(
    client: httpx.AsyncClient, path: str, methods: dict[str, Any]
) -> None:
    """Of `/subscriptions/{id}/pause` those are not of `/subscriptions/{id}`, whose id may hold a slash."""
    answer = await client.request("QUERY", named(path))
    assert answer.status_code == 405
    assert set(answer.headers["allow"].lower().split(", ")) - {"head"} == set(methods)


@pytest.mark.parametrize(("path", "method"), METHODS)
async def test_the_parameters_that_are_described_are_those_that_are_known(
    client: httpx.AsyncClient, path: str, method: str
) -> None:
    described = document()["paths"][path][method]["parameters"]
    names = [each["name"] for each in described if each["in"] == "query"]
    assert [each["name"] for each in described if each["in"] == "path"] == re.findall(r"\{(\w+)\}", path)
    if path in {"/health", "/live", "/ready"}:
        return
    answer = await client.request(method, f"{named(path)}?unheard_of=1")
    assert answer.status_code == 400
    assert answer.json()["message"].endswith(f"known are {', '.join(names) or 'none'}")


@pytest.mark.parametrize(("path", "method"), METHODS)
async def test_a_body_is_described_where_one_is_read(client: httpx.AsyncClient, path: str, method: str) -> None:
    body = document()["paths"][path][method].get("requestBody")
    if method not in {"post", "put"}:
        assert body is None
        return
    url = named(path)
    refused = await client.request(method, url, content=b"[", headers={"content-type": "application/json"})
    assert refused.status_code == 400, "what is no JSON is read, and refused"
    other = await client.request(method, url, content=b"{}", headers={"content-type": "text/plain"})
    assert other.status_code == 415
    for media in body["content"]:
        answer = await client.request(method, url, content=b"[", headers={"content-type": media})
        assert answer.status_code == 400
    without = await client.request(method, url)
    assert body["required"] == without.json()["error"].startswith(("unsupported", "invalid"))


def test_the_headers_of_a_request_are_described() -> None:
    described = document()["paths"]["/events"]["post"]

    assert [each["name"] for each in described["parameters"] if each["in"] == "header"] == [
        "Idempotency-Key",
        "traceparent",
    ]
    assert {"409", "422"} <= set(described["responses"])


def test_an_event_is_described_in_full() -> None:
    schema = document()["components"]["schemas"]["Event"]
    assert set(schema["properties"]) == set(schema["required"]) == set(to_fields(Event(topic="a")))
    full = Event(
        topic="a.b", event_type="c", payload={"x": 1}, source_agent="s", source_service="s", target_agent="t",
        priority=9, correlation_id="c", parent_event_id="p", trace_id="t", traceparent="00-1-2-00", execution_id="e",
        ttl_seconds=1.5, not_before="2030-01-01", max_retries=2, reply_to="r", hops=3, replay_of="o",
        headers={"a": "b"},
    )  # fmt: skip
    for event in (full, Event(topic="a")):
        Described().validate({"$ref": "#/components/schemas/Event"}, json.loads(json.dumps(to_fields(event))))


@pytest.mark.parametrize(
    ("shape", "good"),
    [
        ("EventIn", {"topic": "a"}),
        ("EventIn", {"type": "a.b", "source": "s", "priority": "high", "payload": None, "unheard_of": 1}),
        ("CloudEvent", {"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b", "data": {"n": 1}}),
    ],
)
async def test_what_is_described_as_an_event_is_taken(
    client: httpx.AsyncClient, shape: str, good: dict[str, Any]
) -> None:
    Described().validate({"$ref": f"#/components/schemas/{shape}"}, good)
    assert (await client.post("/events", json=good)).status_code == 202


async def _shared(client: httpx.AsyncClient) -> None:
    """What all processes know: schemas, pauses, storms."""
    schema = {"event_type": "bill.sent", "version": "1", "json_schema": {}}
    for path in ("/schemas/check", "/schemas"):
        await client.post(path, json=schema)
    for path in ("/schemas", "/schemas/bill.sent", "/storms"):
        await client.get(path)
    await client.delete("/schemas/bill.sent/1")
    for path in ("/pauses", "/pauses/resume"):
        await client.post(path, json={"agent": "worker"})
    await client.get("/pauses")


async def _resolved(client: httpx.AsyncClient, letters: list[str]) -> None:
    """All that can be done with dead letters."""
    await client.get(f"/dead-letters/{letters[0]}")
    await client.get("/dead-letters/groups")
    await client.delete(f"/dead-letters/{letters[0]}")
    await client.post(f"/dead-letters/{letters[3]}/resend", json={"payload": {"n": 3}})
    slow = (await client.post("/dead-letters/redeliver", json={"ids": letters[4:6], "rate": 0.01})).json()["id"]
    for method, path in (("GET", ""), ("GET", f"/{slow}"), ("DELETE", f"/{slow}")):
        await client.request(method, f"/redeliveries{path}")
    await client.post("/dead-letters/redeliver", json={"reason": "rejected", "dry_run": True})
    await client.post(f"/dead-letters/{letters[1]}/redeliver")
    await client.post("/dead-letters/redeliver", json={"ids": letters[2:3]})
    await client.post("/dead-letters/discard", json={"subscription": "worker"})


async def test_every_operation_answers_as_described(bus: EventBus) -> None:
    """Each with its success and, where it can be had, a failure."""
    described = Described()

    async def reject(_event: Event) -> None:
        raise Reject

    await bus.subscribe("task.*", reject, "worker")
    await bus.broker.declare(Subscription(id="resting", patterns=("task.*",)))
    app = create_app(bus)
    hooks = {"response": [described.check]}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bus", event_hooks=hooks) as client:
        events = [{"topic": "task.created", "payload": {"n": n}, "correlation_id": "job"} for n in range(6)]
        await client.post("/events", json=events)
        await bus.join(5)
        letters = [letter.id for letter in await bus.dead_letters.list()]
        replay = (await client.post("/replays", json={"topic": "again", "pattern": "task.*"})).json()["id"]
        lists = ("/events", "/topics", "/agents", "/subscriptions", "/dead-letters", "/replays")
        ones = ("/openapi.json", "/conversations/job", f"/replays/{replay}", "/subscriptions/resting")
        whole = ("/overview", "/routers", f"/events/{(await bus.dead_letters.list())[0].event.event_id}")
        for path in ("/health", "/live", "/ready", *lists, *ones, *whole):
            await client.get(path)
        for media in ("*/*", "text/plain", "application/openmetrics-text"):
            await client.get("/metrics", headers={"accept": media})
        await client.get("/events", headers={"accept": "application/x-ndjson"})
        await client.post(f"/replays/{replay}/pause")
        await client.post(f"/replays/{replay}/resume")
        await client.delete(f"/replays/{replay}")
        for verb in ("pause", "resume", "purge"):
            await client.post(f"/subscriptions/resting/{verb}")
        await client.delete("/subscriptions/resting")
        await _resolved(client, letters)
        await client.post("/events", json={"topic": "task.created", "hops": 10_000, "correlation_id": "storm"})
        await bus.join(5)
        await client.post("/storms/storm/release")
        await _shared(client)
        await client.put("/schedules/tick", json={"event": {"topic": "tick.now"}, "every": 600})
        for path in ("/schedules", "/schedules/tick"):
            await client.get(path)
        await client.delete("/schedules/tick")
        await bus.join(5)
        succeeded = {(path, method) for method, path, status in described.seen if status.startswith("2")}
        assert set(METHODS) - succeeded == {("/events/stream", "get")}  # over a socket in test_stream
        for path, method in METHODS:
            await client.request(method, f"{named(path)}?unheard_of=1")
        app.state.bus = None
        for path, method in METHODS:
            await client.request(method, named(path), json={"topic": "a", "ids": ["1"]})
        await drain(app)
        assert (await client.get("/ready")).status_code == 503
    statuses = {status for _, _, status in described.seen}
    assert statuses >= {"200", "202", "204", "400", "503"}
