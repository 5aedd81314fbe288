"""A backup in the place of a log: looked at first, a log of its own from then on, and there as a whole or not at all.

    FILE ──copy, digest──► LOG.part ──check──► a new epoch, nobody here ──► alone with LOG: link it aside ──► rename

It has the positions of the log that it was made of, which went on to give out others. So it gets another epoch: whoever
comes with a position of before hears PositionLost, and never an event that another one's place was given to. What is
remembered (subscriptions with all that waits for them) is in the file, and goes on.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw
import psutil
from msgspec import Struct

from wowevent.brokers.sqlite import check
from wowevent.brokers.sqlite.backup import Manifest, check_room, opened_draft, translating, unpack
from wowevent.brokers.sqlite.check import Checked, Told
from wowevent.brokers.sqlite.draft import Draft, drafted, sync_folder
from wowevent.brokers.sqlite.opening import alone, opened
from wowevent.brokers.sqlite.schema import APPLICATION, BACKUP, BUSY_SECONDS
from wowevent.errors import BrokerUnavailable, BusError, StorageDamaged

_BESIDE: Final = ("-wal", "-shm", "-journal")
_LOCKS: Final = (0x4000_0000, 512)
"""Where SQLite locks a file, and how many bytes of it: whoever has a log open has one of them."""
_AHEAD: Final = 2**20
"""More numbers (of dead letters, subscriptions, instances) than were given out between a backup and its restore."""

_ANEW: Final = """
UPDATE state SET epoch = :epoch;
DELETE FROM instance;
DELETE FROM serving;
DELETE FROM live;
DELETE FROM lease;
UPDATE entry SET lease = NULL, token = NULL WHERE lease IS NOT NULL;
DELETE FROM subscription WHERE NOT durable;
UPDATE subscription SET owner = NULL, served_at = :now;
INSERT INTO sqlite_sequence(name, seq) SELECT value, 0 FROM json_each(:tables)
  WHERE value NOT IN (SELECT name FROM sqlite_sequence);
UPDATE sqlite_sequence SET seq = seq + :ahead"""
_TABLES: Final = '["live", "delayed", "subscription", "dead", "instance"]'


class Restored(Struct, frozen=True, kw_only=True):
    """What was put in place."""

    manifest: Manifest
    found: Checked
    epoch: str
    """The log's name from now on."""
    aside: Path | None
    """The log that was there before."""


def restore(source: Path, path: str, *, force: bool, told: Told) -> Restored:
    """Put a log that is as the backup in that place; with `force` also where one is, which is kept aside.

    Nothing of this process may have the log open: what is looked at here would take its locks away. Raises
    StorageDamaged for a backup that is not what was written (events that were damaged before it was made are no
    reason), FormatTooNew, FileExistsError without `force`, BrokerUnavailable while a process has the log open,
    StorageFull, OSError: then all is as it was.
    """
    log, epoch = Path(path).resolve(), secrets.token_hex(4)
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if force and log.exists():
        check_free(log)  # before much is copied; and again, when nobody can come any more
    with drafted(log) as draft, translating():
        check_room(log.parent, source.stat().st_size)
        with source.open("rb") as file:
            manifest, intact = unpack(file, draft.file.write, told)
        if not intact:
            raise StorageDamaged(f"{source}: its SHA-256 is not that of what was written")
        draft.file.flush()
        with opened_draft(draft.path, BACKUP) as db:
            found = check.check(db, told)
            if found.structure or found.held != manifest.held:
                raise StorageDamaged(f"{source}: {found.structure or 'it has not what its manifest says'}")
            _begin_anew(db, epoch)
        with alone(path, BUSY_SECONDS):
            aside = set_aside(log, force=force)
            _give(draft, aside if aside is not None and aside.exists() else log.parent)
            draft.place()
    return Restored(manifest=manifest, found=found, epoch=epoch, aside=aside)


def _give(draft: Draft, like: Path) -> None:
    """Let it be whose the log was, else the folder: a superuser restores for the user that serves."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.fchown(draft.file.fileno(), owner.st_uid, owner.st_gid)


def _begin_anew(db: apsw.Connection, epoch: str) -> None:
    """Another log from here on, that nobody is at: what was leased is ready again, uncharged; nothing has lapsed."""
    db.execute(_ANEW, {"epoch": epoch, "now": time.time(), "tables": _TABLES, "ahead": _AHEAD})
    db.pragma("application_id", APPLICATION)


def check_free(log: Path) -> None:
    """BrokerUnavailable, with whom it is, while a process has that log open."""
    import fcntl  # noqa: PLC0415 - Windows has none

    begin, length = _LOCKS
    with log.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, begin)
        except (BlockingIOError, PermissionError):  # which one, is the system's choice
            who = ", ".join(_holders(log)) or "another process"
            raise BrokerUnavailable(f"{log} is open, by {who}: stop what uses it") from None


def _holders(log: Path) -> list[str]:
    """The processes of ours that have it open, as far as the system tells."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(each.path == str(log) for each in process.open_files()):
                found.append(f"process {process.pid} ({process.name()})")
    return found


def set_aside(log: Path, *, force: bool) -> Path | None:
    """Give the log that is there another name besides, and let nothing be left that would meet the next one."""
    if not any(_beside(log, suffix).exists() for suffix in ("", *_BESIDE)):
        return None
    if not force:
        raise FileExistsError(errno.EEXIST, "there is a log already", str(log))
    if log.exists():
        check_free(log)
        _settle(log)
    _drop_links(log)
    aside = _dated(log)
    for suffix in ("", *_BESIDE):
        with suppress(FileNotFoundError):
            os.link(_beside(log, suffix), _beside(aside, suffix))
    sync_folder(log.parent)
    for suffix in _BESIDE:  # there where it could not be settled: the log was damaged, and all of it is aside
        _beside(log, suffix).unlink(missing_ok=True)
    return aside


def _settle(log: Path) -> None:
    """Bring the write-ahead log that a killed process left behind into the file; a damaged log stays as it is."""
    with suppress(apsw.Error, BusError):
        db = opened(str(log))
        try:
            db.pragma("user_version")  # without having read, it knows of no write-ahead log
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            db.close()


def _drop_links(log: Path) -> None:
    """Take away the other names of this very file, which a restore that was killed had just given it.

    One with a write-ahead log stays: what could not be settled may be there alone.
    """
    for name in log.parent.glob(f"{glob.escape(log.name)}.*Z"):
        if log.exists() and name.samefile(log) and not _beside(name, "-wal").exists():
            name.unlink()


def _beside(log: Path, suffix: str) -> Path:
    return log.with_name(log.name + suffix)


def _dated(log: Path) -> Path:
    """A name that nobody has: that of the log, and the time."""
    while True:
        aside = _beside(log, f".{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        if not aside.exists():
            return aside
        time.sleep(0.1)
