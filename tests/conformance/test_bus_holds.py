"""Pauses of an agent, a topic, a conversation, everything: what is held, what goes on, and when it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, events, failing, unsettled
from wowevent import Event, EventBus, PauseSubscription, RetryPolicy
from wowevent.broker import Broker, Query, Retry, Settlement

WITHIN = 5.0  # seconds for others to notice; they look once a second
LONG = 31.0  # seconds within which a single event that was held is looked at again


async def quiet() -> None:
    """Long enough for what should not come."""
    await asyncio.sleep(0.1)


def attempts(seen: Seen) -> set[int]:
    return {delivery.attempt for delivery in seen.deliveries}


async def test_everything_is_held_and_nothing_lost(rig: Rig):
    bus, seen, later = await rig.bus(), Seen(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event(n=9), delay=2)
    await bus.pause(everything=True)
    await bus.publish_many(events(3))
    await bus.subscribe("task.*", later, "later")
    await bus.publish(event(n=3))
    await rig.advance(4)
    await quiet()
    assert (seen.numbers, later.numbers) == ([], [])
    await bus.resume(everything=True)
    await eventually(seen.count(5))
    await eventually(later.count(1))
    assert sorted(seen.numbers) == [0, 1, 2, 3, 9]
    assert attempts(seen) == {1}


async def test_an_agents_is_all_that_it_has_and_will_have(rig: Rig):
    bus, seen, later, other = await rig.bus(), Seen(), Seen(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.subscribe("task.*", other, "other")
    await bus.pause(agent="worker")
    await bus.subscribe("#", later, "worker")
    await bus.publish_many(events(3))
    await eventually(other.count(3))
    await quiet()
    assert (seen.numbers, later.numbers) == ([], [])
    await bus.resume(agent="worker")
    await eventually(seen.count(3))
    await eventually(later.count(3))


async def test_of_a_topic_alone_the_rest_of_a_subscription_goes_on(rig: Rig):
    bus, seen, other = await rig.bus(), Seen(), Seen()
    await bus.subscribe("#", seen, "worker")
    await bus.subscribe("task.*", other, "other")
    await bus.pause(topic="task.*")
    await bus.publish_many([*events(3), event("plan.made", 7), *events(2, "log.line")])
    await eventually(seen.count(3))
    await rig.advance(5)
    await quiet()
    assert (sorted(seen.numbers), other.numbers) == ([0, 1, 7], [])
    assert await unsettled(bus, "other") == 3
    await bus.resume(topic="task.*")
    await rig.advance(LONG)
    await eventually(seen.count(6))
    await eventually(other.count(3))
    assert attempts(seen) | attempts(other) == {1}


async def test_of_a_conversation_alone_others_go_on(rig: Rig):
    bus, seen, typed = await rig.bus(), Seen(), Seen()
    await bus.subscribe("task.*", seen, "worker")

    async def batched(found: list[Event]) -> None:
        typed.events += found

    await bus.subscribe("task.*", batched, "archive", batch=10)
    await bus.pause(correlation_id="job-1")
    await bus.publish_many([event(n=n, correlation_id=f"job-{n % 2}") for n in range(6)])
    await eventually(seen.count(3))
    await eventually(typed.count(3))
    await quiet()
    assert (sorted(seen.numbers), sorted(typed.numbers)) == ([0, 2, 4], [0, 2, 4])
    await bus.resume(correlation_id="job-1")
    await rig.advance(LONG)
    await eventually(seen.count(6))
    await eventually(typed.count(6))


async def test_what_a_handler_has_not_begun_is_held_too(rig: Rig):
    bus, began, gate, handled = await rig.bus(), asyncio.Event(), asyncio.Event(), list[int]()

    async def work(event: Event) -> None:
        handled.append(event.payload["n"])
        began.set()
        await gate.wait()

    # One that keeps the order of keys holds all that it can get.
    await bus.subscribe("task.*", work, "worker", order_by="payload.n")
    await bus.publish_many(events(20))
    await began.wait()
    await rig.breathe()
    await bus.pause(everything=True)
    gate.set()

    await eventually(lambda: _given_back(bus, 19))
    await quiet()
    assert len(handled) == 1
    await bus.resume(everything=True)
    await bus.join(10)
    assert handled == list(range(20))


class Detained:
    """The same engine, but the first settlement that gives something back waits until it is let; others overtake it."""

    def __init__(self, broker: Broker) -> None:
        self.let = asyncio.Event()
        self._broker = broker
        self._waits = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        if self._waits and any(isinstance(each, Retry) for each in settlements):
            self._waits = False
            await self.let.wait()
        return await self._broker.settle(id, settlements)


async def test_what_comes_as_a_pause_begins_keeps_its_place_behind_what_was_here(rig: Rig):
    line, began, gate, handled = Detained(rig.broker()), asyncio.Event(), asyncio.Event(), list[int]()

    async def work(event: Event) -> None:
        handled.append(event.payload["n"])
        began.set()
        await gate.wait()

    async with EventBus(line, clock=rig.clock) as bus:
        await bus.subscribe("task.*", work, "worker", order_by="topic")
        await bus.publish_many(events(5))
        await began.wait()
        await rig.breathe()
        await bus.pause("worker")
        await bus.publish_many([event(n=n) for n in range(5, 10)])  # the fetch that is under way brings them
        await rig.breathe()
        await quiet()
        gate.set()
        line.let.set()
        await eventually(lambda: _given_back(bus, 9))
        await bus.resume("worker")
        await bus.join(10)
    assert handled == list(range(10))


async def test_one_that_is_in_hand_as_a_pause_begins_goes_back_before_what_follows_it(rig: Rig):
    bus, gates, handled = await rig.bus(), [asyncio.Event(), asyncio.Event()], list[int]()

    async def work(event: Event) -> None:
        handled.append(n := event.payload["n"])
        if n < 2 and handled.count(n) == 1:
            await gates[n].wait()
            raise PauseSubscription(60)

    await bus.subscribe("task.*", work, "worker", order_by="payload.user", concurrency=2)
    await bus.publish_many([Event(topic="task.created", payload={"n": n, "user": n % 2}) for n in range(6)])
    await eventually(lambda: len(handled) == 2)
    await rig.breathe()
    gates[1].set()
    await eventually(lambda: bus.paused("worker~task.*"))
    await quiet()
    gates[0].set()
    await eventually(lambda: _given_back(bus, 6))
    await rig.advance(65)
    await eventually(lambda: len(handled) == 8)
    assert [n for n in handled if n % 2 == 0] == [0, 0, 2, 4]
    assert [n for n in handled if n % 2 == 1] == [1, 1, 3, 5]


async def test_one_that_a_stop_takes_from_its_handler_goes_back_before_what_follows_it(rig: Rig):
    one, two, began, seen = await rig.bus(), await rig.bus(), asyncio.Event(), Seen()

    async def endless(_event: Event) -> None:
        began.set()
        await asyncio.Event().wait()

    await one.subscribe("task.*", endless, "worker", order_by="topic")
    await one.publish_many(events(5))
    await began.wait()
    await rig.breathe()
    await one.stop(timeout=0.1)
    await two.subscribe("task.*", seen, "worker", order_by="topic")
    await eventually(seen.count(5))
    assert seen.numbers == [0, 1, 2, 3, 4]
    assert attempts(seen) == {1}


async def _given_back(bus: EventBus, count: int) -> bool:
    """Whether so many wait at the engine, in nobody's hands."""
    found = await bus.info("worker")
    return found is not None and found.ready == count and not found.leased


async def test_a_topic_that_is_paused_is_paused_for_what_was_fetched_before(rig: Rig):
    bus, began, gate, handled = await rig.bus(), asyncio.Event(), asyncio.Event(), list[int]()

    async def work(event: Event) -> None:
        handled.append(event.payload["n"])
        began.set()
        await gate.wait()

    await bus.subscribe("#", work, "worker", order_by="topic")
    await bus.publish_many([event("a"), event("b", 1), event("b", 2), event("c", 3)])
    await began.wait()
    await rig.breathe()
    await bus.pause(topic="b")
    gate.set()
    await eventually(lambda: len(handled) >= 2)
    await quiet()
    assert handled == [0, 3]
    await bus.resume(topic="b")
    await rig.advance(LONG)
    await eventually(lambda: len(handled) == 4)
    assert handled == [0, 3, 1, 2]


async def test_with_order_by_its_key_waits_and_no_other(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker", order_by="payload.user")

    def of(user: str, n: int, job: str) -> Event:
        return Event(topic="task.created", payload={"n": n, "user": user}, correlation_id=job)

    await bus.pause(correlation_id="job-1")
    await bus.publish_many([of("a", 1, "job-1"), of("a", 2, "job-2"), of("b", 3, "job-2"), of("a", 4, "job-3")])
    await eventually(seen.count(1))
    await rig.advance(3)
    await quiet()
    assert seen.numbers == [3]
    await bus.resume(correlation_id="job-1")
    await rig.advance(LONG)
    await eventually(seen.count(4))
    assert seen.numbers == [3, 1, 2, 4]


async def test_what_is_acknowledged_when_it_comes_waits_as_well(rig: Rig):
    bus, began, gate, handled = await rig.bus(), asyncio.Event(), asyncio.Event(), list[int]()

    async def work(event: Event) -> None:
        handled.append(event.payload["n"])
        began.set()
        await gate.wait()

    await bus.subscribe("task.*", work, "worker", auto_ack=True, order_by="payload.n")
    await bus.publish_many(events(5))
    await began.wait()
    await rig.breathe()
    await bus.pause(everything=True)
    gate.set()
    await quiet()
    assert handled == [0]
    await bus.resume(everything=True)
    await eventually(lambda: len(handled) == 5)


async def test_what_is_acknowledged_when_it_comes_is_not_while_it_is_held(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("#", seen, "worker", auto_ack=True)
    await bus.pause(topic="task.*")
    await bus.publish_many([event(n=1), event("plan.made", 2)])
    await eventually(seen.count(1))
    await quiet()
    assert seen.numbers == [2]
    await bus.resume(topic="task.*")
    await rig.advance(LONG)
    await eventually(seen.count(2))


async def test_a_retry_that_is_due_waits_too(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(0, times=1))
    await bus.subscribe("task.*", seen, "worker", retry=RetryPolicy(initial=2), order_by="topic")
    await bus.publish(event())
    await eventually(seen.count(1))
    await rig.breathe()
    await bus.pause(agent="worker")
    await rig.advance(5)
    await quiet()
    assert len(seen.events) == 1
    await bus.resume(agent="worker")
    await eventually(seen.count(2))
    assert [delivery.attempt for delivery in seen.deliveries] == [1, 2]


# --- what is live ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", [{"everything": True}, {"agent": "watcher"}, {"topic": "task.*"}, {"correlation_id": "job"}]
)
async def test_what_a_live_one_would_get_is_gone_and_counted(rig: Rig, what: dict[str, Any]):
    bus, seen = await rig.bus(), Seen()
    live = await bus.subscribe("task.*", seen, "watcher", durable=False)
    await bus.pause(**what)
    await bus.publish_many([event(n=n, correlation_id="job") for n in range(3)])
    await rig.breathe()
    await bus.publish(event("task.last", 3, correlation_id="job"))
    await eventually(lambda: _read_up_to(bus))
    await bus.resume(**what)
    await bus.publish(event(n=4, correlation_id="job"))
    await eventually(seen.count(1))
    await rig.advance(2)
    await eventually(lambda: live.tally.counts.lost == 4)
    assert seen.numbers == [4]


async def _read_up_to(bus: EventBus) -> bool:
    """Whether the reader of the log's end has come so far."""
    stored = [stored async for stored in bus.history("task.last")]
    return bool(stored) and bus.feed.position.covers(stored[-1].position)


# --- ends ------------------------------------------------------------------------------------------------------------


async def test_a_pause_with_an_end_is_over_by_itself(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.pause("worker", until=60)
    await bus.publish(event())
    await rig.advance(40)
    await quiet()
    assert seen.numbers == []
    await rig.advance(25)
    await eventually(seen.count(1))
    assert await bus.pauses() == []
    assert not bus.paused("worker~task.*")


@pytest.mark.parametrize("what", [{"topic": "task.*"}, {"correlation_id": "job"}, {"everything": True}])
async def test_what_was_held_comes_when_it_ends(rig: Rig, what: dict[str, Any]):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.pause(**what, until=10)
    await bus.publish(event(correlation_id="job"))
    await rig.advance(5)
    await quiet()
    assert seen.numbers == []
    await rig.advance(10)
    await eventually(seen.count(1))


async def test_what_has_ended_is_taken_away_by_who_looks_next(rig: Rig):
    bus, other = await rig.bus(), await rig.bus()
    await bus.pause(topic="a.*", until=5)
    await bus.pause(correlation_id="job", until=5)
    await rig.advance(20)
    assert await other.pauses() == []
    (fact,) = [stored.event.payload async for stored in bus.broker.read(Query(patterns=("_bus.pause-topic.#",)))]
    assert fact == {"key": "a.*"}, "a removal"


# --- what is known ---------------------------------------------------------------------------------------------------


async def test_who_asks_sees_what_is_paused_by_whom_and_why(rig: Rig):
    bus, other = await rig.bus(name="ops"), await rig.bus()
    await bus.subscribe("task.*", Seen(), "worker")
    await bus.pause("worker")
    await bus.pause(agent="planner", reason="too loud", until=600)
    await bus.pause(topic="pay.*", by="anna")
    await bus.pause(correlation_id="job-1")
    await bus.pause(everything=True)
    found = await other.pauses()
    assert [(each.scope, each.name, each.reason, each.by) for each in found] == [
        ("agent", "planner", "too loud", "ops"),
        ("conversation", "job-1", "", "ops"),
        ("everything", "", "", "ops"),
        ("subscription", "worker~task.*", "", "ops"),
        ("topic", "pay.*", "", "anna"),
    ]
    assert {each.scope for each in found if each.until is not None} == {"agent", "conversation"}
    assert all(abs(each.since - rig.clock.time()) < 5 for each in found)
    assert (await other.health())["details"]["pauses"][0]["name"] == "planner"


async def test_each_pause_ends_for_itself(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.pause(agent="worker")
    await bus.pause(everything=True)
    await bus.publish(event())
    assert [each.scope for each in await bus.resume(everything=True)] == ["everything"]
    await quiet()
    assert (seen.numbers, bus.paused("worker~task.*")) == ([], True)
    assert [each.scope for each in await bus.resume(agent="worker")] == ["agent"]
    assert await bus.resume(agent="worker") == []
    await eventually(seen.count(1))


async def test_every_bus_heeds_all_of_them_and_so_does_one_that_comes_later(rig: Rig):
    first, asking, seen = await rig.bus(), await rig.bus(), Seen()
    await first.subscribe("task.*", seen, "worker")
    await asking.pause(everything=True)
    await asking.pause(correlation_id="job")
    await eventually(lambda: first.paused("worker~task.*"), WITHIN)
    later = await rig.bus(start=False)
    await later.subscribe("#", seen, "later")
    await later.start()
    await asking.publish(event(correlation_id="job"))
    await quiet()
    assert seen.numbers == []
    await asking.resume(everything=True)
    await eventually(lambda: not first.paused("worker~task.*") and not later.paused("later~#"), WITHIN)
    await quiet()
    assert seen.numbers == []
    await asking.resume(correlation_id="job")
    await eventually(lambda: not (first.holds.active or later.holds.active), WITHIN)
    await rig.advance(LONG)
    await eventually(seen.count(2))


async def test_who_stops_does_not_wait_for_what_is_held(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.pause(topic="task.*")
    await bus.publish(event())
    with pytest.raises(TimeoutError):
        await bus.join(0.3)
    async with asyncio.timeout(5):
        await bus.stop()
    assert seen.numbers == []


# --- asked for by a handler ------------------------------------------------------------------------------------------


def asking(seconds: float, times: int = 1) -> Callable[[Event, int], Exception | None]:
    """The verdict that pauses the first few times."""
    left = [PauseSubscription(seconds, "quota")] * times
    return lambda _event, _attempt: left.pop() if left else None


@pytest.mark.parametrize("order_by", [None, "topic"])
async def test_a_handler_pauses_its_subscription_and_no_other(rig: Rig, order_by: str | None):
    bus, seen, other = await rig.bus(), Seen(asking(60)), Seen()
    sub = await bus.subscribe("task.*", seen, "worker", order_by=order_by)
    await bus.subscribe("task.*", other, "other")
    await bus.publish_many(events(10))
    await eventually(other.count(10))
    await eventually(seen.count(1))

    async def known() -> bool:
        return bool(await bus.pauses())

    await eventually(known)
    (pause,) = await bus.pauses()
    assert (pause.scope, pause.name, pause.reason, pause.by) == ("subscription", sub.subscription_id, "quota", "worker")
    await rig.advance(40)
    await quiet()
    assert seen.numbers == [0]
    assert await unsettled(bus) == 10
    await rig.advance(25)
    await eventually(seen.count(11))
    assert seen.numbers == [0, *range(10)]
    assert attempts(seen) == {1}
    assert await bus.pauses() == []


async def test_it_is_paused_in_every_process(rig: Rig):
    one, two, first, second = await rig.bus(), await rig.bus(), Seen(asking(60)), Seen()
    await one.subscribe("task.*", first, subscription="work")
    await one.publish(event())
    await eventually(first.count(1))
    await eventually(lambda: two.paused("work"), WITHIN)
    await two.subscribe("task.*", second, subscription="work")
    await one.publish_many(events(5))
    await quiet()
    assert (len(first.events), len(second.events)) == (1, 0)
    await two.resume("work")
    await eventually(lambda: len(first.events) + len(second.events) == 7, WITHIN)


async def test_it_does_not_shorten_one_that_lasts_longer(rig: Rig):
    bus, began, gate = await rig.bus(), asyncio.Event(), asyncio.Event()

    async def work(_event: Event) -> None:
        began.set()
        await gate.wait()
        raise PauseSubscription(1)

    await bus.subscribe("task.*", work, "worker", order_by="topic")
    await bus.publish(event())
    await began.wait()
    await bus.pause("worker", reason="by hand")
    gate.set()
    await eventually(lambda: _given_back(bus, 1))
    await rig.advance(5)
    (pause,) = await bus.pauses()
    assert (pause.reason, pause.until) == ("by hand", None)


async def test_a_live_one_waits_in_its_own_process(rig: Rig):
    bus, other, seen, elsewhere = await rig.bus(), await rig.bus(), Seen(asking(30)), Seen()
    sub = await bus.subscribe("task.*", seen)
    await other.subscribe("task.*", elsewhere)
    await bus.publish_many(events(3))
    await eventually(elsewhere.count(3))
    await eventually(seen.count(1))
    await quiet()
    assert (seen.numbers, sub.state) == ([0], "paused")
    assert await other.pauses() == []
    await rig.advance(31)
    await eventually(seen.count(4))
    assert sorted(seen.numbers) == [0, 0, 1, 2]
