"""TestBus: the bus on the memory engine with a clock that a test moves; and pytest fixtures.

async with TestBus() as bus:
    await bus.subscribe("task.*", handler, "worker", retry=RetryPolicy(initial=60))
    await bus.publish(event)
    await bus.advance(60)          # the retry is due, and handled when this returns
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any

from wowevent.bus import EventBus
from wowevent.clock import Timer

_TURNS = 50


class _Due:
    """One call that a manual clock owes."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """Stands still until it is advanced."""

    def __init__(self, start: float | None = None) -> None:
        """`start` in Unix seconds, now by default."""
        self._start = self._wall = time.time() if start is None else start
        self._passed = 0.0
        self._due: list[tuple[float, int, _Due]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        """Unix seconds."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds since this clock was made, by its own measure."""
        return self._passed

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback()` when the clock has been advanced by `seconds`."""
        due = _Due(callback)
        heapq.heappush(self._due, (self._passed + seconds, next(self._numbers), due))
        return due

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been advanced by `seconds`."""
        passed = asyncio.Event()
        timer = self.call_later(seconds, passed.set)
        try:
            await passed.wait()
        finally:
            timer.cancel()

    def jump(self, seconds: float) -> None:
        """Set the wall clock, as an operator would; no time passes."""
        self._wall += seconds

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: everything that falls due happens at its moment, and has its consequences."""
        until = self._passed + seconds
        await settle()
        while self._due and self._due[0][0] <= until:
            at, _, due = heapq.heappop(self._due)
            self._move(at)
            if due.callback is not None:
                due.callback()
                await settle()
        self._move(until)
        await settle()

    def _move(self, at: float) -> None:
        passed = max(0.0, at - self._passed)
        self._passed += passed
        self._wall += passed


async def settle() -> None:
    """Let every task run until it waits for something that does not come by itself."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class TestBus(EventBus):
    """The bus on memory with a clock of its own. Real time passes only while handlers run."""

    __test__ = False  # a helper, not a test, to pytest

    def __init__(self, **settings: Any) -> None:
        """Takes what EventBus takes, but for a URL."""
        self.clock: ManualClock = ManualClock()
        super().__init__("memory://", clock=self.clock, **settings)

    async def advance(self, seconds: float = 0.0) -> None:
        """Let `seconds` pass."""
        await self.clock.advance(seconds)
