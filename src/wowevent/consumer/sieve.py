"""What of a subscription's events a pause holds, though others come. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wowevent.broker import Lease, Retry
from wowevent.holds import Holds

_FIRST: Final = 16  # events of the first larger fetch where all are held


class Sieve:
    """Lets through what no pause holds."""

    def __init__(self, holds: Holds, most: int) -> None:
        """A backlog that is held is sifted in pieces that grow up to `most` events."""
        self._holds = holds
        self._most = most
        self._piece = 0

    @property
    def active(self) -> bool:
        """Whether single events are held at all: asked before each event is looked at."""
        return self._holds.active

    @property
    def beside(self) -> int:
        """How many events to fetch beside the window, since all that came last was held."""
        return self._piece if self._holds.active else 0

    def holding(self, lease: Lease) -> Retry | None:
        """When to look at it again, if it is held."""
        pause = self._holds.holding(lease.event)
        return None if pause is None else Retry(lease.token, self._holds.again(pause), charge=False)

    def sift(self, leases: Sequence[Lease]) -> tuple[list[tuple[Lease, Retry]], list[Lease]]:
        """Those that are held, with when to look at them again; and the others."""
        held: list[tuple[Lease, Retry]] = []
        free: list[Lease] = []
        for lease in leases:
            retry = self.holding(lease)
            if retry is None:
                free.append(lease)
            else:
                held.append((lease, retry))
        self._piece = 0 if free else min(max(_FIRST, 2 * self._piece), self._most)
        return held, free
