"""Order within a subscription, and the two lanes (rule 7)."""

from __future__ import annotations

import asyncio

from tests.conformance.engines import Rig
from tests.conformance.making import WORKER, declare, event, events, numbers, take, take_all
from wowevent.broker import Ack, Retry


def _lanes(count: int) -> str:
    """What the two lanes yield of `count` urgent and `count` other events."""
    urgent = other = count
    found = ""
    while urgent or other:
        run = min(8, urgent) if other else urgent
        found += "u" * run
        urgent -= run
        if other:
            found += "o" if urgent else "o" * other
            other = other - 1 if urgent else 0
    return found


async def test_events_come_in_the_order_of_the_log(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    for start in (0, 7, 14):
        await broker.publish([event(n=start + n, priority=1 + n % 6) for n in range(7)])
    assert numbers(await take_all(broker, limit=4)) == list(range(21))


async def test_urgent_ones_first_and_one_other_after_every_eight(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event(n=n, priority=5) for n in range(20)])
    await broker.publish([event(n=100 + n, priority=7 + n % 4) for n in range(20)])
    found = numbers(await take(broker))
    assert "".join("u" if n >= 100 else "o" for n in found) == _lanes(20)
    assert [n for n in found if n < 100] == list(range(20))
    assert [n for n in found if n >= 100] == list(range(100, 120))


async def test_small_fetches_starve_nobody(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish([event(n=0, priority=5)] + [event(n=n, priority=9) for n in range(1, 31)])
    assert 0 in numbers([lease for _ in range(9) for lease in await take(broker, limit=1)])


async def test_an_urgent_event_overtakes_a_backlog_of_ten_thousand(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    for _ in range(10):
        await broker.publish(events(1000))
    await take(broker)
    await broker.publish([event(n=-1, priority=7)])
    assert numbers(await take(broker))[0] == -1


async def test_an_exclusive_subscription_has_no_lanes(rig: Rig):
    broker = rig.broker()
    await declare(broker, exclusive=True)
    await broker.publish([event(n=n, priority=10 if n % 2 else 1) for n in range(10)])
    assert numbers(await take_all(broker, limit=3)) == list(range(10))


async def test_what_is_given_back_comes_before_what_is_younger(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(6))
    first = await take(broker, limit=3)
    await broker.settle(WORKER, [Retry(lease.token, charge=False) for lease in reversed(first)])
    assert numbers(await take_all(broker, limit=2)) == list(range(6))


async def test_what_is_settled_out_of_order_stays_settled(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(4))
    leases = await take(broker)
    await broker.settle(WORKER, [Ack(leases[3].token), Ack(leases[1].token)])
    await broker.settle(WORKER, [Retry(leases[2].token, charge=False), Retry(leases[0].token, charge=False)])
    assert numbers(await take_all(broker)) == [0, 2]


async def test_who_fetches_one_at_a_time_gets_urgent_ones_first(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    coming = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=5.0))
    await broker.publish([event(n=0)])
    (lease,) = await coming
    for n in range(1, 11):
        await broker.publish([event(n=n, priority=n)])
    await asyncio.sleep(0.1)  # what the waiting fetch had asked for besides has come by then
    order = []
    for _ in range(10):
        await broker.settle(WORKER, [Ack(lease.token)])
        (lease,) = await broker.fetch(WORKER, limit=1, wait=5.0)
        order.append(lease.event.priority)
    assert set(order[:4]) == {7, 8, 9, 10}
    assert order[4:] == [1, 2, 3, 4, 5, 6]
