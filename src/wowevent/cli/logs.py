"""`wowevent logs`: the last lines of the service's log, and with -f those that come."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from wowevent.cli.exits import CommandError
from wowevent.cli.logfile import Follower, last
from wowevent.cli.pidfile import find
from wowevent.cli.serve import log_of
from wowevent.errors import plain
from wowevent.settings import LEVELS, Settings

_LOOK: Final = 0.2  # seconds between two looks at the file
_HEAD: Final = re.compile(rf"""(?:\S+Z |\{{"time": "\S+Z", "level": ")({"|".join(LEVELS)})[ "]""")
"""How a record begins, as text or JSON; lines that begin otherwise, as a traceback's do, belong to the one before."""


def logs(
    count: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes, until Ctrl-C.")] = False,
    level: Annotated[
        str | None, typer.Option(help="Only this level and above: DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    ] = None,
) -> None:
    """Print the last lines of the service's log, whether it runs or not."""
    if not follow:
        _print(recent(count, level))
        return
    file = _file()
    wanted = _Wanted(level)
    with suppress(KeyboardInterrupt), closing(Follower(file)) as follower:
        _print(last(file, count, wanted.of, until=follower))
        while True:
            _print(wanted.of(follower.more()))
            time.sleep(_LOOK)


def recent(count: int, level: str | None = None) -> list[str]:
    """The last lines of the log of that level and above; CommandError if there is no log yet, or no such level."""
    file = _file()
    wanted = _Wanted(level)
    if not file.exists():
        raise CommandError("io_error", f"there is no log yet: {file}")
    return last(file, count, wanted.of)


def _file() -> Path:
    """The log of the service that runs or ran last, else where the next one will write."""
    settings = Settings()
    record = find(settings.data_dir).record
    return Path(record.log) if record is not None else log_of({}, settings)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(plain(line.expandtabs()) + "\n")
    sys.stdout.flush()


class _Wanted:
    """Which lines are shown; remembers whether the record that the next line may belong to is."""

    def __init__(self, level: str | None) -> None:
        if level is not None and level.upper() not in LEVELS:
            raise CommandError("usage", f"{level!r:.40} is not a log level: {', '.join(LEVELS)}")
        self._levels = frozenset(LEVELS if level is None else LEVELS[LEVELS.index(level.upper()) :])
        self._shown = level is None

    def of(self, lines: Iterable[str]) -> Iterator[str]:
        """Those of the lines that are of the level, with what belongs to them."""
        for line in lines:
            if head := _HEAD.match(line):
                self._shown = head[1] in self._levels
            if self._shown:
                yield line
