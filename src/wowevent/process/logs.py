"""Where the library's log lines go when a process is ours: stderr, and a rotating file that only its owner reads.

    2026-01-31T12:00:00.123Z WARNING wowevent delivery failed subscription=worker event_id=… attempt=2 error=…

A line is for a person and for grep: its level (ERROR), and the library's own words (subscription, delivery,
dead_letter, validation). As JSON it is for what collects logs, and says the same:

    {"time": "2026-01-31T12:00:00.123Z", "level": "WARNING", "logger": "wowevent", "message": "delivery failed", …}

Payloads are never in it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from logging.handlers import RotatingFileHandler
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from wowevent.errors import printable
from wowevent.log import Said
from wowevent.settings import FORMATS, LEVELS

if TYPE_CHECKING:
    from pathlib import Path

_TIME: Final = "%Y-%m-%dT%H:%M:%S"
_TEXT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s"
_OURS: Final = frozenset({"time", "level", "logger", "message", "exception"})
_PASSED_ON: Final = "wowevent.passed_on"
_BYTES: Final = 10 * 1024 * 1024
OLDER: Final = 5
"""Full files that are kept: `.1` is the newest."""
_LOGGERS: Final = {"wowevent": None, "uvicorn": logging.ERROR, "asyncio": logging.WARNING}
"""Whose lines are taken, and from which level on where it is not the configured one; uvicorn warns of each stranger."""


def set_up_logs(
    level: str, file: Path | None = None, *, stderr: bool = True, form: str = "text", worker: int | None = None
) -> None:
    """Send log lines of `level` and above to stderr, and to `file` if one is given (10 MiB, and five older ones).

    Without `stderr` to the file alone, for a process that nobody watches. `form` is `text` or `json`. `worker` is the
    number that one of several processes has, and stands in each of its lines.

    Raises ValueError for an unknown level or form, OSError if the file cannot be written.
    """
    if level.upper() not in LEVELS:
        raise ValueError(f"{level!r:.40} is not a log level: {', '.join(LEVELS)}")
    if form not in FORMATS:
        raise ValueError(f"{form!r:.40} is not a log format: {', '.join(FORMATS)}")
    lines: logging.Formatter = _JsonLines(worker) if form == "json" else _TextLines(worker)
    lines.converter = time.gmtime
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)] if stderr else []
    if file is not None:
        handlers.append(_file(file))
    for handler in handlers:
        handler.setFormatter(lines)
    for name, own_level in _LOGGERS.items():
        logger = logging.getLogger(name)
        logger.setLevel(own_level or level.upper())
        logger.handlers[:] = handlers
        logger.propagate = False


def pass_on(lines: str) -> None:
    """Log what another process of ours has written as log lines already."""
    told = {"name": _PASSED_ON, "msg": lines, "levelno": logging.INFO}  # its own level it has been asked about already
    logging.getLogger("wowevent").handle(logging.makeLogRecord(told))


class _TextLines(logging.Formatter):
    """A line as it is drawn above; of a worker `wowevent[2]`."""

    def __init__(self, worker: int | None) -> None:
        super().__init__(_TEXT.replace("%(name)s", "%(name)s" if worker is None else f"%(name)s[{worker}]"), _TIME)

    def format(self, record: logging.LogRecord) -> str:
        """See Formatter."""
        return record.getMessage() if record.name == _PASSED_ON else super().format(record)


class _JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, and what is told beside it. ASCII, so that a line is a line."""

    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """See Formatter."""
        if record.name == _PASSED_ON:
            return record.getMessage()
        said = getattr(record, "said", None)
        if not isinstance(said, Said):  # of another library
            trace = self.formatException(record.exc_info) if record.exc_info else None
            said = Said(record.getMessage(), {}, trace)
        line: dict[str, Any] = {
            "time": f"{self.formatTime(record, _TIME)}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": said.message,
            **self._worker,
        }
        for name, value in said.fields.items():
            line[f"{name}_" if name in _OURS else name] = value if isinstance(value, bool | int) else _text(value)
        if said.trace:
            line["exception"] = printable(said.trace)
        return json.dumps(line)


def _text(value: Any) -> str | float | None:
    """What JSON has by itself, and anything else as it is printed."""
    if value is None or (isinstance(value, float) and isfinite(value)):
        return value
    return printable(str(value))


def _file(path: Path) -> RotatingFileHandler:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_private(path)
    handler = RotatingFileHandler(path, maxBytes=_BYTES, backupCount=OLDER, encoding="utf-8", errors="backslashreplace")
    handler.rotator = _rotate
    return handler


def _rotate(source: str, dest: str) -> None:
    """Move the full file away, and make the next one before the handler opens it: with the right mode."""
    os.replace(source, dest)  # noqa: PTH105 - the handler speaks in strings
    _make_private(source)


def _make_private(path: str | Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
