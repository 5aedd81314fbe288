"""Dead letters: what one subscription could not handle, with its own copy of the event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from wowevent.broker import URGENT, Attempt, DeadLetter, DeadQuery, Discard, Reason, Redeliver
from wowevent.brokers.sqlite.log import checked
from wowevent.brokers.sqlite.schema import checksum, one
from wowevent.codec import encode
from wowevent.errors import BusError
from wowevent.event import Event
from wowevent.reading import reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

    from wowevent.brokers.sqlite.store import Store

PAGE: Final = 500
"""Dead letters of one look, where all are looked at."""

_attempts: Final = msgspec.json.Decoder(tuple[Attempt, ...])
_UNKNOWN: Final = "_bus.damaged"
_COLUMNS: Final = (
    "sub, lane, offset, event_id, topic, ts, correlation, reason, error, traceback, attempts, time, crc, body"
)


def attempts_of(text: str | None) -> tuple[Attempt, ...]:
    """The attempts of a column; none where it is damaged: the counts that decide stand in columns of their own."""
    try:
        return _attempts.decode(text) if text else ()
    except (msgspec.MsgspecError, TypeError):
        return ()


def bury(store: Store, key: tuple[int, int, int], why: tuple[Reason, str, str], attempts: str | None) -> None:
    """Make a dead letter of a leased entry, with reason, error and traceback; its row is the caller's to delete."""
    crc, body = one(
        store.db,
        "SELECT iif(e.body IS NULL, l.crc, e.crc), coalesce(e.body, l.body) FROM entry AS e "
        "LEFT JOIN log AS l ON l.offset = e.offset WHERE e.sub = ? AND e.lane = ? AND e.offset = ?",
        key,
    )
    try:
        event = checked(body, crc, key[2])
    except BusError as damage:  # read well when it was leased, and not any more
        bury_damaged(store, key, body, attempts, str(damage))
        return
    columns = (event.event_id, event.topic, event.timestamp.timestamp(), event.correlation_id)
    _insert(store, key, columns, (*why, attempts, store.clock.time(), crc, body))


def bury_damaged(store: Store, key: tuple[int, int, int], body: bytes | None, attempts: str | None, error: str) -> bool:
    """Make a dead letter of bytes that are not what was written, or newer than we are; False if nothing is known of it.

    The bytes are kept as they are where the checksum holds (a newer WowEvent can read them), else what the columns
    know stands for the event.
    """
    row = one(store.db, "SELECT id, topic, ts, coalesce(correlation, id), crc FROM log WHERE offset = ?", (key[2],))
    if row is None:
        return False
    id, topic, ts, correlation, crc = row
    if body is None or checksum(body, key[2]) != crc:
        body = encode(_placeholder(id, topic, ts / 1e6, correlation))
        crc = checksum(body, key[2])
    facts = (Reason.DESERIALIZATION_ERROR, error, "", attempts, store.clock.time(), crc, body)
    _insert(store, key, (id, topic, ts / 1e6, correlation), facts)
    return True


def _insert(store: Store, key: tuple[int, int, int], event: tuple[Any, ...], facts: tuple[Any, ...]) -> None:
    marks = ",".join("?" * 14)
    store.db.execute(f"INSERT INTO dead({_COLUMNS}) VALUES ({marks})", (*key, *event, *facts))  # noqa: S608 - constants


def _placeholder(id: str, topic: str, time: float, correlation: str) -> Event:
    """Stands for an event whose bytes cannot be shown; for nobody's, where the columns are damaged too."""
    try:
        moment = datetime.fromtimestamp(time, UTC)
        return Event(event_id=id, topic=topic, timestamp=moment, correlation_id=correlation, payload={})
    except (BusError, OSError, OverflowError, TypeError, ValueError):
        return Event(topic=_UNKNOWN, payload={})


def found(db: apsw.Connection, query: DeadQuery, behind: int = 0) -> list[DeadLetter]:
    """The dead letters asked for, oldest first, those behind that number."""
    nums = None if query.ids is None else str([int(id) for id in query.ids if _is_number(id)])
    rows = db.execute(
        "SELECT d.num, s.id, d.offset, d.event_id, d.topic, d.ts, d.correlation, d.reason, d.error, d.traceback, "
        "d.attempts, d.time, d.crc, d.body FROM dead AS d JOIN subscription AS s ON s.num = d.sub "
        "WHERE (?1 IS NULL OR d.num IN (SELECT value FROM json_each(?1))) AND (?2 IS NULL OR s.id = ?2) "
        "AND (?3 IS NULL OR d.reason = ?3) AND (?4 IS NULL OR d.event_id = ?4) "
        "AND (?5 IS NULL OR d.correlation = ?5) AND d.num > ?7 ORDER BY d.num LIMIT ?6",
        (nums, query.subscription, query.reason, query.event_id, query.correlation_id, query.limit, behind),
    )
    return [_letter(row) for row in rows]


def _is_number(id: str) -> bool:
    """Whether it can be one of ours: what a stranger sends may have more digits than SQLite, or Python, reads."""
    return id.isascii() and id.isdigit() and len(id) <= 18


def _letter(row: Sequence[Any]) -> DeadLetter:
    num, subscription, offset, id, topic, ts, correlation, reason, error, traceback, attempts, time, crc, body = row
    try:
        event = checked(body, crc, offset)
    except BusError:
        event = _placeholder(id, topic, ts, correlation)
    return DeadLetter(
        id=str(num),
        event=event,
        subscription=subscription,
        reason=reason_of(reason),
        error=error,
        traceback=traceback,
        attempts=attempts_of(attempts),
        time=time,
    )


def resolve(store: Store, letters: Sequence[Redeliver | Discard]) -> int:
    """Redeliver or discard; how many were there."""
    done = 0
    for letter in letters:
        if not _is_number(letter.id):
            continue
        row = one(
            store.db,
            "SELECT sub, offset, crc, body FROM dead WHERE num = ? AND sub IN (SELECT num FROM subscription)",
            (int(letter.id),),
        )
        if row is None:
            continue
        if isinstance(letter, Redeliver):
            _redeliver(store, *row)
        store.db.execute("DELETE FROM dead WHERE num = ?", (int(letter.id),))
        done += 1
    return done


def _redeliver(store: Store, num: int, offset: int, crc: int, body: bytes) -> None:
    """Ready again for its subscription, in the place that its age gives it, with fresh counts and its own bytes."""
    (exclusive,) = one(store.db, "SELECT json_extract(spec, '$.exclusive') FROM subscription WHERE num = ?", (num,))
    try:
        urgent = checked(body, crc, offset).priority >= URGENT and not exclusive
    except BusError:
        urgent = False
    store.db.execute(
        "INSERT OR REPLACE INTO entry(sub, lane, offset, redelivered, crc, body) VALUES (?, ?, ?, 1, ?, ?)",
        (num, 0 if urgent else 1, offset, crc, body),
    )
    store.woken.add(num)
