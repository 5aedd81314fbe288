"""One subscription's verdicts: `retry.decide`, with what is counted, said and answered along with it.

Whoever hands out leases asks `beforehand` whether an event need not or must not be handled, and `verdict` what becomes
of it afterwards; both give back the settlement.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec import structs

from wowevent.broker import Ack, Bury, Lease, Reason, Retry, Settlement
from wowevent.clock import Clock
from wowevent.event import Event
from wowevent.log import logger
from wowevent.retry import Failed, GivenBack, Outcome, Rejected, RetryPolicy, condemned, decide
from wowevent.storm import Guard


class Counts:
    """What happened to the deliveries of one subscription here; read by whoever reports."""

    __slots__ = ("buried", "dropped", "expired", "failed", "handled", "lost", "retried", "stale")

    def __init__(self) -> None:
        self.handled: int = 0
        self.failed: int = 0
        self.buried: int = 0
        self.dropped: int = 0
        self.expired: int = 0
        self.retried: int = 0
        self.stale: int = 0
        self.lost: int = 0


class Judge:
    """What becomes of the deliveries of one subscription."""

    def __init__(
        self,
        id: str,
        policy: RetryPolicy | None,
        *,
        clock: Clock,
        fail: Callable[[Event, str], None],
        dead_letters: bool = True,
        max_age: float | None = None,
        buried: Callable[[Event, Bury], None] | None = None,
        guard: Guard | None = None,
        noted: Callable[[Lease, float, Outcome, Settlement], None] | None = None,
    ) -> None:
        """`policy` None: one attempt, whatever the event says. `fail(request, error)` answers a request that failed.

        `buried(event, bury)` is called when a verdict makes a dead letter of it, before that is settled.

        Without `dead_letters` what failed for good is dropped, with an ERROR line. What is older than `max_age` seconds
        is expired, unless somebody has sent it again from the dead letters. What the `guard` stops is buried.
        `noted(lease, seconds, outcome, settlement)` is told of each verdict on what was begun.
        """
        self.counts: Counts = Counts()
        self._id = id
        self.policy: RetryPolicy | None = policy
        """Holds from the next verdict on."""
        self._clock = clock
        self._fail = fail
        self._dead_letters = dead_letters
        self._max_age = max_age
        self._buried = buried
        self._guard = guard
        self._noted = noted

    @property
    def alert(self) -> bool:
        """Whether each event is to be looked at beforehand; else those that nothing caused, and that are plain, not."""
        return self._max_age is not None or (self._guard is not None and self._guard.alert)

    def beforehand(self, lease: Lease) -> Settlement | None:
        """The settlement of what is not to be handled: it expired, is of a storm, or has crashed too often."""
        event = lease.event
        if self._expired(lease):
            self.counts.expired += 1
            logger.info("delivery expired", subscription=self._id, event_id=event.event_id, topic=event.topic)
            return Ack(lease.token)
        if self._guard is not None:
            why = self._guard.stops(self._id, event, redelivered=lease.redelivered)
            if why is not None:
                return self._bury(lease, Bury(lease.token, Reason.LOOP_DETECTED, why))
        if self.policy is not None and condemned(self.policy, lease):
            return self._bury(lease, Bury(lease.token, Reason.CRASHED))
        return None

    def _expired(self, lease: Lease) -> bool:
        event, now = lease.event, self._clock.time()
        if event.ttl_seconds is not None and now > event.timestamp.timestamp() + event.ttl_seconds:
            return True
        if self._max_age is None or lease.redelivered:
            return False
        since = event.timestamp if event.not_before is None else max(event.timestamp, event.not_before)
        return now > since.timestamp() + self._max_age

    def verdict(self, lease: Lease, outcome: Outcome, seconds: float = 0.0) -> Settlement:
        """The settlement of an attempt that did not simply succeed, and took so many seconds."""
        if isinstance(outcome, Failed | Rejected):
            self.counts.failed += 1
            logger.warning(
                "delivery failed",
                subscription=self._id,
                event_id=lease.event.event_id,
                topic=lease.event.topic,
                attempt=lease.failures + lease.crashes + 1,
                error=outcome.error,
            )
        settlement = self._decide(lease, outcome)
        if isinstance(outcome, Failed) and isinstance(settlement, Retry):
            self.counts.retried += 1
        settled = self._bury(lease, settlement) if isinstance(settlement, Bury) else settlement
        if self._noted is not None and not isinstance(outcome, GivenBack):
            self._noted(lease, seconds, outcome, settled)
        return settled

    def _decide(self, lease: Lease, outcome: Outcome) -> Settlement:
        if isinstance(outcome, Failed) and self.policy is None:
            return Bury(lease.token, outcome.reason, outcome.error, outcome.traceback)  # there is no other attempt
        return decide(self.policy or RetryPolicy(), lease, outcome, random.random())  # noqa: S311 - jitter

    def _bury(self, lease: Lease, bury: Bury) -> Settlement:
        event = lease.event
        names = {
            "subscription": self._id,
            "event_id": event.event_id,
            "topic": event.topic,
            "reason": bury.reason.value,
        }
        # Of a storm the guard has said it: once, and not for each of ten thousand events.
        log = logger.debug if bury.reason is Reason.LOOP_DETECTED else logger.error
        if self._dead_letters:
            self.counts.buried += 1
            log("delivery failed for good, dead_letter kept in the DLQ", **names)
        else:
            self.counts.dropped += 1
            log("delivery failed for good, event dropped", **names)
        last = bury.error or (lease.attempts[-1].error if lease.attempts else bury.reason.value)
        if event.reply_to is not None:
            self._fail(event, last)
        if self._dead_letters and self._buried is not None:
            self._buried(event, bury if bury.error else structs.replace(bury, error=last))
        return bury if self._dead_letters else Ack(lease.token)
