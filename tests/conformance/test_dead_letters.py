"""Dead letters: what is kept, how they are found, redelivering and discarding."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.engines import Rig
from tests.conformance.making import (
    WORKER,
    declare,
    event,
    events,
    info,
    numbers,
    read,
    same,
    take,
    take_all,
    take_one,
)
from wowevent.broker import Ack, Broker, Bury, DeadQuery, Discard, Reason, Redeliver, Retention, Retry


async def bury(broker: Broker, id: str = WORKER, reason: Reason = Reason.HANDLER_ERROR, **more: Any) -> None:
    lease = await take_one(broker, id)
    assert await broker.settle(id, [Bury(lease.token, reason, **{"error": "broken", **more})]) == 1


async def dead(broker: Broker, **query: Any) -> list[Any]:
    return list(await broker.dead(DeadQuery(**query)))


async def test_a_dead_letter_keeps_everything_about_the_failure(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    sent = event(n=7)
    await broker.publish([sent])
    await broker.settle(WORKER, [Retry((await take_one(broker)).token, 0, "first")])
    await rig.advance(1)
    await bury(broker, reason=Reason.TIMEOUT, error="second", traceback="Traceback: at line 1")
    (letter,) = await dead(broker)
    assert (letter.event.event_id, letter.event.payload) == (sent.event_id, {"n": 7})
    assert (letter.subscription, letter.reason, letter.error) == (WORKER, Reason.TIMEOUT, "second")
    assert letter.traceback == "Traceback: at line 1"
    assert [(a.number, a.error) for a in letter.attempts] == [(1, "first"), (2, "second")]
    assert letter.time == pytest.approx(rig.clock.time(), abs=0.01)
    found = await info(broker)
    assert (found.dead, found.ready) == (1, 0)
    assert same(broker, found.leased, 0)
    await rig.clock.advance(3600)  # at once: in small steps an hour takes long
    await rig.breathe()
    assert not await take(broker)


async def test_a_burial_without_an_error_adds_no_attempt(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    await broker.settle(WORKER, [Retry((await take_one(broker)).token, 0, "only")])
    await bury(broker, error=None)
    (letter,) = await dead(broker)
    assert [a.error for a in letter.attempts] == ["only"]
    assert letter.error == "only"


async def test_letters_are_found_by_each_of_their_parts_oldest_first(rig: Rig):
    broker = rig.broker()
    await declare(broker, "a")
    await declare(broker, "b")
    sent = [event(n=n, correlation_id=f"c-{n % 2}") for n in range(3)]
    await broker.publish(sent)
    for _ in range(3):
        await bury(broker, "a")
        await rig.advance(1)
    await bury(broker, "b", Reason.REJECTED)
    every = await dead(broker)
    assert [(x.subscription, x.event.payload["n"]) for x in every] == [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    assert await dead(broker, limit=2) == every[:2]
    assert await dead(broker, ids=(every[1].id, "unknown")) == [every[1]]
    assert await dead(broker, subscription="b") == [every[3]]
    assert await dead(broker, reason=Reason.REJECTED) == [every[3]]
    assert await dead(broker, event_id=sent[0].event_id) == [every[0], every[3]]
    assert await dead(broker, correlation_id="c-1") == [every[1]]
    assert await dead(broker, subscription="a", correlation_id="c-0") == [every[0], every[2]]
    assert await dead(broker, subscription="nobody") == []


async def test_redelivering_is_a_fresh_delivery_to_that_subscription_alone(rig: Rig):
    broker = rig.broker()
    await declare(broker, "a")
    await declare(broker, "b")
    sent = event()
    await broker.publish([sent])
    await take_all(broker, "b")
    await broker.settle("a", [Retry((await take_one(broker, "a")).token, 0, "x")])
    await bury(broker, "a")
    (letter,) = await dead(broker)
    assert await broker.resolve([Redeliver(letter.id)]) == 1
    lease = await take_one(broker, "a")
    assert (lease.event.event_id, lease.redelivered) == (sent.event_id, True)
    assert (lease.failures, lease.crashes, lease.attempts) == (0, 0, ())
    assert not await take(broker, "b")
    assert not await dead(broker)
    assert len(await read(broker)) == 1, "the log did not grow"


async def test_a_redelivered_event_can_be_buried_again(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    await bury(broker)
    (letter,) = await dead(broker)
    await broker.resolve([Redeliver(letter.id)])
    await bury(broker, error="again")
    (second,) = await dead(broker)
    assert (second.error, len(second.attempts)) == ("again", 1)


async def test_a_redelivered_event_is_marked_until_it_is_settled(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    await bury(broker)
    (letter,) = await dead(broker)
    await broker.resolve([Redeliver(letter.id)])
    await broker.settle(WORKER, [Retry((await take_one(broker)).token, 0, "again")])
    assert (await take_one(broker)).redelivered


async def test_resolve_counts_what_was_there(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one)
    await one.publish(events(3))
    for _ in range(3):
        await bury(one)
    a, b, c = await dead(one)
    assert await two.resolve([Redeliver(a.id), Discard(b.id), Discard("unknown"), Redeliver("unknown")]) == 2
    assert await two.resolve([Redeliver(a.id), Discard(b.id)]) == 0
    assert await dead(one) == [c]
    assert numbers(await take_all(one)) == [0]
    assert (await info(one)).dead == 1


async def test_letters_survive_a_reopening_and_the_trimming_of_the_log(rig: Rig):
    before = rig.broker(retention=Retention(max_age=60))
    await declare(before)
    await before.publish([event(n=1)])
    await bury(before)
    await rig.advance(120)
    await before.publish([event(n=2)])
    await before.close()
    after = rig.broker()
    (letter,) = await dead(after)
    assert letter.event.payload == {"n": 1}
    await after.settle(WORKER, [Ack(lease.token) for lease in await take(after)])
    assert await after.resolve([Redeliver(letter.id)]) == 1
    assert numbers(await take_all(after)) == [1]


@pytest.mark.parametrize(
    "id", ["", "x", "-1", "1.0", "9" * 25, "9" * 5_000, "\N{SUPERSCRIPT TWO}", "\0", "../1", "\udcff"]
)
async def test_an_id_of_no_letter_is_not_there_whatever_it_looks_like(rig: Rig, id: str):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    await bury(broker)
    assert not await dead(broker, ids=(id,))
    assert await broker.resolve([Redeliver(id), Discard(id)]) == 0
    assert len(await dead(broker)) == 1
