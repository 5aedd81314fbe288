"""What a run has found so far, a file for each workload: one that was cut goes on where it was."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.report import Finding, Report, from_json, to_json

_ROOT: Final = Path(__file__).parents[1]
_MEASURED: Final = (_ROOT / "src" / "wowevent", _ROOT / "benchmarks" / "parts")
_VARIES: Final = frozenset({"fdatasync_us", "loop_ns"})
"""What is never the same twice."""


class Kept:
    """The files of one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def found(self, name: str, source: str, run: Report) -> Finding | None:
        """What this workload found before, if all of it came through and the run would only measure the same again.

        The same is: the scale and the rounds, the machine with what is installed on it, and what `source` was made of.
        """
        try:
            before = from_json(self._file(name).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):  # of another form: as good as none
            return None
        finding = before.findings.get(name)
        if finding is None or finding.failure is not None or finding.absent or finding.source != source:
            return None
        return finding if _conditions(before) == _conditions(run) else None

    def keep(self, name: str, run: Report) -> None:
        """Write down what this workload found: all of it, or nothing."""
        one = msgspec.structs.replace(run, findings={name: run.findings[name]})
        new = self._file(name).with_suffix(".new")
        new.write_bytes(to_json(one))
        new.replace(self._file(name))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def source(workload: Callable[..., Any]) -> str:
    """A digest of our code, of the parts that run it and the peers, and of the workload's own file."""
    return _digest((_below(_MEASURED), hashlib.sha256(Path(inspect.getfile(workload)).read_bytes()).hexdigest()))


@functools.cache
def _below(folders: tuple[Path, ...]) -> str:
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return _digest(f"{file.relative_to(_ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _conditions(run: Report) -> tuple[str, int, dict[str, Any]]:
    return run.scale, run.repeat, {name: said for name, said in run.machine.items() if name not in _VARIES}
