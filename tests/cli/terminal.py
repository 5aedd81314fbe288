"""A person at a terminal: a command whose questions are answered."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from select import select

from tests.processes import PATIENCE, environment


def answered(home: Path, *arguments: str, answer: bytes | signal.Signals) -> tuple[int, bytes, str]:
    """The exit status, what a pipe got, and what the person saw. The answer is given to the first question."""
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "wowevent", *arguments]
    with subprocess.Popen(
        command, cwd=home, env=environment(home), stdin=terminal, stdout=subprocess.PIPE, stderr=terminal
    ) as process:
        os.close(terminal)
        seen = _read(main, b"[y/N] ")
        if isinstance(answer, bytes):
            os.write(main, answer)
        else:
            process.send_signal(answer)
        seen += _read(main, None)
        out, _ = process.communicate(timeout=PATIENCE)
    os.close(main)
    return process.returncode, out, seen.decode()


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
