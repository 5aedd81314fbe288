"""The janitor: keeps the log within its limits, in small steps between the transactions that somebody waits for.

Age and bytes are hard: what is unread goes too, and is counted as lost. Count is soft: it takes only what every
subscription has left behind. An id outlives its event as a stub, for as long as duplicates are looked for.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from wowevent.broker import KNOWN_IDS, KNOWN_SECONDS
from wowevent.brokers.sqlite import backfill, entries
from wowevent.brokers.sqlite.log import count_lost, head
from wowevent.brokers.sqlite.schema import one, rows

if TYPE_CHECKING:
    from wowevent.brokers.sqlite.store import Store

_CHUNK: Final = 500
_ANY: Final = 2**62
_OF_THE_LOG: Final = "WHERE sub IN (SELECT num FROM subscription) AND lane IN (0, 1) AND offset <= ? AND body IS NULL"
_UNREAD: Final = (f"entry {_OF_THE_LOG} AND lease IS NULL", f"retry {_OF_THE_LOG}")


def step(store: Store) -> bool:
    """One small step; whether there may be more to do."""
    now = store.clock.time()
    newest, total, _ = head(store)
    more = [
        _end_live(store, now),
        _trim(store, now, newest, total),
        _drop_stubs(store, now, newest),
        _lapse(store, now),
        _drop_orphans(store),
    ]
    store.db.execute("DELETE FROM delayed WHERE gone < ?", (now - KNOWN_SECONDS,))
    return any(more)


def limited(store: Store) -> bool:
    """Whether there are limits to look after more often than the rest."""
    limits = store.retention
    return limits.max_age is not None or limits.max_bytes is not None or limits.max_count is not None


def _end_live(store: Store, now: float) -> bool:
    """Replies that nobody waits for any more."""
    store.db.execute(
        "DELETE FROM live WHERE num IN (SELECT num FROM (SELECT num, stored_at FROM live ORDER BY num LIMIT ?) "
        "WHERE stored_at < ?)",
        (_CHUNK, (now - KNOWN_SECONDS) * 1e6),
    )
    return store.db.changes() == _CHUNK


def _drop_stubs(store: Store, now: float, newest: int) -> bool:
    """Ids that are old enough to be forgotten; never the newest row, whose position must not come again."""
    store.db.execute(
        "DELETE FROM log WHERE offset IN (SELECT offset FROM (SELECT offset, stored_at FROM log WHERE body IS NULL "
        "ORDER BY offset LIMIT ?) WHERE offset <= ? AND stored_at < ?)",
        (_CHUNK, newest - KNOWN_IDS, (now - KNOWN_SECONDS) * 1e6),
    )
    return store.db.changes() == _CHUNK


def _trim(store: Store, now: float, newest: int, total: int) -> bool:
    """Give up the oldest events that the limits do not allow any more."""
    if not limited(store):
        return False
    trimmed, trimmed_total = one(store.db, "SELECT trimmed, trimmed_total FROM state")
    bound = max(
        _hard_bound(store, now, trimmed, total, trimmed_total),
        min(_soft_bound(store, trimmed, newest), trimmed + _CHUNK),
    )
    if bound <= trimmed:
        return False
    _drop_unread(store, bound)
    forgotten = min(bound, newest - KNOWN_IDS)
    old = (now - KNOWN_SECONDS) * 1e6
    (reached,) = one(store.db, "SELECT max(total) FROM log WHERE offset > ? AND offset <= ?", (trimmed, bound))
    store.db.execute("DELETE FROM log WHERE offset > ? AND offset <= ? AND stored_at < ?", (trimmed, forgotten, old))
    store.db.execute(
        "UPDATE log SET body = NULL, crc = NULL WHERE offset > ? AND offset <= ? AND body IS NOT NULL", (trimmed, bound)
    )
    store.db.execute("UPDATE state SET trimmed = ?, trimmed_total = ?", (bound, reached))
    store.registry.trimmed = bound
    return True


def _hard_bound(store: Store, now: float, trimmed: int, total: int, trimmed_total: int) -> int:
    """Up to where the next chunk is too old, or too much."""
    limits = store.retention
    oldest = -1.0 if limits.max_age is None else (now - limits.max_age) * 1e6
    excess = -1 if limits.max_bytes is None else total - limits.max_bytes
    if limits.max_age is None and excess <= trimmed_total:
        return 0
    (bound,) = one(
        store.db,
        "SELECT max(offset) FROM (SELECT offset, stored_at, lag(total, 1, ?1) OVER (ORDER BY offset) AS before FROM "
        "(SELECT offset, stored_at, total FROM log WHERE offset > ?2 ORDER BY offset LIMIT ?3)) "
        "WHERE stored_at < ?4 OR before < ?5",
        (trimmed_total, trimmed, _CHUNK, oldest, excess),
    )
    return bound or 0


def _soft_bound(store: Store, trimmed: int, newest: int) -> int:
    """Up to where there are more events than wanted, and nobody needs them."""
    most = store.retention.max_count
    if most is None or newest - trimmed <= most:
        return 0
    (needed,) = one(
        store.db,
        "SELECT min(offset) FROM ("
        "SELECT (SELECT min(offset) FROM entry WHERE sub = num AND lane = 0) AS offset FROM subscription "
        "UNION ALL SELECT (SELECT min(offset) FROM entry WHERE sub = num AND lane = 1) FROM subscription "
        "UNION ALL SELECT min(offset) FROM retry UNION ALL SELECT min(next) FROM backfill)",
    )
    return min(newest - most, _ANY if needed is None else needed - 1)


def _drop_unread(store: Store, bound: int) -> None:
    """What is unread up to there is lost to its subscription, and counted; what is leased gets its own copy."""
    for (num,) in rows(store.db, "SELECT sub FROM backfill WHERE next <= ?", (bound,)):
        while (left := backfill.advance(store, num)) is not None and left <= bound:
            pass
    store.db.execute(
        "UPDATE entry SET (crc, body) = (SELECT crc, body FROM log WHERE log.offset = entry.offset) "  # noqa: S608 - constants
        f"{_OF_THE_LOG} AND lease IS NOT NULL",
        (bound,),
    )
    for source in _UNREAD:
        lost = rows(store.db, f"SELECT sub, count(*) FROM {source} GROUP BY sub", (bound,))  # noqa: S608 - constants
        if lost:
            count_lost(store, Counter(dict(lost)))
            store.db.execute(f"DELETE FROM {source}", (bound,))  # noqa: S608 - constants
            store.woken.update(num for num, _ in lost)


def _lapse(store: Store, now: float) -> bool:
    """Subscriptions that nobody has served for too long give way: nothing is kept for them, and their backlog goes."""
    unserved = rows(
        store.db,
        "SELECT num FROM subscription WHERE durable AND NOT lapsed AND served_at < ? "
        "AND NOT EXISTS (SELECT 1 FROM serving WHERE sub = num)",
        (now - store.retention.unserved_after,),
    )
    for (num,) in unserved:
        version = store.registry.changed(store.db)
        store.db.execute("UPDATE subscription SET lapsed = 1, version = ? WHERE num = ?", (version, num))
    if unserved:
        store.registry.refresh(store.db, store.me)
    more = [_drop_backlog(store, store.registry.nums[id]) for id in store.registry.lapsed if id in store.registry.nums]
    return any(more)


def _drop_backlog(store: Store, num: int) -> bool:
    """Some of what a lapsed subscription had waiting; whether there may be more."""
    unseen = backfill.advance(store, num)
    dropped = entries.drop_ready(store, num, _ANY)
    store.db.execute("DELETE FROM retry WHERE sub = ?", (num,))
    lost = dropped + store.db.changes()
    count_lost(store, Counter({num: lost} if lost else {}))
    return unseen is not None or dropped > 0


def _drop_orphans(store: Store) -> bool:
    """The backlogs of removed subscriptions."""
    row = one(store.db, "SELECT sub FROM orphan LIMIT 1")
    if row is None:
        return False
    store.db.execute("UPDATE entry SET lease = NULL WHERE sub = ? AND lane IN (0, 1) AND lease IS NOT NULL", row)
    if not entries.drop_ready(store, row[0], _ANY):
        store.db.execute("DELETE FROM orphan WHERE sub = ?", row)
    return True
