"""Who comes in by a token, what he may do, and for how long; what nobody gets by a trick."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.keys import Keys, bad_tokens, hidden
from tests.router.conftest import Talker, bus_of, connections_of, event, eventually, part
from wowevent import EventBus
from wowevent.access import audit, watch
from wowevent.errors import NotPermitted
from wowevent.router import EventRouter, door

PLAIN: dict[str, Any] = {"compression": None, "ping_interval": None, "max_size": None, "proxy": None}

Enter = Callable[..., Awaitable[Talker]]
"""`await enter(token, router=None)`: a client that said it at the handshake; None says nothing."""


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def guarded(keys: Keys, quiet: None, stack: AsyncExitStack) -> EventRouter:
    return await stack.enter_async_context(EventRouter(host="127.0.0.1", port=0, keyring=keys.ring()))


@pytest.fixture
def enter(guarded: EventRouter, stack: AsyncExitStack) -> Enter:
    async def enter(token: str | None, router: EventRouter | None = None, **settings: Any) -> Talker:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = (router or guarded).url
        socket = await stack.enter_async_context(connect(url, additional_headers=headers, **PLAIN, **settings))
        talker = Talker(socket)
        await talker.hear("welcome")
        return talker

    return enter


async def status_of(router: EventRouter, **headers: str) -> tuple[int, str]:
    """HTTP status and body of a handshake that is refused."""
    with pytest.raises(websockets.InvalidStatus) as caught:
        await connect(router.url, additional_headers=headers, **PLAIN)
    return caught.value.response.status_code, (caught.value.response.body or b"").decode()


async def ended(talker: Talker) -> tuple[int, str, list[dict[str, Any]]]:
    """Close code and reason, and what was said before."""
    code, reason = await talker.closed()
    return code, reason, list(talker.kept)


# --- the token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["header", "hello"])
async def test_a_good_token_lets_in(by: str, guarded: EventRouter, keys: Keys, enter: Enter):
    for token in (keys.all_of("alice"), keys.jwt(sub="alice")):
        client = await enter(token if by == "header" else None)
        answer = await client.ask("hello", **({"token": token} if by == "hello" else {}))
        assert answer["type"] == "hello"
        assert answer["agent"] == "alice"
        assert "token" not in answer
        assert token not in json.dumps(answer)
        assert (await client.publish(source_agent="alice"))["status"] == "queued"


async def test_a_bad_token_lets_nobody_in(guarded: EventRouter, keys: Keys, enter: Enter):
    for wrong, token in bad_tokens(keys).items():
        status, body = await status_of(guarded, Authorization=f"Bearer {token}")
        assert status == 401, wrong
        assert token not in body
        client = await enter(None)
        await client.say("hello", token=token)
        await client.say("get_health")
        code, reason, said = await ended(client)
        assert (code, said) == (4501, []), wrong
        assert token not in reason
        assert reason == "this token is not valid here", "all alike: what is wrong with it is not told"


@pytest.mark.parametrize("line", ["Basic YTpi", "Bearer", "Bearer ", "{token}", "Token {token}", "Bearer {token} x"])
async def test_what_is_no_bearer_token_lets_nobody_in(guarded: EventRouter, keys: Keys, line: str):
    status, _ = await status_of(guarded, Authorization=line.format(token=keys.all_of("alice")))
    assert status == 401


async def test_two_tokens_in_one_handshake_let_nobody_in(guarded: EventRouter, keys: Keys):
    tokens = keys.all_of("alice"), keys.all_of("bob")
    headers = [("Authorization", f"Bearer {token}") for token in tokens]
    with pytest.raises(websockets.InvalidStatus) as caught:
        await connect(guarded.url, additional_headers=headers, **PLAIN)
    assert caught.value.response.status_code == 401
    assert caught.value.response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("query", ["token={0}", "access_token={0}", "a=b&TOKEN={0}", "api_key={0}", "token="])
async def test_a_token_in_the_url_lets_nobody_in_and_the_hint_does_not_repeat_it(
    guarded: EventRouter, keys: Keys, query: str
):
    token = keys.all_of("alice")
    url = f"{guarded.url}/?{query.format(token)}"
    with pytest.raises(websockets.InvalidStatus) as caught:
        await connect(url, additional_headers={"Authorization": f"Bearer {token}"}, **PLAIN)
    body = (caught.value.response.body or b"").decode()
    assert caught.value.response.status_code == 403
    assert "Authorization" in body
    assert token not in body


async def test_a_path_that_is_none_is_not_repeated(
    guarded: EventRouter, keys: Keys, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(audit, "_refused", {})
    token = keys.all_of("alice")
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    writer.write(
        f"GET //[/?token={token} HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert token[:20] not in answer.decode() + caplog.text
    assert "audit action=connect" in caplog.text


FIRST = [
    '{"type":"hello"}',
    '{"type":"hello","token":null}',
    '{"type":"hello","token":7}',
    '{"type":"ping","echo":1}',
    '{"type":"get_health","token":"{token}"}',
    '{"type":"publish","event":{"topic":"a"},"token":"{token}"}',
    '{"type":"subscribe","subscription":{"topics":["#"]}}',
    '{"type":"request","event":{"topic":"a"}}',
    '{"type":"reply","event":{"event_id":"e","correlation_id":"c","reply_to":"_reply.x"}}',
    '{"type":"ack","subscription_id":"sub-1","tokens":["1"]}',
    '{"type":"nonsense"}',
    "not json",
    "[]",
]


@pytest.mark.parametrize("first", FIRST)
async def test_nothing_is_answered_before_a_token(guarded: EventRouter, keys: Keys, enter: Enter, first: str):
    client = await enter(None)
    token = keys.all_of("alice")
    await client.text(first.replace("{token}", token))
    await client.say("hello", token=token)
    code, reason, said = await ended(client)
    assert code == 4501
    assert said == []
    assert "hello" in reason
    assert (await health_of(guarded))["events_processed"] == 0


async def health_of(router: EventRouter) -> dict[str, Any]:
    return await router.health()


async def test_who_says_no_token_in_time_is_sent_away(
    monkeypatch: pytest.MonkeyPatch, guarded: EventRouter, keys: Keys, enter: Enter
):
    monkeypatch.setattr(door, "PATIENCE", 0.2)
    token = keys.all_of("alice")
    silent, known, late = await enter(None), await enter(token), await enter(None)
    await late.ask("hello", token=token)
    began = time.monotonic()
    await silent.socket.ping()
    code, reason, said = await ended(silent)
    assert (code, said) == (4501, [])
    assert "no token" in reason
    assert time.monotonic() - began < 2
    await asyncio.sleep(0.3)
    for client in (known, late):
        await client.ask("ping")


async def test_few_may_wait_and_they_keep_nobody_out_who_is_known(
    monkeypatch: pytest.MonkeyPatch, guarded: EventRouter, keys: Keys, enter: Enter
):
    monkeypatch.setattr(door, "WAITING", 3)
    waiting = [await enter(None) for _ in range(3)]
    assert (await status_of(guarded))[0] == 503
    token = keys.all_of("alice")
    await (await enter(token)).ask("ping")
    await waiting[0].ask("hello", token=token)
    await enter(None)
    assert (await status_of(guarded))[0] == 503
    waiting[1].cut()
    await eventually(lambda: len(connections_of(guarded)) == 4)
    await enter(None)


async def test_who_waits_takes_no_place_of_a_client(keys: Keys, stack: AsyncExitStack, enter: Enter, quiet: None):
    router = EventRouter(host="127.0.0.1", port=0, keyring=keys.ring(), max_clients=1)
    await stack.enter_async_context(router)
    token = keys.all_of("alice")
    waiting = await enter(None, router)
    first = await enter(token, router)
    assert (await status_of(router, Authorization=f"Bearer {token}"))[0] == 503
    await waiting.say("hello", token=token)
    assert (await waiting.closed())[0] == 1013
    await first.ask("ping")


async def test_a_second_token_changes_nothing(keys: Keys, enter: Enter):
    client = await enter(keys.token("alice", publish=["a.#"]))
    assert (await client.ask("hello", token=keys.all_of("bob")))["error"] == "protocol_error"
    assert (await client.ask("publish", event={"topic": "b"}))["error"] == "not_permitted"


async def test_without_a_keyring_a_token_means_nothing(stack: AsyncExitStack, enter: Enter, quiet: None):
    router = await stack.enter_async_context(EventRouter(host="127.0.0.1", port=0))
    client = Talker(await stack.enter_async_context(connect(router.url, **PLAIN)))
    await client.hear("welcome")
    answer = await client.ask("hello", token="whatever", agent="me")
    assert answer["agent"] == "me"
    await client.publish()


# --- rights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granted", "topic", "allowed"),
    [
        ("task.*", "task.created", True),
        ("task.*", "task.created.now", True),
        ("task.*", "task", False),
        ("task.*", "tasks.created", False),
        ("*.created", "task.created", True),
        ("*.created", "task.created.now", False),
        ("#", "anything", True),
        ("#", "_bus.pauses", False),
        ("_bus.#", "_bus.pauses", False),
        ("task.created", "task.created", True),
        ("task.created", "task.Created", False),
    ],
)
@pytest.mark.parametrize("frame", ["publish", "request"])
async def test_a_token_publishes_what_it_grants(  # noqa: PLR0917 - fixtures, and the columns of the table
    keys: Keys, guarded: EventRouter, enter: Enter, granted: str, topic: str, frame: str, *, allowed: bool
):
    client = await enter(keys.token("alice", publish=[granted], subscribe=["#"]))
    more = {"timeout": 0.3} if frame == "request" else {}
    answer = await client.ask(frame, event={"topic": topic, "payload": {}}, **more)
    if allowed:
        assert answer["type"] == "published" if frame == "publish" else answer["error"] == "no_responders"
    else:
        assert answer["type"] == "error"
        assert answer["error"] in {"not_permitted", "invalid_topic"}
    assert (await guarded.health())["events_processed"] == (allowed and frame == "publish")


async def test_a_token_without_a_right_has_none(keys: Keys, enter: Enter):
    client = await enter(keys.token("alice"))
    assert (await client.ask("publish", event=event(source_agent="alice")))["error"] == "not_permitted"
    assert (await client.ask("request", event=event(source_agent="alice")))["error"] == "not_permitted"
    assert (await client.ask("subscribe", subscription={}))["error"] == "not_permitted"
    assert (await client.health())["clients"] == 1, "any token may ask how the router is"


@pytest.mark.parametrize(
    ("granted", "wanted", "allowed"),
    [
        (["task.*"], ["task.*"], True),
        (["task.*"], ["task.#"], False),
        (["task.#"], ["task.*"], True),
        (["task.*"], ["task.*.created"], True),
        (["task.*"], ["*.created"], False),
        (["task.*"], ["*"], False),
        (["task.*"], ["#"], False),
        (["task.*"], ["task.a", "agent.b"], False),
        (["task.*", "agent.*"], ["task.a", "agent.b"], True),
        (["*"], ["#"], True),
        (["a", "*.*"], ["*"], False),
        (["#"], ["_reply.#"], False),
        (["#"], ["_bus.#"], False),
        (["*"], ["_bus"], False),
        ([], ["task.a"], False),
    ],
)
async def test_a_token_hears_what_it_grants(
    keys: Keys, enter: Enter, granted: list[str], wanted: list[str], *, allowed: bool
):
    client = await enter(keys.token("alice", subscribe=granted))
    for named in ({}, {"name": "alice"}, {"subscription": "work"}):
        answer = await client.ask("subscribe", subscription={"topics": wanted, **named})
        assert answer["type"] == ("subscribed" if allowed else "error"), answer
        if not allowed:
            assert answer["error"] == "not_permitted"
        else:
            await client.ask("unsubscribe", subscription_id=answer["subscription_id"])


async def test_the_past_needs_a_right_of_its_own(keys: Keys, enter: Enter):
    writer = await enter(keys.all_of("writer"))
    old = await writer.publish("task.secret", 1, source_agent="writer")
    epoch = old["position"].rpartition("-")[0]
    live = await enter(keys.token("live", subscribe=["task.*"]))
    partly = await enter(keys.token("partly", subscribe=["task.*"], replay=["task.open"]))
    for client, name in ((live, "live"), (partly, "partly")):
        for past in (
            {"after": f"{epoch}-0"},
            {"name": name, "start": "first"},
            {"name": name, "start": "2020-01-01T00:00:00Z"},
            {"name": name, "start": f"{epoch}-0"},
            {"name": name, "after": f"{epoch}-0"},
            {"name": name, "after": "first"},
            {"subscription": "x", "start": "first"},
            {"subscription": "x", "start": "new", "after": "first"},
        ):
            answer = await client.ask("subscribe", subscription={"topics": ["task.*"], **past})
            assert answer.get("error") == "not_permitted", past
        await client.subscribe("task.*", name=name, start="new")
        await client.subscribe("task.*")
        await client.nothing()
    answer = await partly.subscribe("task.open", after=f"{epoch}-0")
    assert answer["recovered"]
    whole = await enter(keys.token("whole", subscribe=["task.*"], replay=["task.#"]))
    await whole.subscribe("task.*", name="whole", start="first")
    assert (await whole.event())["event"]["payload"] == {"n": 1}


# --- who it is --------------------------------------------------------------------------------------------------------


FORGED = [
    {"source_agent": "bob"},
    {"source": "bob"},
    {"source_agent_id": "bob"},
    {"source_agent": "alice2"},
    {"source_agent": "Alice"},
]


async def test_nobody_publishes_as_another(keys: Keys, guarded: EventRouter, enter: Enter):
    client, other = await enter(keys.all_of("alice")), await enter(keys.all_of("bob"))
    await other.subscribe()
    for forged in FORGED:
        fields = {"topic": "task.created", "payload": {"n": 1}, **forged}
        for frame in ("publish", "request"):
            assert (await client.ask(frame, event=fields))["error"] == "not_permitted", forged
    cloud = {"specversion": "1.0", "id": "1", "source": "bob", "type": "task.created", "data": {}}
    assert (await client.ask("publish", event=cloud))["error"] == "not_permitted"
    plain = (  # byte for byte what we would write ourselves: the fast way in
        '{"type":"publish","ref":1,"event":{"v":1,"event_id":"e1","event_type":"task.created","topic":"task.created",'
        '"source_agent":"%s","timestamp":"2026-01-01T00:00:00Z","priority":5,"correlation_id":"e1","payload":{"n":1}}}'
    )
    await client.text(plain % "bob")
    assert (await client.hear(ref=1))["error"] == "not_permitted"
    await other.nothing()
    await client.text((plain % "").replace("e1", "e2"))
    assert (await client.hear(ref=1))["status"] == "queued"
    assert (await other.event())["event"]["source_agent"] == "alice"


@pytest.mark.parametrize(
    "fields", [{}, {"source_agent": None}, {"source_agent": ""}, {"source": "alice"}, {"source_agent": "alice"}]
)
async def test_what_names_nobody_is_stamped(keys: Keys, enter: Enter, fields: dict[str, Any]):
    client = await enter(keys.all_of("alice"))
    await client.subscribe()
    await client.ask("publish", event={"topic": "a", "payload": {}, **fields})
    assert (await client.event())["event"]["source_agent"] == "alice"


async def test_nobody_says_hello_or_subscribes_as_another(keys: Keys, guarded: EventRouter, enter: Enter):
    client = await enter(keys.all_of("alice"))
    assert (await client.ask("hello", agent="bob"))["error"] == "not_permitted"
    assert (await client.ask("hello", agent="alice"))["agent"] == "alice"
    assert (await client.ask("subscribe", subscription={"name": "bob"}))["error"] == "not_permitted"
    assert not await bus_of(guarded).subscriptions()


async def test_what_is_meant_for_one_agent_comes_to_no_other(keys: Keys, enter: Enter):
    alice, bob = await enter(keys.all_of("alice")), await enter(keys.all_of("bob"))
    for client in (alice, bob):
        await client.ask("hello")
        await client.subscribe()
        await client.subscribe(subscription=f"all-of-{id(client)}")
    await alice.publish("a", 1, source_agent="alice", target="bob")
    await alice.publish("a", 2, source_agent="alice", target="alice")
    assert [each["event"]["payload"]["n"] for each in await bob.events(2)] == [1, 1]
    assert [each["event"]["payload"]["n"] for each in await alice.events(2)] == [2, 2]
    await alice.nothing()
    await bob.nothing()


async def test_only_who_got_a_request_answers_it(keys: Keys, enter: Enter):
    asker, responder = await enter(keys.all_of("asker")), await enter(keys.token("responder", subscribe=["ask.*"]))
    thief = await enter(keys.token("thief", publish=["#"], subscribe=["other.*"]))
    await responder.subscribe("ask.*")
    await thief.subscribe("other.*")
    await asker.say("request", event={"topic": "ask.me", "payload": {}}, timeout=5.0, ref="q")
    asked = (await responder.event())["event"]
    asked = {name: asked[name] for name in ("event_id", "correlation_id", "reply_to")}
    assert (await thief.ask("reply", event=asked, reply="stolen"))["error"] == "not_permitted"
    other = {**asked, "reply_to": "_reply.another"}
    assert (await responder.ask("reply", event=other, reply="x"))["error"] == "not_permitted"
    await responder.say("reply", event=asked, reply="mine")
    assert (await asker.hear(ref="q"))["reply"] == "mine"


async def test_nobody_says_that_an_answer_to_him_goes_to_another(keys: Keys, guarded: EventRouter, enter: Enter):
    """He is brought his own event, and could then answer in the place of whoever was asked."""
    thief = await enter(keys.token("thief", publish=["task.*"], subscribe=["task.*"]))
    await thief.subscribe("task.*")
    address = part(part(bus_of(guarded), "_requests"), "topic")
    await thief.ask(
        "publish", event={"topic": "task.a", "payload": {}, "event_id": "their-request", "reply_to": address}
    )
    assert "reply_to" not in (await thief.event())["event"]
    forged = {"event_id": "their-request", "correlation_id": "their-request", "reply_to": address}
    assert (await thief.ask("reply", event=forged, reply="stolen"))["error"] == "not_permitted"


async def test_a_named_subscription_answers_too(keys: Keys, enter: Enter):
    asker, responder = await enter(keys.all_of("asker")), await enter(keys.token("responder", subscribe=["ask.*"]))
    await responder.subscribe("ask.*", name="responder")
    await asker.say("request", event={"topic": "ask.me", "payload": {}}, timeout=5.0, ref="q")
    delivery = await responder.event()
    asked = {name: delivery["event"][name] for name in ("event_id", "correlation_id", "reply_to")}
    await responder.say("reply", event=asked, reply="mine")
    assert (await asker.hear(ref="q"))["reply"] == "mine"


# --- named subscriptions ----------------------------------------------------------------------------------------------


async def test_a_subscription_that_takes_more_than_a_token_may_hear_is_refused(
    keys: Keys, guarded: EventRouter, enter: Enter
):
    wide = await enter(keys.token("worker", publish=["#"], subscribe=["#"]))
    answer = await wide.subscribe("task.*", "pay.*", subscription="shared")
    await wide.ask("unsubscribe", subscription_id=answer["subscription_id"])
    await wide.publish("pay.secret", 1, source_agent="worker")
    narrow = await enter(keys.token("worker", subscribe=["task.*"]))
    answer = await narrow.ask("subscribe", subscription={"topics": ["task.*"], "subscription": "shared"})
    assert answer["error"] == "not_permitted"
    (info,) = await bus_of(guarded).subscriptions()
    assert set(info.subscription.patterns) == {"task.*", "pay.*"}, "what was refused changed nothing"
    await narrow.nothing()


async def test_a_subscription_of_another_agent_is_refused(keys: Keys, enter: Enter):
    alice, bob = await enter(keys.all_of("alice")), await enter(keys.all_of("bob"))
    await alice.subscribe("task.*", subscription="work")
    answer = await bob.ask("subscribe", subscription={"topics": ["task.*"], "subscription": "work"})
    assert answer["error"] == "not_permitted"


async def test_what_waits_in_a_subscription_comes_to_nobody_who_may_not_hear_it(
    keys: Keys, enter: Enter, monkeypatch: pytest.MonkeyPatch
):
    """Its patterns are narrow now; what it took before is in it still."""
    wide = await enter(keys.token("worker", publish=["#"], subscribe=["#"]))
    first = await wide.subscribe("#", subscription="shared")
    await wide.ask("unsubscribe", subscription_id=first["subscription_id"])
    await wide.publish("pay.secret", 1, source_agent="worker")
    await wide.publish("task.open", 2, source_agent="worker")
    again = await wide.subscribe("task.*", subscription="shared", credit=1)
    held = [await wide.event()]
    await wide.say("nack", subscription_id=again["subscription_id"], tokens=[held[0]["token"]], release=True)
    await wide.ask("unsubscribe", subscription_id=again["subscription_id"])
    narrow = await enter(keys.token("worker", subscribe=["task.*"]))
    await narrow.subscribe("task.*", subscription="shared")
    delivery = await narrow.event()
    assert delivery["event"]["payload"] == {"n": 2}
    await asyncio.sleep(1.2)  # it came back from where it was left to others
    await narrow.nothing()
    await wide.subscribe("#", subscription="shared")
    assert (await wide.event())["event"]["payload"] == {"n": 1}


async def test_a_suspect_comes_to_nobody_who_may_not_hear_it(keys: Keys, enter: Enter):
    """Whoever had it has gone without a word: it is handed out alone."""
    narrow = await enter(keys.token("worker", subscribe=["task.*"]))
    wide = await enter(keys.token("worker", publish=["#"], subscribe=["#"]))
    await narrow.subscribe("task.*", subscription="shared", lease=0.3)
    await wide.subscribe("#", subscription="shared", lease=0.3)
    await wide.publish("pay.secret", 1, source_agent="worker")
    await wide.event()
    wide.cut()
    await asyncio.sleep(1.5)
    await narrow.nothing()
    again = await enter(keys.token("worker", subscribe=["#"]))
    await again.subscribe("#", subscription="shared", lease=0.3)
    assert (await again.event())["attempt"] == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_another_router_declares_meanwhile_brings_nothing_that_may_not_be_heard(  # noqa: PLR0917 - fixtures
    keys: Keys, stack: AsyncExitStack, enter: Enter, url: str, quiet: None, when: str
):
    """Two routers on one log: the subscription is made wider elsewhere while a client is about to join, or serves."""
    here, there = [
        await stack.enter_async_context(EventRouter(host="127.0.0.1", port=0, url=url, keyring=keys.ring()))
        for _ in range(2)
    ]
    wide_token = keys.token("worker", publish=["#"], subscribe=["#"])
    narrow = await enter(keys.token("worker", subscribe=["task.*"]), here)
    wide = await enter(wide_token, there)
    if when == "before":
        broker = bus_of(here).broker
        declare = broker.declare

        async def declare_late(spec: Any) -> Any:
            answer = await declare(spec)
            await wide.subscribe("#", subscription="shared")  # between our look and our serving it
            return answer

        broker.declare = declare_late  # type: ignore[method-assign,assignment]  # the moment that a race needs
        answer = await narrow.ask("subscribe", subscription={"topics": ["task.*"], "subscription": "shared"})
        assert answer["error"] == "not_permitted"
    else:
        await narrow.subscribe("task.*", subscription="shared")
        await wide.subscribe("#", subscription="shared")
    for n in range(4):
        await wide.publish("pay.secret", n, source_agent="worker")
    heard = await wide.events(4)
    assert sorted(each["event"]["payload"]["n"] for each in heard) == list(range(4))
    await narrow.nothing()


async def test_a_queue_that_takes_by_routing_keys_is_for_who_hears_everything(
    keys: Keys, guarded: EventRouter, enter: Enter
):
    from wowevent.broker import Subscription

    await bus_of(guarded).broker.declare(Subscription(id="queue", patterns=("task.*",), keyed=True))
    narrow, wide = await enter(keys.token("narrow", subscribe=["task.*"])), await enter(keys.all_of("wide"))
    wanted = {"topics": ["task.*"], "subscription": "queue"}
    assert (await narrow.ask("subscribe", subscription=wanted))["error"] == "not_permitted"
    assert (await wide.ask("subscribe", subscription=wanted))["type"] == "subscribed"


async def test_nobody_settles_or_keeps_what_another_holds(keys: Keys, guarded: EventRouter, enter: Enter):
    """The bus's own side gave the subscription to nobody, so both agents may have joined it."""
    from msgspec import structs

    alice, bob = await enter(keys.all_of("alice")), await enter(keys.all_of("bob"))
    await alice.ask("hello", client="c")
    await bob.ask("hello", client="c")
    first = await alice.subscribe("task.*", subscription="work", credit=1)
    await alice.publish("task.a", 1, source_agent="alice")
    delivery = await alice.event()
    (info,) = await bus_of(guarded).subscriptions()
    await bus_of(guarded).broker.declare(structs.replace(info.subscription, agent=""))
    second = await bob.subscribe("task.*", subscription="work", held=[delivery["token"]])
    for kind, more in (("ack", {}), ("nack", {"reject": True})):
        answer = await bob.ask(kind, subscription_id=second["subscription_id"], tokens=[delivery["token"]], **more)
        assert (answer["settled"], answer["stale"]) == (0, 1)
    answer = await alice.ask("ack", subscription_id=first["subscription_id"], tokens=[delivery["token"]])
    assert answer["settled"] == 1
    answer = await bob.ask("ack", subscription_id="sub-9", tokens=["1"])
    assert answer["error"] == "subscription_not_found"


# --- the end of a token -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["revoked", "expired", "jwt expired", "rights changed", "file removed from"])
async def test_a_socket_ends_with_its_token_within_two_seconds(
    keys: Keys, guarded: EventRouter, enter: Enter, how: str
):
    stays = await enter(keys.all_of("stays"))
    token = keys.token("goes", lasts=1_000, subscribe=["#"])
    if how == "jwt expired":
        token = keys.jwt(exp=int(time.time()) + 1_000)
    by_header, by_hello = await enter(token), await enter(None)
    await by_hello.ask("hello", token=token)
    began = time.monotonic()
    match how:
        case "revoked":
            keys.revoke(token)
        case "rights changed":
            keys.change(token, subscribe=["task.*"])
        case "file removed from":
            keys.path.write_text('{"version": 1, "tokens": []}')
        case _:
            keys.later = 1_001
    for client in (by_header, by_hello):
        code, reason, _ = await ended(client)
        assert code == 4502
        assert reason
    assert time.monotonic() - began < 2
    if how != "rights changed":
        assert (await status_of(guarded, Authorization=f"Bearer {token}"))[0] == 401
    if how != "file removed from":
        await stays.ask("ping")


async def test_what_a_client_held_is_given_back_when_its_token_ends(keys: Keys, enter: Enter):
    token = keys.token("worker", subscribe=["#"])
    first = await enter(token)
    await first.subscribe(name="worker")
    other = await enter(keys.all_of("worker"))
    await other.publish("a", 1, source_agent="worker")
    await first.event()
    keys.revoke(token)
    await first.closed()
    await other.subscribe(name="worker")
    delivery = await other.event()
    assert "attempt" not in delivery, "it is no suspect of a crash"


@pytest.mark.parametrize("times", [1, 100])
async def test_a_keyring_that_fails_keeps_nobody_in(
    keys: Keys, guarded: EventRouter, enter: Enter, monkeypatch: pytest.MonkeyPatch, times: int
):
    """One whose file cannot be read still knows when a token expires; one that failed once is asked again."""
    monkeypatch.setattr(watch, "_LOOK", 0.1)
    client = await enter(keys.token("goes", lasts=1_000))
    keyring = part(part(guarded, "_door"), "_keyring")
    refresh, calls = keyring.refresh, []

    def fail() -> bool:
        calls.append(1)
        if len(calls) <= times:
            raise RuntimeError("a fault of the file")
        return bool(refresh())

    logging.getLogger("wowevent").handlers.clear()  # this line is meant to come
    monkeypatch.setattr(keyring, "refresh", fail)
    await eventually(lambda: len(calls) >= 2)
    keys.later = 1_001
    assert (await client.closed())[0] == 4502


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_an_agent_has_so_many_sockets(keys: Keys, guarded: EventRouter, enter: Enter):
    token = keys.token("alice", publish=["#"], limits={"clients": 2})
    first, waiting = await enter(token), await enter(None)
    await enter(token)
    assert (await status_of(guarded, Authorization=f"Bearer {token}"))[0] == 429
    await waiting.say("hello", token=token)
    assert (await waiting.closed())[0] == 1013
    await enter(keys.all_of("bob"))
    await first.socket.close()
    await eventually(lambda: len(connections_of(guarded)) == 2)
    await enter(token)


async def test_a_socket_has_so_many_subscriptions(keys: Keys, enter: Enter):
    client = await enter(keys.token("alice", subscribe=["#"], limits={"subscriptions": 2}))
    await client.subscribe("a")
    await client.subscribe("b")
    assert (await client.ask("subscribe", subscription={"topics": ["c"]}))["error"] == "not_supported"


async def test_who_publishes_too_fast_is_told_when_to_go_on(keys: Keys, guarded: EventRouter, enter: Enter):
    token = keys.token("alice", publish=["#"], limits={"events": "20/s"})
    first, second, other = await enter(token), await enter(token), await enter(keys.all_of("bob"))
    answers = [await (first, second)[n % 2].ask("publish", event={"topic": "a", "payload": {}}) for n in range(60)]
    refused = [each for each in answers if each["type"] == "error"]
    assert {each["error"] for each in refused} == {"rate_limited"}
    assert 20 <= len(answers) - len(refused) <= 30, "both sockets are of one agent"
    assert all(0 < each["retry_after"] <= 1 for each in refused)
    assert (await first.ask("request", event={"topic": "a", "payload": {}}))["error"] == "rate_limited"
    assert (await other.publish(source_agent="bob"))["status"] == "queued"
    await asyncio.sleep(refused[-1]["retry_after"])
    assert (await first.ask("publish", event={"topic": "a", "payload": {}}))["status"] == "queued"


# --- pages, hosts, addresses, TLS -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"Origin": "https://page.example"}, 101),
        ({"Origin": "http://127.0.0.1:{port}"}, 101),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://page.example.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "bus.example:9090"}, 101),
        ({"Host": "BUS.example"}, 101),
        ({"Host": "bus.example.evil.example"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
    ],
)
async def test_a_token_opens_no_door_to_a_page(
    keys: Keys, stack: AsyncExitStack, quiet: None, headers: dict[str, str], status: int
):
    """A page that has somebody's token is still a page that may not ask; nor does one need a token to be refused."""
    router = EventRouter(
        host="127.0.0.1", port=0, keyring=keys.ring(), origins=["https://page.example"], hosts=["bus.example"]
    )
    token = keys.all_of("alice")
    await stack.enter_async_context(router)
    for authorization in (f"Authorization: Bearer {token}\r\n", ""):
        lines = {"Host": f"127.0.0.1:{router.port}"}
        lines |= {name: value.format(port=router.port) for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(
            f"GET / HTTP/1.1\r\n{head}{authorization}Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        async with asyncio.timeout(5):
            assert int((await reader.readline()).split()[1]) == status
        writer.close()
        await writer.wait_closed()


async def test_others_are_let_in_where_a_token_is_asked_for(keys: Keys, stack: AsyncExitStack, quiet: None):
    with pytest.raises(NotPermitted):
        await EventRouter(host="0.0.0.0", port=0).open()
    token = keys.all_of("alice")
    router = await stack.enter_async_context(EventRouter(host="0.0.0.0", port=0, keyring=keys.ring()))
    url = f"ws://127.0.0.1:{router.port}"
    socket = await stack.enter_async_context(
        connect(url, additional_headers={"Authorization": f"Bearer {token}"}, **PLAIN)
    )
    client = Talker(socket)
    await client.publish(source_agent="alice")


async def test_tls(keys: Keys, stack: AsyncExitStack, quiet: None):
    import ssl

    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    token = keys.all_of("alice")
    router = EventRouter(host="127.0.0.1", port=0, keyring=keys.ring(), ssl=server)
    await stack.enter_async_context(router)
    assert router.url.startswith("wss://")
    headers = {"Authorization": f"Bearer {token}"}
    client = Talker(await stack.enter_async_context(connect(router.url, additional_headers=headers, ssl=ours, **PLAIN)))
    await client.subscribe()
    payload = {"n": 1, "text": "x" * 200_000}
    for _ in range(20):  # more than a transport holds: it has to pause and go on
        await client.ask("publish", event={"topic": "a", "payload": payload})
    assert len(await client.events(20)) == 20
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(router.url, ssl=ssl.create_default_context(), **PLAIN)
    with pytest.raises((websockets.InvalidMessage, websockets.InvalidHandshake, OSError, EOFError)):
        await connect(router.url.replace("wss", "ws"), additional_headers=headers, **PLAIN)
    await client.ask("ping")


async def test_who_reads_no_tls_is_cut_off_too(keys: Keys, stack: AsyncExitStack, quiet: None):
    """The bounded outbox holds behind TLS."""
    import ssl

    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    router = EventRouter(host="127.0.0.1", port=0, ssl=server, max_outbox=100_000)
    await stack.enter_async_context(router)
    slow = Talker(await stack.enter_async_context(connect(router.url, ssl=ours, max_queue=1, **PLAIN)))
    await slow.hear("welcome")
    await slow.subscribe()
    slow.socket.transport.pause_reading()
    bus: EventBus = bus_of(router)
    from wowevent import Event

    for n in range(200):
        await bus.publish(Event(topic="a", payload={"n": n, "text": "x" * 100_000}))
    await eventually(lambda: any(each.slow for each in connections_of(router)))
    slow.cut()


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def everything() -> Iterator[list[str]]:
    """All that is logged by anybody, as finely as it goes."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not record.name.startswith("websockets"):  # the test's own client, and another implementation
                lines.append(self.format(record))

    handler, root = Keep(level=1), logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in (None, "wowevent", "picows.wowevent")}
    root.addHandler(handler)
    logging.getLogger("wowevent").addHandler(handler)
    for name in ("wowevent", None):
        logging.getLogger(name).setLevel(1)
    yield lines
    root.removeHandler(handler)
    logging.getLogger("wowevent").removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


async def test_no_secret_is_in_any_line_of_the_log(
    everything: list[str], keys: Keys, stack: AsyncExitStack, quiet: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(audit, "_refused", {})  # else an earlier test may have had this second's line
    good, hello, revoked = keys.all_of("alice"), keys.all_of("bob"), keys.all_of("carol")
    wrong, signed, payload = bad_tokens(keys), keys.jwt(), "the-payload-of-an-event"
    router = await stack.enter_async_context(EventRouter(host="127.0.0.1", port=0, keyring=keys.ring()))

    async def enter(token: str | None, path: str = "/") -> ClientConnection:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await stack.enter_async_context(connect(router.url + path, additional_headers=headers, **PLAIN))

    client, second, third = Talker(await enter(good)), Talker(await enter(None)), Talker(await enter(revoked))
    await second.ask("hello", token=hello)
    await Talker(await enter(signed)).ask("ping")
    await client.subscribe()
    await client.ask("publish", event={"topic": "a", "payload": {"text": payload}, "source_agent": "bob"})
    await client.ask("publish", event={"topic": "a", "payload": {"text": payload}})
    for token in wrong.values():
        with pytest.raises(websockets.InvalidStatus):
            await enter(token)
        unknown = Talker(await enter(None))
        await unknown.say("hello", token=token, batch="wrong")
        await unknown.closed()
    with pytest.raises(websockets.InvalidStatus):
        await enter(None, f"/?token={good}")
    keys.revoke(revoked)
    await third.closed()
    said = "\n".join(everything)
    for each in ("connect who=alice", "connect who=nobody", "disconnect who=carol", "publish who=alice"):
        assert f"audit action={each}" in said
    for secret in (
        good,
        hello,
        revoked,
        signed,
        *map(hidden, (good, hello, revoked)),
        wrong["another secret"],
        payload,
    ):
        assert secret not in said
    for wrong_one in wrong.values():
        assert len(wrong_one) < 20 or wrong_one not in said
