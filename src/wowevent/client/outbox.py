"""Events that the router has not confirmed, in the order of their publishing: bounded. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from msgspec import Raw, Struct

from wowevent.codec import encode as encode_event
from wowevent.errors import OutboxFull
from wowevent.event import Event
from wowevent.router.wire import Publish, encode


class Entry(Struct):
    """One event on its way."""

    ref: int
    event_id: str
    data: bytes
    """The frame, as it is sent each time."""
    waiter: asyncio.Future[bool] | None = None
    """Who wants to know: True is confirmed, False is that the connection ended before."""

    def tell(self, confirmed: bool) -> None:
        """Answer who waits, if somebody does."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(confirmed)

    def fail(self, error: BaseException) -> bool:
        """Raise at who waits; False if nobody does."""
        if self.waiter is None or self.waiter.done():
            return False
        self.waiter.set_exception(error)
        return True


class Outbox:
    """First in, first out; an entry leaves when the router has answered for it."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.bytes: int = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: dict[int, Entry] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """All of them, the oldest first; they may leave meanwhile."""
        return iter(list(self._entries.values()))

    def write(self, event: Event) -> Entry:
        """The entry of an event, not taken in yet."""
        self._count += 1
        data = encode(Publish(ref=self._count, event=Raw(encode_event(event))))
        return Entry(self._count, event.event_id, data)

    def has_room(self, entry: Entry) -> bool:
        """Whether it can be put in now."""
        return len(self._entries) < self._max_events and self.bytes + len(entry.data) <= self._max_bytes

    def fits(self, entry: Entry) -> bool:
        """Whether it can be put in once the others are gone."""
        return len(entry.data) <= self._max_bytes

    def put(self, entry: Entry) -> None:
        """Take it in, behind the others; OutboxFull if there is no room."""
        if not self.has_room(entry):
            raise self.full()
        self._entries[entry.ref] = entry
        self.bytes += len(entry.data)

    def full(self) -> OutboxFull:
        """The error that says so."""
        return OutboxFull(
            f"{len(self)} events of {self.bytes} bytes wait for the router; "
            f"{self._max_events} events and {self._max_bytes} bytes are the most"
        )

    def get(self, ref: object) -> Entry | None:
        """The entry of this ref."""
        return self._entries.get(ref) if isinstance(ref, int) else None

    def drop(self, entry: Entry) -> None:
        """It is through, one way or the other."""
        if self._entries.pop(entry.ref, None) is not None:
            self.bytes -= len(entry.data)
