"""The rate that a handler is called at."""

from __future__ import annotations

from wowevent.clock import Clock
from wowevent.wakeup import Wakeup


class Pace:
    """So many events per second at most, evenly."""

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._next = 0.0
        self._stopped = Wakeup()
        self._stopping = False

    async def wait(self) -> None:
        """Return at the next moment that the rate allows, or when it is stopped."""
        while not self._stopping and (pause := self._next - self._clock.monotonic()) > 0:
            timer = self._clock.call_later(pause, self._stopped.notify)
            try:
                await self._stopped.wait()
            finally:
                timer.cancel()

    def spend(self, count: int) -> None:
        """So many begin now."""
        self._next = max(self._next, self._clock.monotonic()) + count / self._rate

    def stop(self) -> None:
        """Nobody waits any more."""
        self._stopping = True
        self._stopped.notify()
