"""Gate: a suspect runs with nothing else in its process."""

from __future__ import annotations

import asyncio

from wowevent.gate import Gate
from wowevent.testing import settle


async def test_everyone_gives_back_before_the_suspect_runs():
    gate, told = Gate(), list[str]()

    async def one() -> None:
        told.append("one")

    async def two() -> None:
        told.append("two")

    gate.register(one)
    gate.register(two)
    async with gate.alone(1) as alone:
        assert (alone, gate.closed, told) == (True, True, ["one", "two"])
    gate.unregister(one)
    gate.unregister(one)
    async with gate.alone(1):
        assert told == ["one", "two", "two"]
    assert not gate.closed


async def test_a_second_suspect_is_refused():
    gate = Gate()
    async with gate.alone(1) as first, gate.alone(1) as second:
        assert (first, second, gate.closed) == (True, False, True)
    assert not gate.closed


async def test_who_waits_is_let_in_afterwards():
    gate, entered = Gate(), list[int]()

    async def enter(n: int) -> None:
        await gate.opened()
        entered.append(n)

    await enter(0)
    async with gate.alone(1):
        waiting = [asyncio.create_task(enter(n)) for n in (1, 2)]
        await settle()
        assert entered == [0]
    await asyncio.gather(*waiting)
    assert entered == [0, 1, 2]


async def test_what_runs_is_waited_for():
    gate = Gate()
    gate.running = 2
    order: list[str] = []

    async def suspect() -> None:
        async with gate.alone(60):
            order.append("suspect")

    task = asyncio.create_task(suspect())
    for _ in range(2):
        await settle()
        order.append("neighbour ends")
        gate.left()
    await task
    assert order == ["neighbour ends", "neighbour ends", "suspect"]


async def test_patience_ends():
    gate = Gate()
    gate.running = 1
    async with gate.alone(0.01) as alone:
        assert alone


async def test_the_gate_opens_even_if_giving_back_fails():
    gate = Gate()

    async def broken() -> None:
        raise OSError("cut")

    gate.register(broken)
    try:
        async with gate.alone(1):
            raise AssertionError("never reached")
    except OSError:
        pass
    assert not gate.closed
