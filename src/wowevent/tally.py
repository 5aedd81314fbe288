"""What one subscription's deliveries tell.

Its meter, for who looks on; its valve, whose breaker heeds it; and the trail, for who asks later who got an event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from wowevent.broker import Ack, Bury, Lease, Settlement, Subscription
from wowevent.judge import Counts
from wowevent.metrics import Meter
from wowevent.retry import Done, Failed, Halted, Outcome, Rejected
from wowevent.trail import Ending, Trail, short
from wowevent.valve import Valve

# What the judge counts, and what the meter calls it.
_COUNTED: Final = {
    "retried": Meter.retried, "buried": Meter.buried, "dropped": Meter.dropped, "expired": Meter.expired,
    "lost": Meter.lost,
}  # fmt: skip


class Tally:
    """Told of every call of a handler."""

    def __init__(self, spec: Subscription, meter: Meter, valve: Valve, trail: Trail) -> None:
        self.counts: Counts = Counts()
        """What the judge has counted; the consumer's own, once there is one."""
        self.valve: Valve = valve
        """Where its events come from."""
        self._meter = meter
        meter.tell = self.tell  # before somebody looks
        self._told: Counter[str] = Counter()
        self._who = (spec.id, spec.agent)
        self._trail = trail
        self._keep, self._time = trail.keep, trail.time  # looked up once: they are asked at each delivery

    def observe(self, leases: Sequence[Lease], seconds: float, outcome: Outcome) -> bool:
        """One call of the handler; True if what was not started is to be given back."""
        if type(outcome) is Done:  # nearly always, and so made for speed
            lease = leases[0]
            if len(leases) == 1:
                attempt = lease.failures + lease.crashes + 1
                self._keep((lease.event.event_id, self._who, self._time(), seconds, attempt, "acked", None))
            else:
                self._trail.keep_batch([each.event.event_id for each in leases], self._who, seconds)
            if len(leases) == 1 and not lease.redelivered:
                self._meter.took(lease.event.kind, seconds)
            else:
                self._took(leases, seconds, ok=True)
            return self.valve.note(True, seconds, len(leases))
        failed = isinstance(outcome, Failed)
        if failed or isinstance(outcome, Rejected):
            self._took(leases, seconds, ok=False)
        if isinstance(outcome, Rejected):
            self._meter.rejected(len(leases))
        if isinstance(outcome, Halted):
            self.valve.halt(outcome.seconds, outcome.reason)
        self.tell()
        return self.valve.note(False if failed else None, seconds, len(leases))

    def note(self, lease: Lease, seconds: float, outcome: Outcome, settlement: Settlement) -> None:
        """One attempt that did not succeed, and what became of it."""
        ending: Ending = "dead" if isinstance(settlement, Bury) else "dropped" if type(settlement) is Ack else "retried"
        error = short(outcome.error) if isinstance(outcome, Failed | Rejected) else None
        attempt = lease.failures + lease.crashes + 1
        self._keep((lease.event.event_id, self._who, self._time(), seconds, attempt, ending, error))

    def tell(self) -> None:
        """Tell the meter what else was counted since."""
        for name, meter in _COUNTED.items():
            count = getattr(self.counts, name)
            if more := count - self._told[name]:
                self._told[name] = count
                meter(self._meter, more)

    def close(self) -> None:
        """The subscription is served here no longer."""
        self._meter.close()

    def _took(self, leases: Sequence[Lease], seconds: float, *, ok: bool) -> None:
        for kind, count in Counter([lease.event.kind for lease in leases]).items():
            self._meter.took(kind, seconds, count, ok)
        self._meter.redelivered(sum([lease.redelivered for lease in leases]))
