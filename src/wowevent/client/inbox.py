"""Events that wait for a handler: ten levels, bounded; and which of them were seen before. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from wowevent.broker import Lease
from wowevent.hand import Lanes

CAPACITY: Final = 10_000
"""Events of one subscription that may wait."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes of their payloads."""
_REMEMBERED: Final = 2 * CAPACITY


class Inbox:
    """Urgent events first, one other after every eight urgent ones; first in, first out within a level."""

    def __init__(self, capacity: int = CAPACITY, max_bytes: int = MAX_BYTES) -> None:
        self.bytes: int = 0
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._lanes = Lanes()

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def full(self) -> bool:
        """No more should come."""
        return len(self._lanes) >= self._capacity or self.bytes >= self._max_bytes

    @property
    def half_empty(self) -> bool:
        """More may come again."""
        return 2 * len(self._lanes) <= self._capacity and 2 * self.bytes <= self._max_bytes

    def put(self, lease: Lease) -> None:
        """Take one in."""
        self._lanes.push(lease)
        self.bytes += _size(lease)

    def pop(self) -> Lease | None:
        """The next to handle; None if there is none."""
        lease = self._lanes.pop()
        if lease is not None:
            self.bytes -= _size(lease)
        return lease

    def clear(self) -> list[Lease]:
        """Forget all of them; what was there."""
        self.bytes = 0
        return self._lanes.clear()


def _size(lease: Lease) -> int:
    return memoryview(lease.event.body).nbytes


class Seen:
    """The last events that one callback got, over all of its anonymous subscriptions."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self.subscriptions: int = 0
        """How many share it."""
        self._remembered = remembered
        self._keys: OrderedDict[str, None] = OrderedDict()

    def leave(self) -> None:
        """One subscription less; a single one has nothing to compare with."""
        self.subscriptions -= 1
        if self.subscriptions < 2:
            self._keys.clear()

    def add(self, key: str) -> bool:
        """Remember one; False if it was seen before."""
        if self.subscriptions < 2:
            return True
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > self._remembered:
            self._keys.popitem(last=False)
        return True
