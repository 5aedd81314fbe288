"""Anonymous subscriptions: what they get, in which order, how they end, how they go on after a break."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pydantic
import pytest

from tests.client.scripted import Got, Peer, envelope, line, scripted, until
from wowevent import (
    BrokerUnavailable,
    Delivery,
    Event,
    EventBus,
    InvalidEvent,
    InvalidTopic,
    NotSupported,
    SubscriptionNotFound,
    current,
)
from wowevent.client import EventRouterClient
from wowevent.client import inbox as inboxes
from wowevent.router import EventRouter
from wowevent.testing import ManualClock

Make = Callable[..., EventRouterClient]


class Task(pydantic.BaseModel):
    n: int


async def serves_none(client: EventRouterClient) -> bool:
    """Whether the router has no subscription."""
    return not (await client.get_health())["subscriptions"]


# --- the ancestor's faults ----------------------------------------------------------------------------------------


async def test_on_alone_is_enough_before_and_after_connecting(router: EventRouter):
    before, after = Got(), Got()
    client = EventRouterClient(router.url)
    client.on("a.*")(before)
    async with client:
        client.on(["a.*", "b.*"])(after)
        await client.publish("a.b", {"n": 1})
        await before.count(1)
        await after.count(1)


async def test_what_is_published_behind_on_is_seen_by_it_without_a_wait(client: EventRouterClient):
    for n in range(20):
        got = Got()
        client.on(f"t{n}.*")(got)
        await client.publish(f"t{n}.x", {"n": n})
        await got.count(1)


async def test_the_callback_of_subscribe_is_called_with_what_matches(client: EventRouterClient):
    got = Got()
    id = await client.subscribe(["task.*"], ["task.failed"], ["high"], got)
    assert isinstance(id, str)
    await client.publish("task.failed", {"n": 1}, priority=5)
    await client.publish("task.created", {"n": 2}, priority=8)
    await client.publish("other.failed", {"n": 3}, priority=8, type="task.failed")
    await client.publish("task.failed", {"n": 4}, priority=8)
    await got.count(1)
    await client.get_health()
    assert got.ns == [4]


async def test_unsubscribe_ends_it_at_the_server_too(client: EventRouterClient, bus: EventBus):
    got = Got()
    id = await client.subscribe("a.*", callback=got)
    other = await client.subscribe("b.*", callback=got)
    assert (await client.get_health())["subscriptions"] == 2
    await client.unsubscribe(id)
    assert (await client.get_health())["subscriptions"] == 1
    await client.publish("a.b", {"n": 1})
    await client.publish("b.b", {"n": 2})
    await got.count(1)
    assert got.ns == [2]
    with pytest.raises(SubscriptionNotFound):
        await client.unsubscribe(id)
    await client.unsubscribe(other)

    async def forgotten() -> bool:
        return not await bus.subscriptions()

    await until(forgotten)


async def test_a_handler_may_ask_for_health_make_a_request_subscribe_and_unsubscribe_itself(client: EventRouterClient):
    found: dict[str, Any] = {}
    more = Got()
    done = asyncio.Event()

    async def answer(event: Event) -> dict[str, int]:
        return {"n": event.payload["n"] + 1}

    async def busy(event: Event) -> None:
        found["health"] = await client.get_health()
        found["reply"] = await client.request("ask.it", {"n": 1})
        await client.subscribe("more.*", callback=more)
        await client.publish("more.x", {"n": 2})
        await more.count(1)
        await client.unsubscribe(own)
        done.set()

    await client.subscribe("ask.*", callback=answer)
    own = await client.subscribe("a.*", callback=busy)
    await client.publish("a.b")
    await asyncio.wait_for(done.wait(), 5.0)
    assert found["health"]["status"] == "healthy"
    assert found["reply"] == {"n": 2}


async def test_two_overlapping_subscriptions_of_one_callback_call_it_once_an_event(client: EventRouterClient):
    class Agent:
        def __init__(self) -> None:
            self.got: list[int] = []

        async def handle(self, event: Event) -> None:
            self.got.append(event.payload["n"])

    agent, end, other = Agent(), Got(), Got()
    await client.subscribe("task.*", callback=agent.handle)
    await client.subscribe("*.failed", callback=agent.handle)
    third = await client.subscribe("*", min_priority=9, callback=agent.handle)
    await client.subscribe("task.failed", callback=other)
    await client.subscribe("end.*", callback=end)
    for n, topic in enumerate(("task.failed", "task.created", "other.failed", "task.failed")):
        await client.publish(topic, {"n": n}, priority=9)
    await client.publish("end.x", {"n": 9})
    await end.count(1)
    await until(lambda: len(agent.got) >= 4)
    await client.get_health()
    assert sorted(agent.got) == [0, 1, 2, 3, *([9] if 9 in agent.got else [])]
    await other.count(2)
    await client.unsubscribe(third)
    await client.publish("task.failed", {"n": 10})
    await until(lambda: agent.got.count(10) == 1)
    assert client.counters.duplicates >= 5


async def test_one_slow_handler_delays_no_other_subscription_and_no_answer(client: EventRouterClient):
    gate, quick = asyncio.Event(), Got()

    async def slow(event: Event) -> None:
        await gate.wait()

    await client.subscribe("a.*", callback=slow)
    await client.subscribe("a.*", callback=quick)
    for n in range(5):
        await client.publish("a.b", {"n": n})
    await quick.count(5)
    await client.get_health()
    gate.set()


# --- handlers -----------------------------------------------------------------------------------------------------


async def test_a_sync_handler_runs_in_a_thread(client: EventRouterClient):
    threads: list[int] = []

    def handle(event: Event) -> None:
        time.sleep(0.01)
        threads.append(threading.get_ident())

    await client.subscribe("a.*", callback=handle)
    await client.publish("a.b")
    await until(lambda: threads)
    assert threads[0] != threading.get_ident()


async def test_payload_models_and_the_delivery_are_given(client: EventRouterClient):
    found: list[tuple[Event, Task, Delivery]] = []

    async def handle(event: Event, payload: Task, delivery: Delivery) -> None:
        assert current() is delivery
        found.append((event, payload, delivery))

    id = await client.subscribe("a.*", callback=handle)
    await client.publish("a.b", {"n": 3})
    await until(lambda: found)
    event, payload, delivery = found[0]
    assert payload.n == 3
    assert (delivery.event, delivery.attempt, delivery.subscription, delivery.redelivered) == (event, 1, id, False)
    assert delivery.position is not None


async def test_within_a_subscription_order_is_that_of_the_log_and_urgent_ones_overtake(client: EventRouterClient):
    gate, order = asyncio.Event(), []

    async def handle(event: Event) -> None:
        await gate.wait()
        order.append(event.payload["n"])

    await client.subscribe("a.*", callback=handle)
    for n in range(10):
        await client.publish("a.b", {"n": n}, priority=9 if n in {6, 8} else 5)
    await client.get_health()
    gate.set()
    await until(lambda: len(order) == 10)
    assert order == [0, 6, 8, 1, 2, 3, 4, 5, 7, 9]


async def test_handlers_that_await_nothing_leave_the_loop_to_others_in_between():
    turns = 0
    found: list[int] = []
    loop = asyncio.get_running_loop()

    def tick() -> None:
        nonlocal turns
        turns += 1
        if len(found) < 1000:
            loop.call_soon(tick)

    async def handle(event: Event) -> None:
        found.append(turns)

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        items = [{"subscription_id": "sub-1", "event": envelope(n), "position": f"e-{n}"} for n in range(1, 1001)]
        await peer.send({"type": "events", "events": items})
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url) as client:
        tick()
        await client.subscribe("task.*", callback=handle)
        await until(lambda: len(found) == 1000)
    assert len(set(found)) > 10


async def test_concurrency_runs_so_many_and_no_more(client: EventRouterClient):
    running, most, done = 0, 0, 0

    async def handle(event: Event) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        done += 1

    await client.subscribe("a.*", callback=handle, concurrency=3)
    await asyncio.gather(*(client.publish("a.b") for _ in range(20)))
    await until(lambda: done == 20)
    assert most == 3


async def test_a_handler_that_raises_is_logged_and_the_next_event_is_handled(
    client: EventRouterClient, caplog: pytest.LogCaptureFixture
):
    got: list[int] = []

    async def handle(event: Event) -> None:
        if event.payload["n"] == 0:
            raise RuntimeError("boom")
        if event.payload["n"] == 1:
            raise asyncio.CancelledError
        got.append(event.payload["n"])

    await client.subscribe("a.*", callback=handle)
    for n in range(3):
        await client.publish("a.b", {"n": n})
    await until(lambda: got == [2])
    assert client.counters.failed == 2
    assert "RuntimeError: boom" in caplog.text


async def test_what_has_a_target_goes_to_that_agent_alone(router: EventRouter):
    one, two = Got(), Got()
    async with (
        EventRouterClient(router.url, agent="one") as first,
        EventRouterClient(router.url, agent="two") as second,
    ):
        await first.subscribe("a.*", callback=one)
        await second.subscribe("a.*", callback=two)
        await first.publish("a.b", {"n": 1}, target="two")
        await first.publish("a.b", {"n": 2})
        await one.count(1)
        await two.count(2)
    assert (one.ns, two.ns) == ([2], [1, 2])


# --- what is refused ----------------------------------------------------------------------------------------------


async def test_what_makes_no_sense_is_refused_before_the_router_is_asked(client: EventRouterClient):
    got = Got()
    for settings, error in (
        ({"topics": "a*"}, InvalidTopic),
        ({"topics": []}, InvalidTopic),
        ({"topics": [["a"]]}, InvalidEvent),
        ({"priorities": [11]}, InvalidEvent),
        ({"min_priority": "huge"}, InvalidEvent),
        ({"sources": ["a b"]}, InvalidEvent),
        ({"name": "a b"}, InvalidEvent),
        ({"lease": 5.0}, ValueError),
        ({"start": "first"}, ValueError),
        ({"concurrency": 0}, ValueError),
        ({"callback": 7}, TypeError),
        ({"callback": None}, TypeError),
    ):
        with pytest.raises(error):
            await client.subscribe(**({"callback": got} | settings))
    with pytest.raises(TypeError):

        @client.on("a.*")
        async def handle() -> None: ...

    assert (await client.get_health())["subscriptions"] == 0


async def test_what_the_router_refuses_is_raised_and_forgotten(client: EventRouterClient):
    got = Got()
    for n in range(128):
        client.on(f"t{n}.*")(got)
    with pytest.raises(NotSupported, match="128"):
        await client.subscribe("a.*", callback=got)
    assert (await client.get_health())["subscriptions"] == 128


async def test_what_the_router_refuses_of_on_is_an_error_in_the_log(
    client: EventRouterClient, caplog: pytest.LogCaptureFixture
):
    for n in range(129):
        client.on(f"t{n}.*")(Got())
    await client.get_health()
    assert [record.levelno for record in caplog.records if "refused" in record.getMessage()] == [logging.ERROR]


async def test_a_subscribe_that_is_not_answered_ends_with_the_timeout_and_is_taken_back_when_it_is():
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.expect("subscribe")
        await peer.expect("get_health")
        await peer.serve(frame, id="late")
        assert (await peer.expect("unsubscribe"))["subscription_id"] == "late"
        ended.set()
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url, timeout=0.2) as client:
        with pytest.raises(BrokerUnavailable, match="subscribe"):
            await client.subscribe("a.*", callback=Got())
        with pytest.raises(BrokerUnavailable):
            await client.get_health()
        await asyncio.wait_for(ended.wait(), 5.0)


async def test_a_subscribe_that_the_router_cannot_serve_now_is_asked_for_again():
    clock, got = ManualClock(), Got()
    refused = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.expect("subscribe")
        await peer.send({"type": "error", "ref": frame["ref"], "error": "broker_unavailable", "message": "wait"})
        refused.set()
        await peer.serve(await peer.expect("subscribe"))
        await peer.deliver(envelope(1), position="e-1")
        await peer.silent()

    async with scripted(script) as url:
        client = EventRouterClient(url, clock=clock, reconnect_interval=1.0)
        client.on("task.*")(got)
        await client.connect()
        await refused.wait()
        await clock.advance(1.0)
        await got.count(1)
        await client.disconnect()


async def test_what_the_router_refused_is_not_asked_for_with_the_next_connection():
    asked: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.read()
        asked.append(frame["type"])
        if peer.number == 1:
            await peer.send({"type": "error", "ref": frame["ref"], "error": "not_supported", "message": "never"})
            await peer.expect("get_health")
        else:
            await peer.confirm(frame)
            await peer.silent()

    async with scripted(script) as url, EventRouterClient(url, reconnect_interval=0.02) as client:
        with pytest.raises(NotSupported, match="never"):
            await client.subscribe("a.*", callback=Got())
        with pytest.raises(BrokerUnavailable):
            await client.get_health()
        await client.publish("a.b")
        await until(lambda: len(asked) == 2)
        assert asked == ["subscribe", "publish"]


async def test_what_was_given_up_before_its_next_try_is_not_asked_for_again():
    clock, refused = ManualClock(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.expect("subscribe")
        await peer.send({"type": "error", "ref": frame["ref"], "error": "broker_unavailable", "message": "wait"})
        refused.set()
        frame = await peer.read()
        assert frame["type"] == "get_health"
        await peer.send({"type": "health", "ref": frame["ref"], "health": {}})
        await peer.silent()

    async with scripted(script) as url:
        client = EventRouterClient(url, clock=clock, reconnect_interval=1.0)
        id = await client.subscribe("task.*", callback=Got(), name="worker")
        await client.connect()
        await refused.wait()
        await client.unsubscribe(id)
        await clock.advance(1.0)
        await client.get_health()
        await client.disconnect()


async def test_an_unsubscribe_that_is_not_answered_ends_with_the_timeout():
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url, timeout=0.2) as client:
        id = await client.subscribe("a.*", callback=Got())
        with pytest.raises(BrokerUnavailable, match="unsubscribe"):
            async with asyncio.timeout(1.5):
                await client.unsubscribe(id)


# --- after a break ------------------------------------------------------------------------------------------------


async def test_what_came_meanwhile_comes_after_a_break_once_and_in_order(
    router: EventRouter, bus: EventBus, make: Make
):
    got, quiet = Got(), Got()
    async with line(router.port) as wire:
        client = make(wire.url)
        await client.connect()
        id = await client.subscribe("a.*", callback=got)
        await client.subscribe("quiet.*", callback=quiet)
        for n in range(5):
            await bus.publish(Event(topic="a.b", payload={"n": n}))
        await got.count(5)
        await wire.cut()
        for n in range(5, 300):
            await bus.publish(Event(topic="a.b", payload={"n": n}))
        await bus.publish(Event(topic="quiet.x", payload={"n": 0}))
        await wire.open()
        await got.count(300)
        await quiet.count(1)
        await bus.publish(Event(topic="a.b", payload={"n": 300}))
        await got.count(301)
        assert got.ns == list(range(301))
        assert (client.counters.duplicates, client.counters.resets) == (0, 0)
        await client.unsubscribe(id)
        await client.disconnect()


async def test_breaks_in_the_midst_of_a_stream_of_events_lose_nothing_and_repeat_nothing(
    router: EventRouter, bus: EventBus, make: Make
):
    got = Got()
    async with line(router.port) as wire:
        client = make(wire.url, reconnect_interval=0.01)
        await client.connect()
        await client.subscribe("a.*", callback=got)
        for n in range(3000):
            await bus.publish(Event(topic="a.b", payload={"n": n}))
            if n % 250 == 100:
                wire.break_now()
            if n % 50 == 0:
                await asyncio.sleep(0.005)
        await got.count(3000)
        assert got.ns == list(range(3000))
        assert client.counters.reconnects > 2
        await client.disconnect()


async def test_a_subscribe_while_away_is_served_with_the_next_connection(router: EventRouter, make: Make):
    got, also = Got(), Got()
    async with line(router.port) as wire:
        client = make(wire.url)
        await client.connect()
        await wire.cut()
        await until(lambda: not client.connected)
        id = await client.subscribe("a.*", callback=got)
        client.on("a.*")(also)
        await client.publish("a.b", {"n": 1})
        await wire.open()
        await got.count(1)
        await also.count(1)
        await client.unsubscribe(id)
        await client.disconnect()


async def test_a_log_that_is_another_is_a_reset_which_is_told(make: Make, caplog: pytest.LogCaptureFixture):
    got = Got()
    async with EventRouter(port=0) as first:
        client = make(first.url)
        await client.connect()
        await client.subscribe("a.*", callback=got)
        await client.publish("a.b", {"n": 1})
        await got.count(1)
        port = first.port
    async with EventRouter(port=port):
        await until(lambda: client.connected)
        await client.publish("a.b", {"n": 2})
        await got.count(2)
        assert client.counters.resets == 1
        await client.disconnect()
    assert "lost events" in caplog.text
    assert got.ns == [1, 2]


async def test_positions_go_on_from_where_the_last_event_was_and_not_from_where_the_log_ended():
    asked: list[Any] = []
    got = Got()

    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.expect("subscribe")
        asked.append(frame["subscription"].get("after"))
        if peer.number == 1:
            await peer.serve(frame, position="e-5")
        elif peer.number == 2:
            await peer.serve(frame, position="e-9")
            await peer.deliver(envelope(7), position="e-7")
            await got.count(1)
        elif peer.number == 3:
            await peer.serve(frame, position="f-3", recovered=False, lost=2)
        else:
            await peer.serve(frame, position="f-3")
            await peer.send({"type": "reset", "subscription_id": "sub-1", "lost": 4})
            await peer.deliver(envelope(3), position="f-3")
            await peer.deliver(envelope(3), position="f-3")
            await peer.silent()

    async with scripted(script) as url, EventRouterClient(url, reconnect_interval=0.02) as client:
        await client.subscribe("task.*", callback=got)
        await got.count(2)
        await until(lambda: client.counters.duplicates == 1)
        assert (client.counters.resets, client.counters.lost) == (2, 6)
    assert asked == [None, "e-5", "e-7", "f-0"]


async def test_a_position_may_be_where_it_starts(client: EventRouterClient, bus: EventBus):
    got = Got()
    receipts = [await bus.publish(Event(topic="a.b", payload={"n": n})) for n in range(5)]
    await client.subscribe("a.*", callback=got, start=receipts[2].position)  # type: ignore[arg-type]
    await got.count(2)
    assert got.ns == [3, 4]


# --- more than there is room for ----------------------------------------------------------------------------------


async def test_a_full_inbox_pauses_its_subscription_at_the_server_and_nothing_is_lost(
    client: EventRouterClient, bus: EventBus, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inboxes.Inbox.__init__, "__defaults__", (50, 10**9))
    gate, ns = asyncio.Event(), []

    async def slow(event: Event) -> None:
        await gate.wait()
        ns.append(event.payload["n"])

    await client.subscribe("a.*", callback=slow)
    for n in range(500):
        await bus.publish(Event(topic="a.b", payload={"n": n}))
        if n % 20 == 0:
            await asyncio.sleep(0)
    await until(lambda: client.counters.received >= 50)
    await until(lambda: serves_none(client))
    assert client.counters.received <= 52
    gate.set()
    await until(lambda: len(ns) == 500)
    assert ns == list(range(500))
    assert (client.counters.resets, client.counters.reconnects) == (0, 0)


async def test_a_paused_subscription_survives_a_break(
    router: EventRouter, bus: EventBus, make: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inboxes.Inbox.__init__, "__defaults__", (20, 10**9))
    gate, ns = asyncio.Event(), []

    async def slow(event: Event) -> None:
        await gate.wait()
        ns.append(event.payload["n"])

    async with line(router.port) as wire:
        client = make(wire.url)
        await client.connect()
        await client.subscribe("a.*", callback=slow)
        for n in range(100):
            await bus.publish(Event(topic="a.b", payload={"n": n}))
        await until(lambda: client.counters.received >= 20)
        wire.break_now()
        await until(lambda: client.counters.reconnects == 1 and client.connected)
        assert client.counters.received <= 22
        gate.set()
        await until(lambda: len(ns) == 100)
        assert ns == list(range(100))
        await client.disconnect()


# --- disconnect ---------------------------------------------------------------------------------------------------


async def test_disconnect_waits_for_running_handlers_and_cancels_those_that_do_not_end(router: EventRouter):
    begun, ended = asyncio.Event(), []

    async def handle(event: Event) -> None:
        begun.set()
        try:
            await asyncio.sleep(0.05 if event.topic == "quick.x" else 60)
            ended.append("returned")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    for topic in ("quick.x", "slow.x"):
        begun.clear()
        client = EventRouterClient(router.url, timeout=0.4)
        await client.connect()
        await client.subscribe("*", callback=handle)
        await client.publish(topic)
        await begun.wait()
        await client.disconnect()
    assert ended == ["returned", "cancelled"]


async def test_a_handler_may_disconnect(router: EventRouter):
    called = asyncio.Event()
    client = EventRouterClient(router.url)

    async def handle(event: Event) -> None:
        await client.disconnect()
        called.set()

    await client.connect()
    await client.subscribe("a.*", callback=handle)
    await client.publish("a.b")
    await asyncio.wait_for(called.wait(), 2.0)
    async with asyncio.timeout(2.0):
        await client.disconnect()
    assert client.closed


async def test_after_a_disconnect_a_live_subscription_begins_anew(router: EventRouter, bus: EventBus):
    got = Got()
    client = EventRouterClient(router.url)
    async with client:
        await client.subscribe("a.*", callback=got)
        await client.publish("a.b", {"n": 1})
        await got.count(1)
    await bus.publish(Event(topic="a.b", payload={"n": 2}))
    async with client:
        await client.publish("a.b", {"n": 3})
        await got.count(2)
    assert got.ns == [1, 3]


async def test_to_connect_again_begins_nothing_of_a_subscription_that_is_over(client: EventRouterClient):
    found, gate = list[int](), asyncio.Event()

    async def handle(event: Event) -> None:
        found.append(event.payload["n"])
        await gate.wait()

    id = await client.subscribe("a.*", callback=handle)
    await asyncio.gather(*(client.publish("a.b", {"n": n}) for n in range(3)))
    await until(lambda: client.counters.received == 3 and found)
    await client.unsubscribe(id)
    await client.connect()
    gate.set()
    await until(lambda: client.counters.handled)
    await client.get_health()
    assert found == [0]
