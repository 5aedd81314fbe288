"""Time as an argument: whoever waits or stamps is given a clock, so that a test can move it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Do not make it."""
        ...


class Clock(Protocol):
    """Wall time, monotonic time, and the two ways to wait for them."""

    def time(self) -> float:
        """Unix seconds; may jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, comparable between the processes of one boot of one machine."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback()` on the running loop once `seconds` have passed."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed."""
        ...


class SystemClock:
    """The machine's own clocks."""

    # The functions themselves: a clock is asked several times an event.
    monotonic: staticmethod[[], float] = staticmethod(time.monotonic)
    """Seconds that only grow, comparable between the processes of one boot of one machine."""
    time: staticmethod[[], float] = staticmethod(time.time)
    """Unix seconds; may jump when the machine's clock is set."""

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback()` on the running loop once `seconds` have passed."""
        return asyncio.get_running_loop().call_later(seconds, callback)
