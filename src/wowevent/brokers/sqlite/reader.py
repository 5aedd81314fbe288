"""Reading the log and its facts: pages by a query, on a connection of their own; no reader waits for a commit."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from wowevent.broker import Position, Query, Stored
from wowevent.brokers.sqlite.backfill import check
from wowevent.brokers.sqlite.log import checked, micros
from wowevent.brokers.sqlite.schema import one, rows
from wowevent.errors import BusError, PositionLost, StorageDamaged
from wowevent.reading import wanted
from wowevent.topic import matches_any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

_SCAN: Final = 2_000  # rows looked at for a page
_EVENTS, _BYTES = 256, 2**20  # of a page
_decoder: Final = msgspec.json.Decoder(list[tuple[int, int, int | None, int]])
_found: Final = msgspec.json.Decoder(list[tuple[int, str, int]])

_BODIES: Final = """
SELECT json_group_array(json_array(offset, stored_at, crc, length(body))),
       CAST(group_concat(CAST(body AS TEXT), '') AS BLOB)
FROM (SELECT offset, stored_at, crc, body FROM log
      WHERE offset IN (SELECT value FROM json_each(?)) AND body IS NOT NULL ORDER BY offset)"""

# What is damaged need not be of the type that it was written as.
_FACTS: Final = """
SELECT offset, CAST(topic AS TEXT), stored_at, crc, CAST(body AS BLOB) FROM fact
WHERE offset > ? ORDER BY offset LIMIT ?"""


class Page(Struct):
    """Some events, and the position up to which the log was looked at."""

    items: list[Stored | BusError]
    upto: int
    at_end: bool


class Place(Struct):
    """Where a reader stands: behind which position, None for the oldest; and up to where it reads, None for ever.

    One that follows sees the replies that came since it began, too, and knows the last of them that it has seen.
    """

    after: Position | None
    upto: int | None = None
    since: float = 0.0
    live: int | None = None


def page(db: apsw.Connection, query: Query, place: Place, *, follow: bool) -> Page:
    """The next events; PositionLost if some behind the place are gone (the place is moved behind the gap)."""
    db.execute("BEGIN")
    try:
        epoch, trimmed = one(db, "SELECT epoch, trimmed FROM state")
        last = newest(db)
        if place.after is None:
            place.after = Position(epoch, trimmed if query.since is None else _before(db, trimmed, last, query.since))
        lost, place.after = place.after, Position(epoch, max(trimmed, place.after.offset))
        if lost.epoch != epoch or lost.offset > last:
            place.after = Position(epoch, trimmed)
        check(lost, epoch, trimmed, last)
        upto = last if place.upto is None else min(place.upto, last)
        found = _page(db, query, place.after.offset, upto, epoch)
        place.after = Position(epoch, found.upto)
        if follow and any(pattern.startswith("_") for pattern in query.patterns):
            replies = _live(db, query, place, epoch)
            found.items[:0] = replies
            found.at_end = found.at_end and len(replies) < _EVENTS
        return found
    finally:
        db.execute("ROLLBACK")


def facts(db: apsw.Connection, query: Query, place: Place) -> Page:
    """The next facts; PositionLost if the place is one of another log (it is moved before the first)."""
    db.execute("BEGIN")
    try:
        (epoch,) = one(db, "SELECT epoch FROM state")
        last, after = newest(db), place.after or Position(epoch, 0)
        if after.epoch != epoch or after.offset > last:
            place.after = None
            raise PositionLost("that position is of another log")
        found = rows(db, _FACTS, (after.offset, _EVENTS))
    finally:
        db.execute("ROLLBACK")
    if not _rising(after.offset, [row[0] for row in found]):
        place.after = Position(epoch, last)
        return Page([StorageDamaged(f"the facts' positions behind {after.offset} are in disorder")], last, at_end=True)
    items: list[Stored | BusError] = []
    for offset, topic, stored_at, crc, body in found:
        place.after = after = Position(epoch, offset)
        try:
            event = checked(body, crc, offset)
            if wanted(query, event):
                items.append(Stored(event, after, stored_at / 1e6))
        except BusError as error:
            if matches_any(query.patterns, topic):
                items.append(error)
    return Page(items, after.offset, at_end=len(found) < _EVENTS)


def _rising(after: int, offsets: Sequence[int]) -> bool:
    """Whether these go up from there. In a damaged tree they may not; to believe it could be to go round in it."""
    return all(before < here for before, here in pairwise((after, *offsets)))


def _before(db: apsw.Connection, first: int, last: int, moment: float) -> int:
    """The position behind which lies what was stored at that moment and later; from `first` on."""

    def stored_at(offset: int) -> int:
        (at,) = one(db, "SELECT stored_at FROM log WHERE offset >= ? ORDER BY offset LIMIT 1", (offset,))
        return int(at)

    return first + bisect_left(range(first + 1, last + 1), int(moment * 1e6), key=stored_at)


def newest(db: apsw.Connection) -> int:
    """The newest position; 0 if there is none."""
    (offset,) = one(db, "SELECT coalesce(max(offset), 0) FROM log")
    return int(offset)


def _page(db: apsw.Connection, query: Query, after: int, upto: int, epoch: str) -> Page:
    most = _EVENTS if query.limit is None else max(1, min(_EVENTS, query.limit))
    rows = most if "#" in query.patterns else _SCAN  # of those, all but the bus's own are wanted
    scanned = _found.decode(_scan(db, query, after, upto, rows))
    if not _rising(after, [row[0] for row in scanned]):
        return Page([StorageDamaged(f"the log's positions behind {after} are in disorder")], upto, at_end=True)
    wanted: dict[str, bool] = {}
    chosen: list[int] = []
    size, looked = 0, upto if len(scanned) < rows else scanned[-1][0]
    for offset, topic, length in scanned:
        if topic not in wanted:
            wanted[topic] = matches_any(query.patterns, topic)
        if not wanted[topic]:
            continue
        chosen.append(offset)
        size += length
        if len(chosen) == most or size >= _BYTES:
            looked = offset
            break
    looked = max(looked, after)
    return Page(_load(db, chosen, epoch) if chosen else [], looked, looked >= upto)


def _scan(db: apsw.Connection, query: Query, after: int, upto: int, rows: int) -> str:
    """Position, topic and size of the next rows that may be wanted, so many at most."""
    where = ["offset > :after", "offset <= :upto", "body IS NOT NULL"]
    if query.correlation_id is not None:
        # Two indexed look-ups; NULL stands for the event's own id.
        where.append(
            "offset IN (SELECT offset FROM log WHERE correlation = :correlation "
            "UNION ALL SELECT offset FROM log WHERE id = :correlation AND correlation IS NULL)"
        )
    if query.conversation is not None:
        where.append(
            "offset IN (SELECT offset FROM log WHERE correlation = :conversation "
            "UNION ALL SELECT offset FROM log WHERE id = :conversation)"
        )
    if query.event_ids is not None:
        where.append("offset IN (SELECT offset FROM log WHERE id IN (SELECT value FROM json_each(:ids)))")
    if query.start_time is not None:
        where.append("ts >= :start")
    if query.end_time is not None:
        where.append("ts <= :end")
    sql = (
        "SELECT json_group_array(json_array(offset, topic, size)) FROM "  # noqa: S608 - constants
        "(SELECT offset, topic, length(body) AS size FROM log "
        f"WHERE {' AND '.join(where)} ORDER BY offset LIMIT {rows})"
    )
    bindings: dict[str, Any] = {
        "after": after,
        "upto": upto,
        "correlation": query.correlation_id,
        "conversation": query.conversation,
        "ids": None if query.event_ids is None else msgspec.json.encode(query.event_ids).decode(),
        "start": None if query.start_time is None else micros(query.start_time),
        "end": None if query.end_time is None else micros(query.end_time),
    }
    (text,) = one(db, sql, bindings)
    return str(text)


def _load(db: apsw.Connection, offsets: list[int], epoch: str) -> list[Stored | BusError]:
    text, bodies = one(db, _BODIES, (str(offsets),))
    items: list[Stored | BusError] = []
    at = 0
    for offset, stored_at, crc, size in _decoder.decode(text):
        try:
            event = checked(bodies[at : at + size], crc, offset)
            items.append(Stored(event, Position(epoch, offset), stored_at / 1e6))
        except BusError as error:
            items.append(error)
        at += size
    return items


def _live(db: apsw.Connection, query: Query, place: Place, epoch: str) -> list[Stored | BusError]:
    """The replies that came since the last look."""
    found: list[Stored | BusError] = []
    if place.live is None:  # only here by time: clocks are set back
        (place.live,) = one(db, "SELECT coalesce(max(num), 0) FROM live WHERE stored_at < ?", (int(place.since * 1e6),))
    news = rows(
        db,
        "SELECT num, topic, offset, stored_at, crc, body FROM live WHERE num > ? ORDER BY num LIMIT ?",
        (place.live, _EVENTS),
    )
    for num, topic, offset, stored_at, crc, body in news:
        place.live = num
        if matches_any(query.patterns, topic):
            try:
                found.append(Stored(checked(body, crc, 0), Position(epoch, offset), stored_at / 1e6))
            except BusError as error:
                found.append(error)
    return found
