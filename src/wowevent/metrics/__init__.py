"""EventMetrics: totals for ever, and rates, latencies and health of what happened lately. Time is an argument.

refused(code)                          counts by the engine's error, at once
published(type)                        counts by type      ─┐ when a slot is over, when much has gathered,
meter(subscription).took(type, …)      gathers seconds     ─┤ and when somebody reads
                                                            ▼
window.py    slots of a sixtieth of the window, the oldest falls out    -> rates, percentiles, health
book.py      who there is, within bounds, and their totals              -> counters and histograms for ever
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest
from typing import Any, Final

from msgspec import Struct, structs

from wowevent.breaker import Health
from wowevent.clock import SystemClock
from wowevent.errors import InvalidEvent, shown
from wowevent.metrics.book import BOUNDS, OTHER, TOTALS, Book, Meter, Track, TypeTotals
from wowevent.metrics.window import COARSE, SLOTS, added, coarse, health_of, latency, percentiles, rates

__all__ = [
    "BOUNDS",
    "CLASSES",
    "OTHER",
    "TOTALS",
    "EventMetrics",
    "Health",
    "Lately",
    "Meter",
    "SubscriberTotals",
    "TypeTotals",
    "added",
    "health_of",
    "percentiles",
]

CLASSES: Final[tuple[Health, ...]] = ("healthy", "degraded", "unhealthy")
"""The classes of health, the worst last."""

_SHOWN: Final = 100  # subscribers by name in a snapshot, the worst first
_LONGEST: Final = 1e9  # seconds; more is a mistake
_FIRST: Final = 2  # slots of which is told who asks for the first time,
_LAST: Final = 10  # and those of whose latencies anybody is
_MANY: Final = 2048  # types that gather before they are counted
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}")
_LIVE: Final = re.compile(r"live~[0-9a-f-]{32,36}")  # the id of a live subscription: a new one each time


class SubscriberTotals(Struct, frozen=True):
    """One subscriber as it is now, and what it did since ever."""

    name: str
    active: bool
    """It is served here now."""
    health: Health
    totals: Mapping[str, int]
    """By the names of TOTALS."""
    buckets: Sequence[int]
    """How many deliveries took up to each of BOUNDS."""
    seconds: float
    """That all of them took."""


class Lately(Struct, frozen=True):
    """What there was in the slots since a look before."""

    number: int
    """The last of these slots: the next look begins behind it."""
    seconds: float
    """How long they were."""
    published: int
    delivered: int
    failed: int
    marks: Mapping[int, int]
    """How many deliveries of the last ten slots took how long, for `percentiles`."""
    longest: float
    """Of these, in seconds."""
    subscribers: Mapping[str, tuple[float, float]]
    """What each got and failed at a second, the slot that runs included; those alone that did something."""


class EventMetrics:
    """What is published and delivered. A bus has one; alone it counts what it is told.

    Totals are for ever. Rates, latencies and health are of the window. What is older is forgotten: a sixtieth of the
    window at a time, a twelfth for a single subscriber.
    """

    def __init__(
        self,
        window_seconds: float = 60,
        *,
        clock: Callable[[], float] = SystemClock.monotonic,
        max_types: int = 1000,
        max_subscribers: int = 10_000,
    ) -> None:
        """`clock()` is in seconds that only grow. Those beyond the most count together, as "other"."""
        if isinstance(window_seconds, bool) or not 0 < window_seconds <= _LONGEST:
            raise ValueError(f"window_seconds: {window_seconds!r} is not a number of seconds above 0")
        if max_types < 1 or max_subscribers < 1:
            raise ValueError("max_types and max_subscribers are at least 1")
        self.window_seconds: float = window_seconds
        self._width = window_seconds / SLOTS
        self._clock = clock
        self._start = clock()
        self._book = Book(max_types, max_subscribers)
        self._meters: dict[Meter, None] = {}
        self._pending: dict[str, int] = {}  # by type, what was published in the slot that runs
        self._number = 0  # of that slot
        self._due = float("-inf")  # when it is over

    # --- what the bus tells -------------------------------------------------------------------------------------

    def published(self, event_type: str, count: int = 1) -> None:
        """So many events of that type were published."""
        if self._clock() >= self._due:
            self._fold_published()
        try:
            self._pending[event_type] += count
        except KeyError:
            self._pending[event_type] = count
            if len(self._pending) >= _MANY:
                self._fold_published()

    def refused(self, code: str, count: int = 1) -> None:
        """So many events were not taken by the engine, with an error of that code; their publisher got it."""
        self._book.refused(code, count)

    def meter(self, subscription: str, agent: str = "") -> Meter:
        """A meter for a subscription that is served from now on; several of one id count together.

        Live ones, whose ids are new each time, count by their agent.
        """
        if _LIVE.fullmatch(subscription):
            subscription = f"live~{agent}" if agent else "live"
        number = self._now()
        track = self._book.track(subscription, agent, number)
        self._book.touch(track, number, meters=1)
        meter = Meter(self._book, track, self._clock, self._width, self._close)
        self._meters[meter] = None
        return meter

    def _close(self, meter: Meter, track: Track) -> None:
        if meter in self._meters:
            del self._meters[meter]
            meter.tell()
            meter.fold()
            self._book.touch(track, self._now(), meters=-1)

    # --- what anybody may tell ----------------------------------------------------------------------------------

    async def record_publish(self, event_type: str) -> None:
        """An event was published."""
        self.published(_name(event_type, "event_type"))

    async def record_delivery(self, event_type: str, subscriber: str, seconds: float, success: bool = True) -> None:
        """A subscriber handled an event, or failed to, in so many seconds."""
        name = _name(event_type, "event_type")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST:
            raise InvalidEvent(f"seconds: {shown(seconds, 40)} is not a number of seconds from 0 on")
        track = self._by_hand(subscriber)
        self._book.took(track, {name: [abs(float(seconds))]}, self._now(), ok=success)  # -0.0 has another mark

    async def record_retry(self, event_type: str, subscriber: str) -> None:
        """A delivery failed, and is tried again."""
        _name(event_type, "event_type")
        self._book.count(self._by_hand(subscriber), "retries", 1)

    async def record_dead_letter(self, event_type: str, subscriber: str) -> None:
        """A delivery failed for good."""
        _name(event_type, "event_type")
        self._book.count(self._by_hand(subscriber), "dlq", 1)

    def reset(self) -> None:
        """Begin anew; who is served stays active."""
        self._fold()
        self._book.clear()
        self._start = self._clock()

    def _by_hand(self, subscriber: str) -> Track:
        number = self._now()
        track = self._book.track(_name(subscriber, "subscriber"), "", number)
        track.by_hand = True
        self._book.touch(track, number)
        return track

    # --- what it says -------------------------------------------------------------------------------------------

    async def get_metrics(self) -> dict[str, Any]:
        """All of it: `throughput`, `latency` (seconds), `totals`, `subscribers`, `event_types`, and over what window.

        `throughput` has a total and per_second of `publishes`, `deliveries` (those that succeeded) and `errors`;
        `subscribers.by_name` has the hundred worst, as `get_subscriber_metrics` shows them.
        """
        number, book = self._fold(), self._book
        uptime = self._clock() - self._start
        lately = book.handled.within(number)
        counts = {
            "publishes": sum(slot.done for slot in book.publishes.within(number)),
            "deliveries": sum(slot.done for slot in lately),
            "errors": sum(slot.failed for slot in lately),
        }
        span = min(self.window_seconds, max(1.0, uptime))
        return {
            "window_seconds": self.window_seconds,
            "uptime_seconds": uptime,
            "throughput": {
                name: {"total": book.totals[name], "per_second": count / span} for name, count in counts.items()
            },
            "latency": latency(lately),
            "totals": {name: count for name, count in book.totals.items() if name != "rejected"},
            "subscribers": self._subscribers(number),
            "event_types": {
                name: {"publishes": each.publishes, "deliveries": each.deliveries, "errors": each.errors}
                for name, each in sorted(book.types.items())
            },
        }

    async def get_subscriber_metrics(self, name: str) -> dict[str, Any]:
        """A subscription's `health`, `error_rate` (a fraction) and `latency` lately, and what it did since ever.

        An agent's name stands for all of its subscriptions. `health` is "unknown" for who never was here.
        """
        number, tracks = self._fold(), self._book.tracks()
        found = [track for track in tracks if track.name == name] or [track for track in tracks if track.agent == name]
        return self._shown(name, found, number)

    def types(self) -> Mapping[str, TypeTotals]:
        """The totals of each type, those of "other" included; a copy."""
        self._fold()
        return {name: structs.replace(totals) for name, totals in self._book.types.items()}

    def refusals(self) -> Mapping[str, int]:
        """How many events the engine did not take, by the code of its error; a copy."""
        return dict(self._book.refusals)

    def subscribers(self) -> Sequence[SubscriberTotals]:
        """The totals of each subscriber, those of "other" included; copies."""
        number = self._fold()
        return [
            SubscriberTotals(
                name=track.name,
                active=track.active,
                health=health_of(*rates(track.window.within(number))),
                totals=dict(track.totals),
                buckets=tuple(track.buckets),
                seconds=track.nanos / 1e9,
            )
            for track in self._book.tracks()
        ]

    def lately(self, before: Lately | None, *, ended: bool = False) -> Lately:
        """What there was behind `before`, in slots that are over, so that nothing is told twice and nothing left out.

        Who looks seldom is told of the window alone, who looks the first time of two slots. `ended`: nobody will look
        again, so the slot that runs counts as well.
        """
        number, book = self._fold(), self._book
        last = number if ended else number - 1
        first = max(last - _FIRST if before is None else before.number, number - SLOTS)
        published = [slot for slot in book.publishes.within(number) if first < slot.number <= last]
        handled = book.handled.within(number)
        told = [slot for slot in handled if first < slot.number <= last]
        recent = [slot for slot in handled if last - _LAST < slot.number <= last]
        return Lately(
            number=max(first, last),
            seconds=max(0, last - first) * self._width,
            published=sum(slot.done for slot in published),
            delivered=sum(slot.done for slot in told),
            failed=sum(slot.failed for slot in told),
            marks=coarse(added(slot.marks for slot in recent)),
            longest=max((slot.longest for slot in recent), default=0.0),
            subscribers=self._busy(number),
        )

    def _busy(self, number: int) -> dict[str, tuple[float, float]]:
        """The rates of who did something, over the part of its window that runs and the one before."""
        part = number * COARSE // SLOTS - 1
        first = part * SLOTS // COARSE
        now = self._clock()
        span = min(now - first * self._width, max(self._width, now - self._start))
        found = dict[str, tuple[float, float]]()
        for track in self._book.tracks():
            if track.seen is not None and track.seen >= first:
                slots = [slot for slot in track.window.within(number) if slot.number >= part]
                found[track.name] = sum(slot.done for slot in slots) / span, sum(slot.failed for slot in slots) / span
        return found

    def _subscribers(self, number: int) -> dict[str, Any]:
        """Those that are active."""
        ranked: list[tuple[int, float, float, str, Track]] = []
        for track in self._book.tracks():
            if track.active:
                error_rate, mean = rates(track.window.within(number))
                ranked.append((CLASSES.index(health_of(error_rate, mean)), error_rate, mean, track.name, track))
        found = [CLASSES[each[0]] for each in ranked]
        worst = nlargest(_SHOWN, ranked, key=lambda each: each[:4])
        return {
            "total": len(ranked),
            "health": {name: found.count(name) for name in CLASSES},
            "by_name": {name: self._shown(name, [track], number) for *_, name, track in worst},
        }

    def _shown(self, name: str, tracks: Sequence[Track], number: int) -> dict[str, Any]:
        """One subscriber, which may be several subscriptions, or none."""
        slots = [slot for track in tracks for slot in track.window.within(number)]
        error_rate, mean = rates(slots)
        seen = max((track.seen for track in tracks if track.seen is not None), default=None)
        return {
            "subscriber": name,
            "health": health_of(error_rate, mean) if tracks else "unknown",
            "error_rate": error_rate,
            "deliveries": sum(track.totals["deliveries"] for track in tracks),
            "errors": sum(track.totals["errors"] for track in tracks),
            "latency": latency(slots),
            "last_seen_seconds": None if seen is None else max(0.0, self._clock() - (seen + 1) * self._width),
        }

    # --- slots --------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return int(self._clock() // self._width)

    def _fold(self) -> int:
        """Count all that gathered; the number of the slot that runs."""
        for meter in self._meters:
            meter.tell()
            meter.fold()
        self._fold_published()
        return self._number

    def _fold_published(self) -> None:
        if self._pending:
            self._book.published(self._pending, self._number)
            self._pending.clear()
        self._number = self._now()
        self._due = (self._number + 1) * self._width


def _name(value: str, what: str) -> str:
    """The name itself, as a plain `str`; InvalidEvent if it is none."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidEvent(f"{what}: {shown(value)} is not a name: 1 to 256 characters, no control characters")
    return str.__str__(value)
