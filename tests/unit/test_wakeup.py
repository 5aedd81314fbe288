"""Wakeup: a notification reaches who waits, the longest first, and nobody who came later."""

import asyncio

from wowevent.testing import settle
from wowevent.wakeup import Wakeup


async def waiters(wakeup: Wakeup, count: int, woken: list[int]) -> list[asyncio.Task[None]]:
    async def wait(number: int) -> None:
        await wakeup.wait()
        woken.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(count)]
    await settle()
    return tasks


async def test_all_are_woken_by_default():
    wakeup, woken = Wakeup(), list[int]()
    await waiters(wakeup, 3, woken)
    wakeup.notify()
    await settle()
    assert woken == [0, 1, 2]


async def test_so_many_are_woken_who_waited_longest():
    wakeup, woken = Wakeup(), list[int]()
    await waiters(wakeup, 3, woken)
    wakeup.notify(0)
    wakeup.notify(2)
    await settle()
    assert woken == [0, 1]
    wakeup.notify(5)
    await settle()
    assert woken == [0, 1, 2]


async def test_a_notification_that_nobody_awaits_is_gone():
    wakeup, woken = Wakeup(), list[int]()
    wakeup.notify()
    (task,) = await waiters(wakeup, 1, woken)
    assert not task.done()
    wakeup.notify()
    await settle()
    assert woken == [0]


async def test_one_that_gave_up_takes_no_notification_from_another():
    wakeup, woken = Wakeup(), list[int]()
    first, _ = await waiters(wakeup, 2, woken)
    first.cancel()
    wakeup.notify(1)
    await asyncio.gather(first, return_exceptions=True)
    await settle()
    assert woken == [1]
