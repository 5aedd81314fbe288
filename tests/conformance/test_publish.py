"""Publishing: what comes back, what is kept, and that an id is stored once (rule 4)."""

from __future__ import annotations

import pytest

from tests.conformance.engines import Rig
from tests.conformance.making import (
    PAYLOADS,
    declare,
    event,
    events,
    heard,
    numbers,
    read,
    store,
    take,
    take_all,
)
from wowevent import Event
from wowevent.codec import decode, encode


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
async def test_a_payload_comes_back_byte_for_byte(rig: Rig, payload: dict[str, object]):
    broker = rig.broker()
    await declare(broker)
    sent = Event(topic="round.trip", payload=payload)
    await broker.publish([sent])
    (stored,), (lease,) = await read(broker), await take(broker)
    assert bytes(stored.event.body) == bytes(lease.event.body) == bytes(sent.body)
    assert lease.event.payload == payload


async def test_the_whole_envelope_survives(rig: Rig):
    broker = rig.broker()
    await declare(broker, agent="you")
    sent = Event(
        topic="a.b",
        event_type="custom-type",
        source_agent="me",
        source_service="svc",
        target_agent="you",
        priority=9,
        correlation_id="corr",
        parent_event_id="parent",
        trace_id="trace",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        execution_id="exec",
        ttl_seconds=1.5,
        max_retries=7,
        reply_to="_reply.x",
        hops=3,
        replay_of="before",
        headers={"tags": "x,y"},
        payload={"n": 1},
    )
    await broker.publish([sent])
    (stored,), (lease,) = await read(broker), await take(broker)
    assert encode(stored.event) == encode(lease.event) == encode(sent)


async def test_fields_of_a_newer_version_survive(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    sent = decode(encode(event())[:-1] + b',"colour":{"of":"tomorrow"}}')
    await broker.publish([sent])
    (stored,), (lease,) = await read(broker), await take(broker)
    assert stored.event.unknown == lease.event.unknown == {"colour": {"of": "tomorrow"}}


async def test_positions_count_from_one_in_the_order_of_publishing(rig: Rig):
    broker = rig.broker()
    found = await store(broker, events(5))
    assert [position.offset for position in found] == [1, 2, 3, 4, 5]
    assert len({position.epoch for position in found}) == 1
    assert numbers(await read(broker)) == [0, 1, 2, 3, 4]


async def test_each_event_is_answered_in_order_with_its_position_and_leased_with_it(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    answers = await broker.publish(events(5))
    places = [stored.position for stored in await read(broker)]
    told = places if broker.capabilities.positions else [None] * 5
    assert [answer.position for answer in answers] == told
    assert [lease.position for lease in await take(broker)] == told


async def test_every_event_of_a_batch_is_answered_as_new(rig: Rig):
    answers = await rig.broker().publish(events(5))
    assert [answer.duplicate for answer in answers] == [False] * 5


async def test_nothing_is_published_by_an_empty_batch(rig: Rig):
    broker = rig.broker()
    assert list(await broker.publish([])) == []


async def test_matched_names_the_subscriptions_live_ones_included(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one, "durable", ("task.*",))
    await declare(two, "live", ("#",), durable=False)
    await declare(one, "elsewhere", ("other.*",))
    await heard(rig, one)
    (answer,) = await one.publish([event()])
    assert sorted(answer.matched) == ["durable", "live"]


async def test_every_lease_has_a_payload_of_its_own(rig: Rig):
    broker = rig.broker()
    await declare(broker, "a")
    await declare(broker, "b")
    sent = event()
    await broker.publish([sent])
    ((first,), (second,)) = await take(broker, "a"), await take(broker, "b")
    first.event.payload["n"] = "scribbled"
    (stored,) = await read(broker)
    assert second.event.payload == stored.event.payload == sent.payload == {"n": 0}


# --- an id is stored once -----------------------------------------------------------------------------------------


async def test_an_id_is_stored_once(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    sent = event(n=1)
    (first,) = await broker.publish([sent])
    (again,) = await broker.publish([event(n=2, event_id=sent.event_id)])
    assert (again.duplicate, again.position) == (True, first.position)
    assert numbers(await take_all(broker)) == [1]
    assert numbers(await read(broker)) == [1]


async def test_an_id_is_stored_once_within_a_batch(rig: Rig):
    broker = rig.broker()
    sent = event()
    answers = await broker.publish([sent, event(n=1), sent])
    assert [answer.duplicate for answer in answers] == [False, False, True]
    assert numbers(await read(broker)) == [0, 1]


async def test_an_id_is_stored_once_by_all_instances(rig: Rig):
    one, sent = rig.broker(), event()
    await one.publish([sent])
    (again,) = await rig.broker().publish([sent])
    assert again.duplicate or not one.capabilities.dedup
    assert len(await read(one)) == (1 if again.duplicate else 2), "the receipt tells the truth"


async def test_what_was_settled_comes_to_that_instance_no_more_whoever_publishes_its_id_again(rig: Rig):
    one, two, sent = rig.broker(), rig.broker(), event(n=1)
    await declare(one)
    await one.publish([sent])
    assert numbers(await take_all(one)) == [1]
    await two.publish([sent, event(n=2)])
    await rig.breathe()
    assert numbers(await take_all(one)) == [2]


async def test_an_id_is_known_after_a_reopening(rig: Rig):
    sent = event()
    before = rig.broker()
    await before.publish([sent])
    await before.close()
    after = rig.broker()
    (again,) = await after.publish([sent])
    assert again.duplicate or not after.capabilities.dedup
    assert len(await read(after)) == (1 if again.duplicate else 2), "the receipt tells the truth"


async def test_an_id_is_known_for_two_minutes(rig: Rig):
    broker = rig.broker()
    sent = event()
    await broker.publish([sent])
    for _ in range(11):
        await broker.publish(events(1000))
    await rig.advance(119)
    (again,) = await broker.publish([sent])
    assert again.duplicate


async def test_the_last_ten_thousand_ids_are_known_whatever_their_age(rig: Rig):
    broker = rig.broker()
    sent = event()
    await broker.publish([sent])
    await rig.clock.advance(3600)  # at once: in small steps an hour takes long
    await rig.breathe()
    for _ in range(9):
        await broker.publish(events(1111))
    (again,) = await broker.publish([sent])
    assert again.duplicate


async def test_a_delayed_id_is_stored_once(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    sent = event(not_before="2100-01-01")
    await broker.publish([sent])
    (again,) = await broker.publish([sent])
    assert again.duplicate
    assert await broker.cancel(sent.event_id)
    assert not await broker.cancel(sent.event_id)
