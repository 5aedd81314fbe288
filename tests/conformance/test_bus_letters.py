"""The bus's dead letters over each engine: grouped, counted, redelivered at a rate, sent again corrected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.conformance.cut import Cut, bus_on
from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, declare, event, events, heard, take, unsettled
from wowevent import (
    BrokerUnavailable,
    DeadLetterNotFound,
    Event,
    EventBus,
    EventSchema,
    InvalidEvent,
    PayloadTooLarge,
    Reject,
    SchemaRegistry,
    SubscriptionConflict,
    ValidationError,
)
from wowevent.broker import Broker, Bury, DeadLetter, DeadQuery, Discard, Reason, Redeliver
from wowevent.resent import resent_of


def without_sum(event: Event, _attempt: int) -> Exception | None:
    """The verdict of a handler that wants a number."""
    return None if isinstance(event.payload.get("sum"), int) else Reject(f"sum of {event.payload!r} is no number")


async def letters(bus: EventBus, **filters: Any) -> list[int]:
    return [letter.event.payload["n"] for letter in await bus.dead_letters.list(**filters)]


async def buried(bus: EventBus, count: int) -> list[DeadLetter]:
    """The dead letters, once there are so many."""
    await eventually(lambda: _so_many(bus, count))
    return list(await bus.dead_letters.list())


async def _so_many(bus: EventBus, count: int) -> bool:
    return len(await bus.dead_letters.list()) == count


async def stored(bus: EventBus) -> list[Event]:
    return [found.event async for found in bus.history()]


# --- all of them --------------------------------------------------------------------------------------------------


async def bury(broker: Broker, id: str, error: str) -> int:
    """All that is ready, and how many those were."""
    count = 0
    while leases := await take(broker, id):
        await broker.settle(id, [Bury(lease.token, Reason.HANDLER_ERROR, error) for lease in leases])
        count += len(leases)
    return count


async def looked_through(broker: Broker, **query: Any) -> list[DeadLetter]:
    return [letter async for part in broker.letters(DeadQuery(**query)) for letter in part]


async def test_all_letters_come_once_however_many_there_are(rig: Rig):
    broker = rig.broker()
    await declare(broker, "a")
    await declare(broker, "b", ("task.late",))
    await heard(rig, broker)
    await broker.publish(events(560) + events(2, "task.late", correlation_id="c"))
    assert (await bury(broker, "a", "x"), await bury(broker, "b", "y")) == (562, 2)
    found = await looked_through(broker, limit=1)
    assert len({letter.id for letter in found}) == len(found) == 564
    (first, second) = await looked_through(broker, subscription="b")
    assert {first.error, second.error} == {"y"}
    assert len(await looked_through(broker, correlation_id="c")) == 4
    assert [letter.id for letter in await looked_through(broker, ids=(first.id, "unknown"))] == [first.id]
    assert not await looked_through(broker, reason=Reason.TIMEOUT)


async def test_letters_are_resolved_while_somebody_looks_through_them(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(3))
    await bury(broker, "worker", "x")
    parts = broker.letters(DeadQuery())
    (first, *_) = await anext(parts)
    async with asyncio.timeout(5):
        assert await broker.resolve([Discard(first.id)]) == 1
    await parts.aclose()
    assert len(await broker.dead(DeadQuery())) == 2


# --- groups -------------------------------------------------------------------------------------------------------


async def test_letters_are_grouped_by_what_they_died_of(rig: Rig):
    bus = await rig.bus()

    async def refuse(event: Event) -> None:
        if event.payload["n"] < 4:
            raise Reject(f"no customer {event.payload['n']}")
        raise Reject("no stock")

    await bus.subscribe("task.*", refuse, "worker")
    await bus.subscribe("task.created", refuse, "other")
    await bus.publish_many(events(6))
    assert len(await buried(bus, 12)) == 12
    found = await bus.dead_letters.groups()
    customer, stock = found.groups
    assert (customer.count, customer.reason, customer.subscriptions) == (
        8,
        Reason.REJECTED,
        {"worker~task.*": 4, "other~task.created": 4},
    )
    assert (stock.count, stock.error, stock.topics, found.more) == (4, "no stock", {"task.created": 4}, False)
    assert customer.newest == customer.ids[0]
    assert (customer.least, customer.most) == (1, 1)
    (part,) = (await bus.dead_letters.groups(subscription="worker", fingerprint=stock.fingerprint)).groups
    assert (part.count, part.fingerprint) == (2, stock.fingerprint)
    assert (await bus.dead_letters.groups(limit=1)).more

    chosen = {"subscription": "worker", "fingerprint": customer.fingerprint}
    assert sorted(await letters(bus, **chosen)) == [0, 1, 2, 3]
    assert await letters(bus, **chosen, limit=1) == [0]
    assert await letters(bus, where=lambda letter: letter.event.payload["n"] == 5, subscription="other") == [5]
    count = await bus.dead_letters.count(**chosen)
    assert (count.count, count.by_subscription) == (4, {"worker~task.*": 4})
    assert (await bus.dead_letters.count([*stock.ids, "unknown"])).count == 4
    assert (await bus.dead_letters.count()).count == 12
    assert await bus.dead_letters.discard(**chosen) == 4
    assert (await bus.dead_letters.count(fingerprint=customer.fingerprint)).by_subscription == {"other~task.created": 4}


# --- at a rate ----------------------------------------------------------------------------------------------------


async def dying(bus: EventBus, count: int) -> Seen:
    """A worker that refuses everything, until it is told better."""
    seen = Seen(without_sum)
    await bus.subscribe("task.*", seen, "worker")
    await bus.publish_many(events(count))
    await buried(bus, count)
    return seen


async def test_letters_are_redelivered_at_a_rate(rig: Rig):
    bus = await rig.bus()
    await dying(bus, 5)
    told: list[tuple[int, int]] = []
    ids = [letter.id for letter in await bus.dead_letters.list()]
    await bus.dead_letters.discard(ids[1])
    task = asyncio.create_task(
        bus.dead_letters.redeliver(ids, rate=2, progress=lambda tried, done: told.append((tried, done)))
    )
    await eventually(lambda: told == [(2, 1)])
    await rig.advance(0.9)
    assert told == [(2, 1)]
    await rig.advance(0.2)
    await eventually(lambda: told == [(2, 1), (4, 3)])
    assert not task.done()
    await rig.advance(1)
    await eventually(task.done)
    assert (task.result(), told[-1]) == (4, (5, 4))


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
async def test_a_rate_that_is_none_is_refused(rig: Rig, rate: float):
    bus = await rig.bus()
    with pytest.raises(ValueError, match="rate"):
        await bus.dead_letters.redeliver(["1"], rate=rate)


async def test_a_cancelled_redelivery_leaves_the_rest_alone(rig: Rig):
    bus = await rig.bus()
    await dying(bus, 3)
    told: list[tuple[int, int]] = []
    await bus.pause("worker")
    task = asyncio.create_task(
        bus.dead_letters.redeliver(subscription="worker", rate=1, progress=lambda *step: told.append(step))
    )
    await eventually(lambda: told)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await rig.advance(10)
    assert told == [(1, 1)]
    assert len(await bus.dead_letters.list()) == 2


class Held:
    """The same engine, whose letters are resolved once they may be."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.begun = asyncio.Event()
        self.may = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def resolve(self, letters: Sequence[Redeliver | Discard]) -> int:
        self.begun.set()
        await self.may.wait()
        return await self._broker.resolve(letters)


async def test_a_step_that_was_begun_is_finished_and_counted(rig: Rig):
    bus, held = await rig.bus(), Held(rig.broker())
    await dying(bus, 3)
    await bus.pause("worker")
    other = EventBus(held, clock=rig.clock)
    await other.start()
    told: list[tuple[int, int]] = []
    task = asyncio.create_task(
        other.dead_letters.redeliver(subscription="worker", rate=1, progress=lambda *step: told.append(step))
    )
    await held.begun.wait()
    task.cancel()
    await asyncio.sleep(0.01)
    held.may.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == [(1, 1)]
    await other.stop(0)
    assert len(await bus.dead_letters.list()) == 2


# --- corrected ----------------------------------------------------------------------------------------------------


async def test_a_corrected_event_goes_to_the_letters_subscription_alone(rig: Rig):
    bus, elsewhere = await rig.bus(), await rig.bus()
    worker, other, live, remote = Seen(without_sum), Seen(), Seen(), Seen()
    await bus.subscribe("task.*", worker, "worker")
    await bus.subscribe("task.*", other, "other", types=["task.created"])
    await elsewhere.subscribe("task.*", remote, "worker", subscription="remote")
    await elsewhere.subscribe("task.*", live)
    await heard(rig, bus.broker)
    sent = event(n=1, correlation_id="order-7", priority=8, headers={"tenant": "a"})
    await bus.publish(sent)
    (letter,) = await buried(bus, 1)
    await eventually(lambda: len(other.events) == len(live.events) == len(remote.events) == 1)

    done = await bus.dead_letters.resend(letter.id, {"n": 1, "sum": 3}, reason="sum was missing", by="ops")
    assert (done.replaces, done.duplicate) == (sent.event_id, False)
    await eventually(worker.count(2))
    new = worker.events[1]
    assert (new.event_id, new.payload, new.replay_of) == (done.event_id, {"n": 1, "sum": 3}, sent.event_id)
    assert (new.correlation_id, new.priority, new.source_agent, new.topic) == ("order-7", 8, "tester", "task.created")
    mark = resent_of(new)
    assert mark is not None
    assert (mark.to, mark.letter, mark.by, mark.reason) == ("worker~task.*", letter.id, "ops", "sum was missing")
    assert new.headers["tenant"] == "a"
    assert worker.deliveries[1].attempt == 1
    assert not await bus.dead_letters.list()
    await bus.join(5)
    await rig.advance(1)
    assert len(other.events) == len(live.events) == len(remote.events) == 1
    assert [await unsettled(bus, name) for name in ("worker", "other", "remote")] == [0, 0, 0]

    assert [e.event_id for e in await stored(bus)] == [sent.event_id, new.event_id], "the log has both"
    late = Seen()
    await bus.subscribe("task.*", late, "late", start="first")
    await eventually(late.count(1))
    await bus.publish(event(n=2))
    await eventually(late.count(2))
    assert late.numbers == [1, 2]
    assert late.events[0].event_id == sent.event_id


async def test_who_follows_the_log_sees_it(rig: Rig):
    bus = await rig.bus()
    await dying(bus, 1)
    seen: list[str] = []

    async def follow() -> None:
        async for found in bus.follow("task.*", min_priority=1, after=head):
            seen.append(found.event.event_id)  # noqa: PERF401 - it never ends

    head = (await bus.broker.ping()).head
    following = asyncio.create_task(follow())
    (letter,) = await bus.dead_letters.list()
    done = await bus.dead_letters.resend(letter.id, {"sum": 3})
    await eventually(lambda: seen == [done.event_id])
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_one_that_was_killed_before_the_letter_went_is_done_again_once(rig: Rig):
    """The event is stored, and whoever stored it is gone before the letter was taken away."""
    bus, cut = await rig.bus(), Cut(rig.broker())
    worker = await dying(bus, 1)
    (letter,) = await bus.dead_letters.list()
    killed = await bus_on(cut, rig)
    cut.down.add("resolve")
    with pytest.raises(BrokerUnavailable):
        await killed.dead_letters.resend(letter.id, {"n": 1, "sum": 3})
    await killed.stop(0)
    await eventually(worker.count(2))
    await bus.join(5)
    await eventually(lambda: _none_waits(bus))
    assert [each.id for each in await bus.dead_letters.list()] == [letter.id]

    done = await bus.dead_letters.resend(letter.id, {"n": 1, "sum": 4})
    assert done.duplicate or not bus.capabilities.dedup
    assert not await bus.dead_letters.list()
    await bus.join(5)
    await rig.advance(1)
    assert [(e.event_id, e.payload["sum"]) for e in worker.events[1:]] == [(done.event_id, 3)]


async def _none_waits(bus: EventBus) -> bool:
    return await unsettled(bus) == 0


async def test_what_does_not_fit_its_schema_is_refused_before_anything_is_stored(rig: Rig):
    registry = SchemaRegistry()
    bus = await rig.bus(registry=registry, max_payload=100)
    worker = await dying(bus, 1)
    wanted = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    await bus.register_schema(EventSchema(event_type="task.created", version="1.0.0", json_schema=wanted))
    (letter,) = await bus.dead_letters.list()
    wrong: list[tuple[Any, type[Exception]]] = [
        ({"sum": "3"}, ValidationError),
        ({"n": 1}, ValidationError),
        ({"sum": 3, "text": "x" * 100}, PayloadTooLarge),
        (["sum"], InvalidEvent),
    ]
    for payload, refused in wrong:
        with pytest.raises(refused):
            await bus.dead_letters.resend(letter.id, payload)
    with pytest.raises(InvalidEvent, match="reason"):
        await bus.dead_letters.resend(letter.id, {"sum": 3}, reason="x" * 501)
    assert (len(await stored(bus)), len(await bus.dead_letters.list()), len(worker.events)) == (1, 1, 1)
    await bus.dead_letters.resend(letter.id, {"sum": 3})
    await eventually(worker.count(2))


async def test_a_subscription_that_would_not_get_it_keeps_its_letter(rig: Rig):
    bus = await rig.bus()
    handle = await bus.subscribe("task.*", Seen(without_sum), "worker", subscription="s")
    await bus.publish(event())
    (letter,) = await buried(bus, 1)
    await handle.cancel()
    await bus.subscribe("plan.*", Seen(), "worker", subscription="s")
    with pytest.raises(SubscriptionConflict, match=r"does not want 'task\.created'"):
        await bus.dead_letters.resend(letter.id, {"sum": 3})
    assert (len(await stored(bus)), len(await bus.dead_letters.list())) == (1, 1)


async def test_a_corrected_event_that_dies_again_is_a_letter_like_any_other(rig: Rig):
    bus = await rig.bus()
    worker = await dying(bus, 1)
    (letter,) = await bus.dead_letters.list()
    first = await bus.dead_letters.resend(letter.id, {"sum": "three"})
    await eventually(lambda: bus.dead_letters.list(event_id=first.event_id))
    (second,) = await bus.dead_letters.list()
    assert second.subscription == "worker~task.*"
    done = await bus.dead_letters.resend(second.id, {"sum": 3})
    assert done.replaces == first.event_id
    await eventually(worker.count(3))
    assert not await bus.dead_letters.list()


async def test_a_letter_that_is_not_there_is_not_resent(rig: Rig):
    bus = await rig.bus()
    with pytest.raises(DeadLetterNotFound):
        await bus.dead_letters.resend("17", {})
