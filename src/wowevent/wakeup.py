"""Waiting for news within one event loop: no lock, no state, nothing to forget to clear."""

from __future__ import annotations

import asyncio


class Wakeup:
    """Tasks wait for the next `notify`; check the condition before: a notification that nobody awaits is gone."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return at the next notification."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        try:
            await future
        finally:
            if future in self.waiting:
                self.waiting.remove(future)

    def notify(self, count: int | None = None) -> None:
        """Wake up to `count` waiting tasks, those that waited longest first; all by default."""
        while self.waiting and count != 0:
            future = self.waiting.pop(0)
            if not future.done():
                future.set_result(None)
                count = None if count is None else count - 1
