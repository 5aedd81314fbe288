"""A file that appears under its name when it is whole, and on the disk: until then it is `NAME.part`, and goes.

What a process that was killed has left behind is taken over by the next one: the lock on it is free.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from wowevent.errors import BrokerUnavailable

_BESIDE: Final = ("-journal", "-wal", "-shm")


class Draft:
    """The file while it is made: 0600, and nobody else's."""

    def __init__(self, target: Path, path: Path, file: BinaryIO) -> None:
        self.path = path
        """Where it is. A connection to it is to be closed before it is put in place."""
        self.file = file
        """For bytes that SQLite does not write. It holds the lock, and is not to be closed."""
        self.placed: bool = False
        self._target = target

    def sync(self) -> None:
        """Have all of it on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def place(self) -> None:
        """Give it its name, in place of what had it."""
        self.sync()
        self.path.replace(self._target)
        self.placed = True
        sync_folder(self._target.parent)


@contextmanager
def drafted(target: Path) -> Iterator[Draft]:
    """Make that file; unless it was put in place, nothing is left. BrokerUnavailable while another process makes it."""
    path = target.with_name(f"{target.name}.part")
    with _claimed(path, target) as file:
        draft = Draft(target, path, file)
        try:
            _remove_beside(path)
            yield draft
        finally:
            _remove_beside(path)
            if not draft.placed:
                path.unlink(missing_ok=True)


def _claimed(path: Path, target: Path) -> BinaryIO:
    """That file, empty and locked."""
    import fcntl  # noqa: PLC0415 - Windows has none

    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(path, file):
                os.fchmod(file.fileno(), 0o600)
                file.truncate(0)
                return file
        except BlockingIOError:
            file.close()
            raise BrokerUnavailable(f"another process is making {target}") from None
        except BaseException:
            file.close()
            raise
        file.close()  # its maker was done just now: this is the finished file, or one that is gone


def _is(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _remove_beside(path: Path) -> None:
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the names in it on the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
