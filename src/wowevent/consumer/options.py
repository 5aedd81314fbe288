"""How one subscription is consumed, and whom its consumer tells."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msgspec import Struct

from wowevent.breaker import BreakerPolicy
from wowevent.broker import Lease
from wowevent.event import Event
from wowevent.retry import Outcome, RetryPolicy


class Options(Struct, frozen=True, kw_only=True):
    """How one subscription is consumed."""

    policy: RetryPolicy | None
    """None: one attempt, whatever the event says."""
    concurrency: int = 1
    order_by: Callable[[Event], Any] | None = None
    rate: float | None = None
    """Events per second."""
    timeout: float | None = None
    lease: float = 30.0
    auto_ack: bool = False
    batch: int | None = None
    breaker: BreakerPolicy | None = None
    """None: it gets its events however badly it handles them."""
    dead_letters: bool = True
    """False: an event that used up its attempts is dropped, with an ERROR line."""
    max_age: float | None = None
    """Seconds after which an event is expired here, whatever its own TTL says."""
    prefetch: int = 512
    """Events to hold at most, those that are being handled among them."""


Observer = Callable[[Sequence[Lease], float, Outcome], bool]
"""`observe(leases, seconds, outcome)`: one call of the handler; True if what was not started is to be given back."""

Replier = Callable[[Event, Any, str | None], Coroutine[Any, Any, None]]
"""`reply(request, value, error)`: answer a request, with a value or with the handler's last error."""
