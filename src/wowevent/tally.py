"""What one subscription's deliveries tell: its meter, for who looks on, and its valve, whose breaker heeds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from wowevent.broker import Lease
from wowevent.judge import Counts
from wowevent.metrics import Meter
from wowevent.retry import Done, Failed, Halted, Outcome, Rejected
from wowevent.valve import Valve

# What the judge counts, and what the meter calls it.
_COUNTED: Final = {
    "retried": Meter.retried, "buried": Meter.buried, "dropped": Meter.dropped, "expired": Meter.expired,
    "lost": Meter.lost,
}  # fmt: skip


class Tally:
    """Told of every call of a handler."""

    def __init__(self, meter: Meter, valve: Valve) -> None:
        self.counts: Counts = Counts()
        """What the judge has counted; the consumer's own, once there is one."""
        self.valve: Valve = valve
        """Where its events come from."""
        self._meter = meter
        meter.tell = self.tell  # before somebody looks
        self._told: Counter[str] = Counter()

    def observe(self, leases: Sequence[Lease], seconds: float, outcome: Outcome) -> bool:
        """One call of the handler; True if what was not started is to be given back."""
        if type(outcome) is Done:  # nearly always, and so made for speed
            if len(leases) == 1 and not leases[0].redelivered:
                self._meter.took(leases[0].event.kind, seconds)
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
