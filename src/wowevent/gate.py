"""Lets an event that is suspected of crashing its process run with nothing else in that process.

What one process holds crashes with it, so a crash puts neighbours under suspicion too. From then on each suspect runs
alone: only the guilty one can crash again, and only it reaches the limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from wowevent.wakeup import Wakeup

GiveBack = Callable[[], Awaitable[None]]


class Gate:
    """One a bus: closed, it lets no handler start but the suspect's."""

    def __init__(self) -> None:
        self.closed: bool = False
        self.running: int = 0
        """Handlers at work, counted by the consumers."""
        self._changed = Wakeup()
        self._givers: list[GiveBack] = []

    def register(self, give_back: GiveBack) -> None:
        """`give_back()` returns what a consumer holds but has not started, and settles what it has finished."""
        self._givers.append(give_back)

    def unregister(self, give_back: GiveBack) -> None:
        """The consumer is gone."""
        with suppress(ValueError):
            self._givers.remove(give_back)

    def left(self) -> None:
        """A handler ended."""
        self.running -= 1
        if self._changed.waiting:
            self._changed.notify()

    async def opened(self) -> None:
        """Return once the gate is open."""
        while self.closed:
            await self._changed.wait()

    @asynccontextmanager
    async def alone(self, patience: float) -> AsyncIterator[bool]:
        """Run the body with nothing else in this process; it gets False if another suspect is at it.

        Handlers that already run are waited for, `patience` seconds at most, since one that runs for hours must not
        hold up everything else: it may be charged with this one's crash, and will then run alone itself.
        """
        if self.closed:
            yield False
            return
        self.closed = True
        try:
            for give_back in list(self._givers):
                await give_back()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while self.running > 0:
                        await self._changed.wait()
            yield True
        finally:
            self.closed = False
            self._changed.notify()
