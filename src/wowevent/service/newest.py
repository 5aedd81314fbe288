"""Of what comes faster than it is wanted, the newest: so many a second at most, and how many were left out. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from wowevent.broker import Stored

SPAN: Final = 1.0
"""Seconds in which there are so many at most."""


class Newest:
    """What was put and not taken yet; it is told of `now`, in seconds that only grow."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: deque[Stored] = deque(maxlen=most)
        self._skipped = 0
        self._taken = 0  # in the span that runs
        self._over = float("-inf")  # when that is over

    def __len__(self) -> int:
        return len(self._held)

    def put(self, stored: Stored) -> None:
        """One more; the oldest gives way."""
        self._skipped += len(self._held) == self._most
        self._held.append(stored)

    def wait(self, now: float) -> float:
        """Seconds until something may be taken, where there is something."""
        return max(0.0, self._over - now) if self._taken >= self._most else 0.0

    def take(self, now: float) -> tuple[int, list[Stored]]:
        """How many were left out since the last time, and what may be taken, in its order."""
        if now >= self._over:
            self._over, self._taken = now + SPAN, 0
        taken = [self._held.popleft() for _ in range(min(len(self._held), self._most - self._taken))]
        self._taken += len(taken)
        skipped, self._skipped = (self._skipped, 0) if taken else (0, self._skipped)
        return skipped, taken
