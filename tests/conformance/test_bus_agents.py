"""Agents: who is there, receipts that say who is not served, and senders that are told what became of their events."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event
from wowevent import AgentInfo, Delivery, Event, EventBus, Reject, StormPolicy, attendance, census, directory
from wowevent.broker import Subscription

WITHIN = 10.0  # seconds for others to hear of a change, of which they are told at once


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is asked who is served ten times as often, the control log as well, and changes are said sooner."""
    monkeypatch.setattr(directory, "_LOOK", 0.1)
    monkeypatch.setattr(attendance, "_ANSWERS", 0.5)
    monkeypatch.setattr(attendance, "_APART", 0.1)
    monkeypatch.setattr(census, "_PERIOD", 0.5)
    monkeypatch.setattr(census, "_SOON", 0.1)


async def agent(bus: EventBus, name: str) -> AgentInfo:
    (found,) = [info for info in await bus.agents() if info.name == name]
    return found


async def test_who_is_there_what_it_hears_and_what_it_publishes(rig: Rig):
    working, asking = await rig.bus(name="worker"), await rig.bus()
    sub = await working.subscribe("task.*", Seen(), "worker")
    await working.subscribe("note.*", Seen(), "listener", durable=False)
    await asking.broker.declare(Subscription(id="idle", patterns=("idle.*",), agent="sleeper"))
    await working.publish(event("task.done", source_agent="worker"))
    await working.join(10)
    there = {"listener": "online", "sleeper": "offline", "worker": "online"}

    async def all_answered() -> bool:
        return {info.name: info.state for info in await asking.agents()} == there

    await eventually(all_answered, WITHIN)
    found = {info.name: info for info in await asking.agents()}
    worker = found["worker"]
    (process,) = worker.processes
    assert (process.id, process.serves) == (working.attendance.process, (sub.subscription_id,))
    (served,) = worker.subscriptions
    assert (served.id, served.patterns, served.consumers, served.ready) == (sub.subscription_id, ("task.*",), 1, 0)
    assert worker.publishes == ("task.done",)
    assert (found["sleeper"].processes, found["sleeper"].last_seen) == ((), None)


async def test_changes_are_heard_soon_and_a_goodbye_too(rig: Rig):
    asking, working = await rig.bus(), await rig.bus()
    assert await asking.agents() == []
    sub = await working.subscribe("task.*", Seen(), "worker")

    async def state() -> str:
        return (await agent(asking, "worker")).state

    async def is_online() -> bool:
        return await state() == "online"

    async def is_offline() -> bool:
        return await state() == "offline"

    await eventually(is_online, WITHIN)
    await sub.cancel()
    await eventually(is_offline, WITHIN)
    await working.subscribe("task.*", Seen(), "worker")
    await eventually(is_online, WITHIN)
    await working.stop()
    await eventually(is_offline, WITHIN)
    assert (await agent(asking, "worker")).last_seen is not None


async def test_a_receipt_says_who_is_not_served(rig: Rig):
    bus, other = await rig.bus(), await rig.bus()
    await bus.subscribe("task.*", Seen(), "here")
    there = await other.subscribe("task.*", Seen(), "there")
    await other.subscribe("task.*", Seen(), durable=False)
    await bus.broker.declare(Subscription(id="idle", patterns=("task.*",), agent="idle"))
    if not bus.capabilities.matches:
        await rig.breathe()
    receipt = await bus.publish(event())
    assert receipt.matched == 4
    assert receipt.unserved == ("idle",)
    await there.cancel()
    await eventually(lambda: _unserved(bus, {"idle", there.subscription_id}), WITHIN)
    await other.subscribe("task.*", Seen(), "there")
    await eventually(lambda: _unserved(bus, {"idle"}), WITHIN)
    await bus.subscribe("task.*", Seen(), subscription="idle")
    assert (await bus.publish(event())).unserved == ()


async def _unserved(bus: EventBus, ids: set[str]) -> bool:
    return {*(await bus.publish(event())).unserved} == ids


async def test_a_message_to_nobody_is_reported_to_its_sender(rig: Rig):
    sending, other = await rig.bus(), await rig.bus()
    told, overheard, seen = Seen(), Seen(), Seen()
    await sending.subscribe("_bus.undeliverable", told, "planner")
    await other.subscribe("_bus.undeliverable", overheard, "other")
    await other.subscribe("task.*", seen, "worker")
    lost = event(source_agent="planner", target_agent="wroker")
    receipt = await sending.publish(lost)
    assert receipt.matched == 0
    await sending.publish(event(n=1, source_agent="planner", target_agent="worker"))
    await sending.publish(event(n=2, source_agent="", target_agent="wroker"))
    await sending.publish(event(n=3, source_agent="planner", target_agent="wroker"), delay=60)
    await sending.publish(event(n=4, source_agent="planner", target_agent="wroker", replay_of=lost.event_id))
    assert (await sending.publish(lost)).duplicate
    await eventually(told.count(1))
    await eventually(seen.count(1))
    (telling,) = told.events
    assert (telling.topic, telling.target_agent) == ("_bus.undeliverable", "planner")
    assert (telling.parent_event_id, telling.correlation_id) == (lost.event_id, lost.correlation_id)
    assert telling.payload == {
        "event_id": lost.event_id,
        "topic": "task.created",
        "target": "wroker",
        "reason": "no subscription of that agent takes it",
    }
    await sending.stop()
    assert (len(told.events), overheard.events) == (1, [])


async def test_a_sender_that_asks_for_it_is_told_of_its_dead_letters(rig: Rig):
    working, sending = await rig.bus(), await rig.bus()
    told, overheard = Seen(), Seen()
    work = await working.subscribe("task.*", Seen(lambda *_: Reject("no such file")), "worker")
    failing = await sending.subscribe("_bus.dead_letter", Seen(lambda *_: Reject("again")), "planner")
    await failing.cancel()
    await sending.subscribe("_bus.*", told, "planner")
    await sending.subscribe("_bus.dead_letter", overheard, "other")
    mine, others = event(source_agent="planner"), event(n=1, source_agent="silent")
    await sending.publish_many([others, mine])
    await eventually(told.count(1))
    (telling,) = told.events
    assert (telling.topic, telling.target_agent) == ("_bus.dead_letter", "planner")
    assert (telling.parent_event_id, telling.correlation_id) == (mine.event_id, mine.correlation_id)
    assert telling.payload == {
        "event_id": mine.event_id,
        "topic": "task.created",
        "subscription": work.subscription_id,
        "reason": "rejected",
        "error": "no such file",
    }
    letters = await working.dead_letters.list(event_id=mine.event_id)
    assert len(letters) == 1  # it was one when it was said
    await sending.subscribe("_bus.dead_letter", failing.handler, "planner")

    async def is_buried() -> bool:
        return len(await sending.dead_letters.list(subscription=failing.subscription_id)) == 1

    await eventually(is_buried)  # that telling is a dead letter itself, of which nobody is told
    await asyncio.sleep(0.1)
    assert (len(told.events), overheard.events) == (1, [])


async def test_who_answers_each_telling_with_the_same_mistake_is_stopped(rig: Rig):
    bus, told = await rig.bus(storms=StormPolicy(max_hops=8, max_visits=3)), Seen()

    async def again(telling: Event) -> None:
        await told(telling, Delivery(telling, 1, "", None))
        await bus.publish(event(source_agent="planner", target_agent="nobody"))

    await bus.subscribe("_bus.undeliverable", again, "planner")
    await bus.publish(event(source_agent="planner", target_agent="nobody"))
    await eventually(lambda: len(bus.storms.list()) == 1)
    await bus.join(10)
    assert 1 < len(told.events) <= 8


async def test_what_is_told_is_no_fact(rig: Rig, caplog: pytest.LogCaptureFixture):
    sending, other = await rig.bus(), await rig.bus()
    told = Seen()
    await sending.subscribe("_bus.undeliverable", told, "planner")
    await sending.publish(event(source_agent="planner", target_agent="nobody"))
    await eventually(told.count(1))
    await other.pause("planner")  # which reads what is new in the control log
    assert other.paused("planner~_bus.undeliverable")
    assert "none of ours" not in caplog.text
