"""Pauses, schedules, traces and who is there, asked of the blocking bus."""

from __future__ import annotations

import time

import pytest

from tests.blocking.conftest import Open, Seen, task
from tests.processes import until
from wowevent import ConversationNotFound, Event, InvalidSchedule, PauseSubscription, Reject, ScheduleNotFound
from wowevent.blocking import EventBus


def test_a_queue_that_is_paused_gets_nothing_until_it_is_resumed(bus: EventBus) -> None:
    seen = Seen()
    bus.subscribe("work", ["task.*.*"], seen)
    bus.start_consuming("work", blocking=False)
    (pause,) = bus.pause("work", reason="by hand", by="anna")
    assert [(each.scope, each.name, each.reason, each.by) for each in bus.pauses()] == [
        ("subscription", "work", "by hand", "anna")
    ]
    bus.publish(task(1))
    time.sleep(0.2)
    assert seen.numbers == []
    assert bus.resume("work") == [pause]
    until(lambda: seen.numbers == [1], "the event")
    assert bus.pauses() == []


def test_everything_is_paused_for_every_bus(opened: Open, url: str) -> None:
    bus = opened()
    other = bus if url.startswith("memory") else opened()
    bus.pause(everything=True, until=60)
    seen = Seen()
    other.subscribe("work", ["task.*.*"], seen)
    other.start_consuming("work", blocking=False)
    other.publish(task(1))
    time.sleep(0.2)
    assert seen.numbers == []
    other.resume(everything=True)
    until(lambda: seen.numbers == [1], "the event")


def test_a_callback_pauses_its_queue_and_another_callback_may_resume_it(bus: EventBus) -> None:
    left = [PauseSubscription(60, "quota")]
    seen = Seen()

    def work(event: Event) -> None:
        seen(event)
        if left:
            raise left.pop()

    bus.subscribe("work", ["task.*.*"], work)
    bus.subscribe("help", ["help.*.*"], lambda _event: bus.resume("work"))
    for queue in ("work", "help"):
        bus.start_consuming(queue, blocking=False)
    bus.publish(task(1))
    until(lambda: [each.reason for each in bus.pauses()] == ["quota"], "the pause")
    bus.publish(Event(topic="help.wanted"))
    until(lambda: seen.numbers == [1, 1], "the event, once more")


def test_a_conversation_is_drawn_as_a_tree(bus: EventBus) -> None:
    bus.subscribe("work", ["task.*.*"], lambda _event: bus.publish(Event(topic="task-done.now")))
    bus.start_consuming("work", blocking=False)
    asked = task()
    bus.publish(asked)
    until(lambda: len(bus.trace(asked.event_id).steps) == 2, "what it caused")
    steps = bus.trace(asked.event_id).steps
    assert [(step.depth, step.topic) for step in steps] == [(0, "task.created"), (1, "task-done.now")]
    with pytest.raises(ConversationNotFound):
        bus.trace("nobody-knows")


def test_schedules_are_added_shown_and_removed(bus: EventBus) -> None:
    seen = Seen()
    bus.subscribe("work", ["task.*.*"], seen)
    bus.start_consuming("work", blocking=False)
    added = bus.schedules.add("tick", task(7), every=1.0)
    assert [each.name for each in bus.schedules.list()] == ["tick"]
    assert bus.schedules.get("tick").added == added.added
    until(lambda: seen.numbers[:1] == [7], "the first firing")
    bus.schedules.remove("tick")
    with pytest.raises(ScheduleNotFound):
        bus.schedules.get("tick")
    with pytest.raises(InvalidSchedule):
        bus.schedules.add("tick", "task.created")


def test_who_consumes_is_an_agent_that_is_there(opened: Open, url: str) -> None:
    bus = opened()
    asking = bus if url.startswith("memory") else opened()
    bus.subscribe("work", ["task.*.*"], Seen())
    bus.start_consuming("work", blocking=False)
    until(lambda: [(each.name, each.state) for each in asking.agents()] == [("work", "online")], "that it is there")


def test_letters_are_grouped_counted_and_corrected(bus: EventBus) -> None:
    numbers: list[int] = []

    def work(event: Event) -> None:
        if not isinstance(event.payload["n"], int):
            raise Reject("n is no number")
        numbers.append(event.payload["n"])

    other = Seen()
    bus.subscribe("work", ["task.*.*"], work)
    bus.subscribe("other", ["task.#"], other)
    for queue in ("work", "other"):
        bus.start_consuming(queue, blocking=False)
    for text in ("one", "two", "three"):
        bus.publish(Event(topic="task.created", payload={"n": text}))
    until(lambda: bus.dead_letters.count().count == 3 and len(other.events) == 3, "the letters")
    (group,) = bus.dead_letters.groups(subscription="work").groups
    assert (group.count, group.subscriptions) == (3, {"work": 3})
    first, second, third = bus.dead_letters.list(fingerprint=group.fingerprint)
    done = bus.dead_letters.resend(first.id, {"n": 1}, reason="typed wrongly", by="anna")
    assert (done.replaces, done.duplicate) == (first.event.event_id, False)
    until(lambda: numbers == [1], "the corrected event")
    assert len(other.events) == 3
    assert bus.dead_letters.discard(second.id) == 1
    assert bus.dead_letters.redeliver(subscription="work") == 1
    until(lambda: [each.event.event_id for each in bus.dead_letters.list()] == [third.event.event_id], "it dies again")
