"""ManualClock: time stands still until it is moved, and everything due happens at its moment."""

from __future__ import annotations

import asyncio

import pytest

from wowevent.testing import ManualClock


async def test_time_stands_still_until_it_is_advanced():
    clock = ManualClock(start=1000)
    await asyncio.sleep(0.001)
    assert (clock.time(), clock.monotonic()) == (1000, 0)
    await clock.advance(5)
    assert (clock.time(), clock.monotonic()) == (1005, 5)


async def test_calls_happen_at_their_moments_in_order():
    clock, calls = ManualClock(), list[tuple[str, float]]()
    clock.call_later(3, lambda: calls.append(("late", clock.monotonic())))
    clock.call_later(1, lambda: calls.append(("early", clock.monotonic())))
    clock.call_later(9, lambda: calls.append(("never", clock.monotonic())))
    clock.call_later(2, lambda: calls.append(("cancelled", clock.monotonic()))).cancel()
    await clock.advance(5)
    assert calls == [("early", 1), ("late", 3)]


async def test_what_a_call_sets_off_happens_in_the_same_advance():
    clock, calls = ManualClock(), list[float]()

    async def every_second() -> None:
        while True:
            await clock.sleep(1)
            calls.append(clock.monotonic())

    task = asyncio.create_task(every_second())
    await clock.advance(3.5)
    assert calls == pytest.approx([1, 2, 3])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await clock.advance(3)
    assert calls == pytest.approx([1, 2, 3])


async def test_a_jump_moves_the_wall_clock_alone():
    clock = ManualClock(start=1000)
    clock.jump(-500)
    assert (clock.time(), clock.monotonic()) == (500, 0)
    await clock.advance(1)
    assert (clock.time(), clock.monotonic()) == (501, 1)


async def test_what_is_already_due_happens_now():
    clock, calls = ManualClock(), list[int]()
    clock.call_later(0, lambda: calls.append(1))
    clock.call_later(-1, lambda: calls.append(2))
    await clock.advance(0)
    assert sorted(calls) == [1, 2]
    assert clock.monotonic() == 0
