"""The bus over each engine: who gets what, from when on; remembered and live subscriptions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import PAYLOADS, Seen, event, events, failing
from wowevent import (
    Closed,
    Event,
    InvalidEvent,
    InvalidTopic,
    PayloadTooLarge,
    RetryPolicy,
    SubscriptionConflict,
    Unroutable,
)
from wowevent.live import CAPACITY


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
async def test_a_handler_sees_what_was_published(rig: Rig, payload: dict[str, Any]):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("a.*", seen, "worker")
    sent = Event(topic="a.b", event_type="any-name-at-all", payload=payload, source_agent="me")
    await bus.publish(sent)
    await bus.join(5)
    (got,) = seen.events
    assert bytes(got.body) == bytes(sent.body)
    assert (got.payload, got.event_id, got.event_type) == (payload, sent.event_id, "any-name-at-all")


# --- order of calls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["worker", None], ids=["named", "live"])
@pytest.mark.parametrize("before", [True, False], ids=["before start", "after start"])
async def test_subscribe_before_or_after_start(rig: Rig, agent: str | None, before: bool):
    bus, seen = await rig.bus(start=not before), Seen()
    handle = await bus.subscribe("task.*", seen, agent)
    if before:
        assert not handle.active
        await bus.start()
    assert handle.active
    await bus.publish(event(n=1))
    await bus.join(5)
    assert seen.numbers == [1]


@pytest.mark.parametrize("before", [True, False], ids=["before start", "after start"])
async def test_the_decorator_before_or_after_start(rig: Rig, before: bool):
    bus, seen = await rig.bus(start=not before), Seen()

    @bus.on("task.*", name="worker")
    async def handler(event: Event) -> None:
        seen.events.append(event)

    if before:
        await bus.start()
    await eventually(lambda: bus.info("worker"))
    await bus.publish(event(n=1))
    await eventually(seen.count(1))
    assert callable(handler)


async def test_what_is_published_between_subscribe_and_start_is_not_lost(rig: Rig):
    bus, other, seen = await rig.bus(start=False), await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await other.publish(event(n=1))
    await bus.start()
    await eventually(seen.count(1))


# --- groups -------------------------------------------------------------------------------------------------------


async def test_every_name_gets_a_copy_and_members_of_one_share(rig: Rig):
    buses = [await rig.bus() for _ in range(3)]
    shared, own = [Seen(), Seen()], Seen()
    await buses[0].subscribe("task.*", shared[0], "team")
    await buses[1].subscribe("task.*", shared[1], "team")
    await buses[2].subscribe("task.*", own, "loner")
    await buses[2].publish_many(events(40))
    await eventually(lambda: len(shared[0].events) + len(shared[1].events) + len(own.events) >= 80)
    assert sorted(shared[0].numbers + shared[1].numbers) == own.numbers == list(range(40))


async def test_an_agent_may_have_several_subscriptions(rig: Rig):
    bus, tasks, plans = await rig.bus(), Seen(), Seen()
    one = await bus.subscribe("task.*", tasks, "worker")
    two = await bus.subscribe(["plan.*", "plan.#"], plans, "worker")
    assert one.subscription_id != two.subscription_id
    assert (one.pattern, two.pattern, one.subscriber_agent) == ("task.*", ("plan.*", "plan.#"), "worker")
    await bus.publish_many([event(n=1), event("plan.created", 2)])
    await bus.join(5)
    assert (tasks.numbers, plans.numbers) == ([1], [2])
    found = await bus.info("worker")
    assert found
    assert found.consumers == 1


async def test_the_identity_does_not_depend_on_the_order_of_patterns(rig: Rig):
    one, two = await rig.bus(), await rig.bus()
    a = await one.subscribe(["a", "b"], Seen(), "worker")
    b = await two.subscribe(["b", "a"], Seen(), "worker")
    assert a.subscription_id == b.subscription_id


async def test_the_same_identity_with_another_handler_is_a_conflict(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    handle = await bus.subscribe("task.*", seen, "worker")
    assert await bus.subscribe("task.*", seen, "worker") is handle
    with pytest.raises(SubscriptionConflict):
        await bus.subscribe("task.*", Seen(), "worker")
    await bus.subscribe("task.*", seen, "worker", subscription="mine")
    with pytest.raises(SubscriptionConflict):
        await bus.subscribe("other.*", seen, "other", subscription="mine")
    await handle.cancel()
    await bus.subscribe("task.*", Seen(), "worker")


async def test_of_two_conflicting_subscribes_at_once_one_is_refused(rig: Rig):
    bus = await rig.bus()
    calls = (bus.subscribe("task.*", Seen(), "worker") for _ in range(2))
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(isinstance(end, SubscriptionConflict) for end in ends) == [False, True]


# --- cursors ------------------------------------------------------------------------------------------------------


async def test_a_late_joiner_starts_now_or_at_the_first(rig: Rig):
    bus, now, first, later = await rig.bus(), Seen(), Seen(), Seen()
    await bus.publish_many([event(n=n, timestamp=datetime(2030, 1, 1 + n, tzinfo=UTC)) for n in range(3)])
    await bus.subscribe("task.*", now, "now")
    await bus.subscribe("task.*", first, "first", start="first")
    await bus.subscribe("task.*", later, "later", start=datetime(2030, 1, 2))  # noqa: DTZ001 - naive is UTC
    await bus.publish(event(n=3, timestamp="2030-01-04"))
    await eventually(lambda: (now.numbers, first.numbers, later.numbers) == ([3], [0, 1, 2, 3], [1, 2, 3]))


async def test_a_subscription_resumes_where_it_stopped_five_times(rig: Rig):
    seen = Seen()
    publisher = await rig.bus()
    for round_ in range(5):
        bus = await rig.bus()
        await bus.subscribe("task.*", seen, "worker")
        await publisher.publish(event(n=2 * round_))
        await eventually(seen.count(2 * round_ + 1))
        await bus.stop()
        await publisher.publish(event(n=2 * round_ + 1))
        last = await rig.bus()
        await last.subscribe("task.*", seen, "worker")
        await eventually(seen.count(2 * round_ + 2))
        await last.stop()
    assert seen.numbers == list(range(10))


async def test_cancel_keeps_the_cursor_and_remove_forgets_it(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    handle = await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event(n=0))
    await bus.join(5)
    await handle.cancel()
    assert not handle.active
    await bus.publish(event(n=1))
    handle = await bus.subscribe("task.*", seen, "worker")
    await eventually(seen.count(2))
    await handle.cancel()
    await bus.publish(event(n=2))
    await bus.remove("worker")
    assert await bus.info("worker") is None
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event(n=3))
    await bus.join(5)
    assert seen.numbers == [0, 1, 3]


async def test_remove_ends_the_consumer_too(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    handle = await bus.subscribe("task.*", seen, "worker")
    await bus.remove("worker")
    assert not handle.active
    await bus.publish(event())
    await rig.breathe()
    assert seen.numbers == []


async def test_an_explicit_identity_is_renewed_by_its_newest_declaration(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    handle = await bus.subscribe("a.*", seen, "worker", subscription="mine")
    await handle.cancel()
    await bus.publish(event("a.x", 1))
    await bus.subscribe("b.*", seen, "worker", subscription="mine", sources=["tester"])
    await bus.publish_many([event("a.x", 2), event("b.x", 3), event("b.x", 4, source_agent="stranger")])
    await bus.join(5)
    await eventually(seen.count(2))
    assert seen.numbers == [1, 3]


async def test_purge_drops_what_waits_for_an_agent(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await (await bus.subscribe("task.*", seen, "worker")).cancel()
    await bus.publish_many(events(5))
    assert await bus.purge("worker") == 5
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event(n=9))
    await bus.join(5)
    assert seen.numbers == [9]


# --- filters ------------------------------------------------------------------------------------------------------

FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({"priorities": ["high"]}, [7, 8]),
    ({"priorities": [5, 10]}, [4, 5, 6, 9, 10]),
    ({"min_priority": 8}, [8, 9, 10]),
    ({"min_priority": "critical"}, [9, 10]),
    ({"min_priority": 6, "priorities": ["normal"]}, [6]),
    ({"types": ["kind-3", "kind-4"]}, [3, 4]),
    ({"sources": ["s-1"]}, [1, 3, 5, 7, 9]),
]


@pytest.mark.parametrize(("settings", "gets"), FILTERS)
@pytest.mark.parametrize("agent", ["worker", None], ids=["named", "live"])
async def test_filters(rig: Rig, agent: str | None, settings: dict[str, Any], gets: list[int]):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("#", seen, agent, **settings)
    sent = [event(n=n, priority=n, event_type=f"kind-{n}", source_agent=f"s-{n % 2}") for n in range(1, 11)]
    await bus.publish_many(sent)
    await bus.join(5)
    assert sorted(seen.numbers) == gets


@pytest.mark.parametrize("durable", [True, False])
async def test_a_target_alone_gets_its_event(rig: Rig, durable: bool):
    bus, one, two = await rig.bus(), Seen(), Seen()
    await bus.subscribe("#", one, "one", durable=durable)
    await bus.subscribe("#", two, "two", durable=durable)
    await bus.publish_many([event(n=1, target_agent="one"), event(n=2)])
    await bus.join(5)
    assert (one.numbers, two.numbers) == ([1, 2], [2])


# --- live ---------------------------------------------------------------------------------------------------------


async def test_a_live_subscriber_gets_its_own_copy_while_it_is_there(rig: Rig):
    bus, other, one, two = await rig.bus(), await rig.bus(), Seen(), Seen()
    await other.publish(event(n=0))
    handle = await bus.subscribe("task.*", one)
    await bus.subscribe("task.*", two, "named", durable=False)
    assert handle.subscriber_agent is None
    await other.publish(event(n=1))
    await eventually(lambda: one.numbers == two.numbers == [1])
    await handle.cancel()
    await other.publish(event(n=2))
    await eventually(lambda: two.numbers == [1, 2])
    assert one.numbers == [1]


async def test_a_live_delivery_is_tried_once_and_its_failure_counted(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(0))
    handle = await bus.subscribe("task.*", seen)
    await bus.publish_many(events(2))
    await bus.join(5)
    await rig.advance(30)
    assert seen.numbers == [0, 1]
    counts = (await bus.health())["details"]["here"][handle.subscription_id]
    assert (counts["failed"], counts["handled"]) == (1, 1)
    assert not await bus.dead_letters.list()


async def test_a_live_delivery_is_retried_in_process_if_asked_for(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(0, times=2))
    await bus.subscribe("task.*", seen, retry=RetryPolicy(max_retries=2, initial=1))
    await bus.publish(event())
    await eventually(seen.count(1))
    await rig.advance(1)
    await eventually(seen.count(2))
    await rig.advance(2)
    await eventually(seen.count(3))
    assert [delivery.attempt for delivery in seen.deliveries] == [1, 2, 3]
    assert [e.retry_count for e in seen.events] == [0, 1, 2]
    await bus.join(5)
    assert not await bus.dead_letters.list()


async def test_a_live_subscriber_that_is_too_slow_drops_and_says_so(rig: Rig, caplog: pytest.LogCaptureFixture):
    bus, publisher = await rig.bus(), await rig.bus()
    gate, seen = asyncio.Event(), Seen()

    async def slow(event: Event) -> None:
        await gate.wait()
        seen.events.append(event)

    await bus.subscribe("task.*", slow)
    most = CAPACITY + 1000
    for start in range(0, most, 500):
        await publisher.publish_many([event(n=n) for n in range(start, start + 500)])
        await rig.breathe()
    await eventually(lambda: "too slow" in caplog.text)
    gate.set()
    await eventually(seen.count(CAPACITY), seconds=30)
    # What came after the gap, if the gate opened before the last was published, comes in order too.
    assert seen.numbers[:CAPACITY] == list(range(CAPACITY))
    assert seen.numbers == sorted(set(seen.numbers))
    assert len(seen.events) < most


async def test_join_does_not_wait_for_what_a_live_subscriber_dropped(rig: Rig):
    bus = await rig.bus()
    gate = asyncio.Event()

    async def slow(event: Event) -> None:
        await gate.wait()

    await bus.subscribe("task.*", slow)
    for _ in range(0, CAPACITY + 2000, 500):
        await bus.publish_many(events(500))
        await rig.breathe()
    gate.set()
    await bus.join(20)


# --- what publish says and refuses --------------------------------------------------------------------------------


async def test_a_receipt_tells_what_became_of_it(rig: Rig):
    bus = await rig.bus()
    await bus.subscribe("task.*", Seen(), "a")
    await bus.subscribe("#", Seen())
    sent = event()
    receipt = await bus.publish(sent)
    assert receipt
    assert (receipt.event_id, receipt.duplicate, receipt.matched) == (sent.event_id, False, 2)
    again = await bus.publish(sent)
    assert (again.duplicate, again.position) == (True, receipt.position)
    (stored,) = [stored async for stored in bus.history()]
    assert not bus.capabilities.positions or stored.position.offset == 1
    assert receipt.position == (stored.position if bus.capabilities.positions else None)
    assert (await bus.publish(event("nobody.listens"))).matched == 1


async def test_require_match_refuses_what_nobody_wants(rig: Rig):
    bus = await rig.bus()
    await bus.subscribe("task.*", Seen(), "worker")
    await bus.publish(event(), require_match=True)
    with pytest.raises(Unroutable):
        await bus.publish(event("nobody.listens"), require_match=True)
    assert [stored async for stored in bus.history("nobody.*")] == []


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: event("_bus.mine"), InvalidTopic),
        (lambda: Event(topic="a", payload={"x": "y" * 300_000}), PayloadTooLarge),
        (lambda: {"topic": "a"}, InvalidEvent),
    ],
    ids=["reserved topic", "large payload", "not an event"],
)
async def test_what_cannot_be_carried_is_refused_before_anything_is_stored(
    rig: Rig, wrong: Any, error: type[Exception]
):
    bus = await rig.bus()
    with pytest.raises(error):
        await bus.publish_many([event(), wrong()])
    assert [stored async for stored in bus.history()] == []


@pytest.mark.parametrize("pattern", ["task*", "**", "", "a..b", "a b", [], "x" * 201])
async def test_a_pattern_outside_the_grammar_is_refused(rig: Rig, pattern: Any):
    bus = await rig.bus()
    with pytest.raises(InvalidTopic):
        await bus.subscribe(pattern, Seen(), "worker")


async def test_only_a_running_bus_publishes(rig: Rig):
    bus = await rig.bus(start=False)
    with pytest.raises(Closed):
        await bus.publish(event())
    await bus.start()
    await bus.publish(event())
    await bus.stop()
    with pytest.raises(Closed):
        await bus.publish(event())
    with pytest.raises(Closed):
        await bus.subscribe("#", Seen(), "worker")


# --- inheritance --------------------------------------------------------------------------------------------------


async def test_what_a_handler_publishes_follows_from_what_it_handles(rig: Rig):
    bus, seen = await rig.bus(name="the-bus"), Seen()

    async def chain(event: Event) -> None:
        await bus.publish(Event(topic="step.two", payload={"n": 1}))
        await bus.publish(Event(topic="step.two", payload={"n": 2}, correlation_id="own", trace_id="own-trace"))

    await bus.subscribe("step.one", chain, "chain")
    await bus.subscribe("step.two", seen, "end")
    first = Event(topic="step.one", correlation_id="c", trace_id="t", execution_id="e", hops=3)
    await bus.publish(first)
    await bus.join(5)
    inherits, says = seen.events
    assert (inherits.correlation_id, inherits.trace_id, inherits.execution_id) == ("c", "t", "e")
    assert (inherits.parent_event_id, inherits.hops, inherits.source_agent) == (first.event_id, 4, "the-bus")
    assert (says.correlation_id, says.trace_id, says.parent_event_id) == ("own", "own-trace", first.event_id)
