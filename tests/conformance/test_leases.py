"""Leases and their tokens (rule 1), and the exclusive ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.conformance.engines import Rig
from tests.conformance.making import WORKER, declare, event, events, info, numbers, same, take, take_all, take_one
from wowevent.broker import Ack, Broker, Bury, Extend, Reason, Retry, Settlement

SETTLEMENTS: dict[str, Callable[[str], Settlement]] = {
    "ack": Ack,
    "retry": lambda token: Retry(token, 0, "late"),
    "give back": lambda token: Retry(token, charge=False),
    "extend": lambda token: Extend(token, 1000),
    "bury": lambda token: Bury(token, Reason.REJECTED, "late"),
}


async def test_what_is_leased_is_nobody_elses(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one)
    await one.publish(events(4))
    assert numbers(await take(one, limit=2)) == [0, 1]
    assert numbers(await take(two)) == [2, 3]
    assert numbers(await take(one)) == []


async def test_a_lease_lasts_as_long_as_was_declared(rig: Rig):
    broker = rig.broker()
    await declare(broker, lease=7)
    await broker.publish([event()])
    await take_one(broker)
    await rig.advance(6.9)
    assert not await take(broker)
    await rig.advance(0.2)
    assert await take(broker)


@pytest.mark.parametrize("settlement", SETTLEMENTS.values(), ids=SETTLEMENTS)
async def test_the_token_of_a_lease_that_ended_settles_nothing(rig: Rig, settlement: Callable[[str], Settlement]):
    slow, other = rig.broker(), rig.broker()
    await declare(slow)
    await slow.publish([event()])
    late = await take_one(slow)
    await rig.advance(31)
    assert await slow.settle(WORKER, [settlement(late.token)]) == 0
    taken = await take_one(other)
    assert await slow.settle(WORKER, [settlement(late.token)]) == 0
    assert (taken.failures, taken.crashes) == (0, 1)
    assert same(other, (await info(other)).leased, 1)
    assert await other.settle(WORKER, [Ack(taken.token)]) == 1


async def test_a_token_names_the_attempt(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    first = await take_one(broker)
    assert await broker.settle(WORKER, [Retry(first.token)]) == 1
    second = await take_one(broker)
    assert second.token != first.token
    assert await broker.settle(WORKER, [Ack(first.token)]) == 0
    assert await broker.settle(WORKER, [Ack(second.token), Ack(second.token)]) == 1


@pytest.mark.parametrize("token", ["", "1", "nonsense", "1.1", "9" * 30, "a-b-c", "1.1.1.1", "'; --", "\N{SNOWMAN}"])
async def test_a_token_that_was_never_given_settles_nothing(rig: Rig, token: str):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    assert await broker.settle(WORKER, [Ack(token)]) == 0
    assert numbers(await take_all(broker)) == [0]


async def test_a_token_is_of_its_subscription_alone(rig: Rig):
    broker = rig.broker()
    await declare(broker, "a")
    await declare(broker, "b")
    await broker.publish([event()])
    lease, other = await take_one(broker, "a"), await take_one(broker, "b")
    assert await broker.settle("b", [Ack(lease.token)]) == 0
    assert await broker.settle("a", [Ack(lease.token)]) == 1
    assert await broker.settle("b", [Ack(other.token)]) == 1


async def test_settle_counts_what_was_carried_out(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(3))
    leases = await take(broker)
    orders: list[Settlement] = [
        Ack(leases[0].token),
        Ack("gone"),
        Retry(leases[1].token),
        Extend(leases[2].token, 5),
        Ack("gone"),
    ]
    assert await broker.settle(WORKER, orders) == 3
    assert await broker.settle(WORKER, []) == 0


async def test_a_failure_that_came_with_an_extension_counts_though_it_goes_back_in_the_same_call(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    lease = await take_one(broker)
    assert await broker.settle(WORKER, [Extend(lease.token, 5, "failed"), Retry(lease.token, charge=False)]) == 2
    again = await take_one(broker)
    assert (again.failures, [attempt.error for attempt in again.attempts]) == (1, ["failed"])


async def test_an_extended_lease_ends_later(rig: Rig):
    broker = rig.broker()
    await declare(broker, lease=10)
    await broker.publish([event()])
    lease = await take_one(broker)
    for _ in range(5):
        await rig.advance(9)
        assert await broker.settle(WORKER, [Extend(lease.token, 10)]) == 1
    assert not await take(broker)
    assert await broker.settle(WORKER, [Ack(lease.token)]) == 1


async def test_a_lease_can_be_shortened(rig: Rig):
    broker = rig.broker()
    await declare(broker, lease=1000)
    await broker.publish([event()])
    lease = await take_one(broker)
    await broker.settle(WORKER, [Extend(lease.token, 1)])
    await rig.advance(1.1)
    assert await take(broker)


async def test_the_lease_of_an_instance_that_is_gone_ends_as_a_crash(rig: Rig):
    gone, other = rig.broker(), rig.broker()
    await declare(gone)
    await gone.publish([event()])
    await take_one(gone)
    await gone.close()
    await outlast(rig, other)
    (lease,) = await take(other)
    assert (lease.event.payload["n"], lease.crashes, lease.failures) == (0, 1, 0)


async def outlast(rig: Rig, other: Broker) -> None:
    """Wait until the leases of an instance that was closed have ended: in their own time, or with it."""
    if other.capabilities.lasting_leases:
        assert not await take(other)
        await rig.advance(29.9)
        assert not await take(other)
        await rig.advance(1.1)
    else:
        await rig.breathe()


async def test_a_wall_clock_that_jumps_ends_no_lease(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    lease = await take_one(broker)
    rig.clock.jump(86_400)
    assert not await take(broker)
    rig.clock.jump(-2 * 86_400)
    assert await broker.settle(WORKER, [Ack(lease.token)]) == 1


# --- exclusive ----------------------------------------------------------------------------------------------------


async def test_one_instance_at_a_time_holds_exclusive_leases(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one, exclusive=True)
    await one.publish(events(4))
    (lease,) = await take(one, limit=1)
    assert not await take(two)
    await one.settle(WORKER, [Ack(lease.token)])
    assert not await take(two), "the one that is there stays the active one"
    assert numbers(await take(one)) == [1, 2, 3]


async def test_the_next_member_takes_over_when_the_active_one_detaches(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one, exclusive=True)
    await one.publish(events(3))
    (lease,) = await take(one, limit=1)
    await one.detach(WORKER)
    assert not await take(two), "its lease still runs: a key must not be worked on twice"
    await one.settle(WORKER, [Ack(lease.token)])
    assert numbers(await take(two)) == [1, 2]


async def test_the_next_member_takes_over_from_one_that_is_gone_when_its_leases_end(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one, exclusive=True)
    await one.publish(events(3))
    await take(one, limit=1)
    await one.close()
    await outlast(rig, two)
    assert numbers(await take_all(two)) == [0, 1, 2]


async def test_an_extension_by_nothing_ends_the_lease_as_a_crash(rig: Rig):
    """What the router does with the leases of a client that did not come back."""
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    lease = await take_one(broker)
    await broker.settle(WORKER, [Extend(lease.token, 0.0)])
    await rig.advance(0.1)
    again = await take_one(broker)
    assert (again.crashes, again.failures) == (1, 0)


async def test_a_lease_that_is_cut_short_is_noticed_by_who_waits(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one, lease=30.0)
    await one.publish([event()])
    lease = await take_one(one)
    waiting = asyncio.create_task(two.fetch(WORKER, limit=1, wait=600))
    await rig.breathe()
    await one.settle(WORKER, [Extend(lease.token, 0.0)])
    await rig.advance(0.1)
    (again,) = await asyncio.wait_for(waiting, 5)
    assert again.crashes == 1
