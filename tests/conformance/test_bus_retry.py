"""The bus over each engine: attempts, backoff, dead letters, suspects, expiry, keys that stay in order."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, events, failing, unsettled
from wowevent import Event, EventBus, FailureReason, Reject, RetryAfter, RetryPolicy
from wowevent.broker import Subscription


async def run_through(rig: Rig, waits: list[float], seen: Seen) -> None:
    """Let each retry fall due, and no earlier."""
    for number, wait in enumerate(waits, 1):
        await eventually(seen.count(number))
        await rig.breathe()
        await rig.advance(wait - 0.1)
        assert len(seen.events) == number
        await rig.advance(0.1001)
    await eventually(seen.count(len(waits) + 1))


async def test_three_failures_then_success(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(0, times=3))
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event())
    await run_through(rig, [1, 2, 4], seen)
    await bus.join(5)
    assert [delivery.attempt for delivery in seen.deliveries] == [1, 2, 3, 4]
    assert [e.retry_count for e in seen.events] == [0, 1, 2, 3]
    assert not await bus.dead_letters.list()


async def test_poison_gets_exactly_the_attempts_promised_then_one_dead_letter(rig: Rig):
    bus, seen, innocent = await rig.bus(), Seen(failing(1)), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.subscribe("task.*", innocent, "other")
    sent = events(3)
    await bus.publish_many(sent)
    await eventually(seen.count(3))
    for wait in (1, 2, 4, 8, 16):
        await rig.breathe()
        await rig.advance(wait + 0.1)
    await eventually(bus.dead_letters.list)
    await rig.advance(100)
    assert seen.numbers.count(1) == 6
    assert innocent.numbers == [0, 1, 2]
    (letter,) = await bus.dead_letters.list()
    assert (letter.event.event_id, letter.reason) == (sent[1].event_id, FailureReason.HANDLER_ERROR)
    assert (letter.subscription, letter.error) == ("worker~task.*", "OSError: on purpose")
    assert "on purpose" in letter.traceback
    assert [attempt.number for attempt in letter.attempts] == [1, 2, 3, 4, 5, 6]
    times = [attempt.time for attempt in letter.attempts]
    waits = [b - a for a, b in itertools.pairwise(times)]
    assert waits == pytest.approx([1, 2, 4, 8, 16], rel=0.2)


@pytest.mark.parametrize(("policy", "own", "attempts"), [(2, None, 3), (0, None, 1), (5, 1, 2), (0, 2, 3), (5, 0, 1)])
async def test_an_events_own_limit_comes_before_the_policys(rig: Rig, policy: int, own: int | None, attempts: int):
    bus, seen = await rig.bus(), Seen(failing(0))
    await bus.subscribe("task.*", seen, "worker", retry=RetryPolicy(max_retries=policy, initial=0))
    await bus.publish(event(max_retries=own))
    await bus.join(5)
    await eventually(bus.dead_letters.list)
    assert len(seen.events) == attempts


async def test_reject_goes_straight_to_the_dead_letters(rig: Rig):
    bus, seen = await rig.bus(), Seen(lambda _e, _a: Reject("not for me"))
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event())
    await bus.join(5)
    await eventually(bus.dead_letters.list)
    (letter,) = await bus.dead_letters.list()
    assert (letter.reason, letter.error, len(seen.events)) == (FailureReason.REJECTED, "not for me", 1)


async def test_retry_after_picks_its_moment_and_charges_nothing(rig: Rig):
    asked = iter([30, 30, 30])
    bus, seen = await rig.bus(), Seen(lambda _e, _a: RetryAfter(s) if (s := next(asked, None)) else None)
    await bus.subscribe("task.*", seen, "worker", retry=RetryPolicy(max_retries=0))
    await bus.publish(event())
    await run_through(rig, [30, 30, 30], seen)
    assert [e.retry_count for e in seen.events] == [0, 0, 0, 0]
    assert not await bus.dead_letters.list()


async def test_a_retry_holds_up_no_other_and_order_stays_otherwise(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(3, times=2))
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish_many(events(10))
    await eventually(seen.count(10))
    await rig.advance(1.1)
    await eventually(seen.count(11))
    await rig.advance(2.1)
    await bus.join(5)
    assert seen.numbers == [*range(10), 3, 3]


async def test_a_timeout_is_a_failure_of_its_own_kind(rig: Rig):
    bus = await rig.bus()

    async def slow(event: Event) -> None:
        await asyncio.sleep(60)

    await bus.subscribe("task.*", slow, "worker", timeout=0.05, retry=RetryPolicy(max_retries=1, initial=0))
    await bus.publish(event())
    await bus.join(5)
    await eventually(bus.dead_letters.list)
    (letter,) = await bus.dead_letters.list()
    assert (letter.reason, len(letter.attempts)) == (FailureReason.TIMEOUT, 2)


async def test_a_running_handler_keeps_its_event_however_long_it_takes(rig: Rig):
    one, two, gate, seen = await rig.bus(), await rig.bus(), asyncio.Event(), Seen()

    async def long(event: Event) -> None:
        seen.events.append(event)
        await gate.wait()

    await one.subscribe("task.*", long, "worker", lease=9)
    await one.publish(event())
    await eventually(seen.count(1))
    await two.subscribe("task.*", long, "worker", lease=9)
    await rig.advance(60)
    gate.set()
    await one.join(5)
    await eventually(lambda: _all_settled(one))
    assert len(seen.events) == 1


async def _all_settled(bus: EventBus) -> bool:
    return await unsettled(bus) == 0


async def test_expired_is_not_failed(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await (await bus.subscribe("task.*", seen, "worker")).cancel()
    await bus.publish_many([event(n=1, ttl_seconds=10), event(n=2, ttl_seconds=1000), event(n=3)])
    await rig.advance(60)
    handle = await bus.subscribe("task.*", seen, "worker")
    await eventually(seen.count(2))
    await eventually(lambda: _all_settled(bus))
    assert seen.numbers == [2, 3]
    assert not await bus.dead_letters.list()
    assert (await bus.health())["details"]["here"][handle.subscription_id]["expired"] == 1


# --- crashes ------------------------------------------------------------------------------------------------------


async def crash(rig: Rig, id: str, lease: float = 30) -> None:
    """Another process takes everything of a subscription, and is never heard of again."""
    process = rig.broker()
    while await process.fetch(id, limit=100, wait=0):
        pass
    await process.close()
    await rig.advance(lease + 1)


async def remembered(rig: Rig, bus: EventBus, **settings: Any) -> str:
    """A subscription that nobody serves yet."""
    handle = await bus.subscribe("task.*", Seen(), "worker", **settings)
    await handle.cancel()
    return handle.subscription_id


async def test_one_crash_charges_an_attempt_and_costs_nobody_the_event(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    id = await remembered(rig, bus)
    await bus.publish_many(events(3))
    await crash(rig, id)
    await bus.subscribe("task.*", seen, "worker")
    await eventually(seen.count(3))
    assert sorted(seen.numbers) == [0, 1, 2]
    assert [delivery.attempt for delivery in seen.deliveries] == [2, 2, 2]
    assert [e.retry_count for e in seen.events] == [0, 0, 0]


async def test_suspects_run_with_nothing_else_in_their_process(rig: Rig):
    bus, other = await rig.bus(), await rig.bus()
    running = most = 0
    done: list[int] = []

    async def handler(event: Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        done.append(event.payload["n"])

    id = await remembered(rig, bus, concurrency=8)
    await bus.publish_many(events(10))
    await crash(rig, id)
    await bus.subscribe("task.*", handler, "worker", concurrency=8)
    await bus.subscribe("noise.*", handler, "neighbour", concurrency=8)
    await bus.subscribe("noise.*", handler)
    suspects = len(done)
    while suspects < 10:
        await other.publish(event("noise.made", n=100))
        await asyncio.sleep(0)
        suspects = sum(1 for n in done if n < 10)
        if any(n < 10 for n in done):
            break
    await eventually(lambda: sum(1 for n in done if n < 10) == 10)
    assert sorted(n for n in done if n < 10) == list(range(10))


async def test_nothing_starts_beside_a_suspect(rig: Rig):
    bus, gate, seen = await rig.bus(), asyncio.Event(), Seen()
    started: list[int] = []

    async def suspect(event: Event) -> None:
        started.append(event.payload["n"])
        await gate.wait()

    id = await remembered(rig, bus)
    await bus.publish_many(events(2))
    await crash(rig, id)
    await bus.subscribe("noise.*", seen, "neighbour")
    await bus.subscribe("noise.*", seen)
    await bus.subscribe("task.*", suspect, "worker", concurrency=8)
    await eventually(lambda: started)
    await bus.publish_many([event("noise.made", n=n) for n in range(5)])
    await rig.breathe()
    await rig.breathe()
    assert (len(started), seen.numbers) == (1, [])
    gate.set()
    await eventually(seen.count(10))
    await eventually(lambda: len(started) == 2)


async def test_a_suspect_waits_until_its_neighbours_are_through(rig: Rig):
    bus, gate, order = await rig.bus(), asyncio.Event(), list[str]()

    async def neighbour(event: Event) -> None:
        order.append("neighbour starts")
        await gate.wait()
        order.append("neighbour ends")

    async def suspect(event: Event) -> None:
        order.append("suspect")

    id = await remembered(rig, bus)
    await bus.publish(event())
    await crash(rig, id)
    await bus.subscribe("noise.*", neighbour, "neighbour")
    await bus.publish(event("noise.made"))
    await eventually(lambda: order)
    await bus.subscribe("task.*", suspect, "worker")
    await rig.breathe()
    assert order == ["neighbour starts"]
    gate.set()
    await eventually(lambda: len(order) == 3)
    assert order == ["neighbour starts", "neighbour ends", "suspect"]


async def test_a_suspect_comes_before_what_its_neighbours_hold(rig: Rig):
    bus, gate, order = await rig.bus(), asyncio.Event(), list[str]()

    async def neighbour(event: Event) -> None:
        if event.topic == "noise.made":
            await gate.wait()
            order.append(f"neighbour {event.payload['n']}")

    async def suspect(event: Event) -> None:
        order.append("suspect")

    id = await remembered(rig, bus)
    await bus.publish(event())
    await crash(rig, id)
    await bus.subscribe("noise.*", neighbour, "neighbour", auto_ack=True)
    await bus.publish_many([event("noise.warm", n=n) for n in range(60)])  # so that it holds several
    await bus.join(5)
    await bus.publish_many([event("noise.made", n=n) for n in range(4)])
    await rig.breathe()
    await bus.subscribe("task.*", suspect, "worker")
    await eventually(lambda: _taken(bus, id))
    if rig.engine == "rabbitmq":  # a first suspect waits until its queue would survive a kill of the server
        await asyncio.sleep(2.0)
    await rig.breathe()
    gate.set()
    await eventually(lambda: len(order) == 5)
    assert order == ["neighbour 0", "suspect", "neighbour 1", "neighbour 2", "neighbour 3"]


async def _taken(bus: EventBus, id: str) -> bool:
    found = await bus.info(id)
    return found is not None and not found.ready


async def test_what_crashes_its_process_every_time_ends_as_a_dead_letter(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    id = await remembered(rig, bus)
    await bus.publish(event())
    for _ in range(3):
        await crash(rig, id)
    await bus.subscribe("task.*", seen, "worker", retry=RetryPolicy(max_retries=2))
    await eventually(bus.dead_letters.list)
    (letter,) = await bus.dead_letters.list()
    assert (letter.reason, len(letter.attempts), seen.numbers) == (FailureReason.CRASHED, 3, [])


# --- keys in order ------------------------------------------------------------------------------------------------


def keyed(key: str, n: int, **fields: Any) -> Event:
    return event(n=n, correlation_id=key, **fields)


@pytest.mark.parametrize("initial", [1.0, 0.0], ids=["with a pause", "at once"])
async def test_a_failing_event_holds_back_its_own_key_alone(rig: Rig, initial: float):
    bus, seen = await rig.bus(), Seen(failing(0, times=2))
    policy = RetryPolicy(initial=initial, multiplier=1)
    await bus.subscribe("task.*", seen, "worker", order_by="correlation_id", retry=policy, concurrency=4)
    await bus.publish_many([keyed("a", 0), keyed("b", 10), keyed("a", 1), keyed("b", 11), keyed("a", 2)])
    for _ in range(3):
        await rig.breathe()
        await rig.advance(1.1)
    await bus.join(5)
    assert [n for n in seen.numbers if n < 10] == [0, 0, 0, 1, 2]
    assert [n for n in seen.numbers if n >= 10] == [10, 11]
    assert initial == 0 or seen.numbers.index(11) < 3
    assert [d.attempt for d in seen.deliveries if d.event.payload["n"] == 0] == [1, 2, 3]


async def test_keys_stay_in_order_whatever_the_priority_and_concurrency(rig: Rig):
    bus, seen = await rig.bus(), Seen()

    async def jumpy(event: Event) -> None:
        for _ in range(event.payload["n"] * 7 % 5):
            await asyncio.sleep(0)
        seen.events.append(event)

    await bus.subscribe("task.*", jumpy, "worker", order_by="correlation_id", concurrency=8)
    await bus.publish_many([keyed(f"k{n % 5}", n, priority=1 + n * 3 % 10) for n in range(200)])
    await bus.join(10)
    for key in range(5):
        assert [n for n in seen.numbers if n % 5 == key] == list(range(key, 200, 5))


async def test_keys_stay_in_order_across_two_members(rig: Rig):
    one, two, seen = await rig.bus(), await rig.bus(), Seen()
    active: list[EventBus] = []

    def member(bus: EventBus) -> Any:
        async def handler(event: Event) -> None:
            await asyncio.sleep(0)
            seen.events.append(event)
            active.append(bus)

        return handler

    settings: dict[str, Any] = {"order_by": "correlation_id", "concurrency": 4}
    await one.subscribe("task.*", member(one), "worker", **settings)
    await two.subscribe("task.*", member(two), "worker", **settings)
    await two.publish_many([keyed(f"k{n % 3}", n) for n in range(30)])
    await eventually(seen.count(30))
    first = active[0]
    assert set(active) == {first}, "one active member at a time"
    await first.stop()
    rest = two if first is one else one
    await rest.publish_many([keyed(f"k{n % 3}", n) for n in range(30, 60)])
    await eventually(seen.count(60))
    assert set(active[30:]) == {rest}
    for key in range(3):
        assert [n for n in seen.numbers if n % 3 == key] == list(range(key, 60, 3))


async def test_a_key_that_used_up_its_attempts_goes_on_behind_the_dead_letter(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(0))
    policy = RetryPolicy(max_retries=1, initial=1)
    await bus.subscribe("task.*", seen, "worker", order_by="correlation_id", retry=policy)
    await bus.publish_many([keyed("a", 0), keyed("a", 1)])
    await eventually(seen.count(1))
    await rig.breathe()
    await rig.advance(1.1)
    await bus.join(5)
    await eventually(bus.dead_letters.list)
    (letter,) = await bus.dead_letters.list()
    assert (seen.numbers, [a.number for a in letter.attempts]) == ([0, 0, 1], [1, 2])


# --- dead letters through the bus ---------------------------------------------------------------------------------


async def test_letters_are_listed_redelivered_and_discarded(rig: Rig):
    broken = True
    bus = await rig.bus()
    seen = Seen(lambda _e, _a: Reject("broken") if broken else None)
    await bus.subscribe("task.*", seen, "worker")
    await bus.subscribe("task.*", Seen(failing(0)), "other", retry=RetryPolicy(max_retries=0))
    sent = [event(n=n, correlation_id=f"c-{n}") for n in range(3)]
    await bus.publish_many(sent)
    await bus.join(5)
    letters = bus.dead_letters
    await eventually(lambda: _count(letters.list(), 4))
    assert len(await letters.list(subscription="worker")) == 3
    assert len(await letters.list(subscription="worker~task.*", limit=2)) == 2
    assert len(await letters.list(reason="rejected", correlation_id="c-0")) == 1
    assert len(await letters.list(event_id=sent[0].event_id)) == 2
    assert await letters.redeliver() == 0
    broken = False
    one = (await letters.list(subscription="worker"))[0]
    assert await letters.redeliver(one.id) == 1
    await eventually(seen.count(4))
    assert await letters.redeliver(subscription="worker") == 2
    await eventually(seen.count(6))
    assert sorted(seen.numbers[3:]) == [0, 1, 2]
    assert all(delivery.redelivered and delivery.attempt == 1 for delivery in seen.deliveries[3:])
    assert await letters.discard(reason="handler_error") == 1
    assert not await letters.list()


async def _count(found: Any, count: int) -> bool:
    return len(await found) == count


async def test_a_subscription_declared_by_another_version_of_the_program_is_served(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await rig.broker().declare(Subscription(id="worker~task.*", patterns=("task.*",), agent="worker", lease=5))
    await bus.publish(event(n=1))
    await bus.subscribe("task.*", seen, "worker")
    await eventually(seen.count(1))


async def test_an_error_that_utf_8_cannot_say_stops_nothing(rig: Rig):
    bus = await rig.bus()

    async def fail(event: Event) -> None:
        raise Reject("half a character: \ud800")

    await bus.subscribe("task.*", fail, "worker")
    await bus.publish(Event(topic="task.created", payload={"n": 1}))
    await bus.publish(Event(topic="task.created", payload={"n": 2}))
    await bus.join(timeout=10)
    letters = await bus.dead_letters.list(subscription="worker")
    assert [letter.error for letter in letters] == ["half a character: \\ud800"] * 2
