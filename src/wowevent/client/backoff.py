"""How long to wait before connecting again. Pure."""

from __future__ import annotations


class Backoff:
    """The waits grow from `interval` by the factor `decay` up to `maximum` seconds; each is a random part of that.

    The randomness spreads the clients of a router that was started anew. A connection that lasted for `interval` puts
    an end to the growth; one that broke at once does not.
    """

    def __init__(self, interval: float, maximum: float, decay: float) -> None:
        self._interval = interval
        self._maximum = max(interval, maximum)
        self._decay = decay
        self._ceiling = interval

    def pause(self, chance: float) -> float:
        """Seconds to wait now; `chance` from 0 to 1 is which part of the ceiling. The next ceiling is higher."""
        ceiling = self._ceiling
        self._ceiling = min(self._ceiling * self._decay, self._maximum)
        return ceiling * chance

    def lasted(self, seconds: float) -> None:
        """A connection ended after so many seconds."""
        if seconds >= self._interval:
            self._ceiling = self._interval
