"""What happened, as each process wrote it down: one JSON line an entry, in a file of its own.

A line is one `write` to a file opened for appending: once that returns, `kill -9` cannot take it back. Times are
CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
from msgspec import Struct

What = Literal[
    "ready",  # the process serves
    "invoked",  # publish was called; then one of these three, unless the process dies first
    "ok",
    "failed",  # nothing was stored, and the caller was told so
    "unknown",  # it may have been stored
    "delivered",  # a handler was called
    "effect",  # its effect is done
    "asked",  # the engine was asked to acknowledge
    "acked",  # the engine took the acknowledgement
    "retried",
    "buried",
    "stale",  # the engine refused a settlement, because its lease had ended
    "stopped",  # the process ended in good order
]


class Entry(Struct, frozen=True, omit_defaults=True):
    """One line."""

    time: float
    process: str
    what: What
    id: str = ""
    """The event's."""
    position: str = ""
    key: str = ""
    attempt: int = 0
    digest: str = ""
    """Of the payload and headers."""
    note: str = ""


class Journal:
    """One process's file."""

    def __init__(self, path: Path | str, process: str) -> None:
        """Append to `path`, in the name of `process`."""
        self._process = process
        self.last: What | None = None
        """What the newest line says."""
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def write(self, what: What, id: str = "", **facts: Any) -> None:
        """One line; it is the kernel's when this returns."""
        entry = Entry(time=time.monotonic(), process=self._process, what=what, id=id, **facts)
        self.last = what
        os.write(self._file, msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        """No more lines."""
        os.close(self._file)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


class Tail:
    """Reads the journals of a folder as they grow, each line once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self._entries: list[Entry] = []
        self._found: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)

    def entries(self, *what: str, process: str = "", id: str = "") -> Sequence[Entry]:
        """What is written so far; of these kinds, of one process or of one event, where they are given."""
        self.update()
        if not what:
            return self._entries if not process + id else [e for e in self._entries if _fits(e, process, id)]
        if len(what) == 1 and not (process and id):
            return self._found[what[0], process, id]
        return [entry for kind in what for entry in self._found[kind, "", id] if process in ("", entry.process)]

    def take(self) -> Sequence[Entry]:
        """What is new since the last time, and is forgotten here: for a run whose lines do not fit into memory."""
        self.update()
        taken, self._entries = self._entries, []
        self._found.clear()
        return taken

    def update(self) -> None:
        """Take in what is new. A line without its end is left for later."""
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                entry = msgspec.json.decode(line, type=Entry)
                self._entries.append(entry)
                for process, id in {("", ""), (entry.process, ""), ("", entry.id)}:
                    self._found[entry.what, process, id].append(entry)


def _fits(entry: Entry, process: str, id: str) -> bool:
    return process in ("", entry.process) and id in ("", entry.id)


def digest(payload: bytes | memoryview, headers: Iterable[tuple[str, str]] = ()) -> str:
    """What tells one payload from another."""
    found = hashlib.sha256(payload)
    found.update(msgspec.json.encode(sorted(headers)))
    return found.hexdigest()[:32]
