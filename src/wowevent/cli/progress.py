"""How far a command is, on stderr: a bar for each of its steps on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

Told = Callable[[str, int, float], None]
"""Hears which step it is, how much of it is done, and what part of it that is, from 0 to 1."""

_SAY_EVERY: Final = 5.0  # seconds between two lines for who has no terminal


@contextmanager
def progress(units: Mapping[str, str]) -> Iterator[Told]:
    """What shows how far it is, as it is told; `units` names the steps there are, and what each one counts."""
    if not sys.stderr.isatty():
        yield _lines(units)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

    count = TextColumn("{task.fields[count]:,} {task.fields[unit]}")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), count, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        steps: dict[str, TaskID] = {}

        def told(step: str, count: int, part: float) -> None:
            if step not in steps:
                steps[step] = bars.add_task(step, total=1.0, count=0, unit=units[step])
            bars.update(steps[step], completed=part, count=count)

        yield told


def _lines(units: Mapping[str, str]) -> Told:
    said = time.monotonic()

    def told(step: str, count: int, part: float) -> None:
        nonlocal said
        if (now := time.monotonic()) >= said + _SAY_EVERY:
            said = now
            print(f"{step}: {count:,} {units[step]}, {part:.0%}", file=sys.stderr, flush=True)

    return told
