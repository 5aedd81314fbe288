"""Failed events in memory, each with its retries: what a dead-letter queue has that stands alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct, structs

from wowevent.broker import Reason
from wowevent.clock import Clock
from wowevent.errors import StorageFull
from wowevent.event import Event
from wowevent.retry import RetryPolicy

NEVER: Final = float("inf")
"""When one that is permanent is due."""

_Key = tuple[str, str]  # the event's id and the subscription's: a failure belongs to both
_Index = dict[str, dict[_Key, None]]  # by event id and by correlation id


class FailedEvent(Struct, frozen=True, kw_only=True):
    """One event that one subscription could not handle, as it was when it was asked for."""

    event: Event
    subscription_id: str
    subscriber_agent: str
    """Empty where it is not known."""
    failure_reason: Reason
    error_message: str
    retry_count: int
    """Retries that were made and failed too: 0 after the first failure."""
    first_failed_at: datetime
    last_failed_at: datetime
    next_retry_at: datetime | None
    """None for one that is permanent."""
    due: float
    """`next_retry_at` by the queue's monotonic clock, which nobody sets; infinite for never."""
    _clock: Clock | None = None

    @property
    def is_permanent(self) -> bool:
        """Its retries are used up, or none could help."""
        return self.next_retry_at is None

    def should_retry(self) -> bool:
        """Whether it has retries left and the next one is due now."""
        return self.due < NEVER and (self._clock is None or self._clock.monotonic() >= self.due)


class Shelf:
    """The failed events of one queue."""

    def __init__(self, policy: RetryPolicy, max_size: int, clock: Clock) -> None:
        self.retried: int = 0
        """Times that one was taken for a retry,"""
        self.returned: int = 0
        """and came back."""
        self._policy = policy
        self._max_size = max_size
        self._clock = clock
        self._failed: dict[_Key, FailedEvent] = {}
        self._named: _Index = {}
        self._given: _Index = {}  # the due ones that were given last, in their order
        self._taken: dict[_Key, tuple[int, datetime]] = {}  # being retried, the longest gone first: their counts go on

    def all(self) -> list[FailedEvent]:
        """Those that are here, the first that failed first."""
        return sorted(self._failed.values(), key=lambda failed: failed.first_failed_at)

    def add(self, event: Event, subscription: str, agent: str, reason: Reason, error: str) -> FailedEvent:
        """One more failure."""
        key = (event.event_id, subscription)
        now = datetime.fromtimestamp(self._clock.time(), UTC)
        retries, first = self._before(key) or (0, now)
        most = self._policy.max_retries if event.max_retries is None else event.max_retries
        wait = self._policy.delay(retries + 1, random.random()) if retries < most else NEVER  # noqa: S311 - jitter
        failed = self._failed[key] = FailedEvent(
            event=event,
            subscription_id=subscription,
            subscriber_agent=agent,
            failure_reason=reason,
            error_message=error,
            retry_count=retries,
            first_failed_at=first,
            last_failed_at=now,
            next_retry_at=None if wait == NEVER else now + timedelta(seconds=wait),
            due=self._clock.monotonic() + wait,
            _clock=self._clock,
        )
        _enter(self._named, failed)
        return failed

    def _before(self, key: _Key) -> tuple[int, datetime] | None:
        """The retries that this failure makes, and when the first was; None for one that is new here."""
        if (known := self._failed.get(key)) is not None:
            return known.retry_count + 1, known.first_failed_at
        if len(self._failed) >= self._max_size:
            raise StorageFull(f"{self._max_size} failed events are kept here: retry or discard some first")
        if (taken := self._taken.pop(key, None)) is None:
            return None
        self.returned += 1
        return taken[0] + 1, taken[1]

    def give(self) -> list[FailedEvent]:
        """Those that have retries left, the soonest first."""
        found = sorted((each for each in self._failed.values() if not each.is_permanent), key=lambda each: each.due)
        self._given = {}
        for failed in found:
            if failed.should_retry():
                _enter(self._given, failed)
        return found

    def retry(self, which: str | FailedEvent) -> int:
        """How many were there: see `DeadLetterQueue.retry_dead_letter`."""
        if (given := next(_keys(self._given, which), None)) is not None:
            failed = self._failed[given]
            _leave(self._given, failed)
            if failed.should_retry():
                self._take(failed)
            return 1
        keys = list(_keys(self._named, which))
        now, moment = self._clock.monotonic(), datetime.fromtimestamp(self._clock.time(), UTC)
        for key in keys:
            failed = self._failed[key]
            count = 0 if failed.is_permanent else failed.retry_count
            if not failed.should_retry():
                self._failed[key] = structs.replace(failed, retry_count=count, next_retry_at=moment, due=now)
        return len(keys)

    def discard(self, which: str | FailedEvent) -> int:
        """Forget them; returns how many."""
        keys = list(_keys(self._named, which))
        for key in keys:
            self._remove(self._failed[key])
        return len(keys)

    def _take(self, failed: FailedEvent) -> None:
        self._remove(failed)
        self._taken[_key(failed)] = failed.retry_count, failed.first_failed_at
        self.retried += 1
        if len(self._taken) > self._max_size:  # nobody says that a retry went well: the oldest did, most likely
            del self._taken[next(iter(self._taken))]

    def _remove(self, failed: FailedEvent) -> None:
        del self._failed[_key(failed)]
        _leave(self._given, failed)
        _leave(self._named, failed)


def _key(failed: FailedEvent) -> _Key:
    return failed.event.event_id, failed.subscription_id


def _keys(index: _Index, which: str | FailedEvent) -> Iterator[_Key]:
    """Those that are meant, in the order of their entry."""
    if isinstance(which, str):
        return iter(index.get(which, ()))
    return iter([_key(which)] if _key(which) in index.get(which.event.event_id, ()) else ())


def _enter(index: _Index, failed: FailedEvent) -> None:
    for name in {failed.event.event_id, failed.event.correlation_id}:
        index.setdefault(name, {})[_key(failed)] = None


def _leave(index: _Index, failed: FailedEvent) -> None:
    for name in {failed.event.event_id, failed.event.correlation_id}:
        if (keys := index.get(name)) is not None:
            keys.pop(_key(failed), None)
            if not keys:
                del index[name]
