"""Facts: the newest event of each topic under `_bus.`, kept as long as the log is (rule 11)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import beyond, declare, event, events, numbers, read, take_all
from wowevent import Event, PositionLost
from wowevent.broker import Broker, Position, Query, Retention, Stored

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
FACTS = ("_bus.#",)


def fact(topic: str = "a", n: int = 0, **fields: Any) -> Event:
    return event(f"_bus.{topic}", n, **fields)


async def facts(broker: Broker, *, after: Any = None, **query: Any) -> list[Stored]:
    return await read(broker, after=after, **{"patterns": FACTS} | query)


async def put(broker: Broker, *sent: Event) -> None:
    await broker.publish(sent)


async def placed(broker: Broker, *sent: Event) -> list[Position]:
    """Publish facts; where those are that no later one of them replaces, as a read of facts alone tells.

    Engines may keep facts in a log of their own. Where a receipt names a position, there is one log.
    """
    answers = await broker.publish(sent)
    found = await facts(broker, event_ids=tuple(each.event_id for each in sent))
    if broker.capabilities.positions:
        told = {each.event_id: answer.position for each, answer in zip(sent, answers, strict=True)}
        assert [each.position for each in found] == [told[each.event.event_id] for each in found]
    assert {each.event.topic for each in found} == {each.topic for each in sent}
    return [each.position for each in found]


# --- the newest of each -------------------------------------------------------------------------------------------


async def test_there_is_nothing_where_nothing_was_said(rig: Rig):
    broker = rig.broker()
    assert await facts(broker) == []
    await broker.publish(events(3))
    assert await facts(broker) == []


async def test_the_newest_of_each_topic_in_the_order_of_their_positions(rig: Rig):
    broker = rig.broker()
    await put(broker, fact("a", 1), fact("b.x", 2))
    await broker.publish([event(n=99)])
    positions = await placed(broker, fact("c", 3), fact("a", 4), fact("c", 5))
    found = await facts(broker)
    assert numbers(found) == [2, 4, 5]
    assert [each.position for each in found[1:]] == positions
    assert found == sorted(found, key=lambda each: each.position)
    assert [each.event.topic for each in found] == ["_bus.b.x", "_bus.a", "_bus.c"]
    along = await read_along(broker, 6)
    assert sorted(numbers(along)) == [1, 2, 3, 4, 5, 99]
    if broker.capabilities.positions:
        assert found == [each for each in along if each.event.payload["n"] in {2, 4, 5}]


async def read_along(broker: Broker, count: int) -> list[Stored]:
    """The log with all that was said, as a follower gets it."""
    query = Query(patterns=("#", "_bus.#"), limit=count)
    async with asyncio.timeout(5):
        return [stored async for stored in broker.read(query, follow=True)]


async def test_thousands_of_changes_leave_one(rig: Rig):
    broker = rig.broker()
    for first in range(0, 3000, 500):
        await broker.publish([fact("a", n) for n in range(first, first + 500)])
    assert numbers(await facts(broker)) == [2999]


async def test_many_topics_come_whole_and_in_order(rig: Rig):
    broker = rig.broker()
    for first in range(0, 1500, 500):
        await broker.publish([fact(f"t.{n}", n) for n in range(first, first + 500)])
    await put(broker, *(fact(f"t.{n}", n + 2000) for n in range(0, 1500, 3)))
    assert numbers(await facts(broker)) == [n for n in range(1500) if n % 3] + [n + 2000 for n in range(0, 1500, 3)]
    assert numbers(await facts(broker, limit=700)) == [n for n in range(1500) if n % 3][:700]
    assert numbers(await facts(broker, patterns=("_bus.t.1497",))) == [3497]  # behind pages that have none of it


async def test_large_facts_come_whole(rig: Rig):
    broker = rig.broker()
    for n in range(12):
        await put(broker, Event(topic=f"_bus.t.{n}", payload={"n": n, "text": f"{n}" * 200_000}))
    found = await facts(broker)
    assert [each.event.payload["text"] for each in found] == [f"{n}" * 200_000 for n in range(12)]


async def test_an_empty_payload_is_kept_as_any_other(rig: Rig):
    broker = rig.broker()
    await put(broker, fact("a", 1), fact("b", 2), Event(topic="_bus.a", payload={}))
    assert [each.event.payload for each in await facts(broker)] == [{"n": 2}, {}]


async def test_a_second_instance_sees_what_the_first_one_said(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await put(one, fact("a", 1))
    assert numbers(await facts(two)) == [1]
    await put(two, fact("a", 2))
    assert numbers(await facts(one)) == [2]


async def test_facts_outlive_the_instance_that_said_them(rig: Rig):
    first = rig.broker()
    await put(first, fact("a", 1), fact("b", 2), fact("a", 3))
    before = await facts(first)
    await first.close()
    assert await facts(rig.broker()) == before


async def test_another_log_knows_nothing_of_them(rig: Rig):
    here, there = rig.broker(), rig.another_log().broker()
    (position,) = await placed(here, fact("a", 1))
    assert await facts(there) == []
    await put(there, fact("a", 2))
    assert numbers(await facts(here)) == [1]
    assert numbers(await facts(there)) == [2]
    with pytest.raises(PositionLost):
        await facts(there, after=position)


# --- behind a position --------------------------------------------------------------------------------------------


async def test_behind_a_position_come_those_that_changed_since(rig: Rig):
    broker = rig.broker()
    positions = await placed(broker, fact("a", 1), fact("b", 2), fact("c", 3))
    assert numbers(await facts(broker, after=positions[0])) == [2, 3]
    assert numbers(await facts(broker, after=positions[2])) == []
    await put(broker, fact("a", 4))
    assert numbers(await facts(broker, after=positions[0])) == [2, 3, 4]
    assert numbers(await facts(broker, after=positions[2])) == [4]
    assert numbers(await facts(broker, after=Position(positions[0].epoch, 0))) == [2, 3, 4]
    if broker.capabilities.positions:  # else the head is of another log
        assert numbers(await facts(broker, after=(await broker.ping()).head)) == []


@pytest.mark.parametrize("offset", [0, 1])
async def test_a_position_of_another_log_is_lost(rig: Rig, offset: int):
    broker = rig.broker()
    await put(broker, fact("a", 1))
    with pytest.raises(PositionLost):
        await facts(broker, after=Position("elsewhere", offset))


async def test_a_position_that_was_never_reached_is_lost(rig: Rig):
    broker = rig.broker()
    (position,) = await placed(broker, fact("a", 1))
    with pytest.raises(PositionLost):
        await facts(broker, after=Position(position.epoch, position.offset + beyond(broker)))
    assert numbers(await facts(broker)) == [1]
    if broker.capabilities.positions:
        assert (await broker.ping()).head == position


# --- what retention takes -----------------------------------------------------------------------------------------


async def let_it_trim(rig: Rig, broker: Broker) -> None:
    """Whatever moment an engine trims at; what was published before is gone from the log then."""
    for n in range(2):
        await broker.publish([Event(topic="task.created", payload={"n": 90 + n, "text": "x" * 50_000})])
        await rig.advance(12)


LIMITS = {
    "age": Retention(max_age=100),
    "bytes": Retention(max_bytes=60_000),
    "count": Retention(max_count=1),
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_retention_takes_the_event_and_leaves_the_fact(rig: Rig, limit: str):
    broker = rig.broker(retention=LIMITS[limit])
    beginning = (await broker.ping()).head
    await put(broker, event(n=0), fact("a", 1))
    positions = await placed(broker, fact("a", 2), fact("b", 3))
    await rig.advance(105)
    await let_it_trim(rig, broker)
    if broker.capabilities.positions:
        await eventually(lambda: _trimmed(rig, broker, positions[0]))
    elif limit == "age" or broker.capabilities.bounds_unread:
        await eventually(lambda: _trimmed(rig, broker, beginning))
    found = await facts(broker)
    assert numbers(found) == [2, 3]
    assert [each.position for each in found] == positions
    assert numbers(await facts(broker, after=positions[0])) == [3]
    assert numbers(await facts(broker, after=Position(positions[0].epoch, 0))) == [2, 3]
    await put(broker, fact("b", 4))
    assert numbers(await facts(rig.broker())) == [2, 4]


async def _trimmed(rig: Rig, broker: Broker, position: Position) -> bool:
    """Whether the event behind this position of the log is gone, as a reader of that is told."""
    await rig.advance(6)
    try:
        await read(broker, after=position)
    except PositionLost:
        return True
    return False


# --- the query ----------------------------------------------------------------------------------------------------

QUERIES: list[tuple[dict[str, Any], list[int]]] = [
    ({"patterns": ("_bus.*",)}, [1, 2, 3, 4]),
    ({"patterns": ("_bus.x.*",)}, [1, 2]),
    ({"patterns": ("_bus.x.b", "_bus.z")}, [2, 4]),
    ({"patterns": ("_bus.x.c",)}, []),
    ({"start_time": NOON + timedelta(seconds=2)}, [2, 3, 4]),
    ({"end_time": NOON + timedelta(seconds=2)}, [1, 2]),
    ({"correlation_id": "c-1"}, [1, 3]),
    ({"event_ids": ("id-2", "id-4", "id-9")}, [2, 4]),
    ({"event_ids": ("id-0",)}, []),  # was the newest once
    ({"event_ids": ()}, []),
    ({"limit": 2}, [1, 2]),
    ({"limit": 0}, []),
    ({"correlation_id": "c-0", "limit": 1}, [2]),
]


@pytest.mark.parametrize(("query", "found"), QUERIES)
async def test_the_other_fields_of_the_query_hold_too(rig: Rig, query: dict[str, Any], found: list[int]):
    broker = rig.broker()
    topics = ["x.a", "x.a", "x.b", "y", "z"]
    await put(
        broker,
        *(
            fact(t, n, event_id=f"id-{n}", correlation_id=f"c-{n % 2}", timestamp=NOON + timedelta(seconds=n))
            for n, t in enumerate(topics)
        ),
    )
    assert numbers(await facts(broker, **query)) == found


async def test_a_read_of_other_topics_too_is_one_of_the_log(rig: Rig):
    broker = rig.broker()
    await put(broker, fact("a", 1), event(n=2), fact("a", 3))
    assert numbers(await read(broker, patterns=("_bus.#", "#"))) == [1, 2, 3]
    assert numbers(await read(broker)) == [2]
    assert numbers(await read(broker, patterns=())) == []


async def test_a_follower_gets_every_change(rig: Rig):
    broker = rig.broker()
    await put(broker, fact("a", 1), fact("a", 2))
    query = Query(patterns=FACTS, limit=3)
    log: Any = broker.read(query, follow=True)
    async with asyncio.timeout(5):
        assert numbers([await anext(log), await anext(log)]) == [1, 2]
        await put(broker, fact("a", 3))
        assert numbers([await anext(log)]) == [3]
    await log.aclose()


async def test_a_fact_is_an_event_as_any_other(rig: Rig):
    broker = rig.broker()
    await declare(broker, patterns=("_bus.a",))
    answers = await broker.publish([fact("a", 1), fact("b", 2), event(n=3), fact("a", 4)])
    assert [answer.matched for answer in answers] == [("worker",), (), (), ("worker",)]
    if broker.capabilities.positions:
        assert [answer.position and answer.position.offset for answer in answers] == [1, 2, 3, 4]
    assert numbers(await take_all(broker)) == [1, 4]


async def test_what_is_read_is_nobody_elses(rig: Rig):
    broker = rig.broker()
    await put(broker, fact("a", 1))
    (found,) = await facts(broker)
    found.event.payload["n"] = 2
    assert numbers(await facts(broker)) == [1]


# --- ids and delays -----------------------------------------------------------------------------------------------


async def test_a_duplicate_changes_nothing(rig: Rig):
    broker = rig.broker()
    first = fact("a", 1, event_id="id-1")
    await put(broker, first, fact("a", 2))
    (answer,) = await broker.publish([first])
    assert answer.duplicate
    assert numbers(await facts(broker)) == [2]
    again = await rig.broker().publish([fact("a", 3), fact("a", 4, event_id="id-4"), fact("a", 5, event_id="id-4")])
    assert [each.duplicate for each in again] == [False, False, True]
    assert numbers(await facts(broker)) == [4]


async def test_a_delayed_fact_holds_once_it_is_due(rig: Rig):
    broker = rig.broker()
    due = datetime.fromtimestamp(rig.clock.time() + 60, UTC)
    await broker.publish([fact("a", 1, not_before=due), fact("b", 2, not_before=due)])
    await put(broker, fact("a", 3))
    assert numbers(await facts(broker)) == [3]
    await rig.advance(62)
    await eventually(lambda: _has(broker, [1, 2]))
    assert numbers(await facts(broker)) == [1, 2]
    head, (first, second) = (await broker.ping()).head, await facts(broker)
    assert first.position < second.position
    if broker.capabilities.positions:
        assert [first.position.offset, second.position.offset] == [head.offset - 1, head.offset]


async def _has(broker: Broker, ns: list[int]) -> bool:
    return numbers(await facts(broker)) == ns


async def test_many_writers_of_one_topic_leave_the_last_one(rig: Rig):
    brokers = [rig.broker() for _ in range(3)]
    jobs = [brokers[n % 3].publish([fact(f"t.{n % 2}", n)]) for n in range(60)]
    answers = await asyncio.gather(*jobs)
    found = await facts(brokers[1])
    assert found == await facts(brokers[0]) == await facts(brokers[2])
    assert sorted(each.event.topic for each in found) == ["_bus.t.0", "_bus.t.1"]
    if brokers[0].capabilities.positions:
        last: dict[str, tuple[Position, int]] = {}
        for n, (answer,) in enumerate(answers):
            assert answer.position is not None
            topic = f"_bus.t.{n % 2}"
            last[topic] = max(last.get(topic, (answer.position, n)), (answer.position, n))
        assert {each.event.topic: (each.position, each.event.payload["n"]) for each in found} == last
