"""How much all processes publish and deliver: what each says of itself, and what that makes together. Pure.

A process says counts of whole seconds, each second once, and hears nothing of totals: so nothing falls when a process
starts anew, and one that ends takes with it what it did, and nothing else.

    heard   pulse ──hear──>  the last of each process, those in between added up
    every 2 seconds          sample: the rates of all, the latencies of all ──> the last 10 minutes
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from heapq import nlargest
from typing import Annotated, Any, Final, Protocol

from msgspec import Meta, Struct, structs

from wowevent.metrics import Lately, added, percentiles

PERIOD: Final = 2.0
"""Seconds between two pulses, and two samples."""
SILENT: Final = 3 * PERIOD
"""Seconds for which the last rates of a process stand: one or two of its words may get lost."""
SAMPLES: Final = 300
"""Ten minutes of them."""
NAMED: Final = 1_000
"""Subscriptions that a pulse names, at most: those that do most."""
ROOM: Final = 200_000
"""Characters of their names, at most: a pulse is a small event."""

_SLOT: Final = 1.0  # seconds: counts are said of no shorter time

# What others say is held against these: one number that cannot be would take the overview from everybody.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Mark = Annotated[int, Meta(ge=0, lt=0x7F80)]  # the upper half of a float that is finite


class RouterPulse(Struct, frozen=True):
    """What a router says of itself."""

    clients: Count
    """Those that are connected."""
    named: Count
    """Named subscriptions that it serves."""
    events_processed: Count
    """Published by its clients since it serves."""
    since: float
    """When it began to serve, Unix seconds by its own clock."""


class Connected(Struct, frozen=True):
    """One client of a router."""

    name: str | None
    """What it says it is, or its token does."""
    address: str
    since: float
    """Unix seconds."""
    subscriptions: int
    outbox_bytes: int
    """What waits for it to read."""


class Router(Protocol):
    """A router in front of the bus, as who looks on sees it."""

    def pulse(self) -> RouterPulse:
        """Its numbers now."""
        ...

    def connected(self) -> Sequence[Connected]:
        """Its clients now."""
        ...


class JobPulse(Struct, frozen=True):
    """What goes on in the background of a process, or ended there lately."""

    kind: str
    """Such as `replay`."""
    id: str
    owner: str | None
    """Who began it, where that is known."""
    shown: dict[str, Any]
    """How it is, as who has it shows it."""
    order: str = ""
    """Of what others asked of it, the last that was carried out."""


class Desk(Protocol):
    """Jobs of a kind of this process, as others see and steer them."""

    def pulses(self) -> Sequence[JobPulse]:
        """Those that are worth telling."""
        ...

    async def carry_out(self, id: str, what: str, order: str) -> None:
        """Do this to one of them, if it is here, and tell by its pulse that the order was carried out."""
        ...


class Pulse(Struct, frozen=True, omit_defaults=True):
    """What a process did in some seconds."""

    process: str
    host: str = ""
    pid: int = 0
    seconds: Seconds = 0.0
    published: Count = 0
    delivered: Count = 0
    failed: Count = 0
    marks: tuple[tuple[Mark, Count], ...] = ()
    """How long its deliveries of the last ten seconds took: a mark, and how many."""
    longest: Seconds = 0.0
    routers: tuple[RouterPulse, ...] = ()
    jobs: tuple[JobPulse, ...] = ()
    gone: bool = False
    """It leaves."""
    subscriptions: tuple[tuple[str, Seconds, Seconds], ...] = ()
    """Those at work within its last five to ten seconds: which, delivered a second, failed a second."""
    more: bool = False
    """There are more than it names."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Published, delivered, failed."""
        return self.published, self.delivered, self.failed


def pulse_of(
    process: tuple[str, str, int], lately: Lately, *, routers: Sequence[Router], desks: Sequence[Desk], gone: bool
) -> Pulse:
    """What there is to say of a process: its id, its host, its pid."""
    named = _busiest(lately.subscribers)
    return Pulse(
        *process,
        seconds=lately.seconds,
        published=lately.published,
        delivered=lately.delivered,
        failed=lately.failed,
        marks=tuple(lately.marks.items()),
        longest=lately.longest,
        routers=tuple(router.pulse() for router in routers),
        jobs=tuple(job for desk in desks for job in desk.pulses()),
        gone=gone,
        subscriptions=named,
        more=len(named) < len(lately.subscribers),
    )


def _busiest(rates: Mapping[str, tuple[float, float]]) -> tuple[tuple[str, float, float], ...]:
    """So many that their names are not too long."""
    room, named = ROOM, list[tuple[str, float, float]]()
    for name, (delivered, failed) in nlargest(NAMED, rates.items(), key=_work):
        room -= len(name)
        if room < 0:
            break
        named.append((name, round(delivered, 3), round(failed, 3)))
    return tuple(named)


def _work(each: tuple[str, tuple[float, float]]) -> float:
    return sum(each[1])


class Rates:
    """How much subscriptions get and fail at a second, in all processes together."""

    def __init__(self, pulses: Sequence[Pulse]) -> None:
        """The last word of each process that is there."""
        self._sums: dict[str, tuple[float, float]] = {}
        self._cut: list[frozenset[str]] = []  # of each that has more than it names: those that it names
        self._heard = bool(pulses)
        for pulse in pulses:
            for name, delivered, failed in pulse.subscriptions:
                before = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = (before[0] + delivered, before[1] + failed)
            if pulse.more:
                self._cut.append(frozenset(name for name, _, _ in pulse.subscriptions))

    def of(self, id: str) -> tuple[float, float] | None:
        """Delivered and failed; None where that is not known: nobody was heard, or somebody may not have named it."""
        known = self._heard and all(id in names for names in self._cut)
        return self._sums.get(id, (0.0, 0.0)) if known else None


class Latency(Struct, frozen=True):
    """How long handlers took within the last ten seconds, in all processes together; within 3 %."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0


class Sample(Struct, frozen=True):
    """One moment: events a second of all processes, failures apart from what was delivered."""

    at: float
    """Unix seconds."""
    published: float
    delivered: float
    failed: float
    latency: Latency
    whole: bool = True
    """The other processes could be heard; else it is of this one, and nobody knows what they do."""


class _Heard:
    """The last of one process."""

    __slots__ = ("at", "pulse", "sampled")

    def __init__(self, pulse: Pulse, at: float) -> None:
        self.pulse: Pulse = pulse
        self.at: float = at
        self.sampled: bool = False
        """It is in a sample by now: what comes next takes its place, else it is added."""


class Vitals:
    """What was heard, by whoever tells of `now`: monotonic seconds, each time."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        """The oldest first."""
        self.since: float | None = None
        """When the first one was taken, Unix seconds."""
        self._heard: dict[str, _Heard] = {}

    def hear(self, pulse: Pulse, now: float) -> None:
        """A process said this."""
        before = self._heard.get(pulse.process)
        if before is None:
            if not pulse.gone or any(pulse.counts):
                self._heard[pulse.process] = _Heard(pulse, now)
            return
        if pulse.seconds == 0.0:  # nothing new but what it is: its rates stand
            pulse = _with_rates_of(before.pulse, pulse)
        elif not before.sampled:
            pulse = _added(before.pulse, pulse)
        else:
            before.sampled = False
        before.pulse, before.at = pulse, now

    def there(self, now: float) -> Sequence[Pulse]:
        """The last word of each process that is there, by its id."""
        found = [heard.pulse for heard in self._heard.values() if now - heard.at < SILENT and not heard.pulse.gone]
        return sorted(found, key=_process)

    def rates(self, now: float) -> Rates:
        """How much each subscription gets. Who has left counts no longer."""
        return Rates(self.there(now))

    def sample(self, now: float, time: float, *, whole: bool = True) -> Sample:
        """How it is now; `time` is now as well, in Unix seconds. Who has left counts once more, and no longer.

        `whole`: all can be heard.
        """
        for id in [id for id, heard in self._heard.items() if now - heard.at >= SILENT]:
            del self._heard[id]
        pulses = [heard.pulse for heard in self._heard.values()]
        rates = [_rates(pulse) for pulse in pulses]
        published, delivered, failed = (sum(each[place] for each in rates) for place in range(3))
        sample = Sample(time, published, delivered, failed, _latency(pulses), whole)
        for heard in list(self._heard.values()):
            heard.sampled = True
            if heard.pulse.gone:
                del self._heard[heard.pulse.process]
        self.samples.append(sample)
        self.since = time if self.since is None else self.since
        return sample


def _rates(pulse: Pulse) -> Sequence[float]:
    """Its counts a second; last words are of a part of a period, and shown for all of it."""
    span = max(pulse.seconds, PERIOD if pulse.gone else _SLOT)
    return [count / span for count in pulse.counts]


def _with_rates_of(before: Pulse, pulse: Pulse) -> Pulse:
    published, delivered, failed = before.counts
    return structs.replace(pulse, seconds=before.seconds, published=published, delivered=delivered, failed=failed)


def _added(before: Pulse, pulse: Pulse) -> Pulse:
    """Both as one: what was said in between two samples."""
    published, delivered, failed = (a + b for a, b in zip(before.counts, pulse.counts, strict=True))
    return structs.replace(
        pulse, seconds=before.seconds + pulse.seconds, published=published, delivered=delivered, failed=failed
    )


def _latency(pulses: Sequence[Pulse]) -> Latency:
    marks: Mapping[int, int] = added(dict(pulse.marks) for pulse in pulses)
    return Latency(**percentiles(marks, max((pulse.longest for pulse in pulses), default=0.0)))


def _process(pulse: Pulse) -> str:
    return pulse.process
