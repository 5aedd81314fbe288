"""How many events a consumer holds. No I/O.

What its handlers need for about a tenth of a second: so slow handlers do not hoard what other members of the group
could do, and fast ones never wait for the engine.
"""

from __future__ import annotations

from typing import Final

from wowevent.consumer.options import Options

_HOLD: Final = 0.1  # seconds of work to hold


class Window:
    """Learns from how long handlers take."""

    def __init__(self, options: Options) -> None:
        self._ordered = options.order_by is not None
        self._concurrency = options.concurrency
        self._rate = options.rate
        self._least = max(options.concurrency, 2 * (options.batch or 0))
        self.most: int = max(options.prefetch, self._least)
        """It never has more."""
        self.size: int = self.most if self._ordered else self._least
        """So many are held at most, those that are being handled among them."""
        self._plenty = _HOLD * options.concurrency / self.most  # seconds: below, it is at its largest
        self._average = 0.0

    def room(self, held: int, *, idle: bool) -> int:
        """How many more to lease where so many are held: asked for once half of it is free, or nothing waits."""
        room = self.size - held
        return room if 2 * room >= self.size or idle else 0

    def adapt(self, seconds: float, count: int) -> None:
        """So many events took a handler so long; it grows by doubling only."""
        took = seconds / count
        self._average = 0.8 * self._average + 0.2 * took if self._average else took
        if self._ordered:
            return  # a key that waits must not keep the others from coming
        if self.size == self.most and self._average < self._plenty and self._rate is None:
            return
        want = int(_HOLD * self._concurrency / (self._average + 1e-7))
        if self._rate is not None:
            want = min(want, int(_HOLD * self._rate))
        self.size = max(self._least, min(want, 2 * self.size, self.most))
