"""How tasks end that run beside what their maker does."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from wowevent.ending import end, finished, seen


async def wait_for_ever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        ended.append("ended")


async def test_end_returns_once_they_are_over():
    ended: list[str] = []
    tasks = [asyncio.create_task(wait_for_ever(ended)) for _ in range(3)]
    await asyncio.sleep(0)
    await end(*tasks, None)
    assert ended == ["ended"] * 3
    await end(*tasks)  # what is over already is no trouble,
    await end(None)  # and neither is nothing


async def test_what_they_raise_at_their_end_is_nobodys():
    async def fail() -> None:
        raise OSError

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await end(task)


async def test_finished_returns_what_is_through_to_all_who_wait():
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    task = asyncio.create_task(work())
    await asyncio.gather(finished(task), finished(task))
    assert done == [1]


async def test_who_has_no_more_time_leaves_nothing_behind():
    ended: list[str] = []
    task = asyncio.create_task(wait_for_ever(ended))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await finished(task)
    assert task.cancelled()
    assert ended == ["ended"]


async def test_an_error_that_nobody_waits_for_is_not_complained_of():
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

    async def fail() -> None:
        raise OSError

    task = asyncio.create_task(fail())
    task.add_done_callback(seen)
    await asyncio.wait([task])
    del task
    gc.collect()
    assert complaints == []
