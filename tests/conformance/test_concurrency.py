"""Many at once: every event to one member of each subscription, also over threads."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import WORKER, declare, event, events, info, numbers, read, take, take_all
from wowevent.broker import Ack, Broker, Retry


async def test_publishers_and_consumers_on_five_instances(rig: Rig):
    brokers = [rig.broker() for _ in range(5)]
    await declare(brokers[0])
    seen: Counter[int] = Counter()

    async def publish(n: int) -> None:
        for k in range(10):
            await brokers[n % 5].publish([event(n=n * 100 + k * 10 + i) for i in range(10)])

    async def consume(broker: Broker) -> None:
        while sum(seen.values()) < 2000:
            leases = await broker.fetch(WORKER, limit=17, wait=3600)
            seen.update(numbers(leases))
            assert await broker.settle(WORKER, [Ack(lease.token) for lease in leases]) == len(leases)

    consumers = [asyncio.create_task(consume(brokers[n % 5])) for n in range(10)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(publish(n) for n in range(20)))
        await eventually(lambda: sum(seen.values()) == 2000)
    for task in consumers:
        task.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    assert seen == Counter(range(2000))
    assert (await info(brokers[0])).ready == 0


async def test_each_publisher_is_read_in_its_order(rig: Rig):
    brokers = [rig.broker() for _ in range(4)]

    async def publish(n: int) -> None:
        for k in range(50):
            await brokers[n].publish([event(n=n * 1000 + k)])

    await asyncio.gather(*(publish(n) for n in range(4)))
    found = numbers(await read(brokers[0]))
    assert len(found) == 200
    for n in range(4):
        assert [x for x in found if x // 1000 == n] == [n * 1000 + k for k in range(50)]


async def test_instances_may_live_on_loops_of_other_threads(rig: Rig):
    here = rig.broker()
    await declare(here)
    fetch = asyncio.create_task(here.fetch(WORKER, limit=1, wait=3600))
    await rig.breathe()

    async def elsewhere() -> None:
        there = rig.broker()
        await there.publish([event(n=1)])
        await there.close()

    await asyncio.to_thread(asyncio.run, elsewhere())
    await rig.advance(1.1)  # should its wake-up have gone with it
    async with asyncio.timeout(5):
        assert numbers(await fetch) == [1]


async def test_retries_and_acks_of_many_at_once_stay_exact(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(200))
    tries: Counter[int] = Counter()

    async def work() -> None:
        while leases := await take(broker, limit=7):
            for lease in leases:
                n = lease.event.payload["n"]
                tries[n] += 1
                assert lease.failures == tries[n] - 1
                done = tries[n] > n % 4
                await broker.settle(WORKER, [Ack(lease.token) if done else Retry(lease.token, 0, "again")])

    await asyncio.gather(*(work() for _ in range(8)))
    assert not await take_all(broker)
    assert tries == Counter({n: 1 + n % 4 for n in range(200)})
