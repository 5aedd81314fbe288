"""What a process remembers of its deliveries: bounded, and each with its ending."""

from __future__ import annotations

from wowevent import Event, EventBus, Reject, RetryAfter, RetryPolicy
from wowevent.testing import TestBus
from wowevent.trail import Delivered, Trail

WHO = ("worker~a.*", "worker")


def test_the_last_ones_are_remembered_and_no_more() -> None:
    trail = Trail(lambda: 0.0, most=3)
    for n in range(5):
        trail.keep((f"e{n}", WHO, 10.0, 0.5, 1, "acked", None))
    assert [bool(trail.of(f"e{n}", "p")) for n in range(5)] == [False, False, True, True, True]
    for n in (5, 7, 9):
        trail.keep_batch([f"e{n}", f"e{n + 1}"], WHO, 0.5)
    assert [bool(trail.of(f"e{n}", "p")) for n in range(11)] == [False, False, *[True] * 3, *[False] * 4, True, True]


def test_what_is_shown_begins_when_the_handler_did() -> None:
    trail = Trail(lambda: 0.0)
    trail.keep(("e", WHO, 10.0, 0.5, 2, "retried", "KeyError: 'n'"))
    trail.keep(("e", ("queue", ""), 12.0, 0.25, 1, "acked", None))
    assert trail.of("e", "p") == [
        Delivered("worker~a.*", "worker", 9.5, 0.5, 2, "retried", "KeyError: 'n'", "p"),
        Delivered("queue", None, 11.75, 0.25, 1, "acked", None, "p"),
    ]


async def deliveries(bus: EventBus, event: Event) -> list[tuple[int, str, str | None]]:
    return [(each.attempt, each.outcome, each.error) for each in await bus.deliveries(event.event_id)]


async def test_each_attempt_has_its_ending() -> None:
    async with TestBus() as bus:
        raised: list[Exception] = [ValueError("no"), RetryAfter(5), ValueError("n" * 5_000)]

        async def handler(_event: Event) -> None:
            if raised:
                raise raised.pop(0)

        await bus.subscribe("a.*", handler, "worker", retry=RetryPolicy(initial=1))
        event = Event(topic="a.b")
        await bus.publish(event)
        await bus.advance(20)
        assert await deliveries(bus, event) == [
            (1, "retried", "ValueError: no"),
            (2, "retried", None),
            (2, "retried", f"ValueError: {'n' * 988}"),
            (3, "acked", None),
        ]


async def test_what_fails_for_good_is_dead_or_dropped() -> None:
    async with TestBus() as bus:

        async def handler(event: Event) -> None:
            raise Reject("never")

        await bus.subscribe("a.*", handler, "worker")
        await bus.subscribe("b.*", handler, durable=False)
        named, live = Event(topic="a.b"), Event(topic="b.c")
        await bus.publish_many([named, live])
        await bus.advance(1)
        assert await deliveries(bus, named) == [(1, "dead", "never")]
        assert await deliveries(bus, live) == [(1, "dropped", "never")]


async def test_what_was_given_back_was_not_delivered() -> None:
    async with TestBus() as bus:

        async def handler(event: Event) -> None:
            await bus.clock.sleep(60)

        sub = await bus.subscribe("a.*", handler, "worker")
        event = Event(topic="a.b")
        await bus.publish(event)
        await bus.advance(1)
        await bus.pause("worker")
        await sub.consumer.stop(0)  # which does not wait for the handler
        assert await deliveries(bus, event) == []


async def test_each_event_of_a_batch_is_remembered() -> None:
    async with TestBus() as bus:

        async def handler(events: list[Event]) -> None:
            """Takes them."""

        await bus.subscribe("a.*", handler, "worker", batch=10)
        events = [Event(topic="a.b", payload={"n": n}) for n in range(25)]
        await bus.publish_many(events)
        await bus.advance(1)
        assert [await deliveries(bus, event) for event in events] == [[(1, "acked", None)]] * 25
