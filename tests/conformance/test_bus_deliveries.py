"""Who got an event, when, and how that ended: asked of all processes that are there."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, failing
from wowevent import Delivered, Event, EventBus, InvalidEvent, Reject, RetryPolicy, directory, trails

SEVERAL = 3


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control log is looked at ten times as often, and answers are there sooner."""
    monkeypatch.setattr(directory, "_LOOK", 0.1)
    monkeypatch.setattr(trails, "_ANSWERS", 0.5)


async def known(bus: EventBus, sent: Event, count: int) -> list[Delivered]:
    """All that is known of an event, once so many deliveries are."""
    found: list[Delivered] = []

    async def are_known() -> bool:
        found[:] = await bus.deliveries(sent.event_id)
        return len(found) >= count

    await eventually(are_known)
    return found


def told(found: list[Delivered]) -> set[tuple[str, str | None, int, str, str | None]]:
    return {(each.subscription, each.agent, each.attempt, each.outcome, each.error) for each in found}


async def test_what_all_processes_delivered_is_known_to_who_asks(rig: Rig):
    working, retrying, asking = await rig.bus(), await rig.bus(), await rig.bus()
    seen, again = Seen(), Seen(failing(0, times=1))
    await working.subscribe("task.*", seen, "worker")
    await working.subscribe("task.*", Seen(lambda *_: Reject("never")), "critic")
    await retrying.subscribe("task.*", again, "planner", retry=RetryPolicy(initial=0))
    if not asking.capabilities.matches:
        await rig.breathe()
    sent, other = event(), event(n=1)
    began = rig.clock.time()
    await asking.publish(sent)
    await eventually(again.count(1))
    await rig.advance(1)
    await eventually(again.count(2))
    found = await known(asking, sent, 4)
    assert told(found) == {
        ("worker~task.*", "worker", 1, "acked", None),
        ("critic~task.*", "critic", 1, "dead", "never"),
        ("planner~task.*", "planner", 1, "retried", "OSError: on purpose"),
        ("planner~task.*", "planner", 2, "acked", None),
    }
    processes = {each.subscription: each.process for each in found}
    assert processes["worker~task.*"] == processes["critic~task.*"] == working.attendance.process
    assert processes["planner~task.*"] == retrying.attendance.process
    assert all(began <= each.at <= rig.clock.time() and each.seconds >= 0 for each in found)
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert await asking.deliveries(other.event_id) == []


async def test_who_asks_at_the_same_time_is_answered_too(rig: Rig):
    working, asking, other = await rig.bus(), await rig.bus(), await rig.bus()
    seen = Seen()
    await working.subscribe("task.*", seen, "worker")
    sent = [event(n=n) for n in range(SEVERAL)]
    await working.publish_many(sent)
    await eventually(seen.count(SEVERAL))
    await asyncio.gather(*(known(bus, each, 1) for bus in (asking, other) for each in sent))


async def test_each_event_of_a_batch_is_known(rig: Rig):
    working, asking = await rig.bus(), await rig.bus()
    taken: list[str] = []

    async def handler(events: list[Event]) -> None:
        taken.extend(each.event_id for each in events)

    await working.subscribe("task.*", handler, "worker", batch=SEVERAL)
    sent = [event(n=n) for n in range(SEVERAL)]
    await working.publish_many(sent)
    await eventually(lambda: len(taken) == SEVERAL)
    for found in await asyncio.gather(*(known(asking, each, 1) for each in sent)):
        assert told(found) == {("worker~task.*", "worker", 1, "acked", None)}


async def test_what_a_process_knew_that_is_gone_is_gone(rig: Rig):
    working, staying, asking = await rig.bus(), await rig.bus(), await rig.bus()
    seen, stayed = Seen(), Seen()
    await working.subscribe("task.*", seen, "worker")
    await staying.subscribe("task.*", stayed, "planner")
    if not asking.capabilities.matches:
        await rig.breathe()
    sent = event()
    await asking.publish(sent)
    await eventually(seen.count(1))
    await eventually(stayed.count(1))
    await known(asking, sent, 2)
    await working.stop()
    assert told(list(await asking.deliveries(sent.event_id))) == {("planner~task.*", "planner", 1, "acked", None)}


async def test_what_is_no_id_is_refused(rig: Rig):
    bus = await rig.bus()
    with pytest.raises(InvalidEvent):
        await bus.deliveries("a b\n")
