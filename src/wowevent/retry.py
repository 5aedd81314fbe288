"""What becomes of a delivery: decide(policy, lease, outcome) -> settlement. Pure.

The state table is in `docs/delivery.md`.
"""

from __future__ import annotations

import re

from msgspec import Struct

from wowevent.broker import Ack, Bury, Lease, Reason, Retry, Settlement

MAX_DELAY = 86_400.0  # 24 h: the longest that a handler may ask for


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How often and when a failed delivery is tried again. Deliveries = 1 + max_retries."""

    max_retries: int = 5
    """Deliveries after the first one; 0: none."""
    initial: float = 1.0
    """Seconds before the first retry."""
    multiplier: float = 2.0
    """By which each wait is longer than the one before."""
    maximum: float = 300.0
    """Seconds, the longest wait before jitter."""
    jitter: float = 0.0
    """0 to 1: the wait is shortened or lengthened at random by up to this fraction."""

    def __post_init__(self) -> None:
        """ValueError for a policy that cannot be carried out."""
        if not (self.max_retries >= 0 and self.initial >= 0 and self.maximum >= 0):  # NaN is not, either
            raise ValueError("a retry policy's max_retries, initial and maximum are 0 or more")
        if not 1 <= self.multiplier <= 100:
            raise ValueError("a retry policy's multiplier is from 1 to 100")
        if not 0 <= self.jitter <= 1:
            raise ValueError("a retry policy's jitter is a fraction from 0 to 1")

    def delay(self, failures: int, chance: float = 0.5) -> float:
        """Seconds to wait after the `failures`-th failure; `chance` from 0 to 1 places it within the jitter."""
        exponent = min(failures - 1, 64)  # enough for any maximum, and 100 ** 64 is still a float
        wait = min(self.initial * self.multiplier**exponent, self.maximum)
        return float(wait * (1 + self.jitter * (2 * chance - 1)))


class Done(Struct, frozen=True):
    """The handler returned."""


class Failed(Struct, frozen=True):
    """The handler raised or timed out."""

    error: str
    traceback: str = ""
    reason: Reason = Reason.HANDLER_ERROR


class Rejected(Struct, frozen=True):
    """This event will never succeed: the handler said so, or its payload is not what the handler takes."""

    error: str
    traceback: str = ""
    reason: Reason = Reason.REJECTED


class Later(Struct, frozen=True):
    """The handler asked for another moment; no attempt is charged."""

    seconds: float


class Halted(Struct, frozen=True):
    """The handler asked that nothing of its subscription comes for a while; no attempt is charged."""

    seconds: float
    reason: str = ""


class GivenBack(Struct, frozen=True):
    """The handler did not run, or was stopped by us."""


Outcome = Done | Failed | Rejected | Later | Halted | GivenBack


def limit(policy: RetryPolicy, lease: Lease) -> int:
    """How many attempts this delivery has: the event's own word, else the policy's."""
    own = lease.event.max_retries
    return 1 + (policy.max_retries if own is None else own)


def condemned(policy: RetryPolicy, lease: Lease) -> bool:
    """Whether an event under suspicion has used up its attempts, so that it is buried unhandled.

    A first crash may have been a neighbour's fault, since everything that a process held crashed with it. From then on
    the event is delivered alone: only a second crash is certainly its own.
    """
    return lease.crashes > 1 and lease.failures + lease.crashes >= limit(policy, lease)


def decide(policy: RetryPolicy, lease: Lease, outcome: Outcome, chance: float = 0.5) -> Settlement:
    """The settlement of one attempt. `chance` from 0 to 1 is where the caller's dice fell, for the jitter."""
    match outcome:
        case Done():
            return Ack(lease.token)
        case GivenBack() | Halted():  # one that halted waits as what comes behind it does
            return Retry(lease.token, 0.0, charge=False)
        case Later(seconds):
            return Retry(lease.token, min(max(0.0, seconds), MAX_DELAY), charge=False)
        case Rejected(error, traceback, reason):
            return Bury(lease.token, reason, error, traceback)
    failures = lease.failures + 1  # it failed
    # A suspect has run alone and did not crash: a single crash was its neighbour's, and costs it nothing.
    crashes = lease.crashes if lease.crashes > 1 else 0
    if failures + crashes >= limit(policy, lease):
        return Bury(lease.token, outcome.reason, outcome.error, outcome.traceback)
    return Retry(lease.token, policy.delay(failures, chance), outcome.error)


_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(s|sec|second|m|min|minute|h|hour)\s*")


def parse_rate(rate: str | float) -> float:
    """Events per second of `"50/s"`, `"10/min"`, `"100/h"` or a number; ValueError otherwise."""
    if isinstance(rate, str):
        found = _RATE.fullmatch(rate)
        if not found:
            raise ValueError(f"{rate!r:.80} is not a rate: a number and /s, /min or /h")
        value = float(found[1]) / {"s": 1, "m": 60, "h": 3600}[found[2][0]]
    else:
        value = float(rate)
    if not 0 < value < float("inf"):
        raise ValueError("a rate must be above 0, and a number")
    return value
