"""Storms: conversations that cause themselves are stopped within their limits, and nothing else is delayed by that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, heard, unsettled
from wowevent import Event, EventBus, FailureReason, RequestFailed, RetryPolicy, StormPolicy, current
from wowevent.lineage import LINEAGE
from wowevent.replay import ReplayConfig

WITHIN = 5.0  # seconds for others to notice; they look once a second
POLICY = StormPolicy(max_hops=30, max_visits=4, max_events=40)
BYSTANDERS = 20


class Agent:
    """Handles a topic, and publishes on others whatever comes."""

    def __init__(self, bus: EventBus, *topics: str) -> None:
        self.handled = 0
        self._bus = bus
        self._topics = topics

    async def __call__(self, event: Event) -> None:
        self.handled += 1
        for topic in self._topics:
            await self._bus.publish(Event(topic=topic, payload={"n": self.handled}))


async def bystander(bus: EventBus) -> Callable[[], Awaitable[None]]:
    """A subscription that has nothing to do with it; what is returned proves that its events come promptly."""
    seen = Seen()
    await bus.subscribe("other.*", seen, "bystander")

    async def served() -> None:
        for n in range(BYSTANDERS):
            await bus.publish(event("other.thing", n))
        async with asyncio.timeout(WITHIN):
            await eventually(seen.count(BYSTANDERS), WITHIN)
        assert sorted(seen.numbers) == list(range(BYSTANDERS))

    return served


async def letters(bus: EventBus) -> list[tuple[str, str]]:
    """Who did not get what: the dead letters, all of which are of a storm."""
    found = await bus.dead_letters.list(limit=1000)
    assert {letter.reason for letter in found} <= {FailureReason.LOOP_DETECTED}
    return [(letter.subscription, letter.event.topic) for letter in found]


async def test_two_that_answer_each_other_are_stopped(rig: Rig):
    bus = await rig.bus(storms=POLICY)
    planner, worker = Agent(bus, "task.do"), Agent(bus, "plan.step")
    await bus.subscribe("plan.*", planner, subscription="planner")
    await bus.subscribe("task.*", worker, subscription="worker")
    served = await bystander(bus)
    first = Event(topic="plan.step", correlation_id="c")
    await bus.publish(first)
    await served()
    await bus.join(20)
    assert (planner.handled, worker.handled) == (4, 4)
    (letter,) = await bus.dead_letters.list()
    assert (letter.reason, letter.subscription, letter.event.hops) == (FailureReason.LOOP_DETECTED, "planner", 8)
    assert "planner (plan.step) x4 -> worker (task.do) x4" in letter.error
    (storm,) = bus.storms.list()
    assert (storm.id, storm.correlation_id, storm.limit, storm.who) == (first.event_id, "c", "max_visits", "planner")


async def test_three_in_a_ring_are_stopped_though_each_has_a_process_of_its_own(rig: Rig):
    buses = [await rig.bus(storms=POLICY) for _ in range(3)]
    topics = ("a.go", "b.go", "c.go")
    agents = []
    for n, bus in enumerate(buses):
        agents.append(Agent(bus, topics[(n + 1) % 3]))
        await bus.subscribe(topics[n], agents[-1], subscription=f"agent-{n}")
    for bus in buses:
        await heard(rig, bus.broker)
    served = await bystander(buses[1])
    await buses[2].publish(Event(topic="a.go"))
    await served()
    await eventually(lambda: all(bus.storms.list() for bus in buses), WITHIN)
    assert [agent.handled for agent in agents] == [4, 4, 4]
    assert await letters(buses[1]) == [("agent-0", "a.go")]


async def test_what_never_comes_twice_to_the_same_is_stopped_by_its_hops(rig: Rig):
    bus = await rig.bus(storms=POLICY)
    hops: list[int] = []

    async def wander(event: Event) -> None:
        hops.append(event.hops)
        await bus.publish(Event(topic=f"way.{event.hops + 1}"))

    await bus.subscribe("way.*", wander, subscription="wanderer")
    await bus.publish(Event(topic="way.0"))
    await bus.join(20)
    assert hops == list(range(31))
    assert [storm.limit for storm in bus.storms.list()] == ["max_hops"]
    assert await letters(bus) == [("wanderer", "way.31")]


async def test_one_that_doubles_its_output_is_stopped_and_that_is_said_once(rig: Rig, caplog: pytest.LogCaptureFixture):
    bus = await rig.bus(storms=StormPolicy(max_visits=None, max_events=40))
    doubler = Agent(bus, "double.it", "double.it")
    await bus.subscribe("double.*", doubler, subscription="doubler")
    served = await bystander(bus)
    await bus.publish(Event(topic="double.it"))
    await served()
    await bus.join(20)
    assert 20 <= doubler.handled <= 22
    assert [storm.limit for storm in bus.storms.list()] == ["max_events"]
    assert len(await letters(bus)) == 1 + 2 * doubler.handled - doubler.handled
    assert await unsettled(bus, "doubler") == 0
    assert [line.levelno for line in caplog.records].count(logging.ERROR) == 1


# --- laundering ---------------------------------------------------------------------------------------------------


async def plainly(bus: EventBus, event: Event) -> None:
    await bus.publish(event)


async def as_its_own(bus: EventBus, event: Event) -> None:
    headers = {LINEAGE: '{"root":"mine"}', "a": "b"}
    own = Event(topic=event.topic, correlation_id="own", parent_event_id="nobody", hops=0, headers=headers)
    await bus.publish(own)


async def from_a_task(bus: EventBus, event: Event) -> None:
    await asyncio.create_task(plainly(bus, event))


async def many_at_once(bus: EventBus, event: Event) -> None:
    await bus.publish_many([event])


async def by_a_replay(bus: EventBus, event: Event) -> None:
    async def again(_: Event) -> None:
        await bus.publish(event)

    assert await bus.replay(again, this_one()) == 1


async def by_a_replay_into_its_topic(bus: EventBus, event: Event) -> None:
    assert await bus.replay_into(event.topic, this_one()) == 1


def this_one() -> ReplayConfig:
    """The event that is being handled."""
    delivery = current()
    assert delivery is not None
    return ReplayConfig(event_ids=[delivery.event.event_id], speed_multiplier=0)


async def by_a_question(bus: EventBus, _: Event) -> None:
    assert await bus.request("ask.it", {}) == "yes"


WAYS = [plainly, as_its_own, from_a_task, many_at_once, by_a_replay, by_a_replay_into_its_topic, by_a_question]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_nothing_that_a_handler_does_shakes_its_lineage_off(rig: Rig, way: Callable[..., Awaitable[None]]):
    bus = await rig.bus(storms=POLICY)
    hops: list[int] = []

    async def loop(event: Event) -> None:
        hops.append(event.hops)
        await way(bus, Event(topic="loop.it"))

    async def answer(event: Event) -> str:
        await bus.publish(Event(topic="loop.it"))
        return "yes"

    await bus.subscribe("loop.*", loop, subscription="looper")
    await bus.subscribe("ask.*", answer, subscription="asked")
    await bus.publish(Event(topic="loop.it"))
    await eventually(bus.storms.list)
    await bus.join(20)
    assert len(hops) == 4
    assert hops == sorted(hops)
    assert ("looper", "loop.it") in await letters(bus)


async def test_a_batch_does_not_though_something_new_stands_first_in_it(rig: Rig):
    bus, seen = await rig.bus(storms=POLICY), Seen()

    async def loop(events: list[Event]) -> None:
        assert [event.hops for event in events] == [0, 12]
        await bus.publish(Event(topic="out.it"))

    await bus.publish_many([Event(topic="loop.it"), Event(topic="loop.it", hops=12)])
    await bus.subscribe("out.*", seen, subscription="out")
    await bus.subscribe("loop.*", loop, subscription="looper", batch=2, start="first")
    await eventually(seen.count(1))
    assert [event.hops for event in seen.events] == [13]


async def test_a_delay_does_not(rig: Rig):
    bus, handled = await rig.bus(storms=POLICY), list[int]()

    async def loop(event: Event) -> None:
        handled.append(event.hops)
        await bus.publish(Event(topic="loop.it"), delay=1)

    await bus.subscribe("loop.*", loop, subscription="looper")
    await bus.publish(Event(topic="loop.it"))
    async with asyncio.timeout(30):
        while not bus.storms.list():
            await rig.advance(1.1)
    assert handled == [0, 1, 2, 3]


async def test_a_schedule_does_not(rig: Rig):
    bus, handled = await rig.bus(storms=POLICY), list[int]()

    async def loop(event: Event) -> None:
        handled.append(event.hops)
        soon = datetime.fromtimestamp(rig.clock.time() + 2, UTC)
        await bus.schedules.add(f"again-{event.hops}", Event(topic="loop.it"), every=3600, start=soon)

    await bus.subscribe("loop.*", loop, subscription="looper")
    await bus.publish(Event(topic="loop.it"))
    async with asyncio.timeout(30):
        while not bus.storms.list():
            await rig.advance(1.1)
    assert handled == [0, 1, 2, 3]


async def test_a_retry_does_not(rig: Rig):
    bus, handled = await rig.bus(storms=POLICY), list[tuple[int, int]]()

    async def loop(event: Event) -> None:
        handled.append((event.hops, event.retry_count))
        if not event.retry_count:
            raise OSError("on purpose")
        await bus.publish(Event(topic="loop.it"))

    await bus.subscribe("loop.*", loop, subscription="looper", retry=RetryPolicy(initial=0))
    await bus.publish(Event(topic="loop.it"))
    await bus.join(20)
    assert handled == [(hops, retry) for hops in range(4) for retry in (0, 1)]


async def test_a_redelivery_gets_a_letter_handled_and_goes_on_only_as_far_again(rig: Rig):
    bus = await rig.bus(storms=POLICY)
    agent = Agent(bus, "loop.it")
    await bus.subscribe("loop.*", agent, subscription="looper")
    await bus.publish(Event(topic="loop.it"))
    await bus.join(20)
    for handled in (5, 6, 7, 8, 8, 8):
        assert await bus.dead_letters.redeliver(subscription="looper") == 1
        await eventually(lambda: parked(bus, ("looper", "loop.it")))
        assert agent.handled == handled


async def parked(bus: EventBus, *expected: tuple[str, str]) -> bool:
    """Whether exactly these are dead letters, however often."""
    return set(await letters(bus)) == set(expected)


# --- what is parked -----------------------------------------------------------------------------------------------


async def test_all_that_belongs_to_it_is_parked_wherever_it_waits(rig: Rig):
    """Queued for one that is paused, delayed, and about to be tried again; by a process that serves nothing of it."""
    bus, other = await rig.bus(storms=POLICY), await rig.bus(storms=POLICY)
    queued, failing, late = Seen(), Seen(lambda _event, _attempt: OSError("on purpose")), Seen()
    await other.subscribe("loop.*", queued, subscription="queued")
    await other.subscribe("late.*", late, subscription="late")
    await other.subscribe("loop.start", failing, subscription="failing", retry=RetryPolicy(initial=60))
    await other.pause("queued")
    await heard(rig, bus.broker)

    async def loop(event: Event) -> None:
        if event.topic == "loop.start":
            await bus.publish(Event(topic="late.one"), delay=30)
        await bus.publish(Event(topic="loop.it"))

    await bus.subscribe("loop.*", loop, subscription="looper")
    await bus.publish(Event(topic="loop.start"))
    await eventually(failing.count(1))
    await eventually(lambda: bus.storms.list() and other.storms.list(), WITHIN)
    await other.resume("queued")
    for _ in range(3):
        await rig.advance(31)
    everywhere = (
        ("queued", "loop.start"), ("queued", "loop.it"), ("failing", "loop.start"), ("late", "late.one"),
        ("looper", "loop.it"),
    )  # fmt: skip
    await eventually(lambda: parked(bus, *everywhere))
    assert (queued.events, late.events, len(failing.events)) == ([], [], 1)


async def test_a_process_that_comes_later_finds_it_parked(rig: Rig):
    bus = await rig.bus(storms=POLICY)
    agent, late = Agent(bus, "loop.it"), Seen()
    await (await bus.subscribe("loop.*", late, subscription="late")).cancel()
    await bus.subscribe("loop.*", agent, subscription="looper")
    first = Event(topic="loop.it")
    await bus.publish(first)
    await bus.join(20)
    await bus.stop()  # which tells what it has to
    later = await rig.bus(start=False, storms=POLICY)
    await later.subscribe("loop.*", late, subscription="late")
    await later.start()
    assert [storm.id for storm in later.storms.list()] == [first.event_id]
    await eventually(lambda: parked(later, ("looper", "loop.it"), ("late", "loop.it")))
    assert late.events == []


async def test_what_is_released_goes_on_as_far_again(rig: Rig):
    bus, other = await rig.bus(storms=POLICY), await rig.bus(storms=POLICY)
    agent = Agent(bus, "loop.it")
    await bus.subscribe("loop.*", agent, subscription="looper")
    await bus.publish(Event(topic="loop.it", correlation_id="c"))
    await bus.join(20)
    await eventually(other.storms.list, WITHIN)
    assert len(await other.storms.release("c")) == 1
    assert (await other.storms.release("c"), other.storms.list()) == ([], [])
    await eventually(lambda: not bus.storms.list(), WITHIN)
    assert await bus.dead_letters.redeliver(correlation_id="c") == 1
    await eventually(bus.storms.list)
    await bus.join(20)
    assert agent.handled == 8
    assert [storm.most for storm in bus.storms.list()] == [8]


async def test_a_question_of_a_parked_conversation_is_answered_at_once(rig: Rig):
    bus, said = await rig.bus(storms=POLICY), list[str]()

    async def ask(_: Event) -> str:
        try:
            await bus.request("ask.it", {}, timeout=30)
        except RequestFailed as error:
            said.append(str(error))
        return "asked"

    await bus.subscribe("ask.*", ask, subscription="asker", concurrency=10)
    await bus.publish(Event(topic="ask.it"))
    await bus.join(20)
    assert len(said) == 1
    assert said[0].startswith("storm: ")


# --- who has no dead letters --------------------------------------------------------------------------------------


async def test_live_ones_are_stopped_and_what_they_miss_is_counted(rig: Rig):
    bus, other = await rig.bus(storms=POLICY), await rig.bus(storms=POLICY)
    one, two = Agent(bus, "b.go"), Agent(other, "a.go")
    subs = [await bus.subscribe("a.*", one), await other.subscribe("b.*", two)]
    await bus.publish(Event(topic="a.go"))
    await eventually(lambda: sum(sub.consumer.counts.dropped for sub in subs) == 1)
    assert (one.handled, two.handled) == (4, 4)
    assert await letters(bus) == []
    assert bus.storms.list()


async def test_those_that_acknowledge_before_handling_are_too(rig: Rig):
    bus = await rig.bus(storms=POLICY)
    agent = Agent(bus, "loop.it")
    sub = await bus.subscribe("loop.*", agent, subscription="looper", auto_ack=True)
    await bus.publish(Event(topic="loop.it"))
    await eventually(lambda: sub.consumer.counts.dropped == 1)
    assert agent.handled == 4
    assert await letters(bus) == []


async def test_it_can_be_switched_off(rig: Rig):
    bus, handled = await rig.bus(storms=False), list[int]()

    async def loop(event: Event) -> None:
        handled.append(event.hops)
        if event.hops < 140:
            await bus.publish(Event(topic="loop.it"))

    await bus.subscribe("loop.*", loop, subscription="looper")
    await bus.publish(Event(topic="loop.it"))
    await bus.join(20)
    assert handled == list(range(141))
