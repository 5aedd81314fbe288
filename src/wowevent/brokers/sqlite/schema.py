"""The file: its tables, how a connection to it is opened, its format version, and what its errors mean.

    state         one row: the log's name (epoch), what was trimmed, and a version for each thing that instances cache
    log           the events, by position; a row without body is a stub that keeps an id known
    fact          the newest event of each topic under `_bus.`, with its own bytes; nothing trims it (since format 2)
    live          replies: only for those who read along, and gone after two minutes
    delayed       events whose not_before lies ahead; they have no position yet
    subscription  who wants what, who owns it, what it lost
    backfill      what a new subscription still has to take in of the past
    entry         what is ready for a subscription (no lease), or leased
    lease         until when; one row for what one fetch took from one lane
    retry         entries that wait for their next attempt
    dead          dead letters, with their own copy of the event
    instance      who is here; serving: and fetches what
    orphan        backlogs of removed subscriptions, which the janitor takes away in small steps

A body is the envelope's JSON. Its checksum starts from the position, so that a body in another's place is noticed too.
"""

from __future__ import annotations

import errno
import secrets
import time
import zlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import apsw
import msgspec

from wowevent.brokers.sqlite.opening import entered, opened
from wowevent.errors import BrokerError, BrokerUnavailable, FormatTooNew, NotSupported, StorageDamaged, StorageFull

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT: Final = 2
APPLICATION: Final = 0x576F7745  # "WowE": tells the file of another program from a log
BACKUP: Final = 0x576F7742  # "WowB": tells a backup of a log, which has its positions but is not to give out others
BUSY_SECONDS: Final = 5.0

_TABLES: Final = """
CREATE TABLE state(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  epoch TEXT NOT NULL,
  trimmed INTEGER NOT NULL DEFAULT 0,     -- the last position whose event was given up
  trimmed_total INTEGER NOT NULL DEFAULT 0,  -- and log.total there
  registry INTEGER NOT NULL DEFAULT 0,    -- rises when a subscription is added or changed
  removals INTEGER NOT NULL DEFAULT 0,    -- rises when one is removed
  presence INTEGER NOT NULL DEFAULT 0     -- rises when an instance comes, goes or serves something else
);
CREATE TABLE log(
  offset INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  topic TEXT NOT NULL,
  ts INTEGER NOT NULL,                    -- the event's own time, microseconds
  stored_at INTEGER NOT NULL,             -- microseconds, never decreasing
  total INTEGER NOT NULL,                 -- bytes of all bodies up to here, so that a size is a difference
  correlation TEXT,                       -- NULL: the event's own id
  crc INTEGER,
  body BLOB
);
CREATE UNIQUE INDEX log_id ON log(id);
CREATE INDEX log_correlation ON log(correlation) WHERE correlation IS NOT NULL;
CREATE INDEX log_stub ON log(offset) WHERE body IS NULL;
CREATE TABLE live(
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  topic TEXT NOT NULL,
  offset INTEGER NOT NULL,                -- where the log ended
  stored_at INTEGER NOT NULL,
  crc INTEGER NOT NULL,
  body BLOB NOT NULL
);
CREATE TABLE delayed(
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  due REAL NOT NULL,
  gone REAL,                              -- when it was cancelled; its id stays known for a while
  crc INTEGER NOT NULL,
  body BLOB NOT NULL
);
CREATE INDEX delayed_due ON delayed(due) WHERE gone IS NULL;
CREATE INDEX delayed_gone ON delayed(gone) WHERE gone IS NOT NULL;
CREATE TABLE subscription(
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  spec TEXT NOT NULL,
  durable INTEGER NOT NULL,
  version INTEGER NOT NULL,               -- of state.registry when this row changed last
  owner INTEGER,                          -- the instance that an exclusive one belongs to
  served_at REAL NOT NULL,
  lapsed INTEGER NOT NULL DEFAULT 0,
  lost INTEGER NOT NULL DEFAULT 0         -- dropped unread, and not yet reported
);
CREATE TABLE backfill(
  sub INTEGER PRIMARY KEY,
  next INTEGER NOT NULL,
  upto INTEGER NOT NULL,
  since INTEGER,                          -- only events of this time or later, microseconds
  spec TEXT NOT NULL
);
CREATE TABLE entry(
  sub INTEGER NOT NULL,
  lane INTEGER NOT NULL,                  -- 0: urgent
  offset INTEGER NOT NULL,
  lease INTEGER,                          -- NULL: ready
  token INTEGER,                          -- the attempt, where it is not the lease any more (extended alone)
  failures INTEGER NOT NULL DEFAULT 0,
  crashes INTEGER NOT NULL DEFAULT 0,
  attempts TEXT,
  redelivered INTEGER NOT NULL DEFAULT 0,
  crc INTEGER,
  body BLOB,                              -- NULL: the log has it
  PRIMARY KEY (sub, lane, offset)
) WITHOUT ROWID;
CREATE TABLE retry(
  sub INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  due REAL NOT NULL,
  failures INTEGER NOT NULL,
  crashes INTEGER NOT NULL,
  attempts TEXT,
  redelivered INTEGER NOT NULL,
  crc INTEGER,
  body BLOB,
  PRIMARY KEY (sub, lane, offset)
) WITHOUT ROWID;
CREATE INDEX retry_due ON retry(due);
CREATE TABLE lease(
  id INTEGER PRIMARY KEY,                 -- the instance and its count: never used twice
  sub INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  low INTEGER NOT NULL,
  high INTEGER NOT NULL,
  open INTEGER NOT NULL,                  -- how many of its entries are unsettled
  until REAL NOT NULL,                    -- monotonic seconds of `boot`
  seconds REAL NOT NULL,
  boot TEXT NOT NULL
);
CREATE INDEX lease_until ON lease(until);
CREATE TABLE dead(
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  sub INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  event_id TEXT NOT NULL,
  topic TEXT NOT NULL,
  ts INTEGER NOT NULL,
  correlation TEXT NOT NULL,
  reason TEXT NOT NULL,
  error TEXT NOT NULL,
  traceback TEXT NOT NULL,
  attempts TEXT,
  time REAL NOT NULL,
  crc INTEGER NOT NULL,
  body BLOB NOT NULL
);
CREATE INDEX dead_sub ON dead(sub);
CREATE INDEX dead_event ON dead(event_id);
CREATE INDEX dead_correlation ON dead(correlation);
CREATE TABLE instance(
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  port INTEGER NOT NULL,
  follows INTEGER NOT NULL DEFAULT 0,     -- 1: wants to hear of every append
  seen REAL NOT NULL,                     -- monotonic seconds of `boot`
  boot TEXT NOT NULL
);
CREATE TABLE serving(
  sub INTEGER NOT NULL,
  instance INTEGER NOT NULL,
  PRIMARY KEY (sub, instance)
) WITHOUT ROWID;
CREATE INDEX serving_instance ON serving(instance);
CREATE TABLE orphan(sub INTEGER PRIMARY KEY);
"""
_FACTS: Final = """
CREATE TABLE fact(
  offset INTEGER PRIMARY KEY,
  topic TEXT NOT NULL UNIQUE,
  stored_at INTEGER NOT NULL,
  crc INTEGER NOT NULL,
  body BLOB NOT NULL
);
"""


def checksum(body: bytes | memoryview, offset: int) -> int:
    """The CRC-32 of a body at its position (0 where it has none)."""
    return zlib.crc32(body, offset & 0xFFFFFFFF)


def connect(path: str, synchronous: str) -> apsw.Connection:
    """The connection that writes and checkpoints; makes the file (0600) and its directory (0700) if they are not there.

    Raises FormatTooNew, StorageDamaged for a file that is no log of ours, BrokerUnavailable, and NotSupported in a
    forked child for a file that was open at the fork.
    """
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with entered(path, BUSY_SECONDS):
        db = opened(path, make=True)
        try:
            db.set_busy_handler(BusyWait(BUSY_SECONDS))
            check_format(db)
            _persistent_wal(db)
            # Checkpoints come after the callers were answered, see writer.
            db.execute(
                f"PRAGMA synchronous={synchronous}; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-16384; "
                "PRAGMA temp_store=memory; PRAGMA cell_size_check=1; PRAGMA trusted_schema=0"
            ).fetchall()  # what stands behind a row that nobody takes is not carried out
            _make_tables(db)
        except BaseException:
            db.close()
            raise
    return db


def connect_reader(path: str) -> apsw.Connection:
    """A connection that only reads, beside the one that writes, or alone."""
    with entered(path, BUSY_SECONDS):
        db = opened(path)
        try:
            db.set_busy_handler(BusyWait(BUSY_SECONDS))
            db.execute(
                "PRAGMA query_only=1; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-8192; "
                "PRAGMA cell_size_check=1; PRAGMA trusted_schema=0"
            ).fetchall()
            db.pragma("user_version")  # in a write-ahead log, SQLite's lock on the file stays from here on
        except BaseException:
            db.close()
            raise
    return db


def check_format(db: apsw.Connection) -> None:
    """FormatTooNew, StorageDamaged for a file that is no log of ours, NotSupported for a backup of one.

    All in one look: another process may make the tables meanwhile.
    """
    db.execute("SAVEPOINT look")
    try:
        application, tables = db.pragma("application_id"), db.execute("SELECT 1 FROM sqlite_schema").get
    finally:
        db.execute("RELEASE look")
    if application == BACKUP:
        raise NotSupported("this file is a backup, which `wowevent restore` makes a log of")
    if application not in (0, APPLICATION) or (application == 0 and tables):
        raise StorageDamaged("this file is a database, but not a log of WowEvent")
    check_version(db)


def check_version(db: apsw.Connection) -> None:
    """FormatTooNew for tables that we do not know."""
    version = db.pragma("user_version")
    if version > FORMAT:
        raise FormatTooNew(f"this log has format {version}; this WowEvent knows {FORMAT}")


def _persistent_wal(db: apsw.Connection) -> None:
    """Switch to the write-ahead log. Whoever does it first needs the file alone, and no busy handler is asked."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            if db.pragma("journal_mode", "wal") == "wal":
                return
            raise BrokerUnavailable("this file system does not allow a write-ahead log")
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _make_tables(db: apsw.Connection) -> None:
    """Make the tables of a new log, or bring an older one's up to date."""
    if db.pragma("user_version") == FORMAT:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.pragma("user_version")
        if version == 0:
            db.execute(_TABLES)
            db.execute("INSERT INTO state(one, epoch) VALUES (1, ?)", (secrets.token_hex(4),))
            db.execute(f"PRAGMA application_id={APPLICATION}")
        if version < 2:
            db.execute(_FACTS)
            db.execute(f"PRAGMA user_version={FORMAT}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


class BusyWait:
    """Waits for another process's transaction: those take a millisecond, and SQLite's own waits grow to a hundred."""

    def __init__(self, seconds: float) -> None:
        """Give up after `seconds`."""
        self._seconds = seconds
        self._deadline = 0.0

    def __call__(self, count: int) -> bool:
        """Whether to try again, after a pause that grows from a tenth of a millisecond to five."""
        if count == 0:
            self._deadline = time.monotonic() + self._seconds
        elif time.monotonic() > self._deadline:
            return False
        time.sleep(min(0.0001 * (1 + count // 8), 0.005))
        return True


_SIZES: Final = (64, 16, 4, 1)


def insert(db: apsw.Connection, into: str, width: int, values: Sequence[Any]) -> None:
    """Insert rows given flat, `width` values each, many in one step.

    APSW gives up the interpreter's lock for every step and then has to win it back: while handlers compute,
    `executemany` wrote 735 rows a second here, and this 15,600.
    """
    at, left = 0, len(values) // width
    for size in _SIZES:
        while left >= size:
            db.execute(_insert_sql(into, width, size), values[at : at + size * width])
            at += size * width
            left -= size


@lru_cache(maxsize=64)
def _insert_sql(into: str, width: int, rows: int) -> str:
    row = "(" + ",".join("?" * width) + ")"
    return f"INSERT INTO {into} VALUES " + ",".join([row] * rows)  # noqa: S608 - `into` is a constant of this package


def one(db: apsw.Connection, sql: str, bindings: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
    """The first row, as a tuple; None if there is none."""
    return db.execute(sql, bindings).fetchone()


def rows(db: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows, as tuples."""
    return db.execute(sql, bindings).fetchall()


_MEANING: Final[dict[type[apsw.Error], type[BrokerError]]] = {
    apsw.FullError: StorageFull,
    apsw.CorruptError: StorageDamaged,
    apsw.NotADBError: StorageDamaged,
    apsw.FormatError: StorageDamaged,
    apsw.BusyError: BrokerUnavailable,
    apsw.LockedError: BrokerUnavailable,
    apsw.IOError: BrokerUnavailable,
    apsw.CantOpenError: BrokerUnavailable,
    apsw.ReadOnlyError: BrokerUnavailable,
    apsw.PermissionsError: BrokerUnavailable,
    apsw.AuthError: BrokerUnavailable,
    apsw.ProtocolError: BrokerUnavailable,
    apsw.NoMemError: BrokerUnavailable,
    apsw.InterruptError: BrokerUnavailable,
}
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


def translated(error: BaseException, db: apsw.Connection | None = None) -> BaseException:
    """What an error of the driver or the operating system means to the caller; the original is its cause."""
    meaning: type[BrokerError] | None = None
    if isinstance(error, apsw.Error):
        meaning = _MEANING.get(type(error), BrokerError)
        if isinstance(error, apsw.IOError) and db is not None and db.system_errno in _NO_ROOM:
            meaning = StorageFull
    elif isinstance(error, OSError):
        meaning = StorageFull if error.errno in _NO_ROOM else BrokerUnavailable
    elif isinstance(error, (UnicodeDecodeError, msgspec.MsgspecError)):  # a column is not what was written
        meaning = StorageDamaged
    if meaning is None:
        return error
    told = meaning(f"{type(error).__name__}: {error}")
    told.__cause__ = error
    return told
