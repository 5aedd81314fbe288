"""The ends of leases, for engines whose instances see to those of their own: a timer to the first, and what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

from wowevent.clock import Clock, Timer
from wowevent.ending import end


class Expiry:
    """That of one subscription."""

    def __init__(
        self, clock: Clock, over: Callable[[], object], done: Callable[[BaseException | None], object], *, name: str
    ) -> None:
        """`over()` is called when leases may have ended: it has `begin` do what follows, and `watch` for the others.

        `done(error)` is told when something that was begun is through; `name` is that of its task.
        """
        self._clock = clock
        self._over = over
        self._done = done
        self._name = name
        self._timer: Timer | None = None
        self._at = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()

    def watch(self, ends: float) -> None:
        """A lease ends then, by the monotonic clock; infinite: it has not begun."""
        if ends == inf:
            return
        if self._timer is not None:
            if self._at <= ends:
                return
            self._timer.cancel()
        self._at = ends
        self._timer = self._clock.call_later(max(0.0, ends - self._clock.monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._over()

    def look(self) -> None:
        """Whatever has ended by now is over, though the timer may be late."""
        if self._timer is not None and self._at <= self._clock.monotonic():
            self._timer.cancel()
            self._fire()

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it beside what is done now."""
        task = asyncio.create_task(work, name=self._name)
        self._tasks.add(task)
        task.add_done_callback(self._through)

    def _through(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._done(None if task.cancelled() else task.exception())

    @property
    def due(self) -> bool:
        """Whether leases have ended by now that are not where they belong."""
        return bool(self._tasks) or (self._timer is not None and self._at <= self._clock.monotonic())

    async def flush(self) -> None:
        """Return once the leases that ended by now are where they belong."""
        self.look()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """See to nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        await end(*self._tasks)
