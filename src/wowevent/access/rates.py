"""How fast somebody may go on: events and requests a second, counted for each identity in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

from wowevent.access.rights import Identity
from wowevent.errors import RateLimited
from wowevent.retry import parse_rate

_AHEAD: Final = 1.0  # seconds whose share may be used at once
_MOST: Final = 10_000  # identities that are remembered; who was quiet for longest is forgotten


class Rates:
    """What each identity has used lately. Time is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paid: dict[tuple[str, str], float] = {}
        """Until when what was used is paid for: above now it is a debt, and who has one waits."""

    def spend(self, identity: Identity | None, what: Literal["events", "requests"], count: int = 1) -> None:
        """Use so much of a rate; RateLimited, with nothing used, for who is in debt.

        A second's share is there at once, and the last call may go beyond it: a batch is never too large to pass.
        """
        limit = None if identity is None else getattr(identity.limits, what)
        if identity is None or limit is None:
            return
        rate, now, key = parse_rate(limit), self._clock(), (identity.name, what)
        paid = max(self._paid.pop(key, 0.0), now - max(_AHEAD, 1 / rate))
        wait = paid - now
        if wait >= 0:
            self._paid[key] = paid
            raise RateLimited(f"{identity.name} may have {limit} {what}", max(wait, 1 / rate))
        self._paid[key] = paid + count / rate
        if len(self._paid) > _MOST:
            del self._paid[next(iter(self._paid))]
