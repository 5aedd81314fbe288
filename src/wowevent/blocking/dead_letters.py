"""`bus.dead_letters` of the blocking bus: as the async bus has it, in blocking calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from wowevent.blocking.schedules import Ask
from wowevent.broker import DeadLetter
from wowevent.dead_letter import Correction, LetterCount
from wowevent.fingerprint import LetterGroups


class DeadLetters:
    """The dead letters of every queue and subscription. Filters are those of the async bus; `subscription` is a queue.

    Each call takes as long as an engine may, at most: then it raises BrokerUnavailable, and goes on.
    """

    def __init__(self, ask: Ask) -> None:
        """Nothing is asked before the first call."""
        self._ask = ask

    def list(self, **filters: Any) -> Sequence[DeadLetter]:
        """Those that fit every given filter, oldest first; `limit` of them, 100 unless it is given."""
        return self._ask(lambda bus: bus.dead_letters.list(**filters))

    def groups(self, *, limit: int = 100, **filters: Any) -> LetterGroups:
        """What those that fit died of: a group for each error, the largest first."""
        return self._ask(lambda bus: bus.dead_letters.groups(limit=limit, **filters))

    def count(self, ids: Iterable[str] | str | None = None, **filters: Any) -> LetterCount:
        """How many `redeliver` or `discard` would find of the same ids or filters; of neither, all."""
        return self._ask(lambda bus: bus.dead_letters.count(ids, **filters))

    def redeliver(self, ids: Iterable[str] | str | None = None, **filters: Any) -> int:
        """Hand letters to their queues again, with fresh attempts; returns how many. Without ids or filters, none."""
        return self._ask(lambda bus: bus.dead_letters.redeliver(ids, **filters))

    def discard(self, ids: Iterable[str] | str | None = None, **filters: Any) -> int:
        """Forget letters, named as in `redeliver`; returns how many."""
        return self._ask(lambda bus: bus.dead_letters.discard(ids, **filters))

    def resend(self, id: str, payload: Any, *, reason: str = "", by: str = "") -> Correction:
        """Send the event of a letter again with another payload, to the letter's queue alone; the letter goes.

        Raises DeadLetterNotFound, InvalidEvent, SubscriptionConflict, and what `publish` raises on the async bus.
        """
        return self._ask(lambda bus: bus.dead_letters.resend(id, payload, reason=reason, by=by))
