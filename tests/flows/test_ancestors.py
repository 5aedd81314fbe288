"""What the ancestors got wrong in the core of their buses (contract, section 2): each test would have caught one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.cut import Cut, bus_on
from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, events, failing, same
from wowevent import (
    DeadLetterQueue,
    Event,
    EventBus,
    EventReplayer,
    EventSchema,
    EventStore,
    ReplayConfig,
    RetryPolicy,
    SchemaRegistry,
    ValidationError,
    create_agent_event,
    create_task_event,
)

# --- W: the async bus ---------------------------------------------------------------------------------------------


async def test_a_bus_that_started_without_subscriptions_delivers_to_those_that_come(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await rig.breathe()
    await bus.subscribe("task.*", seen, "late")
    await bus.publish(event())
    await bus.join(5)
    assert seen.numbers == [0]


async def test_an_exception_in_a_handler_does_not_lose_the_event(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(0, times=1))
    await bus.subscribe("task.*", seen, "worker", retry=RetryPolicy(initial=0))
    await bus.publish(event())
    await bus.join(5)
    assert seen.numbers == [0, 0]


async def test_a_slow_subscription_delays_no_other(rig: Rig):
    bus, gate, seen = await rig.bus(), asyncio.Event(), Seen()

    async def slow(event: Event) -> None:
        await gate.wait()

    await bus.subscribe("task.*", slow, "slow")
    await bus.subscribe("task.*", slow)
    await bus.subscribe("task.*", seen, "quick")
    await bus.publish_many(events(10))
    await eventually(seen.count(10))
    gate.set()


async def test_types_that_nobody_foresaw_stay_what_they_are(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("*", seen, "worker")
    names = ["zebra.crossed", "CUSTOM", "a-b_c.d.e.f", "task.created"]
    for name in names:
        await bus.publish(Event(event_type=name))
    await bus.join(5)
    assert [str(e.event_type) for e in seen.events] == names
    assert [e.topic for e in seen.events] == names


@pytest.mark.parametrize("agent", ["worker", None], ids=["named", "live"])
async def test_a_hiccup_of_the_engine_does_not_end_the_listener(rig: Rig, agent: str | None):
    cut, other, seen = Cut(rig.broker()), await rig.bus(), Seen()
    bus = await bus_on(cut, rig)
    await bus.subscribe("task.*", seen, agent)
    cut.down |= {"fetch", "settle", "ping", "info"}
    assert (await bus.health())["status"] == "unhealthy"
    await rig.advance(6)
    cut.down.clear()
    await rig.advance(6)
    assert (await bus.health())["status"] == "healthy"
    await other.publish(event())
    await eventually(seen.count(1))
    await bus.stop()


# --- W: dead letters, store ---------------------------------------------------------------------------------------


async def test_retries_that_fall_due_while_nobody_is_there_are_not_dropped(rig: Rig):
    first, seen = await rig.bus(), Seen(failing(*range(5)))
    await first.subscribe("task.*", seen, "worker", retry=RetryPolicy(initial=10))
    await first.publish_many(events(5))
    await eventually(seen.count(5))
    await first.stop()
    await rig.advance(60)
    second, again = await rig.bus(), Seen()
    await second.subscribe("task.*", again, "worker")
    await eventually(again.count(5))
    assert sorted(again.numbers) == [0, 1, 2, 3, 4]
    assert [e.retry_count for e in again.events] == [1] * 5


async def test_dead_letters_survive_their_bus_with_exact_counts(rig: Rig):
    first = await rig.bus()
    await first.subscribe("task.*", Seen(failing(*range(3))), "worker", retry=RetryPolicy(max_retries=2, initial=0))
    await first.publish_many(events(4))
    await first.join(5)
    await first.stop()
    second = await rig.bus()
    letters = await second.dead_letters.list(subscription="worker")
    assert sorted((x.event.payload["n"], len(x.attempts)) for x in letters) == [(0, 3), (1, 3), (2, 3)]
    found = await second.info("worker")
    assert found
    assert (found.dead, found.ready) == (3, 0)
    assert same(second, found.leased, 0)
    assert same(second, found.delayed, 0)


async def test_validator_dead_letters_store_and_metrics_are_the_bus_s_own(rig: Rig):
    """One bus, all of it live: what happens on it is what each part shows."""
    registry = SchemaRegistry()
    wanted = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    registry.register_schema(EventSchema(event_type="task.created", version="1", json_schema=wanted))
    bus = await rig.bus(registry=registry)
    letters, store = DeadLetterQueue(bus=bus), EventStore(bus=bus)
    await bus.subscribe("task.*", Seen(failing(1)), "worker", retry=RetryPolicy(max_retries=1, initial=0))
    with pytest.raises(ValidationError):
        await bus.publish(Event(topic="task.created", payload={"n": "one"}))
    await bus.publish_many(events(3))
    await bus.join(5)
    assert [failed.event.payload["n"] for failed in await letters.get_retry_queue()] == [1]
    assert [stored.event.payload["n"] async for stored in store.history("task.*")] == [0, 1, 2]
    totals = (await bus.metrics.get_metrics())["totals"]
    assert {name: totals[name] for name in ("publishes", "deliveries", "errors", "retries", "dlq")} == {
        "publishes": 3, "deliveries": 2, "errors": 2, "retries": 1, "dlq": 1,
    }  # fmt: skip
    replayed = Seen()
    assert await EventReplayer(store).replay(replayed, ReplayConfig(pattern="task.*", speed_multiplier=0)) == 3
    assert replayed.numbers == [0, 1, 2]
    assert (await bus.health())["details"]["dead_letters"] == 1


async def test_naive_times_are_utc_and_crash_nothing(rig: Rig):
    bus = await rig.bus()
    await bus.publish(event(n=1, timestamp="2025-01-15T10:00:00"))
    found = bus.history(start_time="2025-01-15T10:00:00", end_time="2025-01-15T10:00:00+00:00")
    assert [stored.event.payload["n"] async for stored in found] == [1]


# --- R: the router's core -----------------------------------------------------------------------------------------


async def test_four_producers_do_not_lock_each_other_out(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")

    async def produce(n: int) -> None:
        for k in range(200):
            await bus.publish(event(n=n * 200 + k, priority=1 + k % 10))

    async with asyncio.timeout(20):
        await asyncio.gather(*(produce(n) for n in range(4)))
        await bus.join()
    assert sorted(seen.numbers) == list(range(800))


async def test_overlapping_patterns_call_a_handler_once(rig: Rig):
    bus, named, live = await rig.bus(), Seen(), Seen()
    await bus.subscribe(["task.*", "*.created", "*"], named, "worker")
    await bus.subscribe(["task.*", "*.created", "*"], live)
    await bus.publish(event())
    await bus.join(5)
    assert (named.numbers, live.numbers) == ([0], [0])


@pytest.mark.parametrize("priority", range(1, 11))
async def test_every_level_from_one_to_ten_is_carried(rig: Rig, priority: int):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event(priority=priority))
    await bus.join(5)
    assert [e.priority for e in seen.events] == [priority]


async def test_a_request_inside_a_handler_does_not_hang(rig: Rig):
    bus = await rig.bus()

    async def outer(event: Event) -> Any:
        return await bus.request("inner.ask", {}, timeout=2)

    await bus.subscribe("outer.ask", outer, "outer")
    await bus.subscribe("inner.ask", lambda event: "inner", "inner")
    assert await bus.request("outer.ask", {}, timeout=5) == "inner"


# --- Q: the blocking bus's core -----------------------------------------------------------------------------------


async def test_the_retry_count_rises_so_that_poison_ends(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(0))
    await bus.subscribe("task.*", seen, "queue", retry=RetryPolicy(max_retries=3, initial=0))
    await bus.publish(event())
    await bus.join(5)
    assert [e.retry_count for e in seen.events] == [0, 1, 2, 3]
    await eventually(bus.dead_letters.list)
    await rig.advance(60)
    assert len(seen.events) == 4


async def test_a_failing_event_does_not_run_hot(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(0))
    await bus.subscribe("task.*", seen, "queue")
    await bus.publish(event())
    await eventually(seen.count(1))
    await asyncio.sleep(0.05)
    assert len(seen.events) == 1


async def test_one_queues_dead_letters_are_its_own(rig: Rig):
    bus = await rig.bus()
    for queue in ("one", "two"):
        await bus.subscribe("task.*", Seen(failing(0)), queue, retry=RetryPolicy(max_retries=0))
    await bus.publish(event())
    await bus.join(5)
    await eventually(lambda: bus.dead_letters.list(subscription="two"))
    assert [x.subscription for x in await bus.dead_letters.list(subscription="one")] == ["one~task.*"]


async def test_asking_about_what_is_not_there_harms_nothing(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    assert await bus.info("missing") is None
    assert await bus.dead_letters.list(subscription="missing") == []
    await bus.remove("missing")
    await bus.publish(event())
    await bus.join(5)
    assert seen.numbers == [0]


async def test_expired_heartbeats_do_not_pile_up_among_the_dead_letters(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    handle = await bus.subscribe("agent.*", seen, "watcher")
    await handle.cancel()
    await bus.publish_many([create_agent_event("agent.heartbeat", "a-1", ttl_seconds=30) for _ in range(50)])
    await rig.clock.advance(60)
    handle = await bus.subscribe("agent.*", seen, "watcher")
    await bus.publish(create_agent_event("agent.stopped", "a-1", {"n": 1}))
    await bus.join(5)
    assert seen.numbers == [1]
    assert not await bus.dead_letters.list()
    assert (await bus.health())["details"]["here"][handle.subscription_id]["expired"] == 50


# --- whole workflows ----------------------------------------------------------------------------------------------


async def test_agents_create_claim_fail_retry_and_complete_a_task(rig: Rig):
    bus = await rig.bus(name="office")
    audit, done = Seen(), list[Event]()

    async def work(event: Event) -> None:
        task = event.payload["task_id"]
        await bus.publish(create_task_event("task.started", "worker", task, {"attempt": event.retry_count}))
        if event.retry_count < 2:
            raise OSError("the tool is not ready")
        await bus.publish(create_task_event("task.completed", "worker", task, {"result": 42}))

    async def finished(event: Event) -> None:
        done.append(event)

    await bus.subscribe("task.created", work, "worker", retry=RetryPolicy(initial=0))
    await bus.subscribe("task.completed", finished, "planner")
    await bus.subscribe("task.*", audit, "auditor")
    first = create_task_event("task.created", "planner", "t-1", correlation_id="story")
    await bus.publish(first)
    await bus.join(5)
    (completed,) = done
    assert completed.payload == {"result": 42, "task_id": "t-1"}
    assert (completed.correlation_id, completed.parent_event_id) == ("story", first.event_id)
    topics = [stored.event.topic async for stored in bus.history(correlation_id="story")]
    assert topics == ["task.created", "task.started", "task.started", "task.started", "task.completed"]
    assert [e.topic for e in audit.events] == topics


async def test_an_incident_its_dead_letters_and_the_repair(rig: Rig):
    broken, handled = True, list[int]()

    async def handler(event: Event) -> None:
        if broken and event.payload["n"] % 3 == 0:
            raise KeyError("a bad release")
        handled.append(event.payload["n"])

    async def release(bus: EventBus) -> None:
        await bus.subscribe("task.*", handler, "worker", retry=RetryPolicy(max_retries=1, initial=0))

    bad = await rig.bus()
    await release(bad)
    await bad.publish_many(events(30))
    await bad.join(5)
    await bad.stop()
    assert len(handled) == 20
    broken = False
    good = await rig.bus()
    await release(good)
    assert (await good.health())["details"]["dead_letters"] == 10
    assert await good.dead_letters.redeliver(subscription="worker") == 10
    await eventually(lambda: len(handled) == 30)
    assert sorted(handled) == list(range(30))
    assert (await good.health())["details"]["dead_letters"] == 0


async def test_an_agent_that_was_away_catches_up_and_its_past_can_be_replayed(rig: Rig):
    office, seen, rebuilt = await rig.bus(), Seen(), Seen()
    agent = await rig.bus()
    await agent.subscribe("task.*", seen, "agent")
    await office.publish_many(events(3))
    await eventually(seen.count(3))
    await agent.stop()
    await office.publish_many([event(n=n) for n in range(3, 8)])
    agent = await rig.bus()
    await agent.subscribe("task.*", seen, "agent")
    await eventually(seen.count(8))
    assert seen.numbers == list(range(8))
    assert await agent.replay(rebuilt) == 8
    assert rebuilt.numbers == list(range(8))


async def test_a_reminder_is_sent_unless_the_task_was_done_in_time(rig: Rig):
    bus, reminders = await rig.bus(), Seen()
    await bus.subscribe("reminder.*", reminders, "clerk")
    waiting = {n: (await bus.publish(event("reminder.due", n), delay=60)).event_id for n in range(3)}

    async def done(event: Event) -> None:
        await bus.cancel(waiting[event.payload["n"]])

    await bus.subscribe("task.completed", done, "clerk")
    await bus.publish(event("task.completed", 1))
    await bus.join(5)
    await rig.advance(61)
    await eventually(reminders.count(2))
    assert sorted(reminders.numbers) == [0, 2]
