"""What a history says of the promises: what was lost, invented, repeated, disordered or altered.

lost        ok, and neither handled, nor a dead letter, nor retained          must be empty
unexpected  seen somewhere, and never published                               must be empty
altered     seen with another payload than was published                      must be empty
conflicts   a position with two events, or an event with two positions        must be empty
settled_twice  acknowledged twice, or acknowledged and a dead letter too       must be empty
revived     delivered after its acknowledgement was taken                     must be empty
recovered   no answer to its publish, and seen all the same                   allowed
duplicates  handled more than once                                            allowed after a fault, not without
inversions  handled for the first time after a later one of its key           not without a fault
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from msgspec import Struct

from tests.faults.journal import Entry

_SEEN = ("ok", "delivered", "effect", "acked", "retried", "buried")


class Report(Struct, frozen=True, kw_only=True):
    """The verdict, by event id."""

    invoked: frozenset[str]
    ok: frozenset[str]
    handled: frozenset[str]
    lost: frozenset[str]
    unexpected: frozenset[str]
    altered: frozenset[str]
    conflicts: frozenset[str]
    settled_twice: frozenset[str]
    revived: frozenset[str]
    recovered: frozenset[str]
    duplicates: Mapping[str, int]
    """How often each was handled, if more than once."""
    inversions: Mapping[str, int]
    """How many of each key came too late."""

    def broken(self) -> dict[str, frozenset[str]]:
        """The promises that no fault excuses, and the events that broke them."""
        names = ("lost", "unexpected", "altered", "conflicts", "settled_twice", "revived")
        return {name: found for name in names if (found := getattr(self, name))}

    def summary(self) -> str:
        """One line of numbers."""
        counts = {name: len(getattr(self, name)) for name in self.__struct_fields__}
        return " ".join(f"{name}={count}" for name, count in counts.items())


def check(history: Iterable[Entry], *, dead: Iterable[str] = (), retained: Iterable[str] = ()) -> Report:
    """Judge a history of one subscription, after the fault was healed and the subscription drained.

    `dead` are the ids of its dead letters, one for each letter; `retained` the ids that it, or the log where nobody
    subscribed, still has.
    """
    entries = sorted(history, key=lambda entry: entry.time)
    by_what: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_what[entry.what].append(entry)
    invoked, ok, handled = (frozenset(e.id for e in by_what[what]) for what in ("invoked", "ok", "effect"))
    letters, kept = Counter(dead), frozenset(retained)
    seen = kept | letters.keys() | {entry.id for what in _SEEN for entry in by_what[what]}
    answered = ok | {entry.id for entry in by_what["failed"]}
    times = Counter(entry.id for entry in by_what["effect"])
    return Report(
        invoked=invoked,
        ok=ok,
        handled=handled,
        lost=ok - handled - letters.keys() - kept,
        unexpected=frozenset(seen - invoked),
        altered=_altered(entries),
        conflicts=_conflicts(entries),
        settled_twice=_settled_twice(by_what, letters),
        revived=_revived(entries),
        recovered=frozenset((invoked - answered) & seen),
        duplicates={id: count for id, count in times.items() if count > 1},
        inversions=_inversions(by_what["effect"]),
    )


def _altered(entries: Iterable[Entry]) -> frozenset[str]:
    digests: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.digest:
            digests[entry.id].add(entry.digest)
    return frozenset(id for id, found in digests.items() if len(found) > 1)


def _conflicts(entries: Iterable[Entry]) -> frozenset[str]:
    ids: dict[str, set[str]] = defaultdict(set)
    positions: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.position:
            ids[entry.position].add(entry.id)
            positions[entry.id].add(entry.position)
    shared = {id for found in ids.values() if len(found) > 1 for id in found}
    return frozenset(shared | {id for id, found in positions.items() if len(found) > 1})


def _settled_twice(by_what: Mapping[str, list[Entry]], letters: Counter[str]) -> frozenset[str]:
    acked = Counter(entry.id for entry in by_what["acked"])
    return frozenset(id for id in acked.keys() | letters.keys() if acked[id] + letters[id] > 1)


def _revived(entries: Iterable[Entry]) -> frozenset[str]:
    acked: set[str] = set()
    revived: set[str] = set()
    for entry in entries:
        if entry.what == "acked":
            acked.add(entry.id)
        elif entry.what == "delivered" and entry.id in acked:
            revived.add(entry.id)
    return frozenset(revived)


def _inversions(effects: Iterable[Entry]) -> dict[str, int]:
    last: dict[str, int] = {}
    done: set[str] = set()
    late: Counter[str] = Counter()
    for entry in effects:
        if entry.id in done or not entry.position:
            continue
        done.add(entry.id)
        offset = int(entry.position.rpartition("-")[2])
        if offset < last.get(entry.key, 0):
            late[entry.key] += 1
        last[entry.key] = max(offset, last.get(entry.key, 0))
    return dict(late)
