"""A look at an embedded log from outside: its file and what lies beside it are read, and nothing is made or written."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import apsw
from msgspec import structs

from wowevent.aside import aside
from wowevent.broker import Examination, SubscriptionInfo
from wowevent.brokers.sqlite import subscriptions
from wowevent.brokers.sqlite.opening import watched
from wowevent.brokers.sqlite.registry import PRESENT_SECONDS, boot_id
from wowevent.brokers.sqlite.schema import APPLICATION, FORMAT, BusyWait, check_format, one, rows, translated
from wowevent.brokers.sqlite.writer import reserve
from wowevent.errors import FormatTooNew, NotSupported, StorageDamaged
from wowevent.finding import Check, Finding, size, version_of

VERSION: Final = Check("sqlite.version", "SQLite 3.51.3 or newer: 3.7.0 to 3.51.2 can damage a log (WAL reset)")
FILE: Final = Check("sqlite.file", "a log that this version can read, or a place where one can be made")
JOURNAL: Final = Check("sqlite.journal", "a write-ahead log (journal_mode WAL)")
SYNCHRONOUS: Final = Check("sqlite.synchronous", "synchronous=full: what is confirmed is on the disk")
DISK: Final = Check("sqlite.disk", "a local disk: locks and shared memory do not work over a network")
SPACE: Final = Check("sqlite.space", "room beyond the reserve that is kept for acknowledgements")
WAL: Final = Check("sqlite.wal", "a write-ahead log of less than 64 MiB: what is written gets into the file")
DAMAGE: Final = Check("sqlite.damage", "a whole file (quick_check)")
PERMISSIONS: Final = Check("sqlite.permissions", "the file is its owner's alone (0600), and nobody else may replace it")
PROCESSES: Final = Check("sqlite.processes", "any number of processes of this machine")
CHECKS: Final = (VERSION, FILE, JOURNAL, SYNCHRONOUS, DISK, SPACE, WAL, DAMAGE, PERMISSIONS, PROCESSES)

_MENDED: Final = (3, 51, 3)
_PATIENCE: Final = 4.0  # seconds of a look at the file, of the five that each has
_STEPS: Final = 10_000  # of SQLite's machine between two looks at the time
_LONG_WAL: Final = 64 * 2**20
_SCARCE: Final = 10  # times the reserve
_WRITE: Final = os.R_OK | os.W_OK
_ENTER: Final = os.W_OK | os.X_OK
_NETWORK: Final = re.compile(
    r"9p|afs|ceph|cifs|fuse\.(ceph|glusterfs|s3fs|sshfs)|gfs2|glusterfs|lustre|ncpfs|nfs4?|ocfs2|smb\w+|virtiofs|webdav"
)
_FLEETING: Final = frozenset({"tmpfs", "ramfs"})
_LAYERED: Final = frozenset({"overlay", "aufs"})

_INSTEAD: Final[dict[type[Exception], str]] = {
    FormatTooNew: "upgrade this WowEvent to the version of those that use the log",
    NotSupported: "name the log in the URL",
    StorageDamaged: "name another file, or bring back a backup (wowevent restore)",
}

_HERE: Final = """
SELECT s.id, count(*) FROM subscription AS s JOIN serving ON sub = s.num JOIN instance AS i ON i.num = instance
WHERE boot = ? AND seen >= ? GROUP BY s.id"""

T = TypeVar("T")


@asynccontextmanager
async def examine(path: Path, synchronous: str) -> AsyncIterator[Examination]:
    """What can be looked at; each look in a thread of its own, since a file system may not answer."""
    sync: dict[Check, Callable[[], Finding]] = {
        VERSION: partial(version, apsw.sqlite_lib_version()),
        FILE: partial(_file, path),
        JOURNAL: partial(_journal, path),
        SYNCHRONOUS: partial(synced, synchronous),
        DISK: partial(_disk, path),
        SPACE: partial(_space, path),
        WAL: partial(_wal, path),
        DAMAGE: partial(_damage, path),
        PERMISSIONS: partial(_permissions, path),
        PROCESSES: partial(_processes, path),
    }
    yield Examination(
        {check: _aside(look) for check, look in sync.items()}, partial(aside, partial(_subscriptions, path))
    )


def _aside(look: Callable[[], Finding]) -> Callable[[], Awaitable[list[Finding]]]:
    async def finding() -> list[Finding]:
        return [await aside(look)]

    return finding


def _read(path: Path, look: Callable[[apsw.Connection], T]) -> T:
    """What a look at the file finds; once more, if somebody opened it meanwhile. Raises what a first call would."""
    wal = _beside(path, "-wal")
    while True:
        still = not wal.exists()
        try:
            found = _look(path, look, still=still)
        except apsw.Error as error:
            if not still or not wal.exists():
                raise translated(error) from error
            continue
        if not still or not wal.exists():
            return found


def _look(path: Path, look: Callable[[apsw.Connection], T], *, still: bool) -> T:
    until = time.monotonic() + _PATIENCE
    with closing(watched(str(path), still=still)) as db:
        db.set_busy_handler(BusyWait(_PATIENCE / 2))
        db.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
        return look(db)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


# --- the file ---------------------------------------------------------------------------------------------------


def version(found: str) -> Finding:
    """Whether this SQLite is one of those that damage a log."""
    if version_of(found) >= _MENDED:
        return VERSION.ok(f"SQLite {found}")
    return VERSION.fail(f"SQLite {found}", "pip install --upgrade apsw: its wheels carry SQLite")


def _file(path: Path) -> Finding:
    try:
        return _there(path, path.stat())
    except FileNotFoundError:
        return _place(path)
    except PermissionError:
        return FILE.fail(f"{path} may not be reached", f"give {_me()} the folders above it, or name another place")


def _there(path: Path, found: os.stat_result) -> Finding:
    if not stat.S_ISREG(found.st_mode):
        return FILE.fail(f"{path} is no file", "name a file in the URL: sqlite:////var/lib/wowevent/events.db")
    if not _may(path, _WRITE) or not _may(path.parent, _ENTER):
        change = f"give {_me()} the file and its folder: chown, or mount it writable"
        return FILE.fail(f"{path} cannot be written", change)
    if not found.st_size:
        return FILE.ok(f"{path} is empty: the first who opens it makes the log")
    try:
        _read(path, check_format)
    except (FormatTooNew, NotSupported, StorageDamaged) as error:
        return FILE.fail(f"{path}: {error}", _INSTEAD[type(error)])
    return FILE.ok(f"{path}, {size(found.st_size)}, format {FORMAT} or older")


def _place(path: Path) -> Finding:
    """Where there is no log yet: whether one can be made."""
    folder = nearest(path.parent)
    if not folder.is_dir() or not _may(folder, _ENTER):
        return FILE.fail(
            f"there is no log at {path}, and none can be made: {folder} cannot be written",
            f"give {_me()} that folder (in a container: mount a volume there), or name another place with --url",
        )
    return FILE.ok(f"no log yet at {path}: the first who opens it makes one")


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next((each for each in (folder, *folder.parents) if each.exists()), folder)


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def _me() -> str:
    return f"user {os.geteuid()}" if hasattr(os, "geteuid") else "this user"


def _journal(path: Path) -> Finding:
    if not path.exists() or not path.stat().st_size:
        return JOURNAL.ok("made with the log")
    if _read(path, _in_wal):
        return JOURNAL.ok("wal")
    return JOURNAL.warn("another journal", "nothing, if nobody has it open: the next WowEvent that opens it switches")


def _in_wal(db: apsw.Connection) -> bool:
    """By the file's own header: a connection that holds the file still says something else (fileformat2, 1.3)."""
    _, versions = db.read("main", 0, 18, 2)
    return bool(versions == b"\x02\x02")


def synced(synchronous: str) -> Finding:
    """What the URL asks for."""
    if synchronous == "full":
        return SYNCHRONOUS.ok("full")
    change = "leave ?synchronous= out of the URL"
    if synchronous == "normal":
        return SYNCHRONOUS.warn("normal: a power loss may take the last moments", change)
    return SYNCHRONOUS.fail(f"{synchronous}: a power loss may take much of it, or damage the log", change)


def _damage(path: Path) -> Finding:
    if not path.exists() or not path.stat().st_size:
        return DAMAGE.ok("no log yet")
    try:
        said = _read(path, lambda db: str(db.execute("PRAGMA quick_check(1)").get))
    except StorageDamaged as error:
        said = str(error)
    except Exception as error:
        if isinstance(error.__cause__, apsw.InterruptError):
            return DAMAGE.unknown(
                f"not known: reading {size(path.stat().st_size)} takes longer than {_PATIENCE:.0f} s",
                "wowevent verify looks at all of it, as long as it takes",
            )
        raise
    if said == "ok":
        return DAMAGE.ok("quick_check: ok")
    return DAMAGE.fail(
        said, "stop what uses it, keep a copy, and bring back a backup (wowevent restore); check the disk"
    )


# --- where it lies ----------------------------------------------------------------------------------------------


def _disk(path: Path) -> Finding:
    return disk(*file_system(nearest(path.parent)))


def file_system(folder: Path) -> tuple[str, str]:
    """The kind of file system that a folder lies on, and where it is mounted; nothing where that is not told."""
    import psutil  # noqa: PLC0415 - it takes longer to import than the engine

    real, best = folder.resolve(), ("", "")
    for part in psutil.disk_partitions(all=True):
        if real.is_relative_to(part.mountpoint) and len(part.mountpoint) >= len(best[1]):
            best = (part.fstype, part.mountpoint)
    return best


def disk(kind: str, mounted: str) -> Finding:
    """Whether that kind of file system keeps what SQLite needs."""
    found = f"{kind} at {mounted}"
    if _NETWORK.fullmatch(kind):
        return DISK.fail(
            f"{found}: a network file system",
            "put the log on a disk of this machine; for several machines: redis://, nats://",
        )
    if kind in _FLEETING:
        return DISK.warn(f"{found}: memory, gone with the machine's restart", "put the log on a disk")
    if kind in _LAYERED:
        return DISK.warn(f"{found}: the container's own layer, gone with the container", "mount a volume there")
    if not kind:
        return DISK.unknown("the system does not say what it lies on", "look with: df -T, or mount")
    return DISK.ok(found)


def _space(path: Path) -> Finding:
    found = os.statvfs(nearest(path.parent))
    return space(found.f_bavail * found.f_frsize, reserve(found))


def space(free: int, kept: int) -> Finding:
    """What is left of a disk, of which `kept` bytes are not for publishing."""
    found = f"{size(free)} free, of which {size(kept)} are kept"
    change = "make room, or give the log limits (?max_age=, ?max_bytes=)"
    if free <= kept:
        return SPACE.fail(f"{found}: publishing is refused (storage_full)", change)
    return SPACE.warn(found, change) if free < _SCARCE * kept else SPACE.ok(found)


def _wal(path: Path) -> Finding:
    try:
        return wal(_beside(path, "-wal").stat().st_size)
    except FileNotFoundError:
        return WAL.ok("none: nobody has the log open")


def wal(count: int) -> Finding:
    """How long it is."""
    if count <= _LONG_WAL:
        return WAL.ok(size(count))
    return WAL.warn(
        f"{size(count)}: something reads for so long that it cannot be brought into the file",
        "end the process that reads (a long replay, a sqlite3 shell, a backup by other means)",
    )


def _permissions(path: Path) -> Finding:
    folder = path.parent
    if not folder.exists():
        return PERMISSIONS.ok("made with the log: 0700 and 0600")
    if path.exists() and not _is_ours(path):  # whose modes are not for us to change
        return PERMISSIONS.unknown(f"{path} is no log of WowEvent", "name another file in the URL")
    files = [each for each in (path, _beside(path, "-wal"), _beside(path, "-shm")) if each.exists()]
    found = folder.stat()
    ours = found.st_uid == os.geteuid()
    return permissions(found.st_mode, {str(each): each.stat().st_mode for each in files}, str(folder), ours=ours)


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        return not path.stat().st_size or bool(_read(path, lambda db: db.pragma("application_id")) == APPLICATION)
    except StorageDamaged:
        return False


def permissions(folder: int, files: dict[str, int], name: str, *, ours: bool = True) -> Finding:
    """By the modes of the folder and of the log's files. In a pod, the folder is another's, and ours by its group."""
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        return PERMISSIONS.fail(f"anybody may replace the log: {name} is {_mode(folder)}", f"chmod o-w {name}")
    written = [file for file, mode in files.items() if mode & (stat.S_IWGRP | stat.S_IWOTH)]
    if written:
        return PERMISSIONS.fail(f"others may write {', '.join(written)}", f"chmod 600 {' '.join(written)}")
    read = [f"{file} ({_mode(mode)})" for file, mode in files.items() if mode & (stat.S_IRGRP | stat.S_IROTH)]
    if read:
        return PERMISSIONS.warn(f"others may read {', '.join(read)}", f"chmod 600 {' '.join(files)}")
    if ours and folder & stat.S_IWGRP and not folder & stat.S_ISVTX:
        return PERMISSIONS.warn(f"its group may replace the log: {name} is {_mode(folder)}", f"chmod g-w {name}")
    return PERMISSIONS.ok(f"{name} is {_mode(folder)}, what is in it 0600" if files else f"{name} is {_mode(folder)}")


def _mode(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"


# --- who is there -----------------------------------------------------------------------------------------------


def _processes(path: Path) -> Finding:
    if not path.exists() or not path.stat().st_size:
        return PROCESSES.ok("nobody")
    count = _read(path, _present)
    return PROCESSES.ok(f"{count} here now: buses, routers and workers that have it open" if count else "nobody now")


def _present(db: apsw.Connection) -> int:
    if not _made(db):
        return 0
    since = time.monotonic() - PRESENT_SECONDS
    found: int = one(db, "SELECT count(*) FROM instance WHERE boot = ? AND seen >= ?", (boot_id(), since))[0]
    return found


def _subscriptions(path: Path) -> Sequence[SubscriptionInfo] | None:
    if not path.exists() or not path.stat().st_size:
        return None
    return _read(path, lambda db: _infos(db) if _made(db) else None)


def _infos(db: apsw.Connection) -> list[SubscriptionInfo]:
    """Who was killed serves nothing, though nobody has taken him out since."""
    here: dict[str, int] = dict(rows(db, _HERE, (boot_id(), time.monotonic() - PRESENT_SECONDS)))
    infos = subscriptions.infos(db, time.time())
    return [structs.replace(info, consumers=here.get(info.subscription.id, 0)) for info in infos]


def _made(db: apsw.Connection) -> bool:
    """Whether its tables are there: whoever makes the log may not have come to that."""
    check_format(db)
    return bool(db.pragma("user_version"))
