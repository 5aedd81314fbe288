"""A log file that rotates: `log` is the newest, then come `log.1`, `log.2` and so on.

A file that is full is renamed, so it is known by its inode: who follows it finds it under its new name, reads what is
left of it, and goes on with the newer ones.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from wowevent.process.logs import OLDER

_CHUNK: Final = 64 * 1024
_LONGEST: Final = 1024 * 1024  # bytes of a line that is not complete yet

Filter = Callable[[Iterable[str]], Iterator[str]]


def last(file: Path, count: int, wanted: Filter, *, until: Follower | None = None) -> list[str]:
    """The last `count` lines that are wanted, over all the files, oldest first.

    With `until` the newest is read by that follower, which goes on behind it: nothing is shown twice. A record is taken
    to lie in one file, as the rotation sees to.
    """
    newest = until.more() if until is not None else _lines(file)
    found = deque(wanted(newest), maxlen=count)
    for number in range(1 if until is None else until.number() + 1, OLDER + 1):
        if len(found) >= count:
            break
        older = deque(wanted(_lines(_numbered(file, number))), maxlen=count - len(found))
        found = deque((*older, *found), maxlen=count)
    return list(found)


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}") if number else file


def _lines(file: Path) -> Iterator[str]:
    """All of its lines; none if it is not there."""
    try:
        with file.open("rb") as opened:
            for line in opened:
                yield _text(line)
    except FileNotFoundError:
        return


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")


class Follower:
    """What is written to a log from its beginning on, through rotation and truncation."""

    def __init__(self, file: Path) -> None:
        """A file that is not there yet is waited for."""
        self._file = file
        self._open: IO[bytes] | None = None
        self._rest = b""

    def more(self) -> Iterator[str]:
        """The complete lines that came since the last call."""
        while True:
            if self._open is None and not self._begin(self._file):
                return
            yield from self._read()
            newer = self._newer()
            if newer is None:
                return
            yield from self._read()  # what came between the last read and the rename
            if self._rest:
                yield _text(self._rest)
            self.close()
            if not self._begin(newer):
                return

    def number(self) -> int:
        """Which of the files it reads now; 0 is the newest, also for one that is not among them."""
        if self._open is None:
            return 0
        own = os.fstat(self._open.fileno()).st_ino
        # upwards, as they are renamed: none slips by
        return next((each for each in range(OLDER + 1) if _inode(_numbered(self._file, each)) == own), 0)

    def _begin(self, file: Path) -> bool:
        try:
            self._open = file.open("rb", buffering=0)
        except FileNotFoundError:
            return False
        self._rest = b""
        return True

    def close(self) -> None:
        """Let go of the file."""
        if self._open is not None:
            self._open.close()
        self._open = None

    def _read(self) -> Iterator[str]:
        assert self._open is not None  # noqa: S101 - the callers see to it
        if os.fstat(self._open.fileno()).st_size < self._open.tell():
            self._open.seek(0)
            self._rest = b""
        while chunk := self._open.read(_CHUNK):
            *complete, self._rest = (self._rest + chunk).split(b"\n")
            if len(self._rest) > _LONGEST:
                complete, self._rest = [*complete, self._rest], b""
            yield from map(_text, complete)

    def _newer(self) -> Path | None:
        """The file that comes after the one that is open; None if that is the newest, or is being renamed just now."""
        assert self._open is not None  # noqa: S101 - as above
        own = os.fstat(self._open.fileno()).st_ino
        number = self.number()
        if number:
            return _numbered(self._file, number - 1)
        return None if _inode(self._file) in {own, None} else self._file


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None
