"""Settling what is leased: acknowledge, retry, extend, bury. A token whose lease has ended settles nothing.

A token is `attempt.lane.position`. The attempt is the lease that the fetch opened; an entry that was extended without
the others of its batch has a lease of its own from then on, and remembers the attempt beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from wowevent.broker import Ack, Attempt, Bury, Extend, Retry
from wowevent.brokers.sqlite import dead
from wowevent.brokers.sqlite.dead import attempts_of
from wowevent.brokers.sqlite.entries import open_lease
from wowevent.brokers.sqlite.schema import one, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wowevent.broker import Settlement
    from wowevent.brokers.sqlite.store import Store

_MOST: Final = 2**63


def _parse(token: str) -> tuple[int, int, int] | None:
    """Attempt, lane and position of a token; None for what is none of ours."""
    try:
        attempt, lane, offset = map(int, token.split("."))
    except ValueError:
        return None
    return (attempt, lane, offset) if 0 <= attempt < _MOST and lane in (0, 1) and 0 < offset < _MOST else None


def settle(store: Store, id: str, settlements: Sequence[Settlement]) -> int:
    """Carry them out; how many were. Those whose lease has ended change nothing."""
    num = store.registry.num(id)
    acks: dict[tuple[int, int], list[int]] = {}
    extends: dict[tuple[int, int, float], list[tuple[int, str | None]]] = {}
    others: list[tuple[tuple[int, int, int], Retry | Bury]] = []
    done = 0
    for settlement in settlements:
        parsed = _parse(settlement.token)
        if parsed is None:
            continue
        attempt, lane, offset = parsed
        if isinstance(settlement, Ack):
            acks.setdefault((attempt, lane), []).append(offset)
        elif isinstance(settlement, Extend):
            extends.setdefault((attempt, lane, settlement.seconds), []).append((offset, settlement.error))
        else:
            others.append((parsed, settlement))
    for key, named in extends.items():  # first of all: what else is said of a token ends its lease
        done += _extend(store, num, key, named)
    for parsed, other in others:
        done += _settle_one(store, num, parsed, other)
    for (attempt, lane), offsets in acks.items():
        done += _ack(store, num, lane, attempt, offsets)
    return done


def _ack(store: Store, num: int, lane: int, attempt: int, offsets: list[int]) -> int:
    store.db.execute(
        "DELETE FROM entry WHERE sub = ? AND lane = ? AND lease = ? AND offset IN (SELECT value FROM json_each(?))",
        (num, lane, attempt, str(offsets)),
    )
    done = store.db.changes()
    if done:
        _settled(store, num, attempt, done)
    if done < len(offsets):  # extended alone, or stale
        moved = rows(
            store.db,
            "DELETE FROM entry WHERE sub = ? AND lane = ? AND token = ? AND offset IN (SELECT value FROM json_each(?)) "
            "RETURNING lease",
            (num, lane, attempt, str(offsets)),
        )
        for (lease,) in moved:
            _settled(store, num, lease, 1)
        done += len(moved)
    return done


def _settled(store: Store, num: int, lease: int, count: int) -> None:
    """So many entries of a lease are not leased any more; with the last one it is closed."""
    store.db.execute("DELETE FROM lease WHERE id = ? AND open <= ?", (lease, count))
    if not store.db.changes():
        store.db.execute("UPDATE lease SET open = open - ? WHERE id = ?", (count, lease))
        return
    (owner,) = one(store.db, "SELECT owner FROM subscription WHERE num = ?", (num,)) or (None,)
    if owner is None and lease >> 32 == store.me:  # given up with leases open: whoever waits for these may have it now
        store.woken.add(num)


def _extend(store: Store, num: int, key: tuple[int, int, float], named: list[tuple[int, str | None]]) -> int:
    """Lengthen the lease of exactly the named ones: of all its open entries, or of these in one of their own."""
    attempt, lane, seconds = key
    found = rows(
        store.db,
        "SELECT lease, offset FROM entry WHERE sub = ? AND lane = ? AND coalesce(token, lease) = ? "
        "AND offset IN (SELECT value FROM json_each(?))",
        (num, lane, attempt, str([offset for offset, _ in named])),
    )
    by_lease: dict[int, list[int]] = {}
    for lease, offset in found:
        by_lease.setdefault(lease, []).append(offset)
    for lease, offsets in by_lease.items():
        store.db.execute(
            "UPDATE lease SET until = ?, seconds = ?, boot = ? WHERE id = ? AND open = ?",
            (store.clock.monotonic() + seconds, seconds, store.boot, lease, len(offsets)),
        )
        store.soon(seconds)
        if not store.db.changes():
            store.db.execute(
                "UPDATE entry SET token = ?, lease = ? WHERE sub = ? AND lane = ? "
                "AND offset IN (SELECT value FROM json_each(?))",
                (attempt, open_lease(store, num, lane, offsets, seconds), num, lane, str(offsets)),
            )
            _settled(store, num, lease, len(offsets))
    errors = {offset: error for offset, error in named if error is not None}
    for _, offset in found:
        if offset in errors:
            _note_failure(store, (num, lane, offset), errors[offset])
    return len(found)


def _note_failure(store: Store, key: tuple[int, int, int], error: str) -> None:
    """Count a failure of an entry that stays leased."""
    store.db.execute(
        "UPDATE entry SET failures = failures + 1, attempts = json_insert(coalesce(attempts, '[]'), '$[#]', "
        "json_object('number', failures + crashes + 1, 'time', ?, 'error', ?)) "
        "WHERE sub = ? AND lane = ? AND offset = ?",
        (store.clock.time(), error, *key),
    )


class _Leased(Struct, gc=False):
    """A leased entry, all of it."""

    lease: int
    failures: int
    crashes: int
    attempts: str | None
    redelivered: int
    crc: int | None
    body: bytes | None

    def failed(self, now: float, error: str) -> None:
        """One more failure."""
        self.failures += 1
        attempt = Attempt(self.failures + self.crashes, now, error)
        self.attempts = msgspec.json.encode((*attempts_of(self.attempts), attempt)).decode()


def _settle_one(store: Store, num: int, parsed: tuple[int, int, int], settlement: Retry | Bury) -> bool:
    attempt, lane, offset = parsed
    key = (num, lane, offset)
    row = one(
        store.db,
        "SELECT lease, failures, crashes, attempts, redelivered, crc, body FROM entry "
        "WHERE sub = ? AND lane = ? AND offset = ? AND coalesce(token, lease) = ?",
        (*key, attempt),
    )
    if row is None:
        return False
    entry = _Leased(*row)
    if isinstance(settlement, Retry):
        if settlement.charge:
            entry.failed(store.clock.time(), settlement.error)
        _give_back(store, key, entry, settlement.delay)
    else:
        if settlement.error is not None:
            entry.failed(store.clock.time(), settlement.error)
        attempts = attempts_of(entry.attempts)
        error = settlement.error if settlement.error is not None else attempts[-1].error if attempts else ""
        dead.bury(store, key, (settlement.reason, error, settlement.traceback), entry.attempts)
        store.db.execute("DELETE FROM entry WHERE sub = ? AND lane = ? AND offset = ?", key)
    _settled(store, num, entry.lease, 1)
    return True


def _give_back(store: Store, key: tuple[int, int, int], entry: _Leased, delay: float) -> None:
    """Ready again, now or in `delay` seconds."""
    if delay <= 0:
        store.db.execute(
            "UPDATE entry SET lease = NULL, token = NULL, failures = ?, attempts = ? "
            "WHERE sub = ? AND lane = ? AND offset = ?",
            (entry.failures, entry.attempts, *key),
        )
        store.woken.add(key[0])
        return
    store.db.execute("DELETE FROM entry WHERE sub = ? AND lane = ? AND offset = ?", key)
    store.db.execute(
        "INSERT OR REPLACE INTO retry(sub, lane, offset, due, failures, crashes, attempts, redelivered, crc, body) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *key,
            store.clock.time() + delay,
            entry.failures,
            entry.crashes,
            entry.attempts,
            entry.redelivered,
            entry.crc,
            entry.body,
        ),
    )
    store.soon(delay)
