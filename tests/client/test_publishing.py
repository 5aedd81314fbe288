"""Publishing: confirmed, refused, while away, with what is lost on the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.scripted import Got, Peer, line, scripted, until
from wowevent import (
    Event,
    EventBus,
    EventPriority,
    EventType,
    InvalidEvent,
    InvalidTopic,
    OutboxFull,
    PayloadTooLarge,
    StorageFull,
)
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter
from wowevent.testing import ManualClock

Make = Callable[..., EventRouterClient]


async def stored(bus: EventBus) -> list[Event]:
    return [each.event async for each in bus.history()]


async def test_the_event_is_stored_when_publish_returns_its_id(client: EventRouterClient, bus: EventBus):
    id = await client.publish(
        "task.created",
        {"n": 1},
        EventPriority.HIGH,
        EventType.TASK_SUBMITTED,
        "worker-1",
        source="agent-1",
        correlation_id="c-1",
        ttl_seconds=60,
        headers={"a": "b"},
    )
    (event,) = await stored(bus)
    assert (event.event_id, event.topic, event.payload, event.priority) == (id, "task.created", {"n": 1}, 7)
    assert (event.type, event.target, event.source, event.correlation_id) == (
        "task.submitted",
        "worker-1",
        "agent-1",
        "c-1",
    )
    assert (event.ttl_seconds, event.headers) == (60.0, {"a": "b"})
    assert client.counters.published == 1


async def test_an_event_that_is_made_already_is_stored_as_it_is(client: EventRouterClient, bus: EventBus):
    event = Event(topic="a.b", payload={"ä": ["\u2028", None, 1.5]}, source_agent="x", priority=9, trace_id="t")
    assert await client.publish(event) == event.event_id
    assert await stored(bus) == [event]
    with pytest.raises(InvalidEvent, match="priority"):
        await client.publish(event, priority=1)


async def test_the_agent_is_the_source_of_what_has_none(router: EventRouter, bus: EventBus):
    async with EventRouterClient(router.url, agent="me") as client:
        await client.publish("a.b")
        await client.publish("a.b", source="other")
    assert [event.source_agent for event in await stored(bus)] == ["me", "other"]


async def test_what_is_no_event_is_refused_before_anything_is_taken(client: EventRouterClient, bus: EventBus):
    for topic, payload, fields, error in (
        ("a b", {}, {}, InvalidTopic),
        ("_bus.x", {}, {}, InvalidTopic),
        ("a.b", {"n": float("nan")}, {}, InvalidEvent),
        ("a.b", [1], {}, InvalidEvent),
        ("a.b", {}, {"priority": 11}, InvalidEvent),
        ("a.b", {}, {"no_field": 1}, InvalidEvent),
        ("a.b", {"n": "x" * 300_000}, {}, PayloadTooLarge),
    ):
        with pytest.raises(error):
            await client.publish(topic, payload, **fields)  # type: ignore[arg-type]
    assert await stored(bus) == []
    assert client.connected


async def test_a_frame_that_the_router_would_not_take_is_refused_here():
    async def script(peer: Peer) -> None:
        await peer.greet(max_frame=66_000)
        await peer.confirm(await peer.expect("publish"))
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url) as client:
        with pytest.raises(PayloadTooLarge, match="464"):
            await client.publish("a.b", {"n": "x" * 1000})
        await client.publish("a.b", {"n": "x" * 100})


async def test_what_the_router_refuses_is_raised_as_what_it_is():
    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.expect("publish")
        id = frame["event"]["event_id"]
        more = {"status": "dropped", "reason": "storage_full", "message": "no room", "retryable": True}
        await peer.send({"type": "published", "ref": frame["ref"], "event_id": id} | more)
        frame = await peer.expect("publish")
        await peer.send({"type": "error", "ref": frame["ref"], "error": "invalid_topic", "message": "no"})
        frame = await peer.expect("publish")
        await peer.send({"type": "error", "ref": frame["ref"], "error": "of_tomorrow", "message": "no"})
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url) as client:
        with pytest.raises(StorageFull, match="no room"):
            await client.publish("a.b")
        with pytest.raises(InvalidTopic):
            await client.publish("a.b")
        with pytest.raises(Exception, match="of_tomorrow"):
            await client.publish("a.b")


async def test_events_of_one_task_are_stored_in_their_order_and_those_of_many_all(
    client: EventRouterClient, bus: EventBus
):
    async def work(name: str) -> None:
        for n in range(20):
            await client.publish("a.b", {"n": n}, source=name)

    await asyncio.gather(*(work(f"w-{n}") for n in range(20)))
    events = await stored(bus)
    assert len(events) == 400
    for name in ("w-0", "w-19"):
        assert [event.payload["n"] for event in events if event.source == name] == list(range(20))


# --- away ---------------------------------------------------------------------------------------------------------


async def test_what_is_published_while_away_returns_its_id_at_once_and_is_sent_in_order_before_anything_newer(
    router: EventRouter, bus: EventBus, make: Make
):
    async with line(router.port) as wire:
        client = make(wire.url)
        await client.connect()
        await client.publish("a.b", {"n": 0})
        await wire.cut()
        await until(lambda: not client.connected)
        async with asyncio.timeout(0.5):
            ids = [await client.publish("a.b", {"n": n}) for n in range(1, 500)]
        await wire.open()
        await until(lambda: client.connected)
        await client.publish("a.b", {"n": 500})
        events = await stored(bus)
        assert [event.payload["n"] for event in events] == list(range(501))
        assert [event.event_id for event in events[1:-1]] == ids
        assert client.counters.published == 501
        await client.disconnect()


async def test_a_full_outbox_raises_and_takes_nothing(router: EventRouter, bus: EventBus, make: Make):
    async with line(router.port) as wire:
        client, small = make(wire.url, max_outbox=3), make(wire.url, max_outbox_bytes=2000)
        await client.connect()
        await small.connect()
        await wire.cut()
        await until(lambda: not client.connected and not small.connected)
        for n in range(3):
            await client.publish("a.b", {"n": n})
        with pytest.raises(OutboxFull):
            await client.publish("a.b", {"n": 3})
        with pytest.raises(OutboxFull):
            await small.publish("a.b", {"n": "x" * 2000})
        await small.publish("a.b", {"n": 9})
        await wire.open()
        await until(lambda: client.connected and small.connected)
        await client.publish("a.b", {"n": 4})
        await until(lambda: small.counters.published == 1)
        assert sorted(event.payload["n"] for event in await stored(bus)) == [0, 1, 2, 4, 9]
        await client.disconnect()
        await small.disconnect()


async def test_a_full_outbox_is_a_matter_of_waiting_while_the_router_confirms(
    router: EventRouter, bus: EventBus, make: Make
):
    client = make(router.url, max_outbox=3)
    await client.connect()
    await asyncio.gather(*(client.publish("a.b", {"n": n}) for n in range(100)))
    assert [event.payload["n"] for event in await stored(bus)] == list(range(100))


async def test_a_full_outbox_that_the_router_does_not_empty_raises_after_the_timeout():
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url, timeout=0.3, max_outbox=1) as client:
        first, second = await asyncio.gather(client.publish("a.b"), client.publish("a.b"), return_exceptions=True)
        assert isinstance(first, str)
        assert isinstance(second, OutboxFull)


async def test_an_event_larger_than_the_outbox_is_refused_at_once_and_holds_up_nobody(router: EventRouter):
    async with EventRouterClient(router.url, timeout=1.0, max_outbox_bytes=2_000) as client:
        large, small = await asyncio.gather(
            client.publish("a.b", {"text": "x" * 4_000}), client.publish("a.b"), return_exceptions=True
        )
        assert isinstance(large, OutboxFull)
        assert isinstance(small, str)


# --- lost on the way ----------------------------------------------------------------------------------------------


async def test_a_lost_confirmation_stores_the_event_once(router: EventRouter, bus: EventBus, make: Make):
    async with line(router.port) as wire:
        client = make(wire.url)
        await client.connect()
        wire.swallowing = True
        publishing = asyncio.create_task(client.publish("a.b", {"n": 1}))
        await until(lambda: stored(bus))
        wire.swallowing = False
        wire.break_now()
        id = await publishing
        await until(lambda: client.counters.published == 1)
        assert [event.event_id for event in await stored(bus)] == [id]
        assert client.counters.reconnects == 1
        await client.disconnect()


async def test_without_a_confirmation_the_id_comes_after_the_timeout_and_the_event_with_the_next_connection(
    caplog: pytest.LogCaptureFixture,
):
    sent: list[Any] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        sent.append(await peer.expect("publish"))
        if peer.number == 2:
            await peer.confirm(sent[-1])
            await peer.silent()
        await asyncio.sleep(0.3)

    async with scripted(script) as url, EventRouterClient(url, timeout=0.2, reconnect_interval=0.05) as client:
        id = await client.publish("a.b", {"n": 1})
        await until(lambda: client.counters.published == 1)
    assert sent[0] == sent[1]
    assert sent[0]["event"]["event_id"] == id
    assert "not confirmed" in caplog.text


async def test_a_router_that_leaves_is_waited_for(bus: EventBus, make: Make):
    async with EventRouter(port=0, bus=bus) as first:
        client, port = make(first.url), first.port
        await client.connect()
        stop = asyncio.create_task(first.stop())
        ids = [await client.publish("a.b", {"n": n}) for n in range(20)]
        await stop
    async with EventRouter(port=port, bus=bus):
        await until(lambda: client.counters.published == 20)
        assert [event.event_id for event in await stored(bus)] == ids
        await client.disconnect()


async def test_a_router_that_refuses_because_it_leaves_gets_the_event_again_and_the_publisher_its_id():
    sent: list[Any] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        sent.append(frame := await peer.expect("publish"))
        if peer.number == 2:
            await peer.confirm(frame)
            await peer.silent()
        more = {"status": "dropped", "reason": "closed", "message": "the router is going away", "retryable": True}
        await peer.send({"type": "published", "ref": frame["ref"], "event_id": "x"} | more)

    async with scripted(script) as url, EventRouterClient(url, reconnect_interval=0.05) as client:
        id = await client.publish("a.b")
        await until(lambda: client.counters.published == 1)
    assert [frame["event"]["event_id"] for frame in sent] == [id, id]


async def test_what_is_refused_while_nobody_waits_is_tried_again_if_that_can_help_and_else_said(
    caplog: pytest.LogCaptureFixture,
):
    clock = ManualClock()
    refused = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        if peer.number == 1:
            return
        for reason, retryable in (("storage_full", True), ("unroutable", False)):
            frame = await peer.expect("publish")
            more = {"status": "dropped", "reason": reason, "message": reason, "retryable": retryable}
            await peer.send({"type": "published", "ref": frame["ref"], "event_id": "x"} | more)
        refused.set()
        frame = await peer.expect("publish")
        assert frame["event"]["payload"] == {"n": 1}
        await peer.confirm(frame)
        await peer.silent()

    async with scripted(script) as url:
        client = EventRouterClient(url, reconnect_interval=1.0, clock=clock)
        await client.connect()
        await until(lambda: not client.connected)
        await client.publish("a.b", {"n": 1})
        await client.publish("a.b", {"n": 2})
        await clock.advance(1.0)
        await refused.wait()
        await until(lambda: client.counters.dropped == 1)
        await clock.advance(1.0)
        await until(lambda: client.counters.published == 1)
        await client.disconnect()
    assert [record.levelno for record in caplog.records if "dropped" in record.getMessage()] == [logging.ERROR]


async def test_disconnect_waits_for_the_confirmation_of_what_was_sent():
    sent, gate = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.expect("publish")
        sent.set()
        await gate.wait()
        await peer.confirm(frame)
        await peer.silent()

    async with scripted(script) as url:
        client = EventRouterClient(url)
        await client.connect()
        publishing = asyncio.create_task(client.publish("a.b"))
        await sent.wait()
        asyncio.get_running_loop().call_later(0.05, gate.set)
        await client.disconnect()
        assert client.counters.published == 1
        await publishing


async def test_disconnect_waits_for_what_is_not_confirmed_and_keeps_what_cannot_be(
    router: EventRouter, bus: EventBus, make: Make, caplog: pytest.LogCaptureFixture
):
    async with line(router.port) as wire:
        client = make(wire.url)
        await client.connect()
        publishing = [asyncio.create_task(client.publish("a.b", {"n": n})) for n in range(300)]
        await asyncio.sleep(0)
        await client.disconnect()
        assert len(await stored(bus)) == 300
        await asyncio.gather(*publishing)
        await client.connect()
        await wire.cut()
        await until(lambda: not client.connected)
        await client.publish("a.b", {"n": 300})
        await client.disconnect()
        assert "not confirmed" in caplog.text
        await wire.open()
        await client.connect()
        await until(lambda: client.counters.published == 301)
        await client.disconnect()
    assert [event.payload["n"] for event in await stored(bus)] == list(range(301))


# --- in a handler -------------------------------------------------------------------------------------------------


async def test_what_a_handler_publishes_inherits(client: EventRouterClient, bus: EventBus):
    got = Got()

    async def first(event: Event) -> None:
        await client.publish("b.x", {"n": 1})

    await client.subscribe("a.*", callback=first)
    await client.subscribe("b.*", callback=got)
    id = await client.publish("a.b", correlation_id="whole", trace_id="t")
    await got.count(1)
    (event,) = got.events
    assert (event.correlation_id, event.parent_event_id, event.hops, event.trace_id) == ("whole", id, 1, "t")
