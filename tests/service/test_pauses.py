"""/pauses: what is paused, by whom, for whom it is shown, and that it holds."""

from __future__ import annotations

import logging
import time
from typing import Any

import httpx
import pytest

from tests.conformance.engines import eventually
from tests.service.guarded import Guarded
from wowevent import Event, EventBus

WHATS: list[dict[str, Any]] = [
    {"everything": True},
    {"agent": "worker"},
    {"topic": "task.#"},
    {"correlation_id": "job"},
    {"name": "worker~task.*"},
]
SCOPES = ["everything", "agent", "topic", "conversation", "subscription"]


async def names(client: httpx.AsyncClient) -> list[str]:
    return [each["name"] or each["scope"] for each in (await client.get("/pauses")).json()["pauses"]]


@pytest.mark.parametrize(("what", "scope"), list(zip(WHATS, SCOPES, strict=True)))
async def test_what_is_paused_waits(client: httpx.AsyncClient, bus: EventBus, what: dict[str, Any], scope: str) -> None:
    handled = list[int]()
    await bus.subscribe("task.*", lambda event: handled.append(event.payload["n"]), "worker")
    answer = await client.post("/pauses", json=what)
    assert answer.status_code == 200
    (shown,) = answer.json()["pauses"]
    assert (shown["scope"], shown["by"], shown["reason"]) == (scope, "", "")
    assert (await client.get("/pauses")).json() == answer.json()
    await bus.publish(Event(topic="task.created", payload={"n": 1}, correlation_id="job"))
    (named,) = (await client.get("/subscriptions")).json()["subscriptions"]
    assert named["paused"] == (scope in {"everything", "agent", "subscription"})
    assert handled == []
    assert (await client.post("/pauses/resume", json=what)).json() == answer.json()
    assert (await client.post("/pauses/resume", json=what)).json() == {"pauses": []}
    await eventually(lambda: handled == [1])


async def test_an_end_is_given_in_seconds_or_as_a_time(client: httpx.AsyncClient) -> None:
    order = {"agent": "worker", "seconds": 60, "reason": "too loud"}
    (shown,) = (await client.post("/pauses", json=order)).json()["pauses"]
    assert shown["until"] == pytest.approx(time.time() + 60, abs=10)
    assert shown["reason"] == "too loud"
    (shown,) = (await client.post("/pauses", json={"agent": "worker", "until": "2099-01-01"})).json()["pauses"]
    assert shown["until"] == 4070908800.0


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"everything": True, "agent": "worker"},
        {"everything": False},
        {"agent": "a b"},
        {"topic": "a..b"},
        {"agent": "worker", "seconds": 0},
        {"agent": "worker", "until": "2001-01-01"},
        {"agent": "worker", "until": "soon"},
        {"agent": "worker", "seconds": 5, "until": "2099-01-01"},
        {"agent": "worker", "reason": "x" * 501},
        {"agent": "worker", "forever": True},
    ],
)
async def test_what_makes_no_sense_pauses_nothing(client: httpx.AsyncClient, order: dict[str, Any]) -> None:
    answer = await client.post("/pauses", json=order)
    assert (answer.status_code, answer.json()["error"]) in {(400, "invalid_event"), (400, "invalid_topic")}
    assert await names(client) == []


async def test_whom_nobody_knows_by_name(client: httpx.AsyncClient) -> None:
    answer = await client.post("/pauses", json={"name": "nobody"})
    assert (answer.status_code, answer.json()["error"]) == (404, "subscription_not_found")


async def test_health_says_what_is_paused(client: httpx.AsyncClient) -> None:
    await client.post("/pauses", json={"everything": True})
    answer = await client.get("/health")
    assert answer.status_code == 200
    assert [each["scope"] for each in answer.json()["details"]["pauses"]] == ["everything"]


async def test_strangers_are_not_told_what_is_paused(guarded: Guarded) -> None:
    await guarded.bus.pause(agent="planner")
    async with guarded.client() as stranger, guarded.having() as known:
        assert "planner" not in (await stranger.get("/health")).text
        assert "planner" in (await known.get("/health")).text


async def test_only_who_administers_may_change_it_and_it_is_written_down(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    async with guarded.having("reader", subscribe=["#"], publish=["#"], replay=["#"]) as reader:
        assert (await reader.post("/pauses", json={"everything": True})).status_code == 403
        assert (await reader.post("/pauses/resume", json={"everything": True})).status_code == 403
    async with guarded.having("publisher", publish=["#"]) as publisher:
        assert (await publisher.get("/pauses")).status_code == 403
    secret = guarded.token("boss", admin=["#"])
    with caplog.at_level(logging.INFO, "wowevent"):
        async with guarded.client(secret) as boss:
            (shown,) = (await boss.post("/pauses", json={"agent": "a", "reason": "panic"})).json()["pauses"]
            await boss.post("/pauses/resume", json={"agent": "a"})
    assert shown["by"] == "boss"
    lines = [record.message for record in caplog.records if " who=boss " in record.message]
    who = f"who=boss token={guarded.ids[secret]} outcome=done scope=agent name=a"
    assert lines == [f"audit action=pause {who} reason=panic by=boss", f"audit action=resume {who}"]


async def test_who_listens_sees_what_concerns_it(guarded: Guarded) -> None:
    async def nothing(event: Event) -> None: ...

    for pattern in ("task.*", "pay.*"):
        await guarded.bus.subscribe(pattern, nothing, "worker")
    async with guarded.having("boss", admin=["#"]) as boss:
        for what in (*WHATS, {"agent": "planner"}, {"topic": "pay.*"}, {"name": "worker~pay.*"}):
            assert (await boss.post("/pauses", json=what)).status_code == 200
        assert len(await names(boss)) == 8
    async with guarded.having("planner", subscribe=["task.#"]) as planner:
        assert await names(planner) == ["planner", "everything", "worker~task.*", "task.#"]
