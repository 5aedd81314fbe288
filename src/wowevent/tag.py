"""What a copy of an event says of itself, for engines that keep counts with their copies; pure."""

from __future__ import annotations

from typing import Final

from msgspec import Struct, structs

from wowevent.broker import Attempt, Bury, DeadLetter
from wowevent.errors import printable
from wowevent.event import Event
from wowevent.reading import reason_of

ENDED: Final = "the lease ended unsettled"
"""The error of an attempt that was a crash."""


class Tag(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Where an event comes from, and what became of it in one subscription."""

    at: float
    """When it was published, Unix seconds by its publisher's clock."""
    place: int = 0
    """Where it is in the log, for an engine whose copies do not lie there."""
    seen: int = -1
    """How far its publisher had read what all must know: which declarations it was routed by."""
    copy: str = ""
    """Which copy this is; the original has none."""
    failures: int = 0
    crashes: int = 0
    attempts: tuple[Attempt, ...] = ()
    redelivered: bool = False
    due: float = 0.0
    """When what is delayed is to leave, Unix seconds."""
    target: str = ""
    """Where it goes then; empty: it is published."""
    leaving: bool = False
    """It leaves now, and cannot be taken back."""
    letter: str = ""
    """A dead letter's id,"""
    reason: str = ""
    error: str = ""
    traceback: str = ""
    buried: float = 0.0
    """and the rest of it."""

    def failed(self, now: float, error: str) -> Tag:
        """One attempt more, which failed."""
        return self._tried(now, error, failures=self.failures + 1)

    def crashed(self, now: float, times: int = 1) -> Tag:
        """Leases that ended unsettled."""
        tag = self
        for _ in range(times):
            tag = tag._tried(now, ENDED, crashes=tag.crashes + 1)
        return tag

    def buried_by(self, bury: Bury, now: float) -> Tag:
        """That of a dead letter, which says what the last attempt died of unless the order does."""
        tag = self if bury.error is None else self.failed(now, bury.error)
        error = bury.error if bury.error is not None else (tag.attempts[-1].error if tag.attempts else "")
        return structs.replace(
            tag, reason=bury.reason.value, error=printable(error), traceback=printable(bury.traceback), buried=now
        )

    def letter_of(self, id: str, event: Event, subscription: str) -> DeadLetter:
        """The dead letter that a copy with this tag is."""
        return DeadLetter(
            id=id,
            event=event,
            subscription=subscription,
            reason=reason_of(self.reason),
            error=self.error,
            traceback=self.traceback,
            attempts=self.attempts,
            time=self.buried,
        )

    def _tried(self, now: float, error: str, **counts: int) -> Tag:
        number = self.failures + self.crashes + 1
        attempt = Attempt(number, now, printable(error))
        return structs.replace(self, attempts=(*self.attempts, attempt), **counts)
