"""Failures and crashes, counted apart and kept; suspects come alone (rule 2)."""

from __future__ import annotations

from tests.conformance.engines import Rig
from tests.conformance.making import WORKER, declare, event, events, take, take_all, take_one
from wowevent.broker import Ack, Extend, Retry


async def test_a_retry_counts_a_failure_and_keeps_its_error_and_time(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    times = []
    for error in ("first", "second"):
        lease = await take_one(broker)
        await rig.advance(1)
        times.append(rig.clock.time())
        await broker.settle(WORKER, [Retry(lease.token, 0, error)])
    lease = await take_one(broker)
    assert (lease.failures, lease.crashes) == (2, 0)
    assert [(a.number, a.error) for a in lease.attempts] == [(1, "first"), (2, "second")]
    assert [abs(a.time - t) < 0.01 for a, t in zip(lease.attempts, times, strict=True)] == [True, True]


async def test_a_lease_that_ended_unsettled_counts_a_crash(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    for _ in range(2):
        await take_one(broker)
        await rig.advance(31)
    lease = await take_one(broker)
    assert (lease.failures, lease.crashes) == (0, 2)
    assert [a.number for a in lease.attempts] == [1, 2]


async def test_what_is_given_back_counts_nothing(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    for _ in range(3):
        await broker.settle(WORKER, [Retry((await take_one(broker)).token, charge=False)])
    lease = await take_one(broker)
    assert (lease.failures, lease.crashes, lease.attempts) == (0, 0, ())


async def test_an_extension_with_an_error_counts_a_failure_and_keeps_the_lease(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event()])
    lease = await take_one(broker)
    assert await broker.settle(WORKER, [Extend(lease.token, 10, "in order")]) == 1
    assert not await take(broker)
    assert await broker.settle(WORKER, [Retry(lease.token, charge=False)]) == 1
    lease = await take_one(broker)
    assert (lease.failures, lease.crashes) == (1, 0)
    assert [a.error for a in lease.attempts] == ["in order"]


async def test_the_counts_survive_a_reopening(rig: Rig):
    before = rig.broker()
    await declare(before)
    await before.publish([event()])
    await before.settle(WORKER, [Retry((await take_one(before)).token, 0, "failed")])
    await take_one(before)
    await before.close()
    await rig.advance(31)
    lease = await take_one(rig.broker())
    assert (lease.failures, lease.crashes) == (1, 1)
    assert [a.number for a in lease.attempts] == [1, 2]


async def test_other_subscriptions_never_see_a_retry(rig: Rig):
    broker = rig.broker()
    await declare(broker, "failing")
    await declare(broker, "fine")
    await broker.publish([event()])
    await broker.settle("failing", [Retry((await take_one(broker, "failing")).token, 0, "failed")])
    assert (await take_one(broker, "failing")).failures == 1
    (lease,) = await take_all(broker, "fine")
    assert lease.failures == 0


async def test_a_suspect_comes_alone(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(5))
    await take(broker)
    await rig.advance(31)
    await broker.publish([event(n=n) for n in range(5, 10)])
    fetches = []
    while leases := await take(broker):
        fetches.append([(lease.event.payload["n"], lease.crashes) for lease in leases])
        await broker.settle(WORKER, [Ack(lease.token) for lease in leases])
    suspects = [fetch for fetch in fetches if any(crashes for _, crashes in fetch)]
    assert sorted(suspects) == [[(n, 1)] for n in range(5)]
    assert sum(map(len, fetches)) == 10


async def test_a_suspect_that_fails_stays_one(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(1))
    await take(broker)
    await rig.advance(31)
    await broker.settle(WORKER, [Retry((await take_one(broker)).token, 0, "failed")])
    await broker.publish(events(3))
    (lease,) = [lease for lease in await take(broker) if lease.crashes] or [await take_one(broker)]
    assert (lease.failures, lease.crashes) == (1, 1)
