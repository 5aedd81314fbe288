"""The bus over each engine: starting, joining, stopping; nothing is left behind (tests/conftest.py looks)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually, url_of
from tests.conformance.making import Seen, event, events, failing, read, same, unsettled
from wowevent import Closed, Event, EventBus, NotSupported, RetryPolicy


class Blocked:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.started: list[int] = []
        self.ended: list[int] = []

    async def __call__(self, event: Event) -> None:
        self.started.append(event.payload["n"])
        await self.gate.wait()
        self.ended.append(event.payload["n"])


async def test_starting_twice_is_starting_once(rig: Rig):
    bus, blocked = await rig.bus(start=False), Blocked()
    await bus.subscribe("task.*", blocked, "worker")
    await asyncio.gather(bus.start(), bus.start())
    await bus.start()
    await bus.publish_many(events(5))
    await eventually(lambda: blocked.started)
    await rig.breathe()
    assert blocked.started == [0], "one worker, not two"
    blocked.gate.set()
    await bus.join(5)


async def test_subscribing_while_starting_serves_once(rig: Rig):
    bus, blocked = await rig.bus(start=False), Blocked()
    await asyncio.gather(bus.start(), bus.subscribe("task.*", blocked, "worker"))
    await bus.publish_many(events(5))
    await eventually(lambda: blocked.started)
    await rig.breathe()
    assert blocked.started == [0], "one worker, not two"
    blocked.gate.set()
    await bus.join(5)


async def test_a_stopped_bus_cannot_be_started_again(rig: Rig):
    bus = await rig.bus()
    await bus.stop()
    with pytest.raises(Closed):
        await bus.start()


async def test_a_bus_that_never_started_can_be_stopped(rig: Rig):
    bus = await rig.bus(start=False)
    await bus.subscribe("task.*", Seen(), "worker")
    await bus.subscribe("task.*", Seen())
    await bus.stop()


async def test_a_bus_closes_the_engine_that_it_opened_and_no_other(rig: Rig):
    broker = rig.broker()
    async with EventBus(broker, clock=rig.clock) as bus:
        await bus.publish(event())
    assert len(await read(broker)) == 1


async def test_stop_waits_for_running_handlers(rig: Rig):
    bus, blocked = await rig.bus(), Blocked()
    await bus.subscribe("task.*", blocked, "worker")
    await bus.publish(event())
    await eventually(lambda: blocked.started)
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.02)
    assert not stopping.done()
    blocked.gate.set()
    async with asyncio.timeout(5):
        await stopping
    assert blocked.ended == [0]
    assert await unsettled(await rig.bus()) == 0


async def test_stop_handles_once_what_this_bus_published_for_itself(rig: Rig):
    bus, seen, last = await rig.bus(), Seen(failing(3)), Seen()

    async def chain(event: Event) -> None:
        await bus.publish(Event(topic="task.followed", payload=event.payload))

    await bus.subscribe("task.created", seen, "worker")
    await bus.subscribe("task.created", chain, "chain")
    await bus.subscribe("task.followed", last, "last")
    await bus.publish_many(events(20))
    await bus.stop()
    assert sorted(seen.numbers) == sorted(last.numbers) == list(range(20))
    other = await rig.bus()
    found = await other.info("worker")
    assert found
    assert found.ready == 0
    assert same(other, found.leased, 0)
    assert same(other, found.delayed, 1), "the failed one waits for its retry"


async def test_stop_does_not_wait_for_what_others_published(rig: Rig):
    bus, other, seen = await rig.bus(), await rig.bus(), Seen()
    await (await bus.subscribe("task.*", seen, "worker")).cancel()
    await other.publish_many(events(100))
    blocked = Blocked()
    await bus.subscribe("task.*", blocked, "worker")
    await eventually(lambda: blocked.started)
    blocked.gate.set()
    await bus.stop()

    async def settled_or_not() -> bool:
        return len(blocked.ended) + await unsettled(other) == 100

    await eventually(settled_or_not)


async def test_stop_gives_back_what_does_not_end_in_time_uncharged(rig: Rig):
    bus, blocked, seen = await rig.bus(), Blocked(), Seen()
    await bus.subscribe("task.*", blocked, "worker")
    await bus.publish_many(events(3))
    await eventually(lambda: blocked.started)
    async with asyncio.timeout(5):
        await bus.stop(timeout=0.05)
    other = await rig.bus()
    await other.subscribe("task.*", seen, "worker")
    await eventually(seen.count(3))
    assert seen.numbers == [0, 1, 2]
    assert [delivery.attempt for delivery in seen.deliveries] == [1, 1, 1]


async def test_stopping_twice_is_stopping_once(rig: Rig):
    bus = await rig.bus()
    await bus.subscribe("task.*", Seen(), "worker")
    await bus.stop()
    await bus.stop()


async def test_ten_stops_at_once_are_one_complete_stop(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.subscribe("task.*", Seen())
    await bus.publish_many(events(50))
    async with asyncio.timeout(5):
        await asyncio.gather(*(bus.stop() for _ in range(10)))
    assert seen.numbers == list(range(50))


async def test_a_stop_that_is_cancelled_leaves_nothing_running(rig: Rig):
    bus, blocked = await rig.bus(), Blocked()
    await bus.subscribe("task.*", blocked, "worker")
    await bus.subscribe("task.*", blocked)
    await bus.publish(event())
    await eventually(lambda: len(blocked.started) == 2)
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.02)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    await asyncio.sleep(0.05)
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith("wowevent")]
    assert left == []


async def test_a_handler_may_cancel_its_own_subscription(rig: Rig):
    bus, seen = await rig.bus(), list[int]()

    async def once(event: Event) -> None:
        seen.append(event.payload["n"])
        await handle.cancel()

    handle = await bus.subscribe("task.*", once, "worker")
    await bus.publish_many(events(3))
    async with asyncio.timeout(5):
        await eventually(lambda: not handle.active)
        await eventually(lambda: _is(bus, leased=0, ready=2))
    assert seen == [0]


async def _is(bus: EventBus, **numbers: int) -> bool:
    found = await bus.info("worker")
    return all(same(bus, getattr(found, name), number) for name, number in numbers.items())


async def test_requests_under_way_end_when_the_bus_stops(rig: Rig):
    bus, blocked = await rig.bus(), Blocked()
    await bus.subscribe("task.ask", blocked, "worker")
    request = asyncio.create_task(bus.request("task.ask", {"n": 1}, timeout=60))
    await eventually(lambda: blocked.started)
    await bus.stop(timeout=0.05)
    with pytest.raises(Closed):
        await request


async def test_an_exception_in_the_body_still_stops_the_bus(rig: Rig):
    bus = EventBus(rig.broker(), clock=rig.clock)

    async def body() -> None:
        async with bus:
            await bus.subscribe("task.*", Seen(), "worker")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    with pytest.raises(Closed):
        await bus.publish(event())


# --- join ---------------------------------------------------------------------------------------------------------


async def test_join_waits_for_cascades(rig: Rig):
    bus, seen = await rig.bus(), Seen()

    async def chain(event: Event) -> None:
        if (n := event.payload["n"]) < 20:
            await bus.publish(Event(topic="task.created", payload={"n": n + 1}))

    await bus.subscribe("task.*", chain, "chain")
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event(n=0))
    await bus.join(5)
    assert seen.numbers == list(range(21))


async def test_join_waits_for_retries(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(0, times=2))
    await bus.subscribe("task.*", seen, "worker", retry=RetryPolicy(initial=1, multiplier=1))
    await bus.publish(event())
    joining = asyncio.create_task(bus.join())
    await eventually(seen.count(1))
    await rig.breathe()
    assert not joining.done()
    for _ in range(2):
        await rig.advance(1.1)
        await rig.breathe()
    async with asyncio.timeout(5):
        await joining
    assert len(seen.events) == 3


async def test_join_waits_for_a_handler_that_takes_its_time(rig: Rig):
    bus, done = await rig.bus(), []

    async def slow(event: Event) -> None:
        await asyncio.sleep(1.0)  # longer than it takes to ask the engine whether others did the rest
        done.append(event.payload["n"])

    await bus.subscribe("task.*", slow, "worker", concurrency=2)
    await bus.publish_many(events(4))
    await bus.join(10)
    assert sorted(done) == [0, 1, 2, 3]


async def test_join_ends_when_another_member_did_the_work(rig: Rig):
    bus, other, seen = await rig.bus(), await rig.bus(), Seen()
    blocked = Blocked()
    await bus.subscribe("task.*", blocked, "worker")
    await other.subscribe("task.*", seen, "worker")
    await bus.publish_many(events(20))
    await eventually(lambda: seen.events or blocked.started)
    blocked.gate.set()
    await bus.join(5)
    assert sorted(seen.numbers + blocked.ended) == list(range(20))


async def test_join_raises_timeout_error(rig: Rig):
    bus, blocked = await rig.bus(), Blocked()
    await bus.subscribe("task.*", blocked, "worker")
    await bus.publish(event())
    with pytest.raises(TimeoutError):
        await bus.join(timeout=0.05)
    blocked.gate.set()
    await bus.join(5)


async def test_join_does_not_wait_for_what_is_delayed_or_expired_or_a_duplicate(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish(event(n=1), delay=3600)
    sent = event(n=2)
    await bus.publish(sent)
    await bus.join(5)
    await bus.publish(sent)
    await bus.publish(event(n=3, ttl_seconds=1, timestamp="2020-01-01"))
    await bus.join(5)
    assert seen.numbers == [2]


async def test_two_buses_with_urls_of_their_own_close_everything(rig: Rig, tmp_path: Any):
    url = url_of(rig.engine, tmp_path)
    for _ in range(3):
        async with EventBus(url) as bus:
            seen = Seen()
            await bus.subscribe("task.*", seen, "worker")
            await bus.publish(event())
            await bus.join(5)
        assert seen.numbers == [0]


def test_what_is_neither_a_url_nor_a_broker_is_refused():
    with pytest.raises(NotSupported, match="neither a URL nor a broker"):
        EventBus(object())  # type: ignore[arg-type]
