"""What a consumer holds, and which of it comes next. No I/O.

`Lanes` for most: ten priorities, first in first out within one. `Chains` for `order_by`: one event of a key at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

from wowevent.broker import URGENT, URGENT_RUN, Lease
from wowevent.event import Event


class Lanes:
    """Ten levels; urgent ones first, and one other after every eight urgent ones."""

    def __init__(self) -> None:
        self._levels: tuple[deque[Lease], ...] = tuple(deque() for _ in range(11))
        self._normal = self._levels[5]
        self._count = 0
        self._run = 0

    def __len__(self) -> int:
        return self._count

    def push(self, lease: Lease) -> None:
        """Take one in."""
        self._levels[lease.event.priority].append(lease)
        self._count += 1

    def pop(self) -> Lease | None:
        """The next to handle; None if there is none."""
        if not self._count:
            return None
        self._count -= 1
        if len(self._normal) > self._count:  # the common case: all are of one level
            self._run = 0
            return self._normal.popleft()
        levels = range(10, 0, -1) if self._run < URGENT_RUN else (6, 5, 4, 3, 2, 1, 10, 9, 8, 7)
        for level in levels:
            if self._levels[level]:
                self._run = self._run + 1 if level >= URGENT else 0
                return self._levels[level].popleft()
        raise AssertionError  # pragma: no cover - the count says that there is one

    def done(self, lease: Lease) -> None:
        """It was settled; here that frees nothing."""

    def clear(self) -> list[Lease]:
        """Everything that was not popped."""
        held = [lease for level in self._levels for lease in level]
        for level in self._levels:
            level.clear()
        self._count = 0
        return held

    clear_idle = clear


class Chains:
    """One chain a key, in the order of the log; keys side by side, one event of a key at a time."""

    def __init__(self, key: Callable[[Event], Hashable]) -> None:
        """`key` says which events must stay in order among themselves."""
        self._key = key
        self._chains: dict[Hashable, deque[Lease]] = {}
        self._free: deque[Hashable] = deque()  # keys whose next event may be popped
        self._working: set[Hashable] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, lease: Lease) -> None:
        """Take one in, behind those of its key."""
        key = self._key(lease.event)
        chain = self._chains.get(key)
        if chain is None:
            self._chains[key] = deque((lease,))
            self._free.append(key)
        else:
            chain.append(lease)
        self._count += 1

    def pop(self) -> Lease | None:
        """The next whose key is free; its key is not free until `done` or `free`. None if there is none."""
        if not self._free:
            return None
        key = self._free.popleft()
        self._working.add(key)
        self._count -= 1
        return self._chains[key].popleft()

    def done(self, lease: Lease) -> None:
        """It was settled: its key goes on."""
        key = self._key(lease.event)
        self._working.discard(key)
        if self._chains[key]:
            self._free.append(key)
        else:
            del self._chains[key]

    def push_back(self, lease: Lease) -> None:
        """It will be tried again before the others of its key, which stay where they are until `free`."""
        key = self._key(lease.event)
        self._working.discard(key)
        self._chains[key].appendleft(lease)
        self._count += 1

    def free(self, lease: Lease) -> None:
        """The wait of one that was pushed back is over."""
        key = self._key(lease.event)
        chain = self._chains.get(key)
        if chain and chain[0] is lease:
            self._free.append(key)

    def clear_idle(self) -> list[Lease]:
        """Everything whose key is not in work: what waits behind one that is may have to follow it."""
        held = [lease for key, chain in self._chains.items() if key not in self._working for lease in chain]
        self._chains = {key: chain for key, chain in self._chains.items() if key in self._working}
        self._free.clear()
        self._count -= len(held)
        return held

    def clear(self) -> list[Lease]:
        """Everything that was not popped; keys in work stay in work."""
        held = [lease for chain in self._chains.values() for lease in chain]
        self._chains = {key: deque() for key in self._working}
        self._free.clear()
        self._count = 0
        return held
