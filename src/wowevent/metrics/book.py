"""Who there is, within bounds, and what they did: the totals of each event type and of each subscriber."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final

from msgspec import Struct

from wowevent.metrics.window import COARSE, SLOTS, Window, marks_of

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds: up to each of these a histogram counts, the bound included."""
OTHER: Final = "other"
"""Stands for all types, or subscribers, that came when there were as many as there may be."""
TOTALS: Final = ("deliveries", "errors", "retries", "dlq", "expired", "redelivered", "lost", "dropped", "rejected")
"""What is counted for each subscriber. Deliveries succeeded; the rejected are among the errors."""

_MANY: Final = 4096  # entries that gather before they are counted


class TypeTotals(Struct):
    """What there was of one event type, since ever."""

    publishes: int = 0
    deliveries: int = 0
    errors: int = 0
    touched: int = 0
    """The slot in which it was seen last."""


class Track:
    """One subscriber."""

    __slots__ = ("agent", "buckets", "by_hand", "meters", "name", "nanos", "seen", "totals", "touched", "window")

    def __init__(self, name: str, agent: str) -> None:
        self.name: str = name
        self.agent: str = agent
        self.meters: int = 0
        """The open ones."""
        self.touched: int = 0
        """The slot in which it was used last."""
        self.clear()

    def clear(self) -> None:
        """Forget what it did."""
        self.by_hand: bool = False
        """It was recorded without a meter, and so nobody says when it ends."""
        self.window: Window = Window(COARSE)
        self.totals: dict[str, int] = dict.fromkeys(TOTALS, 0)
        self.buckets: list[int] = [0] * len(BOUNDS)
        """How many took up to each of BOUNDS."""
        self.nanos: int = 0
        self.seen: int | None = None
        """The slot of its last delivery."""

    @property
    def active(self) -> bool:
        """Whether it is served."""
        return self.meters > 0 or self.by_hand


class Book:
    """All that is kept."""

    def __init__(self, max_types: int, max_subscribers: int) -> None:
        self._max_types = max_types
        self._max_subscribers = max_subscribers
        self._held: dict[str, Track] = {}  # those with an open meter
        self._loose: dict[str, Track] = {}  # the others, the one that was used longest ago first
        self._other = Track(OTHER, "")
        self.types: dict[str, TypeTotals] = {}
        """The one that was seen longest ago first."""
        self.clear()

    def clear(self) -> None:
        """Forget everything but who is served now."""
        self.publishes: Window = Window()
        self.handled: Window = Window()
        self.totals: dict[str, int] = dict.fromkeys(("publishes", "refused", *TOTALS), 0)
        self.refusals: dict[str, int] = {}
        """Events that the engine did not take, by the code of its error."""
        self.types.clear()
        self._loose.clear()
        for track in (*self._held.values(), self._other):
            track.clear()

    # --- who ----------------------------------------------------------------------------------------------------

    def type(self, name: str, number: int) -> TypeTotals:
        """The totals of a type, or of all others together."""
        found = self.types.pop(name, None)
        if found is None:
            if name != OTHER and len(self.types) - (OTHER in self.types) >= self._max_types:
                oldest = next(each for each in self.types if each != OTHER)
                if self.types[oldest].touched > number - SLOTS:
                    return self.type(OTHER, number)
                del self.types[oldest]
            found = TypeTotals()
        self.types[name] = found
        found.touched = max(found.touched, number)
        return found

    def track(self, name: str, agent: str, number: int) -> Track:
        """A subscriber's, or that of all others together; who is served, or was within the window, keeps its place."""
        found = self._other if name == OTHER else self._held.get(name) or self._loose.get(name)
        if found is None:
            if len(self._held) + len(self._loose) >= self._max_subscribers:
                oldest = next(iter(self._loose.values()), None)
                if oldest is None or oldest.touched > number - SLOTS:
                    return self._other
                del self._loose[oldest.name]
            found = self._loose[name] = Track(name, agent)
        return found

    def touch(self, track: Track, number: int, *, meters: int = 0) -> None:
        """It is used now, and has so many meters more."""
        track.meters += meters
        track.touched = max(track.touched, number)
        if track is not self._other:
            self._held.pop(track.name, None)
            self._loose.pop(track.name, None)
            (self._held if track.meters else self._loose)[track.name] = track

    def tracks(self) -> Sequence[Track]:
        """All that there are."""
        used = self._other.active or any(self._other.totals.values())
        return [*self._held.values(), *self._loose.values(), *([self._other] if used else [])]

    # --- what ---------------------------------------------------------------------------------------------------

    def published(self, counts: Mapping[str, int], number: int) -> None:
        """So many of each type, in that slot."""
        for name, count in counts.items():
            self.type(name, number).publishes += count
        total = sum(counts.values())
        self.totals["publishes"] += total
        self.publishes.slot(number).done += total

    def refused(self, code: str, count: int) -> None:
        """So many were not taken, with that error."""
        self.refusals[code] = self.refusals.get(code, 0) + count
        self.totals["refused"] += count

    def took(self, track: Track, gathered: Mapping[str, Sequence[float]], number: int, *, ok: bool) -> None:
        """The seconds of each delivery, by type, in that slot."""
        seconds = list(chain.from_iterable(gathered.values()))
        count, nanos, marks = len(seconds), round(sum(seconds) * 1e9), marks_of(seconds)
        done, failed = (count, 0) if ok else (0, count)
        for window in (track.window, self.handled):
            window.slot(number).add(done, failed, nanos, max(seconds), marks)
        slow = sorted([each for each in seconds if each > BOUNDS[0]])  # most are quicker: sorting all would take longer
        quick = count - len(slow)
        for place, bound in enumerate(BOUNDS):
            track.buckets[place] += quick + bisect_right(slow, bound)
        track.nanos += nanos
        track.seen = number if track.seen is None else max(track.seen, number)
        self.count(track, "deliveries" if ok else "errors", count)
        for name, each in gathered.items():
            totals = self.type(name, number)
            totals.deliveries += len(each) if ok else 0
            totals.errors += 0 if ok else len(each)

    def count(self, track: Track, name: str, count: int) -> None:
        """So many more of one of TOTALS."""
        track.totals[name] += count
        self.totals[name] += count


class Meter:
    """Counts for one subscription that is served here; close it when that ends."""

    __slots__ = ("_book", "_clock", "_close", "_done", "_due", "_failed", "_number", "_track", "_width", "tell")

    def __init__(
        self,
        book: Book,
        track: Track,
        clock: Callable[[], float],
        width: float,
        close: Callable[[Meter, Track], None],
    ) -> None:
        """`width` in seconds is that of a slot; `close` is told of the meter's end."""
        self.tell: Callable[[], object] = _nothing
        """Called before each look: who counts elsewhere may tell then what was not told yet."""
        self._book = book
        self._track = track
        self._clock = clock
        self._width = width
        self._close = close
        self._done: dict[str, list[float]] = {}  # what gathered, by type
        self._failed: dict[str, list[float]] = {}
        self._number = 0  # the slot in which it happened
        self._due = float("-inf")  # when that is over

    def took(self, event_type: str, seconds: float, count: int = 1, ok: bool = True) -> None:
        """One call of the handler, with so many events: how long it took, by a clock that only grows, and how it ended.

        Each of the events took as long as the call. This is called for every delivery, and made for speed.
        """
        if self._clock() >= self._due:
            self.fold()
        gathering = self._done if ok else self._failed
        try:
            gathered = gathering[event_type]
        except KeyError:
            gathered = gathering[event_type] = []
            if len(gathering) >= _MANY:
                self.fold()
                gathered = gathering[event_type] = []
        if count == 1:
            gathered.append(seconds)
        else:
            gathered += [seconds] * count
        if len(gathered) >= _MANY:
            self.fold()

    def fold(self) -> None:
        """Count what gathered, in the slot in which it happened."""
        for gathering, ok in ((self._done, True), (self._failed, False)):
            if any(gathering.values()):
                self._book.took(self._track, gathering, self._number, ok=ok)
            gathering.clear()
        self._number = int(self._clock() // self._width)
        self._due = (self._number + 1) * self._width

    def close(self) -> None:
        """Its subscription is not served here any more; its totals stay. Twice is once."""
        self._close(self, self._track)

    def rejected(self, count: int = 1) -> None:
        """Of those that failed, so many will never succeed; told after `took`."""
        self._book.count(self._track, "rejected", count)

    def retried(self, count: int = 1) -> None:
        """They failed, and are tried again."""
        self._book.count(self._track, "retries", count)

    def buried(self, count: int = 1) -> None:
        """They are with the dead letters now."""
        self._book.count(self._track, "dlq", count)

    def dropped(self, count: int = 1) -> None:
        """They failed for good, and no dead letter is kept."""
        self._book.count(self._track, "dropped", count)

    def expired(self, count: int = 1) -> None:
        """Their time to live was over before they were handled."""
        self._book.count(self._track, "expired", count)

    def redelivered(self, count: int = 1) -> None:
        """They came from the dead letters."""
        self._book.count(self._track, "redelivered", count)

    def lost(self, count: int = 1) -> None:
        """They were gone before they were read."""
        self._book.count(self._track, "lost", count)


def _nothing() -> None:
    """Everything was told."""
