"""What happened lately: a window of slots that forgets, and what its numbers mean. No clock: slots are numbered.

A mark is a number of seconds without what makes less than 1 % of it: the upper half of its 32-bit float, which has
seven bits of the mantissa. So percentiles are as near as that, and slots are added up by adding counts of marks.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from wowevent.breaker import BreakerPolicy, Health

SLOTS: Final = 60
"""In so many parts a window forgets,"""
COARSE: Final = 12
"""and one of a single subscriber in so many: there are thousands of those, and each part takes some 400 bytes."""

_UPPER: Final = 1 if sys.byteorder == "little" else 0  # of the two halves of a float
_PERCENTS: Final = (50, 95, 99)
_FINE: Final = 0b111  # of a mark, what a coarse one does not tell
_POLICY: Final = BreakerPolicy()  # whose bounds are W10's


def health_of(error_rate: float, mean_seconds: float) -> Health:
    """W10's classes: healthy below 5 % errors and below 1 s, degraded up to 20 % and up to 5 s, these included."""
    return _POLICY.health(error_rate, mean_seconds)


def marks_of(seconds: Sequence[float]) -> Counter[int]:
    """How many have each mark. Numbers from 0 on that a float can hold."""
    return Counter(memoryview(array("f", seconds)).cast("B").cast("H")[_UPPER::2].tolist())


class Slot:
    """One part of the window."""

    __slots__ = ("done", "failed", "longest", "marks", "nanos", "number")

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.done: int = 0
        self.failed: int = 0
        self.nanos: int = 0
        """Nanoseconds that all of them took: whole numbers add up exactly."""
        self.longest: float = 0.0
        self.marks: dict[int, int] = {}

    def add(self, done: int, failed: int, nanos: int, longest: float, marks: Mapping[int, int]) -> None:
        """Count what happened in it."""
        self.done += done
        self.failed += failed
        self.nanos += nanos
        self.longest = max(self.longest, longest)
        known = self.marks
        for mark, times in marks.items():
            known[mark] = known.get(mark, 0) + times


class Window:
    """The last slots, those in which something happened."""

    __slots__ = ("_parts", "_slots")

    def __init__(self, parts: int = SLOTS) -> None:
        """`parts` divides SLOTS: so many slots of its own."""
        self._parts = parts
        self._slots: dict[int, Slot] = {}  # by number, modulo parts

    def slot(self, number: int) -> Slot:
        """To count in what happened in slot `number`; one that is out of the window by now is kept by nobody."""
        number = number * self._parts // SLOTS
        slot = self._slots.get(number % self._parts)
        if slot is None or slot.number < number:
            slot = self._slots[number % self._parts] = Slot(number)
        return slot if slot.number == number else Slot(number)

    def within(self, number: int) -> Sequence[Slot]:
        """Those of the window that ends with slot `number`; what is older is forgotten."""
        oldest = number * self._parts // SLOTS - self._parts
        for key in [key for key, slot in self._slots.items() if slot.number <= oldest]:
            del self._slots[key]
        return list(self._slots.values())


def rates(slots: Iterable[Slot]) -> tuple[float, float]:
    """The fraction that failed, and the mean of seconds; 0 where there was nothing."""
    done = failed = nanos = 0
    for slot in slots:
        done += slot.done
        failed += slot.failed
        nanos += slot.nanos
    count = done + failed
    return (failed / count, nanos / count / 1e9) if count else (0.0, 0.0)


def latency(slots: Sequence[Slot]) -> dict[str, float]:
    """`p50 p95 p99 mean max` in seconds, and `count`; all 0 where there was nothing. Failures count, too."""
    marks, longest = added(slot.marks for slot in slots), max((slot.longest for slot in slots), default=0.0)
    return {**percentiles(marks, longest), "mean": rates(slots)[1], "max": longest, "count": sum(marks.values())}


def added(several: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """How many have each mark, in all of them together."""
    marks: dict[int, int] = {}
    for each in several:
        for mark, times in each.items():
            marks[mark] = marks.get(mark, 0) + times
    return marks


def coarse(marks: Mapping[int, int]) -> dict[int, int]:
    """The same in marks of which there are an eighth as many, within 3 %: for who sends them."""
    found: dict[int, int] = {}
    for mark, times in marks.items():
        middle = mark & ~_FINE | _FINE // 2
        found[middle] = found.get(middle, 0) + times
    return found


def percentiles(marks: Mapping[int, int], longest: float) -> dict[str, float]:
    """`p50 p95 p99` in seconds; 0 where there was nothing."""
    count = sum(marks.values())
    found = {f"p{percent}": 0.0 for percent in _PERCENTS}
    passed = 0
    for mark, times in sorted(marks.items()):
        for percent in _PERCENTS:
            rank = -(-count * percent // 100)  # the nearest one: so many are not longer
            if passed < rank <= passed + times:
                found[f"p{percent}"] = longest if rank == count else min(_seconds(mark), longest)
        passed += times
    return found


def _seconds(mark: int) -> float:
    """The middle of all that have that mark."""
    if mark == 0:
        return 0.0
    middle: float = struct.unpack("f", struct.pack("I", (mark << 16) | (1 << 15)))[0]
    return middle
