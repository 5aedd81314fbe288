"""What this process delivered of late: which event to which subscription, when, and how that ended.

Bounded, and compact: ids and numbers, no payloads. What it delivered before that, and what processes that are gone
delivered, nobody knows any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal

from msgspec import Struct

MOST: Final = 10_000
"""Deliveries that a process remembers, and as many events of batches."""

_SHOWN: Final = 1_000  # characters of an error

Ending = Literal["acked", "retried", "dead", "dropped"]
"""Handled; to come again; a dead letter by now; failed for good where no dead letters are kept."""

_What = tuple[tuple[str, str], float, float, int, Ending, str | None]
Entry = tuple[str, tuple[str, str], float, float, int, Ending, str | None]
"""The event's id; subscription and agent; when it ended (Unix seconds), after how many seconds; attempt, ending, error.

Flat, since one tuple costs half of two.
"""


class Delivered(Struct, frozen=True):
    """One delivery of one event to one subscription, as the process knows it that made it."""

    subscription: str
    """Its id."""
    agent: str | None
    """The subscriber, if it has a name."""
    at: float
    """When the event was handed over, Unix seconds by the clock of that process."""
    seconds: float
    """How long the handler, or the client of a router, took."""
    attempt: int
    """1 for the first."""
    outcome: Ending
    error: str | None
    """What the handler raised, or the client said."""
    process: str
    """The id of the process, as that of `ProcessInfo`."""


class Trail:
    """The last deliveries of one process, and the last of those that came in batches."""

    def __init__(self, time: Callable[[], float], most: int = MOST) -> None:
        """`time()` is in Unix seconds."""
        self.time: Callable[[], float] = time
        self._most = most
        self._entries: deque[Entry] = deque(maxlen=most)
        self._batches: deque[tuple[Sequence[str], _What]] = deque()
        self._batched = 0  # events of all these
        self.keep: Callable[[Entry], None] = self._entries.append
        """Remember one. This is called for every delivery, and made for speed."""

    def keep_batch(self, event_ids: Sequence[str], who: tuple[str, str], seconds: float) -> None:
        """Remember one call with several events, which succeeded; the oldest batches give way."""
        self._batches.append((event_ids, (who, self.time(), seconds, 1, "acked", None)))
        self._batched += len(event_ids)
        while self._batched > self._most:
            self._batched -= len(self._batches.popleft()[0])

    def of(self, event_id: str, process: str) -> list[Delivered]:
        """What is known of one event, by when it ended."""
        found: list[_What] = [what for ids, what in self._batches if event_id in ids]
        found += [entry[1:] for entry in self._entries if entry[0] == event_id]
        return [_delivered(what, process) for what in sorted(found, key=_ended)]


def _ended(what: _What) -> float:
    return what[1]


def _delivered(what: _What, process: str) -> Delivered:
    (subscription, agent), ended, seconds, attempt, outcome, error = what
    return Delivered(subscription, agent or None, ended - seconds, seconds, attempt, outcome, error, process)


def short(error: str) -> str | None:
    """An error as it is remembered."""
    return error[:_SHOWN] or None
