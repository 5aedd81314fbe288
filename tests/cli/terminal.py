"""A person at a terminal: a command whose questions are answered, and one that runs in the foreground."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from select import select
from tempfile import TemporaryFile

from tests.processes import PATIENCE, Process, environment, start


def answered(home: Path, *arguments: str, answer: bytes | signal.Signals) -> tuple[int, bytes, str]:
    """The exit status, what a file got, and what the person saw. The answer is given to the first question."""
    main, terminal = pty.openpty()
    with TemporaryFile() as out:
        process = start(("wowevent", *arguments), home, environment(home), (terminal, out.fileno(), terminal))
        try:
            os.close(terminal)
            seen = _read(main, b"[y/N] ")
            if isinstance(answer, bytes):
                os.write(main, answer)
            else:
                _until_it_ends(process, answer)
            seen += _read(main, None)
            status = process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
        os.close(main)
        out.seek(0)
        return status, out.read(), seen.decode()


def _until_it_ends(process: Process, answer: signal.Signals) -> None:
    """Once more after a while, as a person does: one that comes just before the answer is read interrupts nothing."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        process.send_signal(answer)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2.0)


def _read(terminal: int, ending: bytes | None) -> bytes:
    """What is shown up to there; with None up to the end of the command."""
    seen = b""
    while ending is None or ending not in seen:
        if not select([terminal], [], [], PATIENCE)[0]:
            raise AssertionError(f"{ending!r} was not shown, only {seen!r}")
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # what Linux says when the other side is closed
            chunk = b""
        if not chunk:
            return seen
        seen += chunk
    return seen


@contextmanager
def at_a_terminal(home: Path, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], FileIO]]:
    """As `running`, in the foreground of a terminal; also its other end."""
    main, terminal = os.openpty()
    person = FileIO(main, "w")
    take = "import os, sys, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    with (home / "out.txt").open("wb") as out, (home / "err.txt").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", take, sys.executable, "-m", *command],
            cwd=home,
            env=environment(home),
            stdin=terminal,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    os.close(terminal)
    try:
        yield process, person
    finally:
        process.kill()
        process.wait()
        person.close()
