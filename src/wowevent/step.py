"""A step that is carried out to its end, also when whoever takes it is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def whole(step: Awaitable[None]) -> None:
    """Carry it out, and only then heed a cancellation: so what was counted is exactly what was done."""
    task = asyncio.ensure_future(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
