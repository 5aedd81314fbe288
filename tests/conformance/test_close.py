"""Closing: idempotent, wakes who waits, ends every call (rule 8); cancelling a call loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conformance.engines import Rig
from tests.conformance.making import WORKER, calls, declare, event, events, numbers, read, take, take_all
from wowevent import BusError, Closed
from wowevent.broker import Ack, Broker, DeadQuery, Discard, Query, Retention, Retry

CALLS: dict[str, Callable[[Broker], Awaitable[Any]]] = {
    "publish": lambda b: b.publish([event()]),
    "cancel": lambda b: b.cancel("x"),
    "declare": declare,
    "detach": lambda b: b.detach(WORKER),
    "remove": lambda b: b.remove(WORKER),
    "subscriptions": lambda b: b.subscriptions(),
    "fetch": take,
    "settle": lambda b: b.settle(WORKER, []),
    "dead": lambda b: b.dead(DeadQuery()),
    "resolve": lambda b: b.resolve([Discard("x")]),
    "read": read,
    "info": lambda b: b.info(WORKER),
    "purge": lambda b: b.purge(WORKER),
    "ping": lambda b: b.ping(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("used", [True, False], ids=["used", "never used"])
async def test_a_closed_broker_refuses_every_call(rig: Rig, call: Callable[[Broker], Awaitable[Any]], used: bool):
    broker = rig.broker()
    if used:
        await declare(broker)
    await broker.close()
    with pytest.raises(Closed):
        await call(broker)


async def test_closing_again_and_ten_at_once_is_closing_once(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await asyncio.gather(*(broker.close() for _ in range(10)))
    await broker.close()


async def test_closing_wakes_who_waits(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    fetches = [asyncio.create_task(broker.fetch(WORKER, limit=1, wait=3600)) for _ in range(3)]

    async def follow() -> list[Any]:
        return [stored async for stored in broker.read(Query(), follow=True)]

    follower = asyncio.create_task(follow())
    await rig.breathe()
    await broker.close()
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*fetches, follower, return_exceptions=True)
    assert all(end == [] or isinstance(end, Closed) for end in ends), ends


async def test_closing_while_it_is_opened_ends_who_waits_for_that(rig: Rig):
    broker = rig.broker()
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(call(broker)) for call in CALLS.values()]
    await asyncio.sleep(0)
    await broker.close()
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [end for end in ends if isinstance(end, BaseException) and not isinstance(end, BusError)] == []


async def test_closing_while_publishing_keeps_what_was_confirmed(rig: Rig):
    broker = rig.broker(retention=Retention(max_age=3600))
    confirmed: list[str] = []
    enough = asyncio.Event()

    async def publish() -> None:
        while True:
            sent = event()
            await broker.publish([sent])
            confirmed.append(sent.event_id)
            if len(confirmed) > 50:
                enough.set()

    publishers = [asyncio.create_task(publish()) for _ in range(10)]
    async with asyncio.timeout(5):
        await enough.wait()
        await broker.close()
        ends = await asyncio.gather(*publishers, return_exceptions=True)
    assert all(isinstance(end, Closed) for end in ends), ends
    stored = {item.event.event_id for item in await read(rig.broker())}
    assert set(confirmed) <= stored


async def test_other_instances_go_on(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one)
    await one.publish([event(n=0)])
    await one.close()
    await two.publish([event(n=1)])
    assert numbers(await take_all(two)) == [0, 1]


async def test_everything_is_there_after_five_reopenings(rig: Rig):
    for round_ in range(5):
        broker = rig.broker()
        await declare(broker)
        await broker.publish([event(n=2 * round_), event(n=2 * round_ + 1)])
        taken = await take(broker, limit=1)
        await broker.settle(WORKER, [Retry(lease.token, charge=False) for lease in taken])
        await broker.close()
    broker = rig.broker()
    assert numbers(await read(broker)) == list(range(10))
    assert numbers(await take_all(broker)) == list(range(10))


async def test_a_cancelled_fetch_loses_no_event(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    for n in range(20):
        fetch = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=3600))
        for _ in range(n % 5):
            await asyncio.sleep(0)
        publish = asyncio.create_task(broker.publish([event(n=n)]))
        for _ in range(n % 7):
            await asyncio.sleep(0)
        fetch.cancel()
        await publish
        await asyncio.gather(fetch, return_exceptions=True)
        await rig.advance(31)  # a lease that nobody got ends like any other
        assert numbers(await take_all(broker)) == [n]


async def test_a_cancelled_fetch_passes_its_event_on(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    first = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=3600))
    await rig.breathe()
    second = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=3600))
    await rig.breathe()
    first.cancel()
    await broker.publish([event()])
    async with asyncio.timeout(5):
        assert numbers(await second) == [0]
    await asyncio.gather(first, return_exceptions=True)


async def test_one_that_is_cancelled_just_when_it_is_woken_passes_its_event_on(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    for n in range(10):
        waiting = [asyncio.create_task(broker.fetch(WORKER, limit=1, wait=3600)) for _ in range(3)]
        await rig.breathe()
        await broker.publish([event(n=n)])
        for each in waiting[:2]:
            each.cancel()
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        taken = [lease for each in waiting[:2] if not each.cancelled() for lease in each.result()]
        async with asyncio.timeout(5):
            assert numbers(taken or await waiting[2]) == [n]
        waiting[2].cancel()
        await asyncio.gather(waiting[2], return_exceptions=True)
        await broker.settle(WORKER, [Ack(lease.token) for lease in taken or waiting[2].result()])


async def test_who_waits_learns_of_the_end_of_a_lease_that_another_one_took_meanwhile(rig: Rig):
    broker, other = rig.broker(), rig.broker()
    await declare(broker, lease=1.0)
    waiting = [asyncio.create_task(each.fetch(WORKER, limit=1, wait=3600)) for each in (broker, other)]
    await rig.breathe()
    await broker.publish([event()])
    done, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert len(done) == len(left) == 1
    async with asyncio.timeout(10):
        while not (last := next(iter(left))).done():
            await rig.advance(1)
    assert numbers(last.result()) == [0]


async def test_a_cancelled_publish_harms_no_other(rig: Rig):
    broker = rig.broker()
    jobs = [asyncio.create_task(broker.publish([sent])) for sent in events(20)]
    await asyncio.sleep(0)
    for job in jobs[::2]:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    assert {1, 3, 5, 7, 9, 11, 13, 15, 17, 19} <= set(numbers(await read(broker)))


async def test_closing_amid_a_hundred_calls_ends_them_all(rig: Rig):
    broker, writer = rig.broker(), rig.broker()
    for id in (WORKER, "other"):
        await declare(writer, id)
    await writer.publish(events(20))
    await broker.ping()
    under_way = [asyncio.create_task(_ended(call)) for _ in range(6) for call in calls(broker).values()]
    under_way += [asyncio.create_task(broker.fetch(WORKER, limit=1, wait=60)) for _ in range(10)]
    await asyncio.sleep(0.02)
    await asyncio.wait_for(broker.close(), 5)
    results = await asyncio.wait_for(asyncio.gather(*under_way, return_exceptions=True), 5)
    assert len(results) >= 100
    strange = [each for each in results if isinstance(each, BaseException) and not isinstance(each, BusError)]
    assert strange == []
    with pytest.raises(Closed):
        await broker.ping()


async def _ended(call: Any) -> Any:
    try:
        return await call()
    except StopAsyncIteration:
        return None
