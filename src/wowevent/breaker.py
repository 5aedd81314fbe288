"""Keeps events from a handler that fails: a breaker's states, and what leads from one to the next. Pure.

| state    | lets through               | until                                                          | then     |
|----------|----------------------------|----------------------------------------------------------------|----------|
| healthy  | everything                 | more than `error_rate` of the window failed                    | slowed   |
|          |                            | a slot ends with `degraded` of it failed, or `degraded_seconds`| degraded |
| degraded | everything, in half as     | more than `error_rate` of the window failed                    | slowed   |
|          | large bites                | a slot ends below both                                         | healthy  |
| slowed   | one every 0 to 1 s, the    | `patience` is over, `probes` were handled in it, and more than | paused   |
|          | more fail the fewer        | `error_rate` of them failed                                    |          |
|          |                            | the same, and fewer failed                                     | healthy  |
|          |                            | the window slid on, and holds fewer than `minimum`             | healthy  |
| paused   | nothing                    | `pause` is over                                                | probing  |
| probing  | one at a time              | one fails; the pause is twice as long, `longest` at most       | paused   |
|          |                            | `probes` in a row succeeded                                    | healthy  |

Whoever comes back to healthy from below begins with an empty window and the first, short pause. What began before is
old news: it counts no more when it ends. Nothing is judged by fewer than `minimum` deliveries.

Slowness alone never slows or pauses. A slow handler fails nobody, and a pause makes it no faster: it would add its own
length to every wait. What helps it, to hold little so that others of its group can take the rest, `degraded` does. A
handler that is too slow to be of use has a `timeout`, and timeouts are failures.

An attempt that ran and failed is charged to its event as ever. Waiting for the breaker is no attempt.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final, Literal

from msgspec import Struct

State = Literal["healthy", "degraded", "slowed", "paused", "probing"]
Health = Literal["healthy", "degraded", "unhealthy"]

_SLOTS: Final = 10  # parts of the window, the oldest of which is forgotten at a time
_SLOWEST: Final = 1.0  # seconds between events of a handler that always fails
_FUZZ: Final = 1e-6  # seconds by which `now - seconds` may be off, being a difference of floats
_FREE: Final = frozenset({"healthy", "degraded"})


class BreakerPolicy(Struct, frozen=True, kw_only=True):
    """When a subscription counts as failing in this process, and how it is spared then."""

    window: float = 60.0
    """Seconds that are looked back."""
    minimum: int = 50
    """Deliveries in the window, below which nothing is judged."""
    error_rate: float = 0.20
    """The share of failures above which it is unhealthy."""
    degraded: float = 0.05
    """The share of failures from which on it is degraded."""
    slow_seconds: float = 5.0
    """The handler's mean time above which it is unhealthy."""
    degraded_seconds: float = 1.0
    """The handler's mean time from which on it is degraded."""
    patience: float = 5.0
    """Seconds that it is tried slowly before it is paused; and that one probe keeps the next waiting at most."""
    pause: float = 5.0
    """Seconds of the first pause."""
    longest: float = 60.0
    """Seconds that no pause exceeds, however often it was doubled."""
    probes: int = 5
    """Successes in a row that end it."""

    def __post_init__(self) -> None:
        """ValueError for a policy that cannot be carried out."""
        if not 0 < self.patience <= self.window < inf:  # NaN is not, either
            raise ValueError("a breaker policy's patience and window are above 0, in this order")
        if not (self.minimum >= 1 and self.probes >= 1):
            raise ValueError("a breaker policy's minimum and probes are 1 or more")
        if not 0 < self.degraded <= self.error_rate < 1:
            raise ValueError("a breaker policy's degraded and error_rate are shares: above 0, below 1, in this order")
        if not 0 < self.degraded_seconds <= self.slow_seconds:
            raise ValueError("a breaker policy's degraded_seconds and slow_seconds are above 0, in this order")
        if not 0 < self.pause <= self.longest < inf:
            raise ValueError("a breaker policy's pause and longest are above 0, in this order")

    def health(self, error_rate: float, mean_seconds: float) -> Health:
        """A subscriber's class: by default healthy below 5 % and 1 s, degraded up to 20 % and 5 s, both included."""
        if error_rate > self.error_rate or mean_seconds > self.slow_seconds:
            return "unhealthy"
        return "degraded" if error_rate >= self.degraded or mean_seconds >= self.degraded_seconds else "healthy"


class Transition(Struct, frozen=True):
    """A breaker went from one state to another."""

    old: State
    new: State
    error_rate: float
    """Of the window then, 0 to 1; 0 once it was emptied."""
    mean_seconds: float
    """Of the handler in the window then."""
    until: float | None
    """When a pause ends, on the caller's clock; None for another state."""


class _Slot(Struct, frozen=True, gc=False):
    began: float
    handled: int
    failed: int
    seconds: float


class Breaker:
    """One subscription's breaker in one process.

    Whoever fetches asks `wait` and `limit`, and tells `begin` what came; whoever calls the handler tells `note` how
    that went. `now` is of one monotonic clock, in seconds.
    """

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        """`policy` None is the default one."""
        self.policy: BreakerPolicy = policy or BreakerPolicy()
        self.state: State = "healthy"
        self.error_rate: float = 0.0
        """Of the window, when it was last judged."""
        self.mean_seconds: float = 0.0
        """Of the handler in the window, when it was last judged."""
        self._slots: deque[_Slot] = deque()
        self._past = (0, 0, 0.0)  # the sums of the slots
        self._handled = self._failed = 0  # of the slot that is not full yet, as the next two
        self._seconds = 0.0
        self._slot_end = -inf
        self._quick = -inf  # until then a success is only counted; the slot's end where nothing but that may happen
        self._emptied = -inf  # when the window was
        self._since = -inf  # when this state began
        self._next = -inf  # slowed, probing: when another one may begin; paused: when that ends
        self._tried = self._tried_failed = 0  # handled since it was slowed
        self._in_row = 0
        self._pause = self.policy.pause
        self._untold: deque[Transition] = deque()  # time alone changed the state, which the next call returns

    # --- what happened ------------------------------------------------------------------------------------------

    def note(self, ok: bool | None, seconds: float, now: float, count: int = 1) -> Transition | None:
        """The handler is through with `count` events, after `seconds`; returns where that led, if anywhere.

        `ok` is False if it raised or timed out. It is None for what says nothing about the handler: it rejected the
        event or asked for another moment, or the event did not reach it. Then nothing is counted.
        """
        if ok and now < self._quick:
            self._handled += count
            self._seconds += seconds * count
            return None
        self._turn(now)
        if self.state == "probing":
            self._probed(ok, seconds, now)
        elif self.state != "paused" and ok is not None and now - seconds >= self._emptied - _FUZZ:
            self._count(ok, seconds, now, count)
        return self._tell()

    def begin(self, now: float, count: int = 1) -> Transition | None:
        """So many events are under way to the handler; each is to be noted, also if it does not get there."""
        self._turn(now)
        if self.state == "slowed":
            self._next = now + min(count * self._gap(), _SLOWEST)
        elif self.state == "probing":
            self._next = now + self.policy.patience
        return self._tell()

    # --- what may happen ----------------------------------------------------------------------------------------

    def wait(self, now: float) -> float:
        """Seconds until the next events may be fetched; 0.0 if they may now."""
        self._turn(now)
        return 0.0 if self.state in _FREE else max(0.0, self._next - now)

    def limit(self, now: float, most: int) -> int:
        """How many of `most` events may be fetched now."""
        if self.wait(now) > 0:
            return 0
        match self.state:
            case "healthy":
                return most
            case "degraded":
                return min(most, max(1, most // 2))
            case "slowed":  # those of one second
                return min(most, max(1, int(_SLOWEST / max(self._gap(), _FUZZ))))
            case _:
                return min(most, 1)

    # --- states -------------------------------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        """What time alone brings about."""
        if self.state == "paused" and now >= self._next:
            self._in_row = 0
            self._go("probing", now)
        elif self.state == "slowed" and now >= self._slot_end:
            self._roll(now)
            if self._measure() < self.policy.minimum:
                self._recover(now)

    def _count(self, ok: bool, seconds: float, now: float, count: int) -> None:
        ended = now >= self._slot_end
        if ended:
            self._roll(now)
        self._handled += count
        self._failed += 0 if ok else count
        self._seconds += seconds * count
        if self.state != "slowed":
            if ended or not ok:
                self._judge(now, ended=ended)
            return
        if now - seconds >= self._since - _FUZZ:
            self._tried += count
            self._tried_failed += 0 if ok else count
        self._conclude_trial(now)

    def _judge(self, now: float, *, ended: bool) -> None:
        """Healthy or degraded: something failed, or a slot has `ended`."""
        enough = self._measure() >= self.policy.minimum
        if enough and self.error_rate > self.policy.error_rate:
            self._tried = self._tried_failed = 0
            self._next = now + self._gap()
            self._go("slowed", now)
        elif ended:  # not in between, so that a rate near its bound does not swing with every event
            fine = not enough or self.policy.health(self.error_rate, self.mean_seconds) == "healthy"
            self._go("healthy" if fine else "degraded", now)

    def _conclude_trial(self, now: float) -> None:
        """Slowed: what is handled from then on decides, once it is enough."""
        self._measure()
        if now - self._since < self.policy.patience or self._tried < self.policy.probes:
            return
        if self._tried_failed > self.policy.error_rate * self._tried:
            self._rest(now, self.policy.pause)
        else:
            self._recover(now)

    def _probed(self, ok: bool | None, seconds: float, now: float) -> None:
        if now - seconds < self._since - self._pause / 2:
            return  # no probe: it began before the pause
        self._next = now
        if ok is None:
            return
        if not ok:
            self._rest(now, min(2 * self._pause, self.policy.longest))
            return
        self._in_row += 1
        if self._in_row >= self.policy.probes:
            self._recover(now)

    def _rest(self, now: float, seconds: float) -> None:
        self._pause = seconds
        self._next = now + seconds
        self._go("paused", now)

    def _recover(self, now: float) -> None:
        """Healthy again, with an empty window."""
        self._handled = 0
        self._slots.clear()
        self._roll(now)
        self._measure()
        self._emptied = now
        self._go("healthy", now)

    def _go(self, new: State, now: float) -> None:
        """Be in that state from here on."""
        self._quick = self._slot_end if new in _FREE else -inf
        if new != self.state:
            until = self._next if new == "paused" else None
            self._untold.append(Transition(self.state, new, self.error_rate, self.mean_seconds, until))
            self.state = new
            self._since = now

    def _tell(self) -> Transition | None:
        return self._untold.popleft() if self._untold else None

    # --- the window ---------------------------------------------------------------------------------------------

    def _gap(self) -> float:
        """Seconds between the events of a handler that is slowed."""
        beyond = (self.error_rate - self.policy.error_rate) / (1 - self.policy.error_rate)
        return _SLOWEST * max(0.0, beyond)

    def _roll(self, now: float) -> None:
        """Begin a slot, and forget those that the window has left."""
        width = self.policy.window / _SLOTS
        if self._handled:
            self._slots.append(_Slot(self._slot_end - width, self._handled, self._failed, self._seconds))
        while self._slots and self._slots[0].began <= now - self.policy.window:
            self._slots.popleft()
        self._past = (
            sum(slot.handled for slot in self._slots),
            sum(slot.failed for slot in self._slots),
            sum(slot.seconds for slot in self._slots),
        )
        self._handled = self._failed = 0
        self._seconds = 0.0
        self._slot_end = now + width

    def _measure(self) -> int:
        """How many deliveries the window holds; keeps their error rate and mean time."""
        handled, failed, seconds = self._past
        handled += self._handled
        self.error_rate = (failed + self._failed) / handled if handled else 0.0
        self.mean_seconds = (seconds + self._seconds) / handled if handled else 0.0
        return handled
