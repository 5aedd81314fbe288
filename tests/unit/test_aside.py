"""A call that may block for ever, beside the loop."""

import asyncio
import threading

import pytest

from wowevent.aside import aside


async def test_what_it_returns_and_what_it_raises() -> None:
    assert await aside(lambda: threading.current_thread() is not threading.main_thread())
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 / 0)


async def test_one_that_blocks_holds_up_nobody() -> None:
    free = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await aside(free.wait)
    assert await aside(lambda: 2) == 2
    free.set()


def test_one_that_outlives_the_loop_tells_nobody() -> None:
    free = threading.Event()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await aside(free.wait)

    asyncio.run(leave())
    (left,) = [thread for thread in threading.enumerate() if thread.name == "wowevent:aside"]
    assert left.daemon  # the process's end does not wait for it
    free.set()
    left.join(5)
    assert not left.is_alive()
