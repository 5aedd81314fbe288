"""What a new subscription takes in of the past, in chunks as it is fetched: a million events are not one transaction.

While some is left, a fetch hands out only what lies before the part that was not looked at yet, so the order holds.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from wowevent.broker import URGENT, Position, Subscription
from wowevent.brokers.sqlite.log import checked, head, micros
from wowevent.brokers.sqlite.schema import insert, one, rows
from wowevent.errors import BusError, PositionLost
from wowevent.priority import BANDS
from wowevent.routing import Routes, spec_of, subscription_of
from wowevent.topic import matches_any, matches_key

if TYPE_CHECKING:
    import apsw

    from wowevent.brokers.sqlite.store import Store

_CHUNK: Final = 500
_CHUNKS: Final = 4  # at most, in one transaction


def begin(store: Store, num: int, subscription: Subscription) -> None:
    """Note what this start (a position of it is checked) asks for, and take in the first of it."""
    start, since = subscription.start, None
    if start == "new":
        return
    upto, first = head(store)[0], store.registry.trimmed + 1
    if isinstance(start, Position):
        first = start.offset + 1
    elif isinstance(start, datetime):
        since = micros(start)
    if first <= upto:
        store.db.execute(
            "INSERT INTO backfill(sub, next, upto, since, spec) VALUES (?, ?, ?, ?, ?)",
            (num, first, upto, since, spec_of(subscription)),
        )
        advance(store, num)


def check(position: Position, epoch: str, trimmed: int, newest: int) -> None:
    """PositionLost unless this log goes on right behind that position."""
    if position.epoch != epoch or position.offset > newest:
        raise PositionLost("that position is of another log")
    if position.offset < trimmed:
        lost = trimmed - position.offset
        raise PositionLost(f"{lost} events behind that position are gone from the log", lost)


def advance(store: Store, num: int) -> int | None:
    """Look at some more of the past, until something was found; the position from which on nothing was looked at yet.

    None when all was. What is left wakes the fetches that wait, so that they go on.
    """
    for _ in range(_CHUNKS):
        row = one(store.db, "SELECT next, upto, since, spec FROM backfill WHERE sub = ?", (num,))
        if row is None:
            return None
        first, upto, since, spec = row
        last: int
        last = min(first + _CHUNK - 1, upto)
        found = _matching(store, subscription_of("", spec), num, (first, last, since))
        insert(store.db, "entry(sub, lane, offset)", 3, found)
        if last == upto:
            store.db.execute("DELETE FROM backfill WHERE sub = ?", (num,))
            return None
        store.db.execute("UPDATE backfill SET next = ? WHERE sub = ?", (last + 1, num))
        store.woken.add(num)
        if found:
            break
    return last + 1


def _matching(store: Store, subscription: Subscription, num: int, where: tuple[int, int, int | None]) -> list[Any]:
    """Flat rows of `entry` for what it wants: from the first position to the last, since that time if there is one."""
    routes = Routes()
    routes.add(subscription)
    past = rows(
        store.db,
        "SELECT offset, topic, crc, body FROM log WHERE offset BETWEEN ? AND ? AND body IS NOT NULL "
        "AND (?3 IS NULL OR ts >= ?3) ORDER BY offset",
        where,
    )
    found: list[Any] = []
    for offset, topic, crc, body in past:
        lane = 1
        try:
            event = checked(body, crc, offset)
            if not routes.match(event):
                continue
            if event.priority >= URGENT and not subscription.exclusive:
                lane = 0
        except BusError:  # it cannot be told from its bytes; the fetch that comes to it makes a dead letter of it
            if not _may_match(subscription, topic):
                continue
        found += (num, lane, offset)
    return found


def _may_match(subscription: Subscription, topic: str) -> bool:
    """Whether an event of this topic may be one of the subscription's, before its other fields are looked at."""
    if not subscription.keyed:
        return matches_any(subscription.patterns, topic)
    keys = [topic, *(f"{topic}.{band}" for band in BANDS)]
    return any(matches_key(pattern, key) for pattern in subscription.patterns for key in keys)


def unseen(db: apsw.Connection) -> dict[int, int]:
    """How many events each unfinished one has to come to, by their topics alone (filters may leave out some)."""
    counts = {}
    for num, first, upto, since, spec in rows(db, "SELECT sub, next, upto, since, spec FROM backfill"):
        topics = rows(
            db,
            "SELECT topic, count(*) FROM log WHERE offset BETWEEN ? AND ? AND body IS NOT NULL "
            "AND (?3 IS NULL OR ts >= ?3) GROUP BY topic",
            (first, upto, since),
        )
        subscription = subscription_of("", spec)
        counts[num] = sum(count for topic, count in topics if _may_match(subscription, topic))
    return counts
