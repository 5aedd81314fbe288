"""Which service runs on a data directory: a lock that it holds as long as it lives, and a file that says who it is.

    wowevent.lock   held by the service; the kernel lets go of it however the process ends
    wowevent.pid    written by whoever holds the lock, once it answers; removed at the end, left behind by a kill -9

A pid alone names nobody: the system gives it to another process later. The process that the file names is taken for
ours if it was started at the same moment and its command line is ours; only then is it ever sent a signal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import psutil
from msgspec import Meta, Struct

from wowevent.cli.private import make_private_folder, write_private

_FILE: Final = "wowevent.pid"
_LOCK: Final = "wowevent.lock"
_SAME: Final = 0.05  # seconds that two readings of one start time may differ: a few ticks
_LETTING_GO: Final = 1.0  # seconds
_COMMANDS: Final = frozenset({"serve", "start"})


class Worker(Struct, frozen=True, kw_only=True):
    """One of several processes that serve on the same ports."""

    number: int
    pid: int | None
    """None while it is started again."""
    http: str
    """Where it alone answers, from this machine."""


class Record(Struct, frozen=True, kw_only=True):
    """Who serves, where, and how it was started."""

    pid: Annotated[int, Meta(gt=0, lt=2**31)]
    created: float
    """When the process was started: Unix seconds."""
    since_boot: float
    """The same in seconds since the machine's boot: setting the clock moves the other one."""
    websocket: str | None
    http: str
    engine: str
    namespace: str
    log: str
    version: str
    options: dict[str, Any]
    """What its command line said."""
    cwd: str
    workers: tuple[Worker, ...] = ()
    """Empty where the process itself serves."""


class Seen(Struct, frozen=True, kw_only=True):
    """What a data directory tells: `process` if the service runs, else in `trouble` what is wrong with the file."""

    record: Record | None = None
    process: psutil.Process | None = None
    trouble: str = ""


def find(data_dir: Path) -> Seen:
    """Look at who serves there; OSError if the file cannot be read."""
    file = data_dir / _FILE
    try:
        record = msgspec.json.decode(file.read_bytes(), type=Record)
    except FileNotFoundError:
        return Seen()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Seen(trouble=f"{file} is not ours: {error}")
    try:
        process = psutil.Process(record.pid)
        trouble = _trouble(process, record)
    except psutil.NoSuchProcess:
        process, trouble = None, f"process {record.pid} is gone"
    except psutil.AccessDenied:
        process, trouble = None, f"process {record.pid} is somebody else's"
    return Seen(record=record, trouble=f"{file}: {trouble}") if trouble else Seen(record=record, process=process)


def _trouble(process: psutil.Process, record: Record) -> str:
    """Why the process is not the one of the record; nothing if it is."""
    if process.status() == psutil.STATUS_ZOMBIE:
        return f"process {record.pid} has ended"
    created, since_boot = moments(process)
    if abs(created - record.created) > _SAME and abs(since_boot - record.since_boot) > _SAME:
        return f"process {record.pid} is another one, that was started at another time"
    if not is_service(process.cmdline()):
        return f"process {record.pid} is another program"
    return ""


def is_service(command: Sequence[str]) -> bool:
    """Whether a command line is `wowevent serve` or `wowevent start`, by whatever Python and with whatever options."""
    words = [Path(word).name for word in command]
    return "wowevent" in words and not _COMMANDS.isdisjoint(words[words.index("wowevent") :])


def moments(process: psutil.Process) -> tuple[float, float]:
    """When a process was started: in Unix seconds, and in seconds since boot."""
    created = process.create_time()
    return created, created - psutil.boot_time()


def ended(process: psutil.Process) -> bool:
    """Whether it is no more, also where nobody has asked for its exit status yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def registered(data_dir: Path) -> Iterator[Callable[[Record], None] | None]:
    """Hold the lock; gives what writes the record, which goes at the end. None if another one holds it."""
    lock = _hold(data_dir)
    if lock is None:
        yield None
        return
    file = data_dir / _FILE
    try:
        yield lambda record: write_private(file, msgspec.json.encode(record))
    finally:
        file.unlink(missing_ok=True)
        os.close(lock)


def forget(data_dir: Path) -> None:
    """Remove a record that is left behind, unless a service is about to write its own; blocks a second at most.

    A process that was killed counts as ended a moment before its last thread has let go of the lock.
    """
    deadline = time.monotonic() + _LETTING_GO
    while (lock := _hold(data_dir)) is None:
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)
    (data_dir / _FILE).unlink(missing_ok=True)
    os.close(lock)


def _hold(data_dir: Path) -> int | None:
    import fcntl

    make_private_folder(data_dir)
    lock = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
