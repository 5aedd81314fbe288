"""Starting the service in the background, and waiting until it serves or has said why it does not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import psutil

from wowevent.cli.exits import SAID, CommandError
from wowevent.cli.pidfile import Record, find
from wowevent.cli.serve import flags, log_of
from wowevent.cli.stopping import end
from wowevent.errors import plain
from wowevent.settings import CONFIG, Settings, config_path

_PATIENCE: Final = 15.0  # seconds until it serves
_OTHERS: Final = 2.0  # seconds for another one, that was started at the same time, to be found
_LOOK: Final = 0.05  # seconds between two looks
_GRACE: Final = 5.0  # seconds to end for one that did not come to serve
_SHOWN: Final = 10  # lines, to say why


def launch(options: dict[str, Any], settings: Settings, cwd: Path) -> tuple[Record, bool]:
    """The service, and whether it is a new one; when this returns it serves.

    Raises CommandError if it does not within 15 s: with its own code if it said why, else not_started.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        seen = find(settings.data_dir)
        if seen.process is not None and seen.record is not None:
            return seen.record, False
        try:
            return _spawn(options, settings, cwd, deadline), True
        except CommandError as error:
            if error.code != "already_running" or time.monotonic() > deadline:
                raise
        other = _found(settings.data_dir, None, min(deadline, time.monotonic() + _OTHERS))
        if other is not None:
            return other, False


def _spawn(options: dict[str, Any], settings: Settings, cwd: Path, deadline: float) -> Record:
    log = log_of(options, settings)
    written = log.stat().st_size if log.exists() else 0
    command = [sys.executable, "-P", "-m", "wowevent", "start", *flags(options), "--detached"]
    with TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd=cwd,
            env=_environment(settings),
            start_new_session=True,  # neither Ctrl-C nor the end of this terminal reaches it
        )
        try:
            record = _found(settings.data_dir, process, deadline)
            if record is not None:
                # who started it may live longer than it: somebody has to ask for its exit status
                threading.Thread(target=process.wait, name="wowevent:reap", daemon=True).start()
                return record
            status = process.poll()
        except KeyboardInterrupt:
            _end(process)
            raise
        _end(process)
        said.seek(0)
        raise _why(status, _lines(said), _last_lines(log, written))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        end(psutil.Process(process.pid), _GRACE, force=True)


def _environment(settings: Settings) -> dict[str, str]:
    """This one's, with the paths that were understood from here."""
    own = {**os.environ, "WOWEVENT_DATA_DIR": str(settings.data_dir.absolute())}
    return {**own, CONFIG: str(config_path())} if os.environ.get(CONFIG) else own


def _found(data_dir: Path, process: subprocess.Popen[bytes] | None, deadline: float) -> Record | None:
    """The record of that process, or of any, once it is there; None if the process ends, or the time."""
    while time.monotonic() < deadline:
        seen = find(data_dir)
        if seen.process is not None and (process is None or seen.process.pid == process.pid):
            return seen.record
        if process is not None and process.poll() is not None:
            return None
        time.sleep(_LOOK)
    return None


def _why(status: int | None, told: list[str], log: list[str]) -> CommandError:
    """The error that it ended with, in its own words where it had some."""
    said = next((found for line in reversed(told) if (found := SAID.fullmatch(line))), None)
    if said is not None:
        return CommandError(said[1], said[2])
    how = f"did not serve within {_PATIENCE:g} s" if status is None else f"ended with status {status}"
    for line in (told or log)[-_SHOWN:]:
        print(plain(line.expandtabs()), file=sys.stderr)
    return CommandError("not_started", f"the service {how}; its last lines are above")


def _last_lines(log: Path, written: int) -> list[str]:
    """What it has written to the log since it was started."""
    try:
        with log.open("rb") as file:
            file.seek(written if written <= log.stat().st_size else 0)
            return _lines(file)
    except OSError:
        return []


def _lines(file: IO[bytes]) -> list[str]:
    return file.read().decode("utf-8", "replace").splitlines()
