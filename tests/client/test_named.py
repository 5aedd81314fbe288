"""Named subscriptions: acknowledged, tried again, given back; what a break does to what is in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pydantic
import pytest

from tests.client.scripted import Got, Peer, envelope, line, scripted, until
from wowevent import (
    DeadLetter,
    Delivery,
    Event,
    EventBus,
    PauseSubscription,
    Reject,
    RetryAfter,
    SubscriptionConflict,
    current,
)
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter
from wowevent.testing import ManualClock

Make = Callable[..., EventRouterClient]


async def settled(bus: EventBus, name: str, ready: int = 0) -> None:
    """Return once so many of its events are left, and nobody holds one."""

    async def look() -> bool:
        found: Any = await bus.info(name)
        return bool(found.ready == ready and not found.leased and not found.delayed)

    await until(look)


async def buried(bus: EventBus, count: int = 1) -> list[DeadLetter]:
    """The dead letters, once there are so many."""
    letters: list[DeadLetter] = []

    async def look() -> bool:
        letters[:] = await bus.dead_letters.list()
        return len(letters) == count

    await until(look)
    return letters


async def test_what_a_handler_returned_from_is_acknowledged(client: EventRouterClient, bus: EventBus):
    got = Got()
    await client.subscribe("a.*", callback=got, name="worker-1")
    await asyncio.gather(*(client.publish("a.b", {"n": n}) for n in range(300)))
    await got.count(300)
    assert sorted(got.ns) == list(range(300))
    await settled(bus, "worker-1")


async def test_it_catches_up_with_what_came_while_it_was_not_there(router: EventRouter, bus: EventBus):
    got = Got()
    async with EventRouterClient(router.url) as client:
        client.on("a.*", name="worker-1")(got)
        await client.publish("a.b", {"n": 0})
        await got.count(1)
    for n in range(1, 5):
        await bus.publish(Event(topic="a.b", payload={"n": n}))
    async with client:
        await got.count(5)
    assert got.ns == [0, 1, 2, 3, 4]


async def test_start_first_begins_with_the_log(client: EventRouterClient, bus: EventBus):
    got = Got()
    await bus.publish(Event(topic="a.b", payload={"n": 0}))
    await client.subscribe("a.*", callback=got, subscription="mine", start="first")
    await got.count(1)


async def test_what_raises_is_tried_again_and_buried_with_its_error(client: EventRouterClient, bus: EventBus):
    attempts: list[tuple[int, int]] = []

    async def handle(event: Event, delivery: Delivery) -> None:
        attempts.append((delivery.attempt, event.retry_count))
        raise RuntimeError("boom")

    await client.subscribe("a.*", callback=handle, name="worker-1", max_retries=1)
    id = await client.publish("a.b")
    letters = await buried(bus)
    assert attempts == [(1, 0), (2, 1)]
    assert letters[0].event.event_id == id
    assert letters[0].error == "RuntimeError: boom"
    assert 'raise RuntimeError("boom")' in letters[0].traceback


class Task(pydantic.BaseModel):
    n: int


async def test_reject_and_a_payload_that_is_not_what_the_handler_takes_go_to_the_dead_letters_at_once(
    client: EventRouterClient, bus: EventBus
):
    calls = 0

    async def reject(event: Event) -> None:
        nonlocal calls
        calls += 1
        raise Reject("never")

    async def typed(task: Task) -> None:
        nonlocal calls
        calls += 1

    await client.subscribe("a.*", callback=reject, name="one")
    await client.subscribe("a.*", callback=typed, name="two")
    await client.publish("a.b", {"n": "x"})
    letters = await buried(bus, 2)
    assert calls == 1
    assert sorted(letter.error.split(":")[0] for letter in letters) == ["never", "validation"]


async def test_retry_after_comes_again_and_charges_no_attempt(client: EventRouterClient):
    found: list[int] = []

    async def handle(event: Event, delivery: Delivery) -> None:
        found.append(delivery.attempt)
        if len(found) < 3:
            raise RetryAfter(0.05)

    await client.subscribe("a.*", callback=handle, name="worker-1")
    await client.publish("a.b")
    await until(lambda: len(found) == 3)
    assert found == [1, 1, 1]


async def test_a_handler_pauses_its_subscription_for_all(client: EventRouterClient, bus: EventBus):
    found, other = list[int](), Got()

    async def handle(event: Event, delivery: Delivery) -> None:
        found.append(delivery.attempt)
        if len(found) == 1:
            raise PauseSubscription(0.5, "quota")

    await client.subscribe("a.*", callback=handle, name="worker-1")
    await client.subscribe("a.*", callback=other, name="worker-2")
    await asyncio.gather(*(client.publish("a.b", {"n": n}) for n in range(20)))
    await other.count(20)

    async def told() -> bool:
        return [(pause.name, pause.reason) for pause in await bus.pauses()] == [("worker-1~a.*", "quota")]

    await until(told)
    await settled(bus, "worker-1", ready=20)
    assert len(found) == 1, "what the client had not begun went back"
    await until(lambda: len(found) == 21)
    assert set(found) == {1}
    await settled(bus, "worker-1")
    assert client.counters.failed == 0


async def test_an_anonymous_one_pauses_in_its_client(client: EventRouterClient, bus: EventBus):
    found = list[int]()

    async def handle(event: Event) -> None:
        found.append(event.payload["n"])
        if len(found) == 1:
            raise PauseSubscription(0.3)

    await client.subscribe("a.*", callback=handle)
    for n in range(3):
        await client.publish("a.b", {"n": n})
    await until(lambda: found == [0])
    await asyncio.sleep(0.1)
    assert (found, await bus.pauses()) == ([0], [])
    await until(lambda: len(found) == 4)
    assert sorted(found) == [0, 0, 1, 2]


async def test_a_rest_that_a_handler_asked_for_ends_with_the_goodbye(client: EventRouterClient):
    found = list[int]()

    async def handle(event: Event) -> None:
        found.append(event.payload["n"])
        if len(found) == 1:
            raise PauseSubscription(60)

    await client.subscribe("a.*", callback=handle)
    await client.publish("a.b", {"n": 0})
    await until(lambda: found == [0])
    await client.disconnect()
    await client.connect()
    await client.publish("a.b", {"n": 1})
    await until(lambda: found == [0, 1])


async def test_what_a_client_is_to_get_is_held_and_an_anonymous_one_is_told_what_it_missed(
    client: EventRouterClient, bus: EventBus
):
    named, anonymous = Got(), Got()
    await client.subscribe("a.*", callback=named, name="worker-1")
    await client.subscribe("a.*", callback=anonymous)
    await bus.pause(topic="a.held")
    for n, topic in enumerate(("a.held", "a.held", "a.free")):
        await client.publish(topic, {"n": n})
    await named.count(1)
    await anonymous.count(1)
    await until(lambda: client.counters.lost == 2)
    assert named.ns == [2]
    await bus.resume(topic="a.held")
    await named.count(3)
    assert (sorted(named.ns), anonymous.ns) == ([0, 1, 2], [2])


async def test_the_same_name_twice_in_a_client_is_a_conflict(client: EventRouterClient):
    await client.subscribe(["a.*", "b.*"], callback=Got(), name="worker-1")
    with pytest.raises(SubscriptionConflict):
        await client.subscribe(["b.*", "a.*"], callback=Got(), name="worker-1")
    await client.subscribe("a.*", callback=Got(), name="worker-1")


async def test_members_of_one_name_share_the_work(router: EventRouter, bus: EventBus):
    one, two = Got(), Got()
    async with EventRouterClient(router.url) as first, EventRouterClient(router.url) as second:
        await first.subscribe("a.*", callback=one, name="w", credit=4)
        await second.subscribe("a.*", callback=two, name="w", credit=4)
        await asyncio.gather(*(first.publish("a.b", {"n": n}) for n in range(200)))
        await until(lambda: len(one.events) + len(two.events) == 200)
        assert sorted(one.ns + two.ns) == list(range(200))
        assert min(len(one.events), len(two.events)) > 20


# --- goodbye ------------------------------------------------------------------------------------------------------


async def test_disconnect_acknowledges_what_is_done_and_gives_back_the_rest_as_it_was(
    router: EventRouter, bus: EventBus
):
    begun, gate, done = asyncio.Event(), asyncio.Event(), []

    async def handle(event: Event) -> None:
        begun.set()
        await gate.wait()
        done.append(event.payload["n"])

    client = EventRouterClient(router.url, timeout=2.0)
    async with client:
        await client.subscribe("a.*", callback=handle, name="w")
        for n in range(10):
            await client.publish("a.b", {"n": n})
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, gate.set)
    assert done == [0]
    await settled(bus, "w", ready=9)
    attempts: list[int] = []

    async def again(event: Event, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)

    async with EventRouterClient(router.url) as other:
        await other.subscribe("a.*", callback=again, name="w")
        await until(lambda: len(attempts) == 9)
    assert set(attempts) == {1}


async def test_a_handler_that_disconnects_has_its_event_acknowledged(router: EventRouter, bus: EventBus):
    called = asyncio.Event()
    client = EventRouterClient(router.url)

    async def handle(event: Event) -> None:
        await client.disconnect()
        called.set()

    await client.connect()
    await client.subscribe("a.*", callback=handle, name="w")
    await client.publish("a.b")
    await asyncio.wait_for(called.wait(), 2.0)
    await client.disconnect()
    await settled(bus, "w")


async def test_unsubscribe_waits_for_the_running_handler_whose_event_is_acknowledged(
    client: EventRouterClient, bus: EventBus
):
    begun, done = asyncio.Event(), []

    async def handle(event: Event) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        done.append(event.payload["n"])

    id = await client.subscribe("a.*", callback=handle, name="w")
    for n in range(3):
        await client.publish("a.b", {"n": n})
    await begun.wait()
    await client.unsubscribe(id)
    assert done == [0]
    assert (await client.get_health())["subscriptions"] == 0
    await settled(bus, "w", ready=2)


async def test_a_handler_that_unsubscribes_itself_has_its_event_acknowledged(client: EventRouterClient, bus: EventBus):
    got = Got()

    async def handle(event: Event) -> None:
        await client.unsubscribe(own)
        await got(event)

    own = await client.subscribe("a.*", callback=handle, name="w")
    await client.publish("a.b", {"n": 1})
    await client.publish("a.b", {"n": 2})
    await got.count(1)

    async def ended() -> bool:
        return not (await client.get_health())["subscriptions"]

    await until(ended)
    await settled(bus, "w", ready=1)
    assert got.ns == [1]


# --- breaks -------------------------------------------------------------------------------------------------------


async def test_what_is_in_hand_when_the_connection_breaks_is_kept_and_handled_once(
    router: EventRouter, bus: EventBus, make: Make
):
    calls: list[tuple[int, int]] = []
    gate = asyncio.Event()

    async def handle(event: Event, delivery: Delivery) -> None:
        calls.append((event.payload["n"], delivery.attempt))
        await gate.wait()

    async with line(router.port) as wire:
        client = make(wire.url)
        await client.connect()
        await client.subscribe("a.*", callback=handle, name="w")
        for n in range(10):
            await client.publish("a.b", {"n": n})
        await until(lambda: client.counters.received == 10)
        wire.break_now()
        await until(lambda: client.counters.reconnects == 1 and client.connected)
        gate.set()
        await settled(bus, "w")
        assert calls == [(n, 1) for n in range(10)]
        await client.disconnect()


async def test_what_is_handled_while_away_is_acknowledged_with_the_next_connection(
    router: EventRouter, bus: EventBus, make: Make
):
    got, gate = Got(), asyncio.Event()

    async def handle(event: Event) -> None:
        await gate.wait()
        await got(event)

    async with line(router.port) as wire:
        client = make(wire.url)
        await client.connect()
        await client.subscribe("a.*", callback=handle, name="w")
        for n in range(5):
            await client.publish("a.b", {"n": n})
        await until(lambda: client.counters.received == 5)
        await wire.cut()
        gate.set()
        await got.count(5)
        await wire.open()
        await settled(bus, "w")
        assert got.ns == [0, 1, 2, 3, 4]
        await client.disconnect()


async def test_a_router_that_was_started_anew_does_not_make_a_handler_run_twice(bus: EventBus, make: Make):
    calls: list[int] = []
    gate = asyncio.Event()

    async def handle(event: Event) -> None:
        calls.append(event.payload["n"])
        await gate.wait()

    async with EventRouter(port=0, bus=bus) as first:
        client, port = make(first.url), first.port
        await client.connect()
        await client.subscribe("a.*", callback=handle, name="w")
        for n in range(5):
            await client.publish("a.b", {"n": n})
        await until(lambda: client.counters.received == 5)
        await first.stop(timeout=0.1)
    async with EventRouter(port=port, bus=bus):
        await until(lambda: client.counters.duplicates == 5)
        gate.set()
        await settled(bus, "w")
        assert calls == [0, 1, 2, 3, 4]
        await client.disconnect()


async def test_a_lost_acknowledgement_is_said_again_and_the_event_is_not_handled_again():
    got = Got()
    said: list[Any] = []

    async def script(peer: Peer) -> None:
        hello = await peer.greet()
        said.append(hello["client"])
        frame = await peer.expect("subscribe")
        said.append(frame["subscription"].get("held", []))
        await peer.serve(frame)
        if peer.number == 1:
            await peer.deliver(envelope(1), token="t1", position="e-1")
            await peer.expect("ack")
            return
        said.append((await peer.expect("ack"))["tokens"])
        await peer.deliver(envelope(1), token="t2", position="e-1", attempt=2)
        said.append((await peer.expect("ack"))["tokens"])
        await peer.deliver(envelope(2), token="t3", position="e-2")
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url, reconnect_interval=0.02) as client:
        await client.subscribe("task.*", callback=got, name="w")
        await got.count(2)
    assert said == [said[0], [], said[0], ["t1"], ["t1"], ["t2"]]
    assert got.ns == [1, 2]


async def test_what_is_known_to_have_arrived_is_not_said_again():
    clock, got = ManualClock(), Got()
    again = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.expect("subscribe")
        await peer.serve(frame)
        if peer.number == 1:
            await peer.deliver(envelope(1), token="t1", position="e-1")
            await peer.expect("ack")
            again.set()
            ping = await peer.read()
            assert ping["type"] == "ping"
            await peer.send({"type": "pong", "ref": ping["ref"], "echo": None, "timestamp": 0.0})
            await peer.deliver(envelope(2), token="t2", position="e-2")
            await peer.expect("ack")
            return
        assert frame["subscription"]["held"] == ["t2"]
        await peer.deliver(envelope(3), token="t3", position="e-3")
        await peer.silent()

    async with scripted(script) as url:
        client = EventRouterClient(url, reconnect_interval=0.02, clock=clock)
        await client.connect()
        await client.subscribe("task.*", callback=got, name="w")
        await again.wait()
        while len(got.events) < 3:
            await clock.advance(0.1)
            await asyncio.sleep(0.01)
        await client.disconnect()


async def test_acknowledgements_of_one_turn_go_in_one_frame():
    frames: list[Any] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        items = [
            {"subscription_id": "sub-1", "event": envelope(n), "position": f"e-{n}", "token": f"t{n}"}
            for n in range(1, 41)
        ]
        await peer.send({"type": "events", "events": items})
        frames.append(await peer.expect("ack"))
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url) as client:
        got = Got()
        await client.subscribe("task.*", callback=got, name="w", concurrency=40)
        await got.count(40)
        await until(lambda: frames)
    assert frames[0]["tokens"] == [f"t{n}" for n in range(1, 41)]


async def test_an_event_of_tomorrow_is_left_to_others_and_the_next_is_handled(caplog: pytest.LogCaptureFixture):
    got = Got()
    said: list[Any] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        await peer.deliver(envelope(1, v=2), token="t1", position="e-1")
        said.append(await peer.expect("nack"))
        await peer.deliver(envelope(2), token="t2", position="e-2")
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url) as client:
        await client.subscribe("task.*", callback=got, name="w")
        await got.count(1)
    assert said[0]["tokens"] == ["t1"]
    assert "format_too_new" in said[0]["error"]
    assert "cannot be read" in caplog.text


async def test_the_delivery_says_what_the_frame_has():
    found: list[Delivery | None] = []

    async def handle(event: Event) -> None:
        found.append(current())

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        await peer.deliver(envelope(1), token="t1", position="e-1", attempt=3, redelivered=True)
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url) as client:
        id = await client.subscribe("task.*", callback=handle, name="w")
        await until(lambda: found)
    (delivery,) = found
    assert delivery is not None
    assert (delivery.attempt, delivery.subscription, str(delivery.position), delivery.redelivered) == (
        3,
        id,
        "e-1",
        True,
    )
    assert delivery.event.retry_count == 2


async def test_a_subscription_that_somebody_removed_is_over_here_too(client: EventRouterClient, bus: EventBus):
    got, again = Got(), Got()
    await client.subscribe("a.*", callback=got, name="worker-1")
    await client.publish("a.b", {"n": 0})
    await got.count(1)
    await bus.remove("worker-1")

    async def free() -> bool:
        """Until the client has heard of it, the name is taken."""
        with suppress(SubscriptionConflict):
            await client.subscribe("a.*", callback=again, name="worker-1")
            return True
        return False

    await until(free)
    await client.publish("a.b", {"n": 1})
    await again.count(1)
    assert (got.ns, again.ns) == ([0], [1])
