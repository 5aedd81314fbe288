"""A consumer that is told of a pause at the moments between: while something goes back, while a suspect waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from wowevent import Event, PauseSubscription, RetryPolicy
from wowevent.broker import Lease, Retry, Settlement
from wowevent.consumer import Consumer, Options
from wowevent.gate import Gate
from wowevent.holds import Holds, Pause
from wowevent.testing import ManualClock, settle
from wowevent.valve import Valve


class Source:
    """Hands out these leases, once; settling takes until it is let."""

    def __init__(self, *leases: Lease) -> None:
        self.detached = False
        self.settled: list[Settlement] = []
        self.asked: list[int] = []
        self.free = asyncio.Event()
        self.free.set()
        self.left = list(leases)
        self._news = asyncio.Event()

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        if not limit:
            return []
        self.asked.append(limit)
        while not self.left and not self.detached:
            self._news.clear()
            await self._news.wait()
        leases, self.left = self.left[:limit], self.left[limit:]
        return leases

    @property
    def tokens(self) -> list[str]:
        """Of what was settled, in that order."""
        return [each.token for each in self.settled]

    def bring(self, *leases: Lease) -> None:
        """A fetch that is under way has these."""
        self.left += leases
        self._news.set()

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        await self.free.wait()
        self.settled += settlements
        return len(settlements)

    async def detach(self, id: str) -> None:
        self.detached = True
        self._news.set()


def lease(topic: str, **fields: Any) -> Lease:
    return Lease(event=Event(topic=topic), **{"token": topic, "position": None, **fields})


class Rig:
    """A consumer of a source, and what its handler got."""

    def __init__(self) -> None:
        self.clock, self.gate, self.handled = ManualClock(), Gate(), list[str]()
        self.holds = Holds(self.clock)
        self.takes = 0.0
        self.raises: Exception | None = None
        self.consumer: Consumer | None = None

    async def start(self, source: Source | Valve, **settings: Any) -> Consumer:
        async def handle(event: Event) -> None:
            self.handled.append(event.topic)
            if self.takes:
                await self.clock.sleep(self.takes)
            if self.raises is not None:
                raise self.raises

        async def nothing(*_: Any) -> None: ...

        options = Options(policy=RetryPolicy(), lease=1000, **settings)
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
    rig.holds.put(Pause(scope="topic", name="held", since=rig.clock.time()))
    consumer = await rig.start(source, concurrency=2)
    await settle()
    assert rig.handled == ["free"]
    await consumer.stop(0.01)

    rig.handled.clear()
    source = Source(lease("held"), lease("free"))
    source.free.clear()
    consumer = await rig.start(source, concurrency=2)
    consumer.heed(True)
    source.free.set()
    await settle()
    assert source.settled == [Retry("held", 1.0, charge=False), Retry("free", charge=False)]
    assert rig.handled == []


async def test_a_backlog_that_is_held_is_sifted_in_large_pieces_and_what_is_free_is_not_hoarded(rig: Rig):
    held = [lease("held", token=f"h{n}") for n in range(1000)]
    free = [lease("free", token=f"f{n}") for n in range(300)]
    source = Source(*held, *free)
    rig.holds.put(Pause(scope="topic", name="held", since=rig.clock.time()))
    rig.takes = 10.0
    await rig.start(source)
    back = [each.token for each in source.settled if isinstance(each, Retry)]
    assert back[:1000] == [each.token for each in held]
    assert len(source.asked) < 15
    assert max(source.asked) <= 512 + 1
    assert rig.handled == ["free"]
    assert len(free) - len(source.left) - len(back[1000:]) == 1, "the window of a slow handler is small"
    assert len(back) > 1000


async def test_a_suspect_that_waits_for_its_turn_goes_back(rig: Rig):
    rig.gate.running = 1  # a handler of another subscription
    source = Source(lease("suspect", crashes=1))
    consumer = await rig.start(source)
    consumer.heed(True)
    rig.gate.left()
    await settle()
    assert source.settled == [Retry("suspect", charge=False)]
    assert rig.handled == []


# --- the way back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["returns", "fails", "halts"])
async def test_what_comes_while_a_pause_begins_goes_back_behind_what_was_here(rig: Rig, ends: str):
    """With one key, and its first event in the handler's hands until the pause has begun."""
    source = Source(*(lease("a", token=f"a{n}") for n in range(3)), lease("b", token="b0"), lease("b", token="b1"))
    valve = Valve("s", source, rig.clock)
    rig.takes, rig.raises = 60.0, {"fails": OSError(), "halts": PauseSubscription(60)}.get(ends)
    consumer = await rig.start(valve, order_by=lambda event: event.topic)
    valve.told, valve.decline = consumer.heed, consumer.decline
    source.free.clear()
    valve.pause(Pause(scope="subscription", name="s", since=rig.clock.time()))
    await settle()
    source.bring(lease("a", token="a3"), lease("b", token="b2"))
    await settle()
    source.free.set()
    await settle()
    assert source.tokens == ["b0", "b1", "b2"], "what follows the one in hand waits for it"
    await rig.clock.advance(60)
    assert source.tokens == ["b0", "b1", "b2", "a0", "a1", "a2", "a3"]
    assert rig.handled == ["a"]


async def test_a_stop_gives_back_in_order_what_a_handler_is_kept_from(rig: Rig):
    source = Source(*(lease("a", token=f"a{n}") for n in range(3)), lease("b", token="b0"))
    rig.takes = 60.0
    consumer = await rig.start(source, order_by=lambda event: event.topic)
    await consumer.stop(0.01)
    assert source.tokens == ["b0", "a0", "a1", "a2"]
