"""Every row of the protocol's table, as another implementation of WebSocket sees it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.router.conftest import Join, Talker, connections_of, event, eventually, place, talking
from wowevent import EventBus
from wowevent.router import EventRouter, desk
from wowevent.router.connection import Connection


async def test_the_welcome_is_the_first_frame_and_names_the_client(router: EventRouter):
    async with talking(router) as one, talking(router) as other:
        first = await one.ask("ping", echo=[1])
        assert first == {"type": "pong", "ref": 1, "echo": [1], "timestamp": first["timestamp"]}
        answer = await other.ask("hello", batch=True, agent="me")
        assert {"type": "hello", "ref": 1, "batch": True, "agent": "me"}.items() <= answer.items()


async def test_a_hand_typed_session_goes_as_the_protocol_shows_it(router: EventRouter, client: Talker):
    await client.text('{"type":"subscribe","subscription":{"topics":["task.*"]}}')
    subscribed = await client.next()
    assert {"type": "subscribed", "subscription_id": "sub-1", "topics": ["task.*"], "recovered": True}.items() <= (
        subscribed.items()
    )
    await client.text('{"type":"publish","event":{"topic":"task.created","payload":{"n":1}}}')
    published, delivery = await client.hear("published"), await client.hear("event")
    assert published["status"] == "queued"
    assert delivery["subscription_id"] == "sub-1"
    assert delivery["event"]["event_id"] == published["event_id"]
    assert delivery["position"] == await place(router, published) > subscribed["position"]
    assert "token" not in delivery


async def test_an_event_comes_out_with_all_the_fields_that_clients_know(client: Talker):
    await client.subscribe()
    await client.publish(priority=8, event_type="order.paid", headers={"a": "b"})
    shown = (await client.event())["event"]
    assert {"topic": "task.created", "event_type": "order.paid", "source_agent": "tester", "priority": 8}.items() <= (
        shown.items()
    )
    assert {"event_id", "target_agent", "payload", "timestamp", "correlation_id", "trace_id", "headers"} <= shown.keys()


@pytest.mark.parametrize(
    "fields",
    [
        {"topic": "task.created", "event_type": "a.b", "source_agent": "s", "target_agent": "t", "priority": 7},
        {"topic": "task.created", "type": "a.b", "source": "s", "target": "t", "priority": "high"},
        {"topic": "task.created", "type": "a.b", "source_agent_id": "s", "target": "t", "priority": 7},
        {
            "specversion": "1.0",
            "id": "1",
            "source": "s",
            "type": "a.b",
            "topic": "task.created",
            "targetagent": "t",
            "priority": 7,
        },
    ],
)
async def test_an_event_goes_in_by_either_spelling(router: EventRouter, join: Join, fields: dict[str, object]):
    client = await join(router, agent="t")
    await client.subscribe()
    assert (await client.ask("publish", event=fields))["status"] == "queued"
    shown = (await client.event())["event"]
    expected = {"topic": "task.created", "event_type": "a.b", "source_agent": "s", "target_agent": "t", "priority": 7}
    assert expected.items() <= shown.items()


async def test_the_agent_of_hello_is_the_source_of_what_names_none(router: EventRouter, join: Join):
    client = await join(router, agent="me")
    await client.subscribe()
    await client.ask("publish", event={"topic": "a"})
    assert (await client.event())["event"]["source_agent"] == "me"


async def test_the_same_id_again_is_a_duplicate_and_is_delivered_once(client: Talker):
    await client.subscribe()
    first, second = await client.publish(event_id="one"), await client.publish(event_id="one")
    assert "duplicate" not in first
    assert second["duplicate"] is True
    await client.event()
    await client.nothing()


async def test_what_the_bus_refuses_is_an_error_with_its_code_and_the_connection_goes_on(client: Talker):
    for given, code in (
        ({"topic": "a b"}, "invalid_topic"),
        ({"topic": "_bus.a"}, "invalid_topic"),
        ({"topic": "a", "priority": 0}, "invalid_event"),
        ({"topic": "a", "payload": {"x": "y" * 270_000}}, "payload_too_large"),
    ):
        answer = await client.ask("publish", event=given)
        assert (answer["type"], answer["error"]) == ("error", code)
    assert (await client.ask("invented"))["error"] == "protocol_error"
    assert (await client.publish())["status"] == "queued"


async def test_refs_of_any_kind_come_back_and_none_is_none(client: Talker):
    for ref in ("a", "", 7, 0, -1.5, 2**70):
        await client.say("ping", ref=ref)
        assert (await client.hear("pong"))["ref"] == ref
    await client.say("ping")
    assert (await client.hear("pong")).get("ref") is None


async def test_unsubscribe_is_answered_and_leaves_nothing_at_the_server(
    router: EventRouter, client: Talker, join: Join
):
    other = await join(router)
    before = await other.health()
    id = (await client.subscribe())["subscription_id"]
    named = (await client.subscribe(name="worker"))["subscription_id"]
    assert (await other.health())["subscriptions"] == before["subscriptions"] + 2
    for each in (id, named):
        answer = await client.ask("unsubscribe", subscription_id=each)
        assert answer == {"type": "unsubscribed", "ref": answer["ref"], "subscription_id": each}
    assert (await other.health())["subscriptions"] == before["subscriptions"]
    await other.publish()
    await client.nothing()
    assert (await client.ask("unsubscribe", subscription_id=id))["error"] == "subscription_not_found"


async def test_a_subscription_that_ends_before_it_was_served_is_answered_all_the_same(client: Talker):
    subscribe = {"type": "subscribe", "subscription": {"topics": ["never.seen"]}, "ref": "s"}
    await client.text(json.dumps(subscribe))
    await client.text('{"type":"unsubscribe","subscription_id":"sub-1","ref":"u"}')
    answers = {frame["ref"]: frame["type"] for frame in (await client.next(), await client.next())}
    assert answers in ({"s": "error", "u": "unsubscribed"}, {"s": "subscribed", "u": "unsubscribed"})


async def test_what_is_published_behind_a_subscribe_is_seen_by_it(router: EventRouter, join: Join):
    for wanted in ({}, {"name": "worker"}):
        client = await join(router)
        await client.text(json.dumps({"type": "subscribe", "subscription": {"topics": ["first"], **wanted}}))
        await client.say("publish", event=event("first", 7))
        assert (await client.event())["event"]["payload"] == {"n": 7}


async def test_health_counts_what_was_processed(client: Talker):
    await client.subscribe()
    for n in range(3):
        await client.publish(n=n)
        await client.event()
    health = await client.health()
    assert (health["events_processed"], health["events_delivered"], health["clients"]) == (3, 3, 1)
    assert (health["status"], health["queue_depth"], health["slow_clients"]) == ("healthy", 0, 0)
    assert health["latency"]["p50"] >= 0
    assert health["uptime"] > 0


async def test_batched_clients_get_what_gathered_in_one_frame(router: EventRouter, join: Join):
    reader, writer = await join(router, batch=True), await join(router)
    await reader.subscribe()
    await writer.publish_all([event(n=n) for n in range(300)])
    frames = 0
    got: list[int] = []
    while len(got) < 300:
        frame = await reader.hear("events")
        frames += 1
        got += [item["event"]["payload"]["n"] for item in frame["events"]]
        assert all(item["subscription_id"] == "sub-1" and item["position"] for item in frame["events"])
    assert got == list(range(300))
    assert frames < 300, "some came together"


# --- request and reply ----------------------------------------------------------------------------------------------


async def test_a_request_of_one_client_is_answered_by_another(router: EventRouter, join: Join):
    asker, responder = await join(router), await join(router)
    for wanted in ({}, {"name": "worker"}):
        id = (await responder.subscribe("agent.ask", **wanted))["subscription_id"]
        await asker.say("request", event=event("agent.ask", 5), ref="q")
        asked = await responder.event()
        await responder.say("reply", event=asked["event"], reply={"n": 6})
        answer = await asker.hear(ref="q")
        assert answer == {"type": "reply", "ref": "q", "event_id": asked["event"]["event_id"], "reply": {"n": 6}}
        await responder.ask("unsubscribe", subscription_id=id)


async def test_a_request_ends_in_an_error_that_says_which(router: EventRouter, join: Join):
    asker, responder = await join(router), await join(router)
    assert (await asker.ask("request", event=event("agent.ask")))["error"] == "no_responders"
    await responder.subscribe("agent.ask")
    # What times out before it is stored never gets to the responder.
    assert (await asker.ask("request", event=event("agent.ask"), timeout=1.5))["error"] == "request_timeout"
    await responder.event()
    await asker.say("request", event=event("agent.ask"), ref="q")
    await responder.say("reply", event=(await responder.event())["event"], error="no idea")
    answer = await asker.hear(ref="q")
    assert (answer["error"], answer["message"]) == ("request_failed", "no idea")


async def test_a_request_whose_responder_fails_for_good_fails_at_once(router: EventRouter, join: Join):
    asker, responder = await join(router), await join(router)
    id = (await responder.subscribe("agent.ask", name="worker", max_retries=0))["subscription_id"]
    await asker.say("request", event=event("agent.ask"), ref="q")
    token = (await responder.event())["token"]
    await responder.say("nack", subscription_id=id, tokens=[token], error="broken")
    assert (await asker.hear(ref="q"))["error"] == "request_failed"


async def test_the_requests_of_a_client_that_is_gone_are_given_up(router: EventRouter, join: Join):
    asker, responder = await join(router), await join(router)
    await responder.subscribe("agent.ask")
    for n in range(3):
        await asker.say("request", event=event("agent.ask", n), timeout=3600)
    await responder.events(3)
    (gone,) = [connection for connection in connections_of(router) if connection.asking]
    assert (len(gone.asking), gone.jobs) == (3, 3)
    asker.cut()
    await eventually(lambda: (len(gone.asking), gone.jobs) == (0, 0))


async def test_a_reply_that_goes_nowhere_is_answered_with_its_ref(client: Talker):
    asked = {"event_id": "e", "correlation_id": "c", "reply_to": "task.created"}
    assert (await client.ask("reply", event=asked, reply=1))["error"] == "protocol_error"
    assert (await client.ask("reply", event={**asked, "reply_to": "_reply.a b"}, reply=1))["error"] == "invalid_topic"


async def test_a_handler_of_the_buss_own_process_answers_a_client_and_the_other_way_round(
    router: EventRouter, url: str
):
    async with EventBus(url) as bus, talking(router) as client:
        await bus.subscribe("bus.ask", lambda asked: {"n": asked.payload["n"] + 1}, "answerer")
        answer = await client.ask("request", event=event("bus.ask", 1))
        assert answer["reply"] == {"n": 2}
        await client.subscribe("client.ask")
        question = asyncio.create_task(bus.request("client.ask", {"n": 1}))
        await client.say("reply", event=(await client.event())["event"], reply="yes")
        assert await question == "yes"


async def test_a_burst_takes_turns_and_all_of_it_is_carried_out_in_order(
    join: Join, router: EventRouter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(desk, "_TURN", 5)
    most = 0

    def watch(self: Connection, frame: object, send: Any = Connection.send) -> None:
        nonlocal most
        most = max(most, self.carried)
        send(self, frame)

    monkeypatch.setattr(Connection, "send", watch)
    client = await join(router)
    await asyncio.gather(*(client.say("ping", echo=n) for n in range(300)))
    assert [(await client.hear("pong"))["echo"] for _ in range(300)] == list(range(300))
    assert most == 5
    assert (await client.publish(n=1))["status"] == "queued"
