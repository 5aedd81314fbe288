"""A consumer that is told of a pause at the moments between: while something goes back, while a suspect waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from wowevent import Event, RetryPolicy
from wowevent.broker import Lease, Retry, Settlement
from wowevent.consumer import Consumer, Options
from wowevent.gate import Gate
from wowevent.holds import Holds, Pause
from wowevent.testing import ManualClock, settle


class Source:
    """Hands out these leases, once; settling takes until it is let."""

    def __init__(self, *leases: Lease) -> None:
        self.settled: list[Settlement] = []
        self.free = asyncio.Event()
        self.free.set()
        self._leases = list(leases)
        self._detached = asyncio.Event()

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        if not limit:
            return []
        if not self._leases:
            await self._detached.wait()
        leases, self._leases = self._leases, []
        return leases

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        await self.free.wait()
        self.settled += settlements
        return len(settlements)

    async def detach(self, id: str) -> None:
        self._detached.set()


def lease(topic: str, **fields: Any) -> Lease:
    return Lease(event=Event(topic=topic), token=topic, position=None, **fields)


class Rig:
    """A consumer of a source, and what its handler got."""

    def __init__(self) -> None:
        self.clock, self.gate, self.handled = ManualClock(), Gate(), list[str]()
        self.holds = Holds(self.clock)
        self.consumer: Consumer | None = None

    async def start(self, source: Source) -> Consumer:
        async def handle(event: Event) -> None:
            self.handled.append(event.topic)

        async def nothing(*_: Any) -> None: ...

        options = Options(policy=RetryPolicy(), lease=1000)
        self.consumer = Consumer(
            "s", source, handle, options, clock=self.clock, gate=self.gate, reply=nothing, holds=self.holds
        )
        await self.consumer.start()
        await settle()
        return self.consumer


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    if rig.consumer is not None:
        await rig.consumer.stop(0.01)


async def test_what_came_with_something_held_goes_back_if_all_is_paused_meanwhile(rig: Rig):
    source = Source(lease("held"), lease("free"))
    source.free.clear()
    rig.holds.put(Pause(scope="topic", name="held", since=rig.clock.time()))
    consumer = await rig.start(source)
    consumer.heed(True)
    source.free.set()
    await settle()
    assert source.settled == [Retry("held", 1.0, charge=False), Retry("free", charge=False)]
    assert rig.handled == []


async def test_a_suspect_that_waits_for_its_turn_goes_back(rig: Rig):
    rig.gate.running = 1  # a handler of another subscription
    source = Source(lease("suspect", crashes=1))
    consumer = await rig.start(source)
    consumer.heed(True)
    rig.gate.left()
    await settle()
    assert source.settled == [Retry("suspect", charge=False)]
    assert rig.handled == []
