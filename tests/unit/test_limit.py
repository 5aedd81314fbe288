"""A limit of time that many waits share: each ends as by a timeout of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wowevent.limit import TimeLimit

BRIEF = 0.05
SOON = 5.0  # by which everything here is over


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_what_is_late_is_cancelled_and_told_so():
    """Nothing of it stays: the task can wait again, and nobody has cancelled it."""
    limit = TimeLimit(BRIEF)
    for _ in range(2):
        with pytest.raises(TimeoutError), limit:
            await for_ever()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    limit.close()


async def test_each_is_late_at_its_own_time():
    """Whoever began later ends later, by the one timer that began with the first."""
    limit, ends = TimeLimit(2 * BRIEF), []

    async def wait(name: str, before: float) -> None:
        await asyncio.sleep(before)
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError), limit:
            await for_ever()
        ends.append((name, asyncio.get_running_loop().time() - began))

    async with asyncio.timeout(SOON):
        await asyncio.gather(wait("second", BRIEF), wait("first", 0.0), wait("third", 4 * BRIEF))
    assert [name for name, _ in ends] == ["first", "second", "third"]
    assert all(took >= 2 * BRIEF - 0.002 for _, took in ends), ends


async def test_a_thousand_waits_cost_one_timer(monkeypatch):
    loop, limit, timers = asyncio.get_running_loop(), TimeLimit(SOON), []
    call_at = loop.call_at

    def noted(*given: Any) -> asyncio.TimerHandle:
        timers.append(given)
        return call_at(*given)

    monkeypatch.setattr(loop, "call_at", noted)
    for _ in range(1_000):
        with limit:
            pass
    assert len(timers) == 1
    limit.close()


async def test_what_was_in_time_is_as_if_there_were_no_limit():
    limit = TimeLimit(SOON)
    with limit:
        await asyncio.sleep(0)
    with pytest.raises(KeyError), limit:
        raise KeyError
    limit.close()


async def test_who_is_cancelled_by_somebody_else_is_cancelled():
    """In time, and at the very moment at which it is late, too."""
    limit = TimeLimit(BRIEF)

    async def wait() -> None:
        with limit:
            await for_ever()

    early = asyncio.create_task(wait())
    await asyncio.sleep(0)
    early.cancel()
    with pytest.raises(asyncio.CancelledError):
        await early

    both = asyncio.create_task(wait())
    await asyncio.sleep(0)
    while not both.cancelling():  # noqa: ASYNC110 - a turn at a time is what is wanted
        await asyncio.sleep(0)
    both.cancel()  # it has been told that it is late, and has not run since
    with pytest.raises(asyncio.CancelledError):
        await both


async def test_who_was_cancelled_before_has_the_limit_all_the_same():
    """What is waited for while a cancelled task tidies up ends by its own limit."""
    limit, ended = TimeLimit(BRIEF), []

    async def tidies() -> None:
        try:
            await for_ever()
        except asyncio.CancelledError:
            with pytest.raises(TimeoutError), limit:
                await for_ever()
            ended.append(True)
            raise

    task = asyncio.create_task(tidies())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(SOON):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended == [True]


async def test_who_ends_well_after_all_has_ended_well():
    """As with a timeout of its own; who takes long to end does not keep the next from ending in time."""
    limit, tidied = TimeLimit(BRIEF), asyncio.Event()

    async def slow() -> str:
        with limit:
            try:
                await for_ever()
            except asyncio.CancelledError:
                await tidied.wait()
        return "well"

    async with asyncio.timeout(SOON):
        task = asyncio.create_task(slow())
        await asyncio.sleep(2 * BRIEF)
        with pytest.raises(TimeoutError), limit:
            await for_ever()
        tidied.set()
        assert await task == "well"
    assert task.cancelling() == 0


async def test_one_that_is_nested_in_itself_is_a_mistake():
    limit = TimeLimit(SOON)
    with limit, pytest.raises(RuntimeError, match="once"), limit:
        pass
    limit.close()


async def test_what_waits_for_nothing_is_not_timed(monkeypatch):
    """Nearly all that is kept to a limit; a timer is for the others."""
    loop, limit = asyncio.get_running_loop(), TimeLimit(SOON)
    monkeypatch.setattr(loop, "call_at", pytest.fail)

    async def at_once() -> str:
        return "done"

    async def in_vain() -> str:
        raise KeyError("in vain")

    assert await limit.keep(at_once()) == "done"
    with pytest.raises(KeyError, match="in vain"):
        await limit.keep(in_vain())
    limit.close()


async def test_what_is_kept_goes_on_as_if_it_was_awaited():
    """Its results, what is raised into it, and its own end."""
    limit, seen = TimeLimit(SOON), []
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        await asyncio.sleep(0)
        seen.append(await asyncio.sleep(0.001, "slept"))
        try:
            await refused
        except KeyError as error:
            seen.append(str(error))
        return "done"

    asyncio.get_running_loop().call_later(0.01, refused.set_exception, KeyError("no"))
    assert await limit.keep(work()) == "done"
    assert seen == ["slept", "'no'"]
    limit.close()


async def test_what_is_kept_and_late_is_told_so():
    limit, tidied = TimeLimit(BRIEF), []

    async def work() -> None:
        try:
            await for_ever()
        finally:
            tidied.append(True)

    with pytest.raises(TimeoutError):
        await limit.keep(work())
    assert tidied
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    limit.close()


async def test_who_is_cancelled_while_he_keeps_is_cancelled():
    limit, tidied = TimeLimit(SOON), []

    async def work() -> None:
        try:
            await for_ever()
        finally:
            tidied.append(True)

    async def kept() -> None:
        await limit.keep(work())

    task = asyncio.create_task(kept())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tidied
    limit.close()
