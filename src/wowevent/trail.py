"""What this process delivered of late: which event to which subscription, when, and how that ended.

Bounded, and compact: ids and numbers, no payloads. What it delivered before that, and what processes that are gone
delivered, nobody knows any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Final, Literal

from msgspec import Struct

MOST: Final = 10_000
"""Deliveries that a process remembers."""

_SHOWN: Final = 1_000  # characters of an error

Ending = Literal["acked", "retried", "dead", "dropped"]
"""Handled; to come again; a dead letter by now; failed for good where no dead letters are kept."""

What = tuple[tuple[str, str], float, float, int, Ending, str | None]
"""Subscription and agent; when it ended (Unix seconds), and how many seconds it took; attempt, ending, error."""


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
    """The last deliveries of one process."""

    def __init__(self, time: Callable[[], float], most: int = MOST) -> None:
        """`time()` is in Unix seconds."""
        self.time: Callable[[], float] = time
        self._entries: deque[tuple[str, What]] = deque(maxlen=most)
        self.keep: Callable[[tuple[str, What]], None] = self._entries.append
        """Remember one, by its event's id. This is called for every delivery, and made for speed."""

    def keep_all(self, event_ids: Iterable[str], what: What) -> None:
        """Remember those of one batch."""
        self._entries.extend(zip(event_ids, repeat(what)))

    def of(self, event_id: str, process: str) -> list[Delivered]:
        """What is known of one event, the oldest first."""
        return [_delivered(what, process) for id, what in self._entries if id == event_id]


def _delivered(what: What, process: str) -> Delivered:
    (subscription, agent), ended, seconds, attempt, outcome, error = what
    return Delivered(subscription, agent or None, ended - seconds, seconds, attempt, outcome, error, process)


def short(error: str) -> str | None:
    """An error as it is remembered."""
    return error[:_SHOWN] or None
