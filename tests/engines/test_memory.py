"""What is the memory engine's own: a log that is long, and ids that are forgotten."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from tests.conformance.making import event, numbers, read
from wowevent import Event
from wowevent.broker import Query, Retention
from wowevent.brokers.memory import MemoryBroker
from wowevent.testing import ManualClock

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


async def test_one_that_was_cancelled_does_not_come_in_the_place_of_one_that_has_its_id_now() -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock=clock)

    def held(n: int, seconds: float) -> Event:
        return event(
            "reminder.due",
            n,
            event_id="the-one",
            not_before=datetime.fromtimestamp(clock.time(), UTC) + timedelta(seconds=seconds),
        )

    await broker.publish([held(1, 300)])
    assert (await broker.publish([held(2, 300)]))[0].duplicate
    assert await broker.cancel("the-one")
    assert (await broker.publish([held(3, 300)]))[0].duplicate  # its id is known, for a while
    await clock.advance(121)
    await broker.publish([event(n=n) for n in range(10_001)])
    assert not (await broker.publish([held(4, 600)]))[0].duplicate
    await clock.advance(400)
    assert await read(broker, patterns=("reminder.*",)) == []
    await broker.publish([event(n=n) for n in range(10_001)])
    assert (await broker.publish([held(5, 0)]))[0].duplicate  # it is held still, however many came since
    await clock.advance(300)
    assert [stored.event.payload["n"] for stored in await read(broker, patterns=("reminder.*",))] == [4]
    assert (await broker.publish([held(6, 0)]))[0].duplicate
    await clock.advance(121)
    await broker.publish([event(n=n) for n in range(10_002)])
    assert "the-one" not in broker._log.seen  # noqa: SLF001 - what it still remembers
