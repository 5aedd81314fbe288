"""Whether a log is what was written: SQLite's own tables, each event's checksum and place, and what refers to what.

It reads within one transaction, so a log that is in use can be looked at; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec
from msgspec import Struct

from wowevent.brokers.sqlite.log import checked, micros
from wowevent.brokers.sqlite.schema import check_format, connect_reader, one
from wowevent.errors import BrokerUnavailable, BusError, FormatTooNew, StorageDamaged

_SAY_EVERY: Final = 1_000  # events
_STEPS: Final = 100_000  # of SQLite's machine, between two looks whether Ctrl-C was pressed
_LINES: Final = 100  # of what SQLite finds wrong with its tables
_FACTS: Final = 2
"""The format since which a log has them."""

_LOG: Final = """
SELECT offset, id, topic, ts, total, coalesce(correlation, id), crc, body FROM log WHERE offset > ? ORDER BY offset"""

# Every other place that has bytes of an event: what it is, where the event stood (0: nowhere yet), checksum, bytes.
_COPIES: Final = {
    "fact": "SELECT offset, crc, body FROM fact ORDER BY offset",
    "reply": "SELECT 0, crc, body FROM live ORDER BY num",
    "delayed event": "SELECT 0, crc, body FROM delayed WHERE gone IS NULL ORDER BY num",
    "entry": "SELECT offset, crc, body FROM entry WHERE body IS NOT NULL ORDER BY offset",
    "retry": "SELECT offset, crc, body FROM retry WHERE body IS NOT NULL ORDER BY offset",
    "dead letter": "SELECT offset, crc, body FROM dead ORDER BY num",
}
_WITHOUT: Final = """
SELECT w.offset FROM (SELECT sub, offset, body FROM entry UNION ALL SELECT sub, offset, body FROM retry) AS w
JOIN subscription ON num = w.sub LEFT JOIN log AS l ON l.offset = w.offset
WHERE w.body IS NULL AND l.body IS NULL ORDER BY w.offset"""

_UNREADABLE: Final = (apsw.Error, UnicodeDecodeError)
_OTHER_TYPE: Final = "its columns are not of the types that were written"

Told = Callable[[str, int, float], None]
"""Hears what is being done, how many megabytes or events of it are, and how far that is, from 0 to 1."""


class Holdings(Struct, frozen=True, kw_only=True):
    """What a log has at a moment."""

    format: int
    epoch: str
    first: int
    """The oldest position that a reader can have; 0 if there is none."""
    last: int
    """The newest position that was given out."""
    events: int
    subscriptions: int
    """Those that are remembered."""
    dead_letters: int
    delayed: int


class Checked(Struct, frozen=True, kw_only=True):
    """What was found."""

    held: Holdings
    structure: str
    """What SQLite says of its tables, if it finds them in disorder: then what else was found may be too little."""
    wrong: int
    """How many events are not what was written, or not there."""
    first: str
    """The first of them: its position, and what is wrong with it."""

    @property
    def trouble(self) -> str:
        """All of it in a line; empty if the log is sound."""
        several = f"{self.wrong} events are wrong, the first is {self.first}" if self.wrong > 1 else self.first
        return "; ".join(part for part in (self.structure, several) if part)


def connect_log(path: str) -> apsw.Connection:
    """A connection that reads a log: BrokerUnavailable for none, StorageDamaged, FormatTooNew, NotSupported."""
    if not Path(path).exists():
        raise BrokerUnavailable(f"{path}: there is no log")
    db = connect_reader(path)
    try:
        check_format(db)
        made = db.pragma("user_version") > 0
    except BaseException:
        db.close()
        raise
    if not made:
        db.close()
        raise StorageDamaged(f"{path} is empty: there is no log in it yet")
    return db


def holdings(db: apsw.Connection) -> Holdings:
    """Counted, not remembered. StorageDamaged if these cannot be the counts of a log."""
    row = one(
        db,
        "SELECT epoch, trimmed, (SELECT coalesce(max(offset), 0) FROM log), "
        "(SELECT count(*) FROM log) - (SELECT count(*) FROM log WHERE body IS NULL), "
        "(SELECT count(*) FROM subscription WHERE durable), (SELECT count(*) FROM dead), "
        "(SELECT count(*) FROM delayed WHERE gone IS NULL) FROM state",
    )
    if row is None:
        raise StorageDamaged("this log does not know its own name any more")
    epoch, trimmed, last, events, subscriptions, dead, delayed = row
    found = {
        "format": db.pragma("user_version"),
        "epoch": epoch,
        "first": trimmed + 1 if events else 0,  # what lies behind is there, or missed
        "last": last,
        "events": events,
        "subscriptions": subscriptions,
        "dead_letters": dead,
        "delayed": delayed,
    }
    try:
        return msgspec.convert(found, Holdings)
    except msgspec.ValidationError as error:
        raise StorageDamaged("what this log says of itself is not what was written") from error


def check(db: apsw.Connection, told: Told) -> Checked:
    """Look at all of it. StorageDamaged where not even its counts can be read."""
    db.set_progress_handler(lambda: False, _STEPS)  # Python hears of Ctrl-C only where it is at work
    db.execute("BEGIN")
    try:
        held = holdings(db)
        told("checking", 0, 0.0)
        structure = _structure(db)
        wrong, first = 0, ""
        for trouble in _troubles(db, held, told):
            wrong, first = wrong + 1, first or trouble
    finally:
        db.execute("ROLLBACK")
        db.set_progress_handler(None)
    return Checked(held=held, structure=structure, wrong=wrong, first=first)


def _structure(db: apsw.Connection) -> str:
    try:
        lines = [str(line) for (line,) in db.execute(f"PRAGMA integrity_check({_LINES})")]
    except _UNREADABLE as error:
        return str(error)
    return "" if lines == ["ok"] else f"SQLite finds {len(lines)} faults, the first: {' '.join(lines[0].split())}"


def _troubles(db: apsw.Connection, held: Holdings, told: Told) -> Iterator[str]:
    """What is wrong, a line for each event."""
    yield from _of_log(db, held, told)
    for what, sql in _COPIES.items():
        if what != "fact" or held.format >= _FACTS:
            yield from _of_copies(db, held.epoch, what, sql)
    yield from _of_references(db, held.epoch)


def _of_log(db: apsw.Connection, held: Holdings, told: Told) -> Iterator[str]:
    """Behind what was trimmed, each position has its event, up to the newest."""
    trimmed, total = one(db, "SELECT trimmed, trimmed_total FROM state")
    before = trimmed
    try:
        for row in db.execute(_LOG, (trimmed,)):
            offset = row[0]
            if offset != before + 1:
                yield f"{held.epoch}-{before + 1}: it is not there"
            trouble = _trouble(row, total if offset == before + 1 else None)
            if trouble:
                yield f"{held.epoch}-{offset}: {trouble}"
            before, total = offset, row[4]
            if offset % _SAY_EVERY == 0:
                told("checking", offset - trimmed, (offset - trimmed) / max(1, held.last - trimmed))
    except _UNREADABLE as error:
        yield f"{held.epoch}-{before + 1}: what lies there cannot be read: {error}"
    told("checking", before - trimmed, 1.0)


def _trouble(row: Sequence[Any], total: int | None) -> str:
    """What is wrong with a row of the log, if anything; `total` is that of the row before, if that is known."""
    offset, id, topic, ts, upto, correlation, crc, body = row
    try:
        event = checked(body, crc, offset)
        grown = total is None or upto == total + len(body)
    except FormatTooNew:  # its bytes are what was written, and who wrote them can read them
        return ""
    except BusError as error:
        return str(error)
    except TypeError:
        return _OTHER_TYPE
    if (event.event_id, event.topic, micros(event.timestamp), event.correlation_id) != (id, topic, ts, correlation):
        return "it is found under another id, topic or time than its own"
    return "" if grown else "its size is counted wrongly"


def _of_copies(db: apsw.Connection, epoch: str, what: str, sql: str) -> Iterator[str]:
    offset = 0
    try:
        for offset, crc, body in db.execute(sql):
            try:
                checked(body, crc, offset)
            except FormatTooNew:
                continue
            except BusError as error:
                yield f"{epoch}-{offset}, a {what}: {error}"
            except TypeError:
                yield f"{epoch}-{offset}, a {what}: {_OTHER_TYPE}"
    except _UNREADABLE as error:
        yield f"{epoch}-{offset}, or behind it, a {what}: what lies there cannot be read: {error}"


def _of_references(db: apsw.Connection, epoch: str) -> Iterator[str]:
    """What waits for a subscription is in the log, or has its own bytes."""
    try:
        for (offset,) in db.execute(_WITHOUT):
            yield f"{epoch}-{offset}: it waits for a subscription, and is not there"
    except _UNREADABLE as error:
        yield f"{epoch}: what waits for subscriptions cannot be read: {error}"
