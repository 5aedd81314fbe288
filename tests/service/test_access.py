"""Who may ask what over HTTP: every route with every kind of token, and what no grant shows."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import uvicorn
from starlette.applications import Starlette

from tests.service.guarded import Guarded
from tests.service.sockets import listening, serving
from wowevent import Event, EventBus, Reject, SchemaRegistry
from wowevent.access import audit as audits
from wowevent.access.address import listen
from wowevent.access.rights import RIGHTS, Limits
from wowevent.access.tls import server_context
from wowevent.access.tokens import issue
from wowevent.broker import Subscription
from wowevent.service import watch
from wowevent.service.connection import http_server
from wowevent.service.openapi import DESCRIPTION
from wowevent.service.operation import Operation
from wowevent.service.routes import OPERATIONS
from wowevent.settings import Settings

ALL = (*OPERATIONS, DESCRIPTION)
CLOSED = [operation for operation in ALL if not operation.open]
EVERY: dict[str, Any] = dict.fromkeys(RIGHTS, ("#",))


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://", registry=SchemaRegistry()) as bus:
        yield bus


async def asked(client: httpx.AsyncClient, operation: Operation) -> httpx.Response:
    """The answer to an operation about what is not there, in a body that says what it must."""
    path = re.sub(r"\{\w+(:path)?\}", "x", operation.path)
    bodies: dict[str, Any] = {
        "/events": {"topic": "a"},
        "/replays": {"topic": "again"},
        "/schemas": {"event_type": "a", "version": "1", "json_schema": {}},
        "/schemas/check": {"event_type": "a", "version": "1", "json_schema": {}},
        "/schedules/x": {"event": {"topic": "a"}, "every": 60},
        "/dead-letters/redeliver": {"ids": ["x"]},
        "/dead-letters/discard": {"ids": ["x"]},
        "/dead-letters/x/resend": {"payload": {}},
        "/pauses": {"agent": "x"},
        "/pauses/resume": {"agent": "x"},
    }
    body = bodies.get(path) if operation.method in {"POST", "PUT"} else None
    async with client:
        if path == "/events/stream":  # its headers are all that is wanted
            return await client.head(path)
        return await client.request(operation.method, path, json=body)


# --- every route ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", CLOSED, ids=lambda each: f"{each.method} {each.path}")
async def test_without_a_token_nothing_is_answered(guarded: Guarded, operation: Operation) -> None:
    answer = await asked(guarded.client(), operation)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="wowevent"'
    if operation.path != "/events/stream":
        assert answer.json()["error"] == "unauthenticated"


@pytest.mark.parametrize("path", ["/health", "/live", "/ready"])
async def test_probes_need_none(guarded: Guarded, path: str) -> None:
    async with guarded.client(host="anything.example") as client:
        assert (await client.get(path)).status_code == 200
    assert {operation.path for operation in ALL if operation.open} == {"/health", "/live", "/ready"}


async def test_health_names_nobody_to_strangers(guarded: Guarded) -> None:
    await guarded.bus.subscribe("task.*", lambda event: None, "worker")
    name = "worker~task.*"
    async with guarded.client() as nobody, guarded.client("wow_x") as wrong, guarded.having() as known:
        for client in (nobody, wrong):
            answer = await client.get("/health")
            assert answer.status_code == 200
            assert name not in answer.text
            assert answer.json()["details"]["subscriptions"] == 1
        assert (await known.get("/health")).json()["details"]["states"] == {name: "healthy"}


@pytest.mark.parametrize(
    "operation", [each for each in CLOSED if each.rights], ids=lambda each: f"{each.method} {each.path}"
)
async def test_a_token_without_the_right_is_refused_whatever_else_it_may(
    guarded: Guarded, operation: Operation
) -> None:
    others: dict[str, Any] = {right: EVERY[right] for right in RIGHTS if right not in operation.rights}
    answer = await asked(guarded.having(**others), operation)

    assert answer.status_code == 403
    if operation.path != "/events/stream":
        assert answer.json()["error"] == "not_permitted"
        assert operation.rights[0] in answer.json()["message"]


@pytest.mark.parametrize("operation", CLOSED, ids=lambda each: f"{each.method} {each.path}")
async def test_a_token_with_every_right_is_not(guarded: Guarded, operation: Operation) -> None:
    assert (await asked(guarded.having(**EVERY), operation)).status_code in {200, 201, 202, 204, 404}


@pytest.mark.parametrize(
    "operation", [each for each in CLOSED if not each.rights], ids=lambda each: f"{each.method} {each.path}"
)
async def test_what_any_token_may_ask(guarded: Guarded, operation: Operation) -> None:
    assert operation.path in {"/metrics", "/openapi.json", "/schemas", "/schemas/check", "/schemas/{event_type}"}
    assert (await asked(guarded.having(), operation)).status_code in {200, 404}


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Bearer wow_000000000000_" + "A" * 43)],
        [("authorization", "Bearer ")],
        [("authorization", "SECRET")],
        [("authorization", "Basic SECRET")],
        [("authorization", "Token SECRET")],
        [("authorization", "Bearer SECRET, Bearer SECRET")],
        [("authorization", "Bearer SECRET"), ("authorization", "Bearer SECRET")],
        [("authorization", "Bearer\tSECRET")],
        [("authorization", "Bearer SECRET x")],
        [("cookie", "token=SECRET")],
        [("x-api-key", "SECRET")],
    ],
)
async def test_a_token_comes_in_one_way_only(guarded: Guarded, headers: list[tuple[str, str]]) -> None:
    secret = guarded.token(**EVERY)
    given = [(name, value.replace("SECRET", secret)) for name, value in headers]
    async with guarded.client() as client:
        answer = await client.get("/metrics", headers=given)
        assert answer.status_code == 401
        assert secret not in answer.text
        assert (await client.get("/metrics", headers={"authorization": f"bearer {secret}"})).status_code == 200


@pytest.mark.parametrize("name", ["token", "access_token"])
async def test_a_token_in_a_url_is_refused_with_a_hint(guarded: Guarded, name: str) -> None:
    secret = guarded.token(**EVERY)
    async with guarded.client(secret) as client:
        answer = await client.get("/events", params={name: secret})
    assert answer.status_code == 401
    assert "never into a URL" in answer.json()["message"]
    assert secret not in answer.text


async def test_revoked_expired_and_of_another_namespace(guarded: Guarded) -> None:
    revoked, expired = guarded.token(**EVERY), guarded.token(expires=time.time() - 1, **EVERY)
    guarded.tokens, _, elsewhere = issue(guarded.tokens, "w", 0, grants=EVERY, namespace="other")
    guarded.revoke(revoked)
    guarded.keyring.refresh()
    said = set()
    for secret in (revoked, expired, elsewhere):
        async with guarded.client(secret) as client:
            answer = await client.get("/metrics")
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        said.add(answer.text)
    assert len(said) == 1, "what is wrong with it is not told"


async def test_pages_are_kept_away_as_before(guarded: Guarded) -> None:
    secret = guarded.token(**EVERY)
    async with guarded.client(secret) as client:
        for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}, {"origin": "null"}):
            assert (await client.get("/events", headers=headers)).status_code == 403
        assert (await client.get("/events", headers={"origin": "https://ui.example"})).status_code == 200
        asking = {"origin": "https://ui.example", "access-control-request-method": "GET"}
        allowed = await client.options("/events", headers={**asking, "access-control-request-headers": "authorization"})
        assert allowed.status_code == 200


# --- publish ----------------------------------------------------------------------------------------------------------


async def stored(bus: EventBus) -> list[tuple[str, str]]:
    return [(each.event.topic, each.event.source_agent) async for each in bus.history()]


async def test_the_sender_is_who_the_token_says(guarded: Guarded) -> None:
    cloud = {"specversion": "1.0", "id": "1", "type": "task.cloud", "source": "worker"}
    async with guarded.having(publish=["task.*"]) as client:
        assert (await client.post("/events", json={"topic": "task.a"})).status_code == 202
        assert (await client.post("/events", json={"topic": "task.b", "source_agent": "worker"})).status_code == 202
        assert (await client.post("/events", json=cloud)).status_code == 202
        for forged in (
            {"topic": "task.c", "source_agent": "boss"},
            {"topic": "task.c", "source": "boss"},
            {"topic": "task.c", "source_agent_id": "boss"},
            {**cloud, "id": "2", "source": "boss"},
        ):
            answer = await client.post("/events", json=forged)
            assert (answer.status_code, answer.json()["error"]) == (403, "not_permitted")
    assert await stored(guarded.bus) == [("task.a", "worker"), ("task.b", "worker"), ("task.cloud", "worker")]


async def test_nobody_says_where_the_answer_to_a_request_goes(guarded: Guarded) -> None:
    async with guarded.having(publish=["#"]) as client:
        for address in ("_reply.another", "task.done"):
            assert (await client.post("/events", json={"topic": "a", "reply_to": address})).status_code == 202
    assert [each.event.reply_to async for each in guarded.bus.history()] == [None, "task.done"]


@pytest.mark.parametrize("topic", ["other", "task", "_live.x", "task2.a", "_task.a"])
async def test_a_topic_that_is_not_granted_takes_the_whole_batch_with_it(guarded: Guarded, topic: str) -> None:
    async with guarded.having(publish=["task.*"], subscribe=["#"], replay=["#"]) as client:
        answer = await client.post("/events", json=[{"topic": "task.a"}, {"topic": topic}])
    assert answer.status_code == 403
    assert await stored(guarded.bus) == []


async def test_a_key_of_somebody_else_is_another_key(guarded: Guarded) -> None:
    """Neither their answer, nor their events' ids, nor a way to keep them from publishing."""
    key, event = {"idempotency-key": "k-1"}, {"topic": "task.a", "payload": {"n": 1}}
    async with guarded.having("a", publish=["#"]) as a, guarded.having("b", publish=["#"]) as b:
        first = (await a.post("/events", json=event, headers=key)).json()["receipts"][0]
        other = await b.post("/events", json={**event, "payload": {"n": 2}}, headers=key)
        assert other.status_code == 202, "it would be 422 if it were the same"
        assert other.json()["receipts"][0]["event_id"] != first["event_id"]
        assert not other.json()["receipts"][0]["duplicate"]
        again = (await a.post("/events", json=event, headers=key)).json()["receipts"][0]
        assert again == {**first, "duplicate": True}
    assert await stored(guarded.bus) == [("task.a", "a"), ("task.a", "b")]


# --- reading ----------------------------------------------------------------------------------------------------------


async def fill(bus: EventBus) -> None:
    """Six events of one correlation, of which `task.*` has three, and one of them is for `other` alone."""
    for number in range(3):
        target = {1: "other", 2: "worker"}.get(number)
        await bus.publish(Event(topic="task.a", payload={"n": number}, target_agent=target, correlation_id="c"))
        await bus.publish(Event(topic="secret.b", payload={"n": number}, correlation_id="c"))


def numbers(answer: httpx.Response) -> list[tuple[str, int]]:
    return [(each["event"]["topic"], each["event"]["payload"]["n"]) for each in answer.json()["events"]]


@pytest.mark.parametrize("path", ["/events", "/topics", "/events/stream"])
async def test_no_pattern_means_everything_and_says_so(guarded: Guarded, path: str) -> None:
    async with guarded.having(replay=["task.*"], subscribe=["task.*"]) as client:
        answer = await client.get(path)
    assert answer.status_code == 403
    assert "which is what no pattern means; ask for 'task.*'" in answer.json()["message"]


@pytest.mark.parametrize("pattern", ["#", "*", "task.#", "*.a", "secret.b", "task2.*", "_live.#", "#.a"])
@pytest.mark.parametrize("path", ["/events", "/topics", "/events/stream"])
async def test_a_pattern_that_is_wider_is_refused(guarded: Guarded, path: str, pattern: str) -> None:
    async with guarded.having(replay=["task.*"], subscribe=["task.*"]) as client:
        answer = await client.get(path, params=[("pattern", "task.a"), ("pattern", pattern)])
    assert (answer.status_code, answer.json()["error"]) == (403, "not_permitted")


async def test_history_shows_what_is_granted_and_for_whom_it_is(guarded: Guarded) -> None:
    await fill(guarded.bus)
    async with guarded.having(replay=["task.*"]) as client:
        got = await client.get("/events", params={"pattern": "task.*", "correlation_id": "c"})
        assert numbers(got) == [("task.a", 0), ("task.a", 2)]
        assert (await client.get("/events", params={"correlation_id": "c"})).status_code == 403
        page = await client.get("/events", params={"pattern": "task.*", "limit": 1})
        assert numbers(page) == [("task.a", 0)]
        rest = await client.get("/events", params={"pattern": "task.*", "limit": 1, "after": page.json()["next"]})
        assert numbers(rest) == [("task.a", 2)]
        assert rest.json()["next"] is None
        lines = await client.get(
            "/events", params={"pattern": "task.*", "limit": 1}, headers={"accept": "application/x-ndjson"}
        )
        assert len(lines.text.splitlines()) == 1
        topics = (await client.get("/topics", params={"pattern": "task.*"})).json()["topics"]
        assert [each["topic"] for each in topics] == ["task.a"]
    async with guarded.having("boss", replay=["#"], admin=["#"]) as client:
        assert len(numbers(await client.get("/events"))) == 6


async def test_the_stream_begins_now_unless_the_past_is_granted_too(guarded: Guarded) -> None:
    await fill(guarded.bus)
    position = str((await anext(guarded.bus.history())).position)
    async with guarded.having(subscribe=["task.*"]) as client:
        for after, seen in (({"after": position}, {}), ({}, {"last-event-id": position})):
            answer = await client.get("/events/stream", params={"pattern": "task.*", **after}, headers=seen)
            assert answer.status_code == 403
            assert "replay" in answer.json()["message"]


async def test_a_stream_shows_what_is_granted_and_ends_with_its_token(guarded: Guarded) -> None:
    secret = guarded.token(subscribe=["task.*"], replay=["task.*"], limits=Limits(clients=1))
    async with (
        serving_app(guarded.app) as url,
        httpx.AsyncClient(base_url=url, headers=bearer(secret), timeout=10) as client,
    ):
        async with listening(client, "/events/stream?pattern=task.*") as source:
            await fill(guarded.bus)
            assert await source.numbers(2) == [0, 2]
            second = await client.get("/events/stream?pattern=task.*")
            assert (second.status_code, second.json()["error"]) == (429, "too_many_streams")
            guarded.revoke(secret)
            began = time.monotonic()
            await source.rest()
            assert time.monotonic() - began < 2
        assert (await client.get("/events/stream?pattern=task.*")).status_code == 401
        assert guarded.app.state.streams.open == 0


async def test_a_stream_that_was_left_makes_room(guarded: Guarded) -> None:
    secret = guarded.token(subscribe=["#"], limits=Limits(clients=1))
    async with serving_app(guarded.app) as url, httpx.AsyncClient(base_url=url, headers=bearer(secret)) as client:
        for _ in range(3):
            async with listening(client, "/events/stream") as source:
                await source.frame()
            while guarded.app.state.streams.open:  # noqa: ASYNC110 - the server hears of it in its own time
                await asyncio.sleep(0.01)


async def test_a_stream_ends_when_its_token_expires(guarded: Guarded) -> None:
    secret = guarded.token(subscribe=["#"], expires=time.time() + 1)
    async with (
        serving_app(guarded.app) as url,
        httpx.AsyncClient(base_url=url, headers=bearer(secret), timeout=10) as client,
        listening(client, "/events/stream") as source,
    ):
        began = time.monotonic()
        await source.rest()
        assert time.monotonic() - began < 3


async def test_all_of_the_history_ends_with_its_token_too(guarded: Guarded) -> None:
    await guarded.bus.publish_many([Event(topic="a", payload={"n": n}) for n in range(2000)])
    secret = guarded.token(replay=["#"])
    app, seen = guarded.app, []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        seen.append(message.get("body", b""))
        if len(seen) == 10:
            guarded.revoke(secret)
            guarded.keyring.refresh()

    headers = {"host": "bus", "accept": "application/x-ndjson", "authorization": f"Bearer {secret}"}
    scope = {
        "type": "http", "method": "GET", "path": "/events", "raw_path": b"/events", "query_string": b"",
        "scheme": "http", "http_version": "1.1", "server": ("bus", 80), "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    await app(scope, receive, send)
    lines = [line for line in b"".join(seen).splitlines() if line]
    assert len(lines) < 20
    assert json.loads(lines[-1])["error"] == "unauthenticated"


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}", "host": "bus"}


@asynccontextmanager
async def serving_app(app: Starlette, tls: Any = None) -> AsyncIterator[str]:
    """The application behind a real socket, with what watches over its tokens."""
    at = listen("http" if tls is None else "https", "127.0.0.1", 0, allow_anonymous=False)
    server: uvicorn.Server = http_server(app, tls)
    app.state.server = server
    tasks = [asyncio.create_task(server.serve(sockets=[at.socket])), asyncio.create_task(watch(app))]
    try:
        yield at.url
    finally:
        app.state.streams.end()
        server.should_exit = True
        await tasks[0]
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- schedules --------------------------------------------------------------------------------------------------------

TICK: dict[str, Any] = {"event": {"topic": "tick.now"}, "every": 600}


async def test_a_schedule_is_its_owners(guarded: Guarded) -> None:
    async with (
        guarded.having("one", publish=["tick.*"]) as one,
        guarded.having("two", publish=["#"]) as two,
        guarded.having("ops", admin=["#"]) as ops,
    ):
        made = await one.put("/schedules/tick", json=TICK)
        assert (made.status_code, made.json()["event"]["source_agent"]) == (200, "one")
        assert (await two.get("/schedules")).json() == {"schedules": []}
        for method in ("GET", "DELETE"):
            assert (await two.request(method, "/schedules/tick")).status_code == 404
        taken = await two.put("/schedules/tick", json={**TICK, "every": 1})
        assert (taken.status_code, taken.json()["error"]) == (403, "not_permitted")
        assert (await one.put("/schedules/tick", json={**TICK, "every": 700})).json()["every"] == 700
        assert (await ops.get("/schedules/tick")).json()["every"] == 700
        assert len((await ops.get("/schedules")).json()["schedules"]) == 1
        assert (await ops.put("/schedules/other", json=TICK)).status_code == 403  # that is to publish
        assert (await ops.delete("/schedules/tick")).status_code == 204


async def test_who_fires_may_publish_there_and_as_nobody_else(guarded: Guarded) -> None:
    async with guarded.having("one", publish=["tick.*"]) as one:
        for event in ({"topic": "pay.out"}, {**TICK["event"], "source_agent": "two"}):
            answer = await one.put("/schedules/tick", json={**TICK, "event": event})
            assert (answer.status_code, answer.json()["error"]) == (403, "not_permitted")
    assert await guarded.bus.schedules.list() == []


async def test_who_may_not_publish_there_any_more_does_not_see_it(guarded: Guarded) -> None:
    async with guarded.having("one", publish=["tick.*"]) as before, guarded.having("one", publish=["task.*"]) as now:
        await before.put("/schedules/tick", json=TICK)
        assert (await now.get("/schedules")).json() == {"schedules": []}
        assert (await now.delete("/schedules/tick")).status_code == 404


# --- subscriptions, dead letters, replays -----------------------------------------------------------------------------


async def test_subscriptions_are_shown_to_who_may_hear_what_they_hear(guarded: Guarded) -> None:
    for id, patterns in (("ours", ("task.*",)), ("wider", ("task.*", "secret.*")), ("theirs", ("secret.*",))):
        await guarded.bus.broker.declare(Subscription(id=id, patterns=patterns))
    async with guarded.having(subscribe=["task.#"]) as client:
        assert [each["id"] for each in (await client.get("/subscriptions")).json()["subscriptions"]] == ["ours"]
        assert (await client.get("/subscriptions/ours")).status_code == 200
        hidden, absent = await client.get("/subscriptions/theirs"), await client.get("/subscriptions/absent")
        assert hidden.status_code == absent.status_code == 404
        assert hidden.json()["message"].replace("theirs", "absent") == absent.json()["message"]
    async with guarded.having(admin=["#"]) as client:
        assert len((await client.get("/subscriptions")).json()["subscriptions"]) == 3
        assert (await client.delete("/subscriptions/theirs")).status_code == 204


async def letters(guarded: Guarded) -> dict[str, str]:
    """Dead letters of `watcher`, by topic; all of one correlation."""

    async def reject(_event: Event) -> None:
        raise Reject

    await guarded.bus.subscribe("#", reject, "watcher")
    for topic in ("secret.b", "task.a", "secret.c", "task.d"):
        await guarded.bus.publish(Event(topic=topic, correlation_id="c"))
    await guarded.bus.join(5)
    return {letter.event.topic: letter.id for letter in await guarded.bus.dead_letters.list()}


async def test_dead_letters_are_those_of_the_grant_however_they_are_asked_for(guarded: Guarded) -> None:
    ids = await letters(guarded)
    async with guarded.having(dead_letters=["task.*"]) as client:
        for params in ({}, {"correlation_id": "c"}, {"subscription": "watcher"}, {"reason": "rejected"}):
            got = (await client.get("/dead-letters", params=params)).json()
            assert [each["event"]["topic"] for each in got["dead_letters"]] == ["task.a", "task.d"], params
        page = (await client.get("/dead-letters", params={"limit": 1})).json()
        assert ([each["event"]["topic"] for each in page["dead_letters"]], page["more"]) == (["task.a"], True)
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/redeliver")):
            for id in (ids["secret.b"], "absent"):
                assert (await client.request(method, f"/dead-letters/{id}{path}")).status_code == 404
        assert (await client.get("/dead-letters", params={"subscription": "absent"})).status_code == 404
        named = {"ids": list(ids.values())}
        assert (await client.post("/dead-letters/redeliver", json=named)).json() == {"redelivered": 2}
        await guarded.bus.join(5)
        assert (await client.post("/dead-letters/discard", json={"correlation_id": "c"})).json() == {"discarded": 2}
    left = {letter.event.topic for letter in await guarded.bus.dead_letters.list()}
    assert left == {"secret.b", "secret.c"}


async def test_a_subscription_none_of_whose_letters_may_be_seen_is_not_there(guarded: Guarded) -> None:
    await guarded.bus.broker.declare(Subscription(id="theirs", patterns=("secret.*",)))
    await guarded.bus.broker.declare(Subscription(id="ours", patterns=("task.*",)))
    async with guarded.having(dead_letters=["task.*"]) as client:
        assert (await client.get("/dead-letters", params={"subscription": "theirs"})).status_code == 404
        assert (await client.get("/dead-letters", params={"subscription": "ours"})).status_code == 200


async def test_of_a_conversation_what_is_granted_is_seen(guarded: Guarded) -> None:
    await letters(guarded)
    await guarded.bus.publish(Event(topic="task.e", correlation_id="c", target_agent="other"))
    seen: dict[str, dict[str, Any]] = {
        "events": {"replay": ["task.*"]},
        "failures": {"replay": ["task.*"], "dead_letters": ["task.a", "secret.*"]},
        "everything": {"replay": ["#"], "dead_letters": ["#"], "admin": ["#"]},
        "hers": {"replay": ["task.*"], "admin": ["#"]},
    }
    found = {}
    for name, grants in seen.items():
        async with guarded.having(**grants) as client:
            answer = (await client.get("/conversations/c")).json()
            found[name] = [(step["topic"], len(step["failures"])) for step in answer["steps"]]
    assert found == {
        "events": [("task.a", 0), ("task.d", 0)],
        "failures": [("task.a", 1), ("task.d", 0)],
        "everything": [("secret.b", 1), ("task.a", 1), ("secret.c", 1), ("task.d", 1), ("task.e", 0)],
        "hers": [("task.a", 0), ("task.d", 0), ("task.e", 0)],
    }
    async with guarded.having(replay=["plan.*"]) as client:
        hidden, absent = await client.get("/conversations/c"), await client.get("/conversations/x")
        assert hidden.status_code == absent.status_code == 404
        assert hidden.json()["message"].replace("'c'", "'x'") == absent.json()["message"]


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"topic": "again.x", "pattern": "task.*"}, 202),
        ({"topic": "again.x", "pattern": ["task.a", "task.b"]}, 202),
        ({"topic": "again.x"}, 403),
        ({"topic": "again.x", "correlation_id": "c"}, 403),
        ({"topic": "again.x", "event_ids": ["x"]}, 403),
        ({"topic": "again.x", "pattern": "#"}, 403),
        ({"topic": "again.x", "pattern": ["task.*", "secret.b"]}, 403),
        ({"topic": "again.x", "pattern": []}, 403),
        ({"topic": "secret.b", "pattern": "task.*"}, 403),
        ({"topic": "task.a", "pattern": "task.*"}, 403),
    ],
)
async def test_a_replay_needs_what_it_reads_and_where_it_goes(
    guarded: Guarded, order: dict[str, Any], status: int
) -> None:
    async with guarded.having(replay=["task.*"], publish=["again.*"]) as client:
        assert (await client.post("/replays", json=order)).status_code == status


async def test_what_is_replayed_is_who_replays_it(guarded: Guarded) -> None:
    await guarded.bus.publish(Event(topic="task.a", source_agent="boss"))
    async with guarded.having(replay=["task.*"], publish=["again"]) as client:
        replay = (await client.post("/replays", json={"topic": "again", "pattern": "task.*"})).json()["id"]
        while (await client.get(f"/replays/{replay}")).json()["state"] == "running":  # noqa: ASYNC110 - HTTP has no event
            await asyncio.sleep(0.01)
    assert await stored(guarded.bus) == [("task.a", "boss"), ("again", "worker")]


async def test_a_replay_is_its_owners_and_ends_with_their_token(guarded: Guarded) -> None:
    await guarded.bus.publish_many([Event(topic="task.a", timestamp=f"2026-01-01T00:00:0{n}Z") for n in range(9)])
    secret = guarded.token("owner", replay=["#"], publish=["#"])
    async with guarded.client(secret) as owner, guarded.having("other", replay=["#"], publish=["#"]) as other:
        order = {"topic": "again", "speed_multiplier": 0.001}
        replay = (await owner.post("/replays", json=order)).json()["id"]
        for method, path in (("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("DELETE", "")):
            assert (await other.request(method, f"/replays/{replay}{path}")).status_code == 404
        assert (await other.get("/replays")).json() == {"replays": [], "complete": True}
        async with guarded.having("boss", replay=["#"], admin=["#"]) as boss:
            assert (await boss.get(f"/replays/{replay}")).json()["state"] == "running"
            guarded.revoke(secret)
            watching = asyncio.create_task(watch(guarded.app))
            async with asyncio.timeout(2):
                while (await boss.get(f"/replays/{replay}")).json()["state"] == "running":  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.05)
            watching.cancel()
            assert (await boss.get(f"/replays/{replay}")).json()["state"] == "cancelled"


# --- limits, logs, TLS ------------------------------------------------------------------------------------------------


async def test_who_asks_or_publishes_too_often_is_told_when_to_come_again(guarded: Guarded) -> None:
    events = guarded.token("talker", limits=Limits(events="2/s"), publish=["#"])
    requests = guarded.token("asker", limits=Limits(requests="1/min"))
    async with guarded.client(events) as client:
        assert (await client.post("/events", json=[{"topic": "a"}] * 4)).status_code == 202
        answer = await client.post("/events", json={"topic": "a"})
        assert (answer.status_code, answer.json()["error"]) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1
    async with guarded.client(requests) as client:
        assert (await client.get("/metrics")).status_code == 200
        answer = await client.get("/metrics")
        assert answer.status_code == 429
        assert 55 <= int(answer.headers["retry-after"]) <= 60
        assert (await client.get("/health")).status_code == 200
    assert len(await stored(guarded.bus)) == 4


async def test_no_secret_and_no_payload_is_in_any_line(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good, revoked = guarded.token("good", **EVERY), guarded.token("gone", **EVERY)
    guarded.revoke(revoked)
    wrong, jwt = good[:-1] + ("A" if good[-1] != "A" else "B"), "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2VjcmV0"
    for operation in CLOSED:
        for secret in (good, revoked, wrong, jwt):
            await asked(guarded.client(secret), operation)
    async with guarded.client(good) as client:
        await client.get("/events", params={"token": good})
        await client.get("/metrics", headers={"authorization": f"Bearer {good} {good}"})
        await client.post("/events", json={"topic": "a", "source_agent": "boss", "payload": {"password": "hunter2"}})

    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert "audit" in ours
    for secret in (good, revoked, wrong, jwt):
        assert secret not in ours
        assert secret[-43:] not in ours
    assert "hunter2" not in ours


async def test_the_audit_log_says_who_did_what(
    guarded: Guarded, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "_refused", {})  # others were refused a moment ago
    await guarded.bus.broker.declare(Subscription(id="resting", patterns=("task.*",)))
    secret = guarded.token("ops", admin=["#"])
    with caplog.at_level(logging.INFO, "wowevent"):
        async with guarded.client(secret) as client:
            await client.post("/subscriptions/resting/purge")
            await client.post("/events", json={"topic": "pay.out"})
        async with guarded.client() as client:
            await client.get("/events")
    lines = [record.message for record in caplog.records if record.message.startswith("audit ")]
    id = guarded.ids[secret]
    assert lines[0] == f"audit action=purge who=ops token={id} outcome=done subscription=resting purged=0"
    assert lines[1].startswith(f"audit action='POST /events' who=ops token={id} outcome=refused code=not_permitted ")
    assert lines[2].startswith("audit action='GET /events' who=nobody token= outcome=refused code=unauthenticated ")
    assert len(lines) == 3


async def test_over_tls(guarded: Guarded, tmp_path: Path) -> None:
    ca = trustme.CA()
    own = ca.issue_cert("127.0.0.1", "bus")
    own.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    tls = server_context(Settings(tls_cert=tmp_path / "both.pem", tls_key=tmp_path / "both.pem"))
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    trusting = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    async with serving_app(guarded.app, tls) as url:
        assert url.startswith("https://")
        async with httpx.AsyncClient(base_url=url, headers=bearer(guarded.token()), verify=trusting) as client:
            assert (await client.get("/metrics")).status_code == 200
        async with httpx.AsyncClient(base_url=url) as stranger:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.get("/health")
        async with httpx.AsyncClient(base_url=url.replace("https:", "http:")) as plain:
            with pytest.raises(httpx.RemoteProtocolError):
                await plain.get("/health")


async def test_without_a_keyring_nobody_is_asked(bus: EventBus) -> None:
    async with serving(bus) as served:
        assert (await served.client.post("/events", json={"topic": "a", "source_agent": "anybody"})).status_code == 202
        assert (await served.client.get("/events", headers={"authorization": "Bearer x"})).status_code == 200


# --- what takes its time ----------------------------------------------------------------------------------------------


async def test_a_token_that_ends_while_the_request_comes_publishes_nothing(guarded: Guarded) -> None:
    secret = guarded.token(publish=["#"])

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"topic":'
        guarded.revoke(secret)
        guarded.keyring.refresh()
        yield b'"a"}'

    async with guarded.client(secret) as client:
        answer = await client.post("/events", content=slowly(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated")
    assert await stored(guarded.bus) == []


@pytest.mark.parametrize("path", ["/events/stream?after={after}", "/events"])
async def test_who_does_not_read_is_cut_off_with_its_token(guarded: Guarded, path: str) -> None:
    await guarded.bus.publish_many([Event(topic="a", payload={"text": "x" * 100_000}) for _ in range(300)])
    after = str((await anext(guarded.bus.history())).position)
    secret = guarded.token(subscribe=["#"], replay=["#"])
    async with serving_app(guarded.app) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1000)
        lines = {**bearer(secret), "accept": "application/x-ndjson"}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET {path.format(after=after)} HTTP/1.1\r\n{head}\r\n".encode())
        await reader.readline()
        await asyncio.sleep(0.3)
        connections = guarded.app.state.server.server_state.connections
        assert len(connections) == 1
        guarded.revoke(secret)
        async with asyncio.timeout(2.5):
            while connections:  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0.02)
        writer.close()


async def test_tokens_are_looked_at_again_whatever_went_wrong(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret, refresh, looks = guarded.token(), guarded.keyring.refresh, 0

    def troubled() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("a fault of ours")
        return refresh()

    monkeypatch.setattr(guarded.keyring, "refresh", troubled)
    guarded.revoke(secret)
    watching = asyncio.create_task(watch(guarded.app))
    async with guarded.client(secret) as client, asyncio.timeout(3):
        while (await client.get("/metrics")).status_code == 200:  # noqa: ASYNC110 - HTTP has no event
            await asyncio.sleep(0.05)
    watching.cancel()
    assert "tokens could not be looked at" in caplog.text
