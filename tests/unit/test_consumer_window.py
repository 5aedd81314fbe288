"""How many events a consumer holds: what its handlers need for about a tenth of a second, asked for in halves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from wowevent import Event, RetryPolicy
from wowevent.broker import Lease, Position, Settlement
from wowevent.consumer import Consumer, Options
from wowevent.gate import Gate
from wowevent.testing import ManualClock, settle


class Endless:
    """A source that always has more, and notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.handed = 0
        self._detached = asyncio.Event()

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        if limit == 0:
            return []
        self.asked.append(limit)
        if self._detached.is_set():
            return []
        await asyncio.sleep(0)
        leases = []
        for _ in range(limit):
            self.handed += 1
            event = Event(topic="a", correlation_id=f"key-{self.handed}", payload={"n": self.handed})
            leases.append(Lease(event=event, token=str(self.handed), position=Position("e", self.handed)))
        return leases

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        return len(settlements)

    async def detach(self, id: str) -> None:
        self._detached.set()


async def nothing(*_: Any) -> None: ...


async def run(clock: ManualClock, source: Endless, takes: float, seconds: float, **options: Any) -> Consumer:
    """A consumer whose handlers each take that long, for some seconds of its clock."""

    async def handler(_event: Any) -> None:
        if takes:
            await clock.sleep(takes)

    settings = Options(policy=RetryPolicy(), lease=1000, **options)
    consumer = Consumer("s", source, handler, settings, clock=clock, gate=Gate(), reply=nothing)
    await consumer.start()
    await clock.advance(seconds)
    return consumer


async def end(consumer: Consumer) -> None:
    await consumer.stop(0.01)


@pytest.mark.parametrize(
    ("takes", "options", "most"),
    [
        (1.0, {}, 1),
        (1.0, {"concurrency": 4}, 4),
        (0.02, {}, 5),
        (0.02, {"concurrency": 4}, 20),
        (1.0, {"batch": 10}, 20),
        (0.0, {"rate": 50}, 5),
    ],
    ids=str,
)
async def test_slow_handlers_do_not_hoard(takes: float, options: dict[str, Any], most: int):
    clock, source = ManualClock(), Endless()
    consumer = await run(clock, source, takes, 6, **options)
    assert max(source.asked) <= most + 1
    assert len(consumer._stock.held) <= most + 1  # noqa: SLF001 - what this test is about
    await end(consumer)


async def test_fast_handlers_hold_much():
    clock, source = ManualClock(), Endless()
    consumer = await run(clock, source, 0, 0)
    for _ in range(20):
        await settle()
    assert max(source.asked) <= 512
    assert max(source.asked) > 100
    await end(consumer)


async def test_keys_that_wait_do_not_keep_the_others_from_coming():
    clock, source = ManualClock(), Endless()
    consumer = await run(clock, source, 1.0, 1, order_by=lambda event: event.correlation_id)
    assert source.asked[0] == 512
    await end(consumer)


async def test_more_is_asked_for_once_half_of_the_window_is_free():
    clock, source = ManualClock(), Endless()
    consumer = await run(clock, source, 0.002, 5)
    assert all(20 <= asked <= 30 for asked in source.asked[-10:]), "half of the 50 that a tenth of a second needs"
    await end(consumer)
