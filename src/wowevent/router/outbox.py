"""What waits for one client that does not read as fast as it is sent to: bounded, first in first out. No I/O.

Urgent events do not overtake here, so that the last position that a client has read is the one to go on from.
"""

from __future__ import annotations

from collections import deque

from wowevent.broker import Position


class Outbox:
    """Bytes in the order of their sending, in pieces, each of so many events up to a position."""

    __slots__ = ("_max_bytes", "_max_events", "_pieces", "bytes", "events", "taken")

    def __init__(self, max_bytes: int, max_events: int) -> None:
        self.bytes: int = 0
        self.events: int = 0
        self.taken: Position | None = None
        """The last position that was taken."""
        self._max_bytes = max_bytes
        self._max_events = max_events
        self._pieces: deque[tuple[bytes, int, Position | None]] = deque()

    def __len__(self) -> int:
        return len(self._pieces)

    def put(self, piece: bytes, events: int, position: Position | None = None) -> bool:
        """Take one in; False if there is no room: its client is too slow."""
        if self.bytes + len(piece) > self._max_bytes or self.events + events > self._max_events:
            return False
        self._pieces.append((piece, events, position))
        self.bytes += len(piece)
        self.events += events
        return True

    def take(self, most: int) -> bytes:
        """The next pieces, about `most` bytes of them, as one."""
        taken: list[bytes] = []
        size = 0
        while self._pieces and size < most:
            piece, events, position = self._pieces.popleft()
            self.taken = position or self.taken
            taken.append(piece)
            size += len(piece)
            self.events -= events
        self.bytes -= size
        return b"".join(taken)

    def clear(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self.bytes = self.events = 0
