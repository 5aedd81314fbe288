"""Ending a process that is ours: told first, and waited for."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

import psutil

from wowevent.cli.exits import CommandError
from wowevent.cli.pidfile import ended

PATIENCE: Final = 20.0
"""Seconds that a service gets to drain."""

_KILL: Final = 5.0  # seconds until a process that was killed is gone
_LOOK: Final = 0.05  # seconds between two looks


def end(process: psutil.Process, timeout: float, *, force: bool) -> bool:
    """Tell it to end and wait `timeout` seconds; with `force` it is killed then. Returns whether it had to be.

    Raises CommandError (not_stopped) if it is still there.
    """
    try:
        process.terminate()
        if _wait(process, timeout):
            return False
        if force:
            for each in (*process.children(recursive=True), process):  # workers, which would drain without it
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            if _wait(process, _KILL):
                return True
    except psutil.NoSuchProcess:  # it ended by itself meanwhile
        return False
    hint = "" if force else "; --force kills it"
    raise CommandError("not_stopped", f"process {process.pid} did not end within {timeout:g} s{hint}")


def _wait(process: psutil.Process, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not ended(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK)
    return True
