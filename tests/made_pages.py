"""Pages of docs/ made of the code: what pytest collects, the rows of their tables, and how they are written."""

from __future__ import annotations

import contextlib
import difflib
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest


class _Collector:
    """A plugin that keeps what pytest collects."""

    def __init__(self) -> None:
        self.items: list[pytest.Function] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = [item for item in session.items if isinstance(item, pytest.Function)]


def collected(places: Sequence[Path], engines: Iterable[str]) -> list[pytest.Function]:
    """The tests of these files and folders, with all parameters. Once a process, and none in which pytest runs."""
    collector, said = _Collector(), io.StringIO()
    options = ["--collect-only", "-qq", "--assert=plain", "-p", "no:cacheprovider", f"--broker={','.join(engines)}"]
    with contextlib.redirect_stdout(said):
        status = pytest.main([*map(str, places), *options], plugins=[collector])
    if status != pytest.ExitCode.OK:
        raise SystemExit(said.getvalue())
    return collector.items


def row(cells: Sequence[str]) -> str:
    """One line of a table; one of dashes stands below its head."""
    return "|---" * len(cells) + "|\n" if cells[0] == "---" else f"| {' | '.join(cells)} |\n"


def write(pages: Mapping[Path, str], command: str) -> None:
    """Write them; with `--check` only say what would change, and end with 1 if anything would."""
    stale = {path: text for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if "--check" in sys.argv:
            there = path.read_text("utf-8").splitlines() if path.exists() else []
            print(*difflib.unified_diff(there, text.splitlines(), path.name, command, n=0, lineterm=""), sep="\n")  # noqa: T201 - what a command says
        else:
            path.write_text(text, encoding="utf-8")
    sys.exit("--check" in sys.argv and bool(stale))
