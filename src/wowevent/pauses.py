"""Subscriptions that somebody has paused: a fact that all processes share, and the valves here that heed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakSet

from wowevent.breaker import Breaker
from wowevent.clock import Clock
from wowevent.directory import Directory
from wowevent.settler import Source
from wowevent.valve import Valve

_KIND: Final = "pause"


class Pauses:
    """Which subscriptions are paused, and the valves of this process."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._valves: WeakSet[Valve] = WeakSet()
        directory.watch(_KIND, self._changed)

    def valve(self, id: str, source: Source, breaker: Breaker | None = None) -> Valve:
        """That source, as long as the subscription is not paused."""
        valve = Valve(id, source, self._clock, breaker)
        valve.paused = self.paused(id)
        self._valves.add(valve)
        return valve

    def paused(self, id: str) -> bool:
        """Whether somebody has paused it."""
        return id in self._directory.facts(_KIND)

    async def pause(self, ids: Sequence[str]) -> None:
        """Pause them, wherever they are served; returns when every process that looks will see it."""
        for id in ids:
            if not self.paused(id):
                await self._directory.put(_KIND, id, {"since": self._clock.time()})

    async def resume(self, ids: Sequence[str]) -> None:
        """The opposite."""
        for id in ids:
            if self.paused(id):
                await self._directory.drop(_KIND, id)

    def _changed(self, id: str, fact: dict[str, Any] | None) -> None:
        for valve in [each for each in self._valves if each.id == id]:
            if fact is None:
                valve.resume()
            else:
                valve.pause()
