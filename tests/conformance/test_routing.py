"""Who gets an event: patterns, targets, filters, AMQP-style keys; the newest declaration counts from then on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.engines import Rig
from tests.conformance.making import declare, event, heard, numbers, take_all
from wowevent.broker import Filter

TOPICS = [
    ("task.created", "task.created", True),
    ("task.created", "task.created.now", False),
    ("task.*", "task.created", True),
    ("task.*", "task.created.now", True),
    ("task.*", "task", False),
    ("*.created", "task.created", True),
    ("*.created", "a.task.created", False),
    ("*", "task.created", True),
    ("#", "task", True),
    ("task.#", "task", True),
    ("#.created", "a.b.created", True),
    ("#", "_bus.note", False),
    ("*.note", "_bus.note", False),
    ("_bus.*", "_bus.note", True),
]


@pytest.mark.parametrize(("pattern", "topic", "gets"), TOPICS)
async def test_a_pattern_gets_what_it_matches(rig: Rig, pattern: str, topic: str, gets: bool):
    broker = rig.broker()
    await declare(broker, patterns=(pattern,))
    (answer,) = await broker.publish([event(topic)])
    assert len(answer.matched) == len(await take_all(broker)) == gets


KEYS: list[tuple[str, dict[str, Any], bool]] = [
    ("task.created.critical", {"topic": "task.created", "priority": 9}, True),
    ("task.created.*", {"topic": "task.created", "priority": 1}, True),
    ("task.*", {"topic": "task.created"}, False),
    ("*.*.high", {"topic": "task.created", "priority": 7}, True),
    ("#.low", {"topic": "task.created", "priority": 3}, True),
    ("#.low", {"topic": "task.created", "priority": 4}, False),
    ("orders.eu", {"topic": "orders.eu", "event_type": "order.placed"}, True),
    ("orders.eu", {"topic": "orders.eu"}, False),
]


@pytest.mark.parametrize(("pattern", "fields", "gets"), KEYS)
async def test_a_keyed_subscription_matches_the_routing_key(rig: Rig, pattern: str, fields: dict[str, Any], gets: bool):
    broker = rig.broker()
    await declare(broker, patterns=(pattern,), keyed=True)
    await broker.publish([event(**fields)])
    assert len(await take_all(broker)) == gets


async def test_overlapping_patterns_deliver_once(rig: Rig):
    broker = rig.broker()
    await declare(broker, patterns=("task.*", "*.created", "#"))
    await broker.publish([event()])
    assert len(await take_all(broker)) == 1


async def test_every_subscription_gets_its_own_copy(rig: Rig):
    broker = rig.broker()
    for id in ("a", "b", "c"):
        await declare(broker, id)
    await broker.publish([event(n=1), event(n=2)])
    for id in ("a", "b", "c"):
        assert numbers(await take_all(broker, id)) == [1, 2]


async def test_a_target_alone_gets_its_event(rig: Rig):
    broker = rig.broker()
    await declare(broker, "one", agent="one")
    await declare(broker, "two", agent="two")
    await declare(broker, "none")
    (answer,) = await broker.publish([event(target_agent="two")])
    assert answer.matched == ("two",)
    assert [len(await take_all(broker, id)) for id in ("one", "two", "none")] == [0, 1, 0]


FILTERS: list[tuple[Filter, list[int]]] = [
    (Filter(types=frozenset({"kind-b"})), [2, 3]),
    (Filter(priorities=frozenset({9, 10})), [1, 3]),
    (Filter(sources=frozenset({"s-1"})), [0, 1]),
    (Filter(types=frozenset({"kind-b"}), priorities=frozenset({9}), sources=frozenset({"s-2"})), [3]),
    (Filter(types=frozenset()), []),
]


@pytest.mark.parametrize(("wish", "gets"), FILTERS)
async def test_filters_narrow_what_a_pattern_matches(rig: Rig, wish: Filter, gets: list[int]):
    broker = rig.broker()
    await declare(broker, filter=wish)
    await broker.publish(
        [
            event(n=0, event_type="kind-a", priority=5, source_agent="s-1"),
            event(n=1, event_type="kind-a", priority=9, source_agent="s-1"),
            event(n=2, event_type="kind-b", priority=5, source_agent="s-2"),
            event(n=3, event_type="kind-b", priority=9, source_agent="s-2"),
        ]
    )
    assert sorted(numbers(await take_all(broker))) == gets


async def test_the_newest_declaration_holds_for_what_is_published_from_then_on(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one, patterns=("a",))
    await one.publish([event("a", 1), event("b", 2)])
    await declare(two, patterns=("b",), filter=Filter(sources=frozenset({"tester"})))
    await one.publish([event("a", 3), event("b", 4), event("b", 5, source_agent="stranger")])
    assert numbers(await take_all(two)) == [1, 4]


async def test_an_instance_routes_by_what_another_declared_since(rig: Rig):
    publisher, consumer = rig.broker(), rig.broker()
    await publisher.publish([event(n=0)])
    await declare(consumer)
    await publisher.publish([event(n=1)])
    await consumer.remove("worker")
    await heard(rig, publisher)
    (answer,) = await publisher.publish([event(n=2)])
    assert answer.matched == ()
