"""What somebody has paused: what is refused, what is known of it, and what is said while the engine is in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wowevent import BrokerUnavailable, Event, EventBus, InvalidEvent, PauseSubscription
from wowevent.broker import Appended, Lease
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.directory import Directory
from wowevent.testing import ManualClock, TestBus, settle


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    async with TestBus(name="ops") as bus:
        yield bus


@pytest.mark.parametrize("until", [60, 60.0, timedelta(minutes=1), "datetime", "text"])
async def test_an_end_is_a_time_or_seconds_from_now(bus: TestBus, until: Any):
    end = datetime.fromtimestamp(bus.clock.time() + 60, UTC)
    times: dict[object, Any] = {"datetime": end, "text": end.isoformat()}
    (made,) = await bus.pause(everything=True, until=times.get(until, until))
    assert made.until == pytest.approx(bus.clock.time() + 60, abs=0.01)


@pytest.mark.parametrize("until", [0, -1, True, float("nan"), "soon", "2001-01-01", 10**11, timedelta(0), [5]])
async def test_an_end_that_is_none_is_refused(bus: TestBus, until: Any):
    with pytest.raises(InvalidEvent):
        await bus.pause(everything=True, until=until)
    assert await bus.pauses() == []


@pytest.mark.parametrize(
    "what", [{}, {"name": "a", "agent": "b"}, {"agent": "b", "everything": True}, {"topic": "a", "correlation_id": "b"}]
)
async def test_exactly_one_thing_is_paused_at_a_time(bus: TestBus, what: dict[str, Any]):
    with pytest.raises(InvalidEvent):
        await bus.pause(**what)
    with pytest.raises(InvalidEvent):
        await bus.resume(**what)


@pytest.mark.parametrize("what", [{"agent": "a b"}, {"topic": "a..b"}, {"correlation_id": ""}, {"agent": ""}])
async def test_names_that_cannot_be_are_refused(bus: TestBus, what: dict[str, Any]):
    with pytest.raises(InvalidEvent):
        await bus.pause(**what)


async def test_to_say_it_again_changes_the_end_and_not_the_beginning(bus: TestBus):
    (first,) = await bus.pause(agent="worker", until=100)
    await bus.advance(10)
    (second,) = await bus.pause(agent="worker", reason="longer")
    assert (second.since, second.until, second.reason) == (first.since, None, "longer")
    assert await bus.pauses() == [second]


async def test_a_conversations_pause_has_an_end_always(bus: TestBus):
    (pause,) = await bus.pause(correlation_id="job", until=10**9)
    assert pause.until == pytest.approx(bus.clock.time() + 30 * 86_400)
    bus.clock.jump(29 * 86_400)
    assert [each.name for each in await bus.pauses()] == ["job"]
    bus.clock.jump(2 * 86_400)
    assert await bus.pauses() == []


async def test_a_clock_that_is_set_forward_ends_a_pause_within_a_minute(bus: TestBus):
    handled = list[int]()
    await bus.subscribe("task.*", lambda event: handled.append(event.payload["n"]), "worker")
    await bus.pause(everything=True, until=3600)
    await bus.publish(Event(topic="task.created", payload={"n": 1}))
    bus.clock.jump(4000)
    await bus.advance(61)
    assert handled == [1]


async def test_a_reason_is_cut_and_can_be_stored(bus: TestBus):
    (pause,) = await bus.pause(everything=True, reason="x\ud800" + "y" * 1000)
    assert (pause.reason[:7], len(pause.reason)) == ("x\\ud800", 500)
    assert await bus.pauses() == [pause]


@pytest.mark.parametrize("value", [{}, {"since": "then"}, {"since": 1.0, "until": "soon"}])
async def test_a_fact_that_cannot_be_read_is_a_pause_without_an_end(value: dict[str, Any]):
    log, clock = MemoryLog(), ManualClock()
    directory = Directory(MemoryBroker(log, clock=clock))
    await directory.put("pause-everything", "", value)
    async with EventBus(MemoryBroker(log, clock=clock), clock=clock) as bus:
        (pause,) = await bus.pauses()
        assert (pause.scope, pause.until) == ("everything", None)
        await bus.resume(everything=True)
        assert await bus.pauses() == []
    await directory.close()


async def test_what_an_older_version_paused_is_paused():
    log, clock = MemoryLog(), ManualClock()
    directory = Directory(MemoryBroker(log, clock=clock))
    await directory.put("pause", "worker~task.*", {"since": 1.0})
    async with EventBus(MemoryBroker(log, clock=clock), clock=clock) as bus:
        handled = list[Event]()
        subscription = await bus.subscribe("task.*", handled.append, "worker")
        assert subscription.state == "paused"
        assert [(each.since, each.by) for each in await bus.pauses()] == [(1.0, "")]
    await directory.close()


class Troubled:
    """An engine that takes no facts for a while, or slowly, or hands out nothing: others got it."""

    def __init__(self, broker: MemoryBroker, *, slow: float = 0.0, empty: bool = False) -> None:
        self.troubled = False
        self._slow = slow
        self._empty = empty
        self._broker = broker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        if self.troubled and events[0].topic.startswith("_bus."):
            raise BrokerUnavailable("not now")
        if events[0].topic.startswith("_bus."):
            await asyncio.sleep(self._slow)
        return await self._broker.publish(events)

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        if self._empty and limit:
            await asyncio.sleep(min(wait, 0.1))
        return await self._broker.fetch(id, limit=0 if self._empty else limit, wait=wait)


async def test_what_a_handler_asks_for_is_said_once_the_engine_takes_it():
    log, clock = MemoryLog(), ManualClock()
    troubled: Any = Troubled(MemoryBroker(log, clock=clock))

    def limited(_event: Event) -> None:
        troubled.troubled = True
        raise PauseSubscription(60, "quota")

    async with (
        EventBus(troubled, clock=clock) as bus,
        EventBus(MemoryBroker(log, clock=clock), clock=clock) as other,
    ):
        subscription = await bus.subscribe("task.*", limited, "worker")
        await bus.publish(Event(topic="task.created"))
        while subscription.state != "paused":  # noqa: ASYNC110 - sync handlers run in a thread
            await asyncio.sleep(0.01)
        await clock.advance(5)
        assert await other.pauses() == []
        troubled.troubled = False
        await clock.advance(11)
        await settle()
        assert [(each.reason, each.by) for each in await other.pauses()] == [("quota", "worker")]


async def test_what_a_handler_asked_for_is_said_before_the_bus_ends():
    log, clock = MemoryLog(), ManualClock()
    async with EventBus(MemoryBroker(log, clock=clock), clock=clock) as other:
        slow: Any = Troubled(MemoryBroker(log, clock=clock), slow=0.3)
        bus = EventBus(slow, clock=clock)
        await bus.start()

        async def limited(_event: Event) -> None:
            raise PauseSubscription(60, "quota")

        await bus.subscribe("task.*", limited, "worker")
        await bus.publish(Event(topic="task.created"))
        await bus.stop()
        assert [each.reason for each in await other.pauses()] == ["quota"]


async def test_who_stops_does_not_wait_for_what_is_held_elsewhere():
    elsewhere: Any = Troubled(MemoryBroker(MemoryLog()), empty=True)
    bus = EventBus(elsewhere)
    await bus.start()
    await bus.subscribe("task.*", lambda _event: None, "worker")
    await bus.pause(topic="task.*")
    await bus.publish(Event(topic="task.created"))
    with pytest.raises(TimeoutError):
        await bus.join(0.3)
    async with asyncio.timeout(3):
        await bus.stop(timeout=10)


async def test_an_ordered_subscription_goes_on_beside_hundreds_that_are_held(bus: TestBus):
    handled = list[int]()

    async def work(event: Event) -> None:
        handled.append(event.payload["n"])

    await bus.subscribe("#", work, "worker", order_by="payload.n")
    await bus.pause(topic="task.*")
    held = [Event(topic="task.created", payload={"n": n}) for n in range(600)]
    await bus.publish_many([*held, Event(topic="plan.made", payload={"n": -1})])
    await bus.advance(5)
    assert handled == [-1]
    await bus.resume(topic="task.*")
    await bus.advance(31)
    assert handled == [-1, *range(600)]
