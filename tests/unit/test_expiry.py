"""The ends of leases: a timer to the first, and what follows."""

from __future__ import annotations

import asyncio
from math import inf

from wowevent.expiry import Expiry
from wowevent.testing import ManualClock


class Leases:
    """By their ends; those that are over are carried away, which takes until `road` is free."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.open: list[float] = []
        self.away: list[float] = []
        self.told: list[str] = []
        self.road = asyncio.Event()
        self.road.set()
        self.expiry = Expiry(self.clock, self._over, lambda error: self.told.append(repr(error)), name="test")

    def lease(self, ends: float) -> None:
        self.open.append(ends)
        self.expiry.watch(ends)

    def _over(self) -> None:
        over = [ends for ends in self.open if ends <= self.clock.monotonic()]
        self.open = [ends for ends in self.open if ends not in over]
        if over:
            self.expiry.begin(self._carry(over))
        if self.open:
            self.expiry.watch(min(self.open))

    async def _carry(self, over: list[float]) -> None:
        await self.road.wait()
        if 13.0 in over:
            raise OSError
        self.away += over


async def test_each_is_seen_to_when_it_ends():
    leases = Leases()
    for ends in (20.0, 10.0, 30.0):
        leases.lease(ends)
    for seconds, away in ((9, []), (1, [10.0]), (15, [10.0, 20.0]), (10, [10.0, 20.0, 30.0])):
        await leases.clock.advance(seconds)
        await leases.expiry.flush()
        assert leases.away == away
    assert leases.told == ["None"] * 3
    await leases.expiry.close()


async def test_one_that_has_not_begun_never_ends():
    leases = Leases()
    leases.lease(inf)
    assert not leases.clock._due  # noqa: SLF001 - no loop takes a timer to the end of time
    await leases.clock.advance(1e6)
    assert not leases.expiry.due
    leases.lease(2e6)
    await leases.clock.advance(1e6)
    await leases.expiry.flush()
    assert leases.away == [2e6]
    await leases.expiry.close()


async def test_what_is_over_is_due_until_it_is_carried_away():
    leases = Leases()
    leases.road.clear()
    leases.lease(10.0)
    due = [leases.expiry.due]
    await leases.clock.advance(11)
    due.append(leases.expiry.due)
    flushed = asyncio.create_task(leases.expiry.flush())
    await asyncio.sleep(0)
    assert not flushed.done()
    leases.road.set()
    await flushed
    assert [*due, leases.expiry.due] == [False, True, False]
    await leases.expiry.close()


async def test_what_fails_is_told():
    leases = Leases()
    leases.lease(13.0)
    await leases.clock.advance(13)
    await leases.expiry.flush()
    assert leases.told == ["OSError()"]
    await leases.expiry.close()


async def test_a_look_does_not_wait_for_the_timer():
    leases = Leases()
    leases.lease(10.0)
    leases.clock._passed = 10.0  # noqa: SLF001 - the loop was busy: the timer has not fired
    assert leases.expiry.due
    leases.expiry.look()
    assert leases.open == []
    await leases.expiry.flush()
    assert leases.away == [10.0]
    await leases.expiry.close()


async def test_closed_it_sees_to_nothing():
    leases = Leases()
    leases.road.clear()
    leases.lease(10.0)
    await leases.clock.advance(10)
    leases.lease(20.0)
    await leases.expiry.close()
    await leases.clock.advance(10)
    assert (leases.open, leases.away, leases.told) == ([20.0], [], ["None"])
