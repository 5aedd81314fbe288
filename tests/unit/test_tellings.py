"""What senders are told: about which events, at whose cost, and what becomes of it when the engine is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.conformance.engines import eventually
from wowevent import BrokerUnavailable, Event, EventBus, FailureReason, tellings
from wowevent.broker import Appended, Bury, Query, Subscription
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.census import Census
from wowevent.routing import Routes
from wowevent.tellings import Tellings

BURY = Bury("t", FailureReason.HANDLER_ERROR, "ValueError: no")


class Way:
    """The way to the engine."""

    def __init__(self) -> None:
        self.sent: list[Event] = []
        self.down = False
        self.free = asyncio.Event()
        self.free.set()

    async def send(self, events: Sequence[Event]) -> Sequence[Appended]:
        await self.free.wait()
        if self.down:
            raise BrokerUnavailable("the line is cut")
        self.sent += events
        return [Appended(None)] * len(events)


@pytest.fixture
def way() -> Way:
    return Way()


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def told(broker: MemoryBroker, way: Way) -> AsyncIterator[Tellings]:
    census = Census(broker)
    told = Tellings(census, way.send)
    yield told
    await told.close()
    await census.close()


def sent(topic: str = "task.created", **fields: object) -> Event:
    return Event(topic=topic, **{"source_agent": "planner", "target_agent": "worker", **fields})  # type: ignore[arg-type]


async def test_a_telling_follows_from_its_event(told: Tellings, way: Way) -> None:
    event = sent(correlation_id="job-1", trace_id="a" * 32, hops=3)
    told.unmatched(event)
    await told.flush(1)
    (telling,) = way.sent
    assert (telling.topic, telling.target_agent) == ("_bus.undeliverable", "planner")
    assert (telling.correlation_id, telling.parent_event_id, telling.hops) == ("job-1", event.event_id, 4)
    assert telling.trace_id == "a" * 32
    said = telling.payload
    assert (said["event_id"], said["topic"], said["target"]) == (event.event_id, "task.created", "worker")
    assert said["reason"]


@pytest.mark.parametrize("event", [sent(source_agent=""), sent("_bus.undeliverable"), sent("_bus.dead_letter")])
async def test_nobody_is_told_of_nobodys_events_nor_of_tellings(
    told: Tellings, way: Way, broker: MemoryBroker, event: Event
) -> None:
    await broker.declare(Subscription(id="p", patterns=("_bus.#",), agent="planner"))
    told.unmatched(event)
    told.buried("worker", event, BURY)
    await told.flush(1)
    assert way.sent == []


async def test_who_came_meanwhile_makes_it_deliverable(told: Tellings, way: Way, broker: MemoryBroker) -> None:
    told.unmatched(sent())
    await broker.declare(Subscription(id="worker", patterns=("task.*",), agent="worker"))
    await told.flush(1)
    assert way.sent == []


async def test_of_dead_letters_only_who_asks_is_told(told: Tellings, way: Way, broker: MemoryBroker) -> None:
    await broker.declare(Subscription(id="p", patterns=("_bus.dead_letter",), agent="planner"))
    event = sent()
    told.buried("worker~task.*", event, BURY)
    told.buried("worker~task.*", sent(source_agent="other"), BURY)
    told.buried("worker~task.*", sent(), Bury("t", FailureReason.LOOP_DETECTED))  # a telling would be part of the storm
    await told.flush(1)
    (telling,) = way.sent
    assert (telling.topic, telling.target_agent, telling.parent_event_id) == (
        "_bus.dead_letter", "planner", event.event_id,
    )  # fmt: skip
    assert telling.payload == {
        "event_id": event.event_id,
        "topic": "task.created",
        "subscription": "worker~task.*",
        "reason": "handler_error",
        "error": "ValueError: no",
    }


async def test_what_waits_is_bounded_and_what_is_dropped_is_counted(
    told: Tellings, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tellings, "_MOST", 3)
    way.free.clear()
    for _ in range(5):
        told.unmatched(sent())
    assert told.dropped == 2
    way.free.set()
    await eventually(lambda: len(way.sent) == 3, 1)
    told.unmatched(sent())
    await eventually(lambda: len(way.sent) == 4, 1)


async def test_an_engine_that_is_away_costs_the_tellings_and_no_more(told: Tellings, way: Way) -> None:
    way.down = True
    told.unmatched(sent())
    await eventually(lambda: told.dropped == 1, 1)
    way.down = False
    told.unmatched(sent())
    await eventually(lambda: len(way.sent) == 1, 1)


async def test_a_bus_that_stops_tells_what_is_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    log, look = MemoryLog(), Census.look

    async def slowly(census: Census, age: float = 0.0) -> Routes:
        await asyncio.sleep(0.2)
        return await look(census, age)

    monkeypatch.setattr(Census, "look", slowly)
    async with EventBus(MemoryBroker(log)) as bus:
        await bus.publish(sent())
    left = [stored.event async for stored in MemoryBroker(log).read(Query(patterns=("_bus.undeliverable",)))]
    assert [event.target_agent for event in left] == ["planner"]


async def test_closing_waits_for_what_is_to_be_told_and_not_for_ever(told: Tellings, way: Way) -> None:
    way.free.clear()
    told.unmatched(sent())
    async with asyncio.timeout(1):
        await told.flush(0.05)
        await told.close()
    assert (way.sent, told.dropped) == ([], 1)
