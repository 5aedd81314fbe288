"""A disk that loses what was not synced when the power goes: an APSW VFS over the real files, with a shadow of each.

    xWrite, xTruncate ──► the real file, and a list of what is not on the platter yet
    xSync             ──► that list is applied to the shadow: it would survive
    cut               ──► the shadows as files of another folder, with none or some (torn by sector) of the rest

It becomes the process's default VFS, so that the engine under test needs no hook and cannot get around it. It can also
be full, and it tells of each write before it happens, so that a test can strike there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Self

import apsw

_SECTOR = 512
_BASE = "unix"
_SAFE = "-shm"


class Disk:
    """The files below one folder."""

    _installed: ClassVar[set[Disk]] = set()
    """Kept alive until they are uninstalled: SQLite has only their names, and would go on with its own VFS."""

    def __init__(self, folder: Path) -> None:
        """`folder` is watched; files elsewhere are none of its business."""
        self._folder = str(folder)
        self._lock = threading.RLock()
        self._vfs: _Vfs | None = None
        self._shadows: dict[str, bytearray] = {}
        self._unsynced: dict[str, list[tuple[int, bytes | None]]] = {}
        self.writes = 0
        self.syncs = 0
        self.checkpoints = 0
        """Syncs of the database file itself."""
        self.room: int | None = None
        """Bytes by which files may still grow; None is no limit."""
        self.failing: bool = False
        """Whether each sync fails. What it was to bring to the platter never gets there: the kernel forgets it, too."""
        self.before_change: Callable[[], None] = lambda: None
        """Called before each write and each sync."""

    def install(self) -> None:
        """Become the default VFS of this process."""
        self._vfs = _Vfs(self, f"faults-{id(self)}")
        self._installed.add(self)

    def uninstall(self) -> None:
        """Give that back; every database must be closed."""
        assert self._vfs is not None
        apsw.set_default_vfs(_BASE)
        self._vfs.unregister()
        self._vfs = None
        self._installed.discard(self)

    def __enter__(self) -> Self:
        """Install."""
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        """Uninstall."""
        self.uninstall()

    def unsynced(self, name: str) -> int:
        """How many writes to files whose name ends so are not on the platter."""
        with self._lock:
            return sum(len(changes) for path, changes in self._unsynced.items() if path.endswith(name))

    def cut(self, target: Path, chance: float, random: Random) -> None:
        """What a power cut at this moment leaves, as files in `target`: each unsynced sector is there by `chance`."""
        with self._lock:
            for path in self._shadows.keys() | self._unsynced.keys():
                content = bytearray(self._shadows.get(path, b""))
                for offset, data in self._unsynced.get(path, ()):
                    _apply_torn(content, offset, data, chance, random)
                if content or path in self._shadows:
                    (target / Path(path).name).write_bytes(content)

    # --- what the VFS tells -------------------------------------------------------------------------------------

    def watches(self, path: str | None) -> bool:
        """Whether this file is one of ours. The shared memory is not on the disk."""
        return path is not None and path.startswith(self._folder) and not path.endswith(_SAFE)

    @contextmanager
    def writing(self, path: str, offset: int, data: bytes | None, size: int) -> Iterator[None]:
        """Around one write to the real file, or (None) a truncation to `offset`; `size` is what the file has."""
        with self._lock:
            self.before_change()
            growth = 0 if data is None else max(0, offset + len(data) - size)
            if self.room is not None and growth > self.room:
                raise apsw.FullError("the test's disk is full")
            yield
            if self.room is not None:
                self.room -= growth
            self.writes += 1
            self._unsynced.setdefault(path, []).append((offset, data))

    @contextmanager
    def syncing(self, path: str) -> Iterator[None]:
        """Around one sync."""
        with self._lock:
            self.before_change()
            if self.failing:
                self._unsynced.pop(path, None)
                raise apsw.IOError("the test's disk fails")
            yield
            self.syncs += 1
            self.checkpoints += path.endswith(".db")
            shadow = self._shadows.setdefault(path, bytearray())
            for offset, data in self._unsynced.pop(path, ()):
                _apply(shadow, offset, data)

    def deleted(self, path: str) -> None:
        """A file is gone, for good: tests cut while it is there, or long after."""
        with self._lock:
            self._shadows.pop(path, None)
            self._unsynced.pop(path, None)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _apply_torn(content: bytearray, offset: int, data: bytes | None, chance: float, random: Random) -> None:
    """One unsynced write, sector by sector: each may have reached the platter, whatever became of the others."""
    if data is None:
        if random.random() < chance:
            _apply(content, offset, None)
        return
    at = 0
    while at < len(data):
        end = min(len(data), at + _SECTOR - (offset + at) % _SECTOR)
        if random.random() < chance:
            _apply(content, offset + at, data[at:end])
        at = end


class _Vfs(apsw.VFS):  # inheriting is how APSW makes one
    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        super().__init__(name, _BASE, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's names, here and below
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        return _File(self._disk, path, name, flags) if self._disk.watches(path) else apsw.VFSFile(_BASE, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        if self._disk.watches(filename):
            self._disk.deleted(filename)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, path: str, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = path
        super().__init__(_BASE, name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        with self._disk.writing(self._path, offset, bytes(data), self.xFileSize()):
            super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        with self._disk.writing(self._path, newsize, None, self.xFileSize()):
            super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        with self._disk.syncing(self._path):
            super().xSync(flags)
