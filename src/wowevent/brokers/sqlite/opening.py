"""A connection to the file that SQLite's locks hold for: they are the process's, and easily lost.

A descriptor on the file that is closed drops every lock that this process has on it, SQLite's own too. And a forked
child inherits SQLite's notes of the locks that its parent has, but not the locks. If it opens a file that was open at
the fork, it goes by those notes, and has no lock by which others would see it: when the last of the others closes, the
write-ahead log is removed under the child, and with it what the child was told is stored. Or it waits for ever for the
end of a transaction that was the parent's (https://www.sqlite.org/howtocorrupt.html, 2.6). So it is refused.

A file must not be put in another one's place while somebody opens it: he would have the one and, by its name, the other
one's write-ahead log (the same, 2.4). Whoever opens a log holds a lock on its folder until SQLite's own lock tells that
he is there, and `restore` holds it alone while it moves files.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote
from weakref import WeakKeyDictionary

import apsw

from wowevent.errors import BrokerUnavailable, NotSupported

_REFUSED: Final = (
    "{path} was open when this process was forked, and SQLite's locks do not outlive a fork: start the child afresh "
    "(multiprocessing's spawn or forkserver), or fork before the log is opened"
)


class _Files:
    """The files that one process has open, and those that it must not open; a forked child begins anew."""

    def __init__(self) -> None:
        self.opening: threading.Lock = threading.Lock()
        self.of: WeakKeyDictionary[apsw.Connection, tuple[int, int]] = WeakKeyDictionary()
        """The file of a connection: device and inode, by which SQLite tells files apart too."""
        self.inherited: set[tuple[int, int]] = set()

    def forked(self) -> None:
        """In the child: nobody is left to release the lock, and all that is open is the parent's.

        A connection is not asked for its file: another thread may have been at work with it, for ever now.
        """
        self.opening = threading.Lock()
        self.inherited.update(self.of[db] for db in apsw.connections() if db in self.of)


_files: Final = _Files()
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(after_in_child=_files.forked)


def opened(path: str, *, make: bool = False) -> apsw.Connection:
    """A connection to the file; `make` it (0600) if it is not there.

    Raises NotSupported in a forked child for a file that was open at the fork; nothing is written then.
    """
    with _files.opening:  # else another connection of this process might have the new file open when it is made
        if make and not Path(path).exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        return _connected(path, path, apsw.SQLITE_OPEN_READWRITE)


def watched(path: str, *, still: bool) -> apsw.Connection:
    """A connection for who only looks: it writes nothing, and none of the log's files goes when it is closed.

    `still`: nobody has the file open, that is, there is no write-ahead log. Then no file is made beside it, either, and
    no lock is taken: if somebody opens the file meanwhile, what was read may fit no moment. Raises what `opened` does.
    """
    how = "immutable=1" if still else "mode=ro"
    with _files.opening:
        return _connected(
            path, f"file:{quote(str(Path(path).absolute()))}?{how}", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )


def _connected(path: str, name: str, flags: int) -> apsw.Connection:
    """By the name that SQLite is to know the file by; within `_files.opening`."""
    found = Path(path).stat()
    if (file := (found.st_dev, found.st_ino)) in _files.inherited:
        raise NotSupported(_REFUSED.format(path=path))
    db = apsw.Connection(name, flags=flags)
    _files.of[db] = file
    return db


@contextlib.contextmanager
def entered(path: str, seconds: float) -> Iterator[None]:
    """While this lasts, no other file is put in the place of that one; BrokerUnavailable if that takes so many seconds.

    A folder that cannot be locked, or read, is none that a log could be restored in.
    """
    folder = None
    try:
        with contextlib.suppress(ImportError, OSError):
            folder = os.open(Path(path).resolve().parent, os.O_RDONLY | os.O_CLOEXEC)
            _lock(folder, path, seconds, shared=True)
        yield
    finally:
        if folder is not None:
            _leave(folder)


@contextlib.contextmanager
def alone(path: str, seconds: float) -> Iterator[None]:
    """While this lasts, nobody opens that file; BrokerUnavailable if somebody is at it for so many seconds."""
    folder = os.open(Path(path).resolve().parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(folder, path, seconds, shared=False)
        yield
    finally:
        _leave(folder)


def _lock(folder: int, path: str, seconds: float, *, shared: bool) -> None:
    import fcntl  # noqa: PLC0415 - Windows has none

    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(folder, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:  # a process that was stopped in the middle may keep it for ever
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"{path} is being opened, or restored, by another process") from None
            time.sleep(0.01)
        else:
            return


def _leave(folder: int) -> None:
    """Let go of the lock by name: a child that was forked meanwhile has this descriptor too."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl  # noqa: PLC0415 - Windows has none

        fcntl.flock(folder, fcntl.LOCK_UN)
    os.close(folder)
