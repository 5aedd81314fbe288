"""What is the memory engine's own: a log that is long."""

from __future__ import annotations

import asyncio

from tests.conformance.making import event, numbers, read
from wowevent.broker import Query, Retention
from wowevent.brokers.memory import MemoryBroker

COUNT = 40_000  # pieces of 625


async def filled() -> MemoryBroker:
    broker = MemoryBroker(retention=Retention(max_count=COUNT))
    for start in range(0, COUNT, 1_000):
        await broker.publish([event(n=n) for n in range(start, start + 1_000)])
    return broker


async def test_it_comes_whole_and_in_order_from_whichever_end_a_piece_is_reached() -> None:
    broker = await filled()
    assert numbers(await read(broker)) == list(range(COUNT))
    places = [stored.position async for stored in broker.read(Query(limit=COUNT))]
    for behind in (COUNT // 2 - 700, COUNT // 2, COUNT - 700, COUNT - 1):
        assert numbers(await read(broker, after=places[behind])) == list(range(behind + 1, COUNT))


async def test_who_looks_for_little_in_it_lets_others_run() -> None:
    broker, turns = await filled(), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    assert await read(broker, correlation_id="nobody") == []
    running.cancel()
    assert turns >= 60
