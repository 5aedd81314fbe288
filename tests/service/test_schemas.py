"""/schemas: registered, shown, checked, removed; and what is published is held against them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.engines import eventually, url_of
from tests.service.described import Described
from wowevent import Event, EventBus, SchemaRegistry
from wowevent.service import create_app, drain

NUMBER = {"type": "object", "properties": {"a": {"type": "number"}}}
INTEGER = {"type": "object", "properties": {"a": {"type": "integer"}}}


def order(json_schema: Any = NUMBER, version: str = "1.0.0", event_type: str = "task.created") -> dict[str, Any]:
    return {"event_type": event_type, "version": version, "json_schema": json_schema}


@pytest.fixture
async def registered(broker_name: str, tmp_path: Path) -> AsyncIterator[EventBus]:
    """A bus on each engine, with a registry that wants backward compatibility."""
    async with EventBus(url_of(broker_name, tmp_path), registry=SchemaRegistry("backward")) as bus:
        yield bus


@pytest.fixture
async def asker(registered: EventBus) -> AsyncIterator[httpx.AsyncClient]:
    """Each of its answers is as the OpenAPI document says."""
    app = create_app(registered, hosts=("bus",))
    hooks = {"response": [Described().check]}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bus", event_hooks=hooks) as client:
        yield client
    await drain(app)


async def test_one_is_registered_and_shown(asker: httpx.AsyncClient) -> None:
    answer = await asker.post("/schemas", json={**order(), "description": "a task"})

    assert answer.status_code == 201
    assert answer.json() == {**order(), "description": "a task"}
    assert (await asker.get(answer.headers["location"])).json() == answer.json()
    assert (await asker.get("/schemas")).json() == {"schemas": [answer.json()]}


async def test_the_newest_and_one_by_its_version(asker: httpx.AsyncClient) -> None:
    for version in ("1.10.0", "1.9.0"):
        assert (await asker.post("/schemas", json=order(version=version))).status_code == 201
    await asker.post("/schemas", json=order(event_type="agent.started"))

    assert (await asker.get("/schemas/task.created")).json()["version"] == "1.10.0"
    assert (await asker.get("/schemas/task.created?version=1.9")).json()["version"] == "1.9.0"
    listed = (await asker.get("/schemas?event_type=task.created")).json()["schemas"]
    assert [each["version"] for each in listed] == ["1.9.0", "1.10.0"]
    assert len((await asker.get("/schemas")).json()["schemas"]) == 3
    assert (await asker.get("/schemas?event_type=nix")).json() == {"schemas": []}


async def test_the_same_twice_is_once_and_another_is_a_conflict(asker: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await asker.post("/schemas", json=order())).status_code == 201
    answer = await asker.post("/schemas", json=order(INTEGER))

    assert (answer.status_code, answer.json()["error"]) == (409, "schema_conflict")
    assert (await asker.get("/schemas/task.created")).json()["json_schema"] == NUMBER


async def test_every_break_is_named_and_nothing_is_registered(asker: httpx.AsyncClient) -> None:
    await asker.post("/schemas", json=order())
    answer = await asker.post("/schemas", json=order({**INTEGER, "required": ["b"]}, "2"))

    assert answer.status_code == 409
    assert sorted(answer.json()["errors"]) == [
        "payload.a: type was number, is integer",
        "payload.b: required was no, is yes",
    ]
    assert (await asker.get("/schemas/task.created")).json()["version"] == "1.0.0"


async def test_a_check_answers_and_changes_nothing(asker: httpx.AsyncClient) -> None:
    await asker.post("/schemas", json=order())
    answer = await asker.post("/schemas/check", json=order(INTEGER, "2"))

    assert answer.json() == {
        "compatible": False,
        "breaks": [{"path": "payload.a", "what": "type", "old": "number", "new": "integer", "certain": True}],
    }
    assert (await asker.post("/schemas/check", json=order({}, "2"))).json() == {"compatible": True, "breaks": []}
    assert len((await asker.get("/schemas")).json()["schemas"]) == 1


async def test_what_is_published_is_held_against_it(asker: httpx.AsyncClient) -> None:
    await asker.post("/schemas", json=order({"required": ["title"]}))
    refused = await asker.post("/events", json={"topic": "task.created", "payload": {}})

    assert (refused.status_code, refused.json()["errors"]) == (400, ["payload.title: is required"])
    assert (await asker.post("/events", json={"topic": "task.created", "payload": {"title": "x"}})).status_code == 202


async def test_one_is_removed(asker: httpx.AsyncClient) -> None:
    await asker.post("/schemas", json=order({"required": ["title"]}))

    assert (await asker.delete("/schemas/task.created/1.0")).status_code == 204
    assert (await asker.get("/schemas/task.created")).status_code == 404
    assert (await asker.post("/events", json={"topic": "task.created", "payload": {}})).status_code == 202


async def test_another_process_knows(asker: httpx.AsyncClient, registered: EventBus) -> None:
    if not registered.capabilities.shared:
        pytest.skip("no other process shares this log")
    other = SchemaRegistry()
    await asker.post("/schemas", json=order())
    async with EventBus(registered.broker, registry=other):
        assert other.get_schema("task.created").json_schema == NUMBER
        await asker.delete("/schemas/task.created/1.0.0")
        await eventually(lambda: other.schemas() == [])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/schemas/nix"),
        ("GET", "/schemas/task.created?version=7"),
        ("DELETE", "/schemas/task.created/7"),
        ("DELETE", "/schemas/nix/1"),
    ],
)
async def test_what_is_not_there(asker: httpx.AsyncClient, method: str, path: str) -> None:
    await asker.post("/schemas", json=order())
    answer = await asker.request(method, path)
    assert (answer.status_code, answer.json()["error"]) == (404, "schema_not_found")


REFUSED: dict[str, Any] = {
    "a wrong schema": order({"type": "strin"}),
    "one that reaches out": order({"$ref": "http://127.0.0.1:1/x"}),
    "no version": {"event_type": "a", "json_schema": {}},
    "a version that is none": order(version="one"),
    "no type": order(event_type="a b"),
    "a field too many": {**order(), "strict": True},
    "a list": [order()],
    "a schema that is a boolean": order(True),
}


@pytest.mark.parametrize("path", ["/schemas", "/schemas/check"])
@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_wrong_is_refused(asker: httpx.AsyncClient, path: str, body: Any) -> None:
    answer = await asker.post(path, json=body)
    assert answer.status_code == 400
    assert (await asker.get("/schemas")).json() == {"schemas": []}


async def test_a_version_that_is_none_is_no_version(asker: httpx.AsyncClient) -> None:
    await asker.post("/schemas", json=order())
    assert (await asker.get("/schemas/task.created?version=one")).status_code == 400
    assert (await asker.delete("/schemas/task.created/one")).status_code == 400


async def test_a_service_without_a_registry_says_so(client: httpx.AsyncClient, bus: EventBus) -> None:
    for answer in (
        await client.get("/schemas"),
        await client.get("/schemas/task.created"),
        await client.post("/schemas", json=order()),
        await client.post("/schemas/check", json=order()),
        await client.delete("/schemas/task.created/1"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (501, "not_supported")
    await bus.publish(Event(topic="task.created"))


async def test_pages_of_others_may_not_change_anything(asker: httpx.AsyncClient) -> None:
    await asker.post("/schemas", json=order())
    evil = {"origin": "https://evil.example", "content-type": "application/json"}
    for method, path, body in (
        ("GET", "/schemas", None),
        ("POST", "/schemas", json.dumps(order(version="2"))),
        ("DELETE", "/schemas/task.created/1.0.0", None),
    ):
        assert (await asker.request(method, path, content=body, headers=evil)).status_code == 403
    assert len((await asker.get("/schemas")).json()["schemas"]) == 1


def test_a_process_of_its_own_has_a_registry(service: httpx.Client) -> None:
    assert service.post("/schemas", json=order({"required": ["title"]})).status_code == 201
    assert service.post("/events", json={"topic": "task.created", "payload": {}}).status_code == 400
