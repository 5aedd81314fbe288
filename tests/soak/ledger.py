"""The journals of a long run, judged as they grow: what is settled is counted, and forgotten.

A minute after an event was published, what was written down of it is judged by the checker of the fault tests, together
with the events around it. What is well is counted, and only its number is kept; what is not well stays, and is judged
again, the last time when all is drained. So this takes the memory of a minute, however long the run is; and a
position that two events have is found if they were published within a minute.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.faults.checker import Report, check
from tests.faults.journal import Entry, Tail
from tests.faults.router_lab import joined, parts

PROMISES = ("lost", "unexpected", "altered", "conflicts")
"""What no fault excuses."""
ORDERED = "ordered"
"""The subscription that keeps an order, so that inversions in it are counted."""


class Ledger:
    """Of the journals of one folder, whose events are called `{publisher}-{number}`."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._tail = Tail(folder)
        self._declared: dict[str, Entry] = {}
        self._open: dict[str, list[Entry]] = {}
        self._settled: dict[str, bytearray] = defaultdict(bytearray)
        self.counts: Counter[str] = Counter()
        """Of what is settled: events, and the fields of the checker's report."""
        self.left: Report = joined({})
        """What is not well as of the last sweep."""
        self.given: Counter[str] = Counter()
        """How many events each publisher got an answer for."""
        self.notes: dict[str, dict[str, Any]] = {}
        """What each process said last."""
        self.ended: set[str] = set()
        """Processes that ended in good order."""

    def update(self) -> None:
        """Take in what was written since the last time. Threads may ask at once: each line is counted once."""
        with self._lock:
            for entry in self._tail.take():
                if entry.id:
                    self._event(entry)
                else:
                    self._process(entry)

    def sweep(self, before: float = math.inf) -> None:
        """Judge the events that were published before that moment, and forget those that are well."""
        with self._lock:
            self._sweep(before)

    def _sweep(self, before: float) -> None:
        ripe = {id: entries for id, entries in self._open.items() if entries[0].time < before}
        self.left = self._judged(ripe)
        unwell = {each.partition("/")[2] for name in PROMISES for each in getattr(self.left, name)}
        well = {id: entries for id, entries in ripe.items() if id not in unwell}
        self._count(self._judged(well), len(well))
        for id in well:
            del self._open[id]
            self._settle(id)

    @property
    def total(self) -> dict[str, int]:
        """What is settled, with what is not well."""
        left = {name: len(getattr(self.left, name)) for name in PROMISES}
        return {**dict.fromkeys(("events", "ok", "recovered", "duplicates", "inversions"), 0), **left, **self.counts}

    def _judged(self, events: dict[str, list[Entry]]) -> Report:
        entries = [*self._declared.values(), *(entry for found in events.values() for entry in found)]
        return joined({name: check(part) for name, part in parts(entries).items()})

    def _count(self, report: Report, events: int) -> None:
        self.counts["events"] += events
        for name in ("ok", "recovered"):
            self.counts[name] += len(getattr(report, name))
        self.counts["duplicates"] += sum(count - 1 for count in report.duplicates.values())
        ordered = (count for key, count in report.inversions.items() if key.startswith(f"{ORDERED}/"))
        self.counts["inversions"] += sum(ordered)

    def _event(self, entry: Entry) -> None:
        if entry.what == "ok":
            self.given[entry.process] += 1
        if not self._is_settled(entry.id):
            self._open.setdefault(entry.id, []).append(entry)
        elif entry.what == "effect":
            self.counts["duplicates"] += 1

    def _process(self, entry: Entry) -> None:
        if entry.what == "ready" and "|" in entry.key:
            self._declared.setdefault(entry.key, entry)
        if entry.note.startswith("{"):
            self.notes[entry.process] = json.loads(entry.note)
        if entry.what == "stopped":
            self.ended.add(entry.process)

    def _is_settled(self, id: str) -> bool:
        name, _, number = id.rpartition("-")
        settled = self._settled.get(name, b"")
        return number.isdecimal() and int(number) < len(settled) and bool(settled[int(number)])

    def _settle(self, id: str) -> None:
        name, _, number = id.rpartition("-")
        settled = self._settled[name]
        settled.extend(bytes(max(0, int(number) + 1 - len(settled))))
        settled[int(number)] = 1
