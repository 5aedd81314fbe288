"""The bus over each engine: a conversation, asked for by any id of it."""

from __future__ import annotations

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import event, events
from wowevent import ConversationNotFound, Event, EventBus, FailureReason, ReplayConfig, RetryPolicy
from wowevent.conversation import Conversation


def drawn(found: Conversation) -> list[str]:
    """The tree as text, dots for the depth; what has one cause in the order of the names."""
    lines: dict[str, list[str]] = {}
    for step in found.steps:
        lines.setdefault(step.cause or "", []).append(step.event_id)
    named = {step.event_id: step for step in found.steps}

    def below(id: str, depth: int) -> list[str]:
        under = sorted(lines.get(id, ()), key=lambda each: (named[each].topic, named[each].time))
        return [line for each in under for line in (f"{'.' * depth}{named[each].topic}", *below(each, depth + 1))]

    return below("", 0)


async def talked(rig: Rig) -> tuple[EventBus, dict[str, str]]:
    """A plan of two tasks and a reminder: one is done and noted, one fails for good, the reminder comes later."""
    bus = await rig.bus(name="bus")
    ids: dict[str, str] = {}

    async def plan(event: Event) -> None:
        for topic, delay in (("task.good", None), ("task.bad", None), ("task.later", 60)):
            child = Event(topic=topic, source_agent="planner")
            ids[topic] = child.event_id
            await bus.publish(child, delay=delay)

    async def work(event: Event) -> None:
        if event.topic == "task.bad":
            raise OSError("on purpose")
        done = Event(topic="note.done" if event.topic == "task.good" else "note.late", source_agent="worker")
        ids[done.topic] = done.event_id
        await bus.publish(done)

    await bus.subscribe("plan.made", plan, "planner")
    await bus.subscribe("task.*", work, "worker", retry=RetryPolicy(max_retries=1, initial=0))
    await bus.publish_many(events(3, "noise.made"))
    first = event("plan.made", event_id=ids.setdefault("plan.made", event().event_id))
    await bus.publish(first)
    await bus.join(10)
    await eventually(bus.dead_letters.list)
    await rig.advance(61)
    await eventually(lambda: "note.late" in ids)
    await bus.join(10)
    await bus.publish_many(events(3, "noise.made"))
    return bus, ids


async def test_the_tree_of_a_conversation_by_any_id_of_it(rig: Rig):
    bus, ids = await talked(rig)
    found = await bus.trace(ids["plan.made"])

    assert drawn(found) == ["plan.made", ".task.bad", ".task.good", "..note.done", ".task.later", "..note.late"]
    steps = {step.topic: step for step in found.steps}
    assert {topic: step.event_id for topic, step in steps.items()} == ids
    assert (found.id, found.agents) == (ids["plan.made"], ("tester", "planner", "worker"))
    assert (found.failures, found.orphans, found.more, found.unreadable) == (1, 0, False, 0)
    (failure,) = steps["task.bad"].failures
    assert (failure.subscription, failure.reason) == ("worker~task.*", FailureReason.HANDLER_ERROR)
    assert (failure.error, failure.attempts) == ("OSError: on purpose", 2)
    assert 59 < (steps["task.later"].after or 0) < 120
    assert 59 < found.seconds < 120
    assert (steps["task.good"].after or 0) < 59
    assert (steps["task.later"].delayed_until is None, steps["task.good"].delayed_until) == (False, None)
    assert [steps[topic].hops for topic in ("plan.made", "task.bad", "note.done")] == [0, 1, 2]

    for topic in ("note.late", "task.bad", "note.done"):
        assert await bus.trace(ids[topic]) == found


async def test_a_conversation_of_a_correlation_id_that_is_no_event(rig: Rig):
    bus = await rig.bus()
    await bus.publish_many(events(5, "noise.made"))
    sent = [event(n=n, correlation_id="order-7") for n in range(3)]
    await bus.publish_many(sent)
    found = await bus.trace("order-7")
    assert [(step.event_id, step.depth) for step in found.steps] == [(each.event_id, 0) for each in sent]
    assert await bus.trace(sent[2].event_id) == found


async def test_a_replay_stands_where_its_original_does_and_says_so(rig: Rig):
    bus, ids = await talked(rig)
    await bus.replay_into("again.done", ReplayConfig(speed_multiplier=0, event_ids=[ids["note.done"]]))
    found = await bus.trace(ids["plan.made"])
    (again,) = [step for step in found.steps if step.replay_of is not None]
    assert (again.topic, again.replay_of, found.replays) == ("again.done", ids["note.done"], 1)


async def test_what_names_a_parent_that_is_not_there_is_an_orphan(rig: Rig):
    bus = await rig.bus()
    root = event("a.root")
    child = event("a.child", correlation_id=root.event_id, parent_event_id="gone")
    await bus.publish_many([root, child])
    found = await bus.trace(child.event_id)
    assert [(step.event_id, step.depth, step.orphan) for step in found.steps] == [
        (root.event_id, 0, False),
        (child.event_id, 1, True),
    ]
    assert (found.orphans, found.steps[1].cause, found.steps[1].after) == (1, root.event_id, None)


async def test_an_id_that_nobody_knows(rig: Rig):
    bus = await rig.bus()
    await bus.publish(event())
    for unknown in (event().event_id, "order-8"):
        with pytest.raises(ConversationNotFound):
            await bus.trace(unknown)
