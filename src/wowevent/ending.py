"""How tasks end that run beside what their maker does."""

from __future__ import annotations

import asyncio
from typing import Any


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel those that there are, and return once they are over; what they raised is nobody's any more."""
    there = [task for task in tasks if task is not None]
    for task in there:
        task.cancel()
    await asyncio.gather(*there, return_exceptions=True)


async def finished(task: asyncio.Task[None]) -> None:
    """Return once it is through. Whoever is cancelled has no more time: it waits for nothing, but leaves nothing."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await end(task)
        raise


def seen(future: asyncio.Future[Any]) -> None:
    """To be called when it is done: whoever waited for it may be gone, and then its error is nobody's."""
    if not future.cancelled():
        future.exception()
