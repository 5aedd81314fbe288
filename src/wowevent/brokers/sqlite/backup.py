"""A backup: one file with all of a log as it was at one moment, and what tells whether it still is that.

    0     the database, whole pages, without a write-ahead log; its application_id is BACKUP, so that nobody opens it
          as a log: it would give out positions anew that readers have seen already
    n     the manifest, JSON
    -48   the manifest's length, 8 bytes, big-endian
    -40   b"WowBack1"
    -32   SHA-256 of all before

It is copied page by page within one read transaction: what is published meanwhile goes to the write-ahead log, which
cannot begin anew until the copy ends. (Without the transaction SQLite starts over when another process commits.)
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

import apsw
import msgspec
from msgspec import Struct

from wowevent.brokers.sqlite import check
from wowevent.brokers.sqlite.check import Checked, Holdings, Told, connect_log, holdings
from wowevent.brokers.sqlite.draft import Draft, drafted
from wowevent.brokers.sqlite.schema import APPLICATION, BACKUP, check_version, translated
from wowevent.errors import BrokerError, StorageDamaged, StorageFull

_PAGES: Final = 2_048  # in one step: 8 MiB, a hundredth of a second
_CHUNK: Final = 2**20
_MAGIC: Final = b"WowBack1"
_END: Final = struct.Struct(">Q8s32s")
_UNSYNCED: Final = "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF"
_SQLITE: Final = b"SQLite format 3\0"


class Manifest(Struct, frozen=True, kw_only=True):
    """What a backup was when it was made."""

    made_at: datetime
    version: str
    """Of the WowEvent that made it."""
    size: int
    """Bytes of the database."""
    held: Holdings


def back_up(path: str, target: Path, *, checks: bool, told: Told) -> tuple[Manifest, Checked | None]:
    """Copy the log to `target`, which is replaced; with `checks`, what looking at all of it found.

    Raises StorageDamaged where SQLite cannot read the log or finds its tables in disorder, StorageFull, FormatTooNew,
    BrokerUnavailable, NotSupported, OSError: then nothing is left of it.
    """
    with drafted(target.resolve()) as draft, translating():
        made_at = _copy(path, draft, told)
        with opened_draft(draft.path, APPLICATION) as db:
            found = check.check(db, told) if checks else None
            if found and found.structure:
                raise StorageDamaged(f"{path}: {found.structure}; `wowevent copy` brings what can be read elsewhere")
            held = found.held if found else holdings(db)
            db.pragma("application_id", BACKUP)
        size = draft.file.seek(0, os.SEEK_END)
        manifest = Manifest(made_at=made_at, version=importlib.metadata.version("wowevent"), size=size, held=held)
        _seal(draft.file, manifest, told)
        draft.place()
    return manifest, found


def _copy(path: str, draft: Draft, told: Told) -> datetime:
    """Copy the database as it is now: at what moment that was."""
    source = connect_log(path)
    try:
        source.execute("BEGIN; SELECT epoch FROM state").fetchall()
        made_at = datetime.now(UTC)
        page = source.pragma("page_size")
        check_room(draft.path.parent, source.pragma("page_count") * page)
        with _connected(draft.path) as target, target.backup("main", source, "main") as copying:
            while not copying.done:
                copying.step(_PAGES)
                done = copying.page_count - copying.remaining
                told("copying", done * page // 10**6, done / max(1, copying.page_count))
    finally:
        source.close()
    return made_at


def check_room(folder: Path, size: int) -> None:
    """StorageFull before a disk is filled that a log may be on, not after."""
    found = os.statvfs(folder)
    room = found.f_bavail * found.f_frsize
    if room < size:
        raise StorageFull(f"{folder} has {room / 1e6:,.0f} MB left, and {size / 1e6:,.0f} MB are needed")


def _seal(file: BinaryIO, manifest: Manifest, told: Told) -> None:
    """Put manifest and digest behind the database."""
    file.seek(0)
    digest = hashlib.sha256()
    for chunk in _chunks(file, manifest.size, told):
        digest.update(chunk)
    said = msgspec.json.encode(manifest)
    end = said + struct.pack(">Q", len(said)) + _MAGIC
    digest.update(end)
    file.seek(manifest.size)
    file.write(end + digest.digest())


def unpack(file: BinaryIO, into: Callable[[bytes], object], told: Told) -> tuple[Manifest, bool]:
    """Hand over the database of an open backup by chunks; its manifest, and whether all is what was written.

    StorageDamaged for what is no backup, or is none to its end.
    """
    manifest, end = _manifest(file)
    file.seek(0)
    digest = hashlib.sha256()
    for chunk in _chunks(file, manifest.size, told):
        digest.update(chunk)
        into(chunk)
    digest.update(end[:-32])
    return manifest, digest.digest() == end[-32:]


def _manifest(file: BinaryIO) -> tuple[Manifest, bytes]:
    """The manifest, and all bytes from it on."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    begin = file.read(len(_SQLITE))
    file.seek(max(0, size - _END.size))
    end = file.read()
    length, magic, _ = _END.unpack(end) if len(end) == _END.size else (0, b"", b"")
    at = size - _END.size - length
    if magic != _MAGIC or at < 0:
        if begin != _SQLITE:
            raise StorageDamaged("this is no backup of WowEvent")
        raise StorageDamaged("this is no backup of WowEvent, or its end is missing (a log is verified with --url)")
    file.seek(at)
    end = file.read()
    try:
        manifest = msgspec.json.decode(end[:length], type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageDamaged("the manifest of this backup is not what was written") from error
    return manifest, end


def _chunks(file: BinaryIO, size: int, told: Told) -> Iterator[bytes]:
    done = 0
    while chunk := file.read(min(_CHUNK, size - done)):
        yield chunk
        done += len(chunk)
        told("digest", done // 10**6, done / max(1, size))


class Verified(Struct, frozen=True, kw_only=True):
    """What looking at a backup found."""

    manifest: Manifest
    found: Checked | None
    """None where its database could not be looked at."""
    trouble: str
    """What is wrong with it, in a line; empty if nothing is."""


def verify(source: Path, told: Told) -> Verified:
    """Look at all of a backup. StorageDamaged for what is none, FormatTooNew, OSError."""
    with source.open("rb") as file:
        manifest, intact = unpack(file, lambda _: None, told)
    troubles = [] if intact else ["its SHA-256 is not that of what was written"]
    found = None
    try:
        with translating(), _opened(source) as db:
            found = check.check(db, told)
        troubles += [found.trouble] if found.trouble else []
        troubles += [] if found.held == manifest.held else ["it has not what its manifest says"]
    except BrokerError as error:
        if intact:
            raise
        troubles.append(str(error))
    return Verified(manifest=manifest, found=found, trouble="; ".join(troubles))


@contextmanager
def _opened(path: Path) -> Iterator[apsw.Connection]:
    """A connection that reads a backup's database: it writes nothing, makes no file beside it, minds none either."""
    name = f"file:{quote(str(path.absolute()))}?immutable=1"
    db = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        _check_kind(db, BACKUP)
        yield db
    finally:
        db.close()


@contextmanager
def opened_draft(path: Path, application: int) -> Iterator[apsw.Connection]:
    """A connection to a draft's database, which is of that kind; nothing that it writes has to survive a crash.

    StorageDamaged, FormatTooNew.
    """
    with _connected(path) as db:
        _check_kind(db, application)
        yield db


def _check_kind(db: apsw.Connection, application: int) -> None:
    if db.pragma("application_id") != application:
        raise StorageDamaged("this file is a database, but not one of WowEvent")
    check_version(db)


@contextmanager
def _connected(path: Path) -> Iterator[apsw.Connection]:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.execute(_UNSYNCED).fetchall()  # what stands behind a row that nobody takes is not carried out
        yield db
    finally:
        db.close()


@contextmanager
def translating() -> Iterator[None]:
    """Errors of the driver as the bus's own; of the system's a full disk."""
    try:
        yield
    except apsw.SQLError as error:  # our words are right, so the tables are not those that were made
        raise StorageDamaged(f"SQLError: {error}") from error
    except (apsw.Error, UnicodeDecodeError) as error:  # of a text column that is none
        raise translated(error) from error
    except OSError as error:
        told = translated(error)
        if isinstance(told, StorageFull):
            raise told from error
        raise
