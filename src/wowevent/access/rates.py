"""How fast somebody may go on: events and requests a second, counted for each identity in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

from wowevent.access.rights import Identity
from wowevent.errors import RateLimited
from wowevent.retry import parse_rate

_AHEAD: Final = 1.0  # seconds whose share may be used at once
_GRAIN: Final = 1e-6  # seconds: a rounding error is not waited for
_MOST: Final = 10_000  # identities that are remembered; who was quiet for longest is forgotten


class Rates:
    """What each identity has used lately. Time is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paid: dict[tuple[str, str], float] = {}
        """Until when what was used is paid for: below now that is credit, above it a debt."""

    def spend(self, identity: Identity | None, what: Literal["events", "requests"], count: int = 1) -> None:
        """Use so much of a rate; RateLimited, with nothing used, for who has no credit for one.

        A second's share is there at once, and a call may go beyond it into debt: a batch is never too large to pass.
        """
        limit = None if identity is None else getattr(identity.limits, what)
        if identity is None or limit is None:
            return
        each, now, key = 1 / parse_rate(limit), self._clock(), (identity.name, what)
        paid = max(self._paid.pop(key, 0.0), now - max(_AHEAD, each))
        wait = paid + each - now
        if wait > _GRAIN:
            self._paid[key] = paid
            raise RateLimited(f"{identity.name} may have {limit} {what}", wait)
        self._paid[key] = paid + count * each
        if len(self._paid) > _MOST:
            del self._paid[next(iter(self._paid))]
