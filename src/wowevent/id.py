"""The ids that are made here: UUIDs of version 7, which grow with time."""

from __future__ import annotations

import os
import re
from threading import RLock
from time import time_ns
from typing import Final


class _Ids:
    """UUIDv7 (RFC 9562, method 1): 48 bits of milliseconds, 12 bits of counter, 62 random bits; from any thread."""

    def __init__(self) -> None:
        self._ms = self._counter = 0
        self._prefix = ""
        self.start()

    def start(self) -> None:
        """Begin anew in a forked child, which must not repeat its parent's ids."""
        self._lock = RLock()  # a signal's handler may make an event while one is being made
        self._tails: list[str] = []

    def new(self) -> str:
        """A time-ordered id (UUID version 7), increasing within the process."""
        with self._lock:
            now = time_ns() // 1_000_000
            if now > self._ms or self._counter == 0xFFF:
                self._ms = ms = max(now, self._ms + 1)
                self._counter = 0
                self._prefix = f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7"
            else:  # the same millisecond, or a clock set back: go on counting
                self._counter += 1
            if not self._tails:
                self._tails = _tails()
            return f"{self._prefix}{self._counter:03x}-{self._tails.pop()}"


def made_at(id: str) -> float | None:
    """When an id was made, in Unix seconds of its maker's clock, if it is one that says so: a UUID of version 7."""
    if _SAYS_WHEN.fullmatch(id) is None:
        return None
    return int(id[:8] + id[9:13], 16) / 1000


_SAYS_WHEN: Final = re.compile(r"(?ai)[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_POOL: Final = 512
_RANDOM_BITS: Final = int("3fffffffffffffff" * _POOL, 16)
_VARIANT_BITS: Final = int("8000000000000000" * _POOL, 16)


def _tails() -> list[str]:
    """The second halves of many ids: two bits of variant and 62 random ones, as text."""
    pool = int.from_bytes(os.urandom(8 * _POOL)) & _RANDOM_BITS | _VARIANT_BITS
    octets = pool.to_bytes(8 * _POOL)
    return [octets[at : at + 8].hex("-", 6) for at in range(0, 8 * _POOL, 8)]


_ids: Final = _Ids()
new_id: Final = _ids.new
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(after_in_child=_ids.start)
