"""A terminal of its own for one command: what is seen on it, and what is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import time
from contextlib import suppress
from pathlib import Path
from select import select
from typing import Any, Self

from tests.processes import PATIENCE, Process, environment, start


class Terminal:
    """`wowevent ARGUMENTS` with stdin, stdout and stderr on a terminal; killed at the end."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.main, self.terminal = pty.openpty()
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 160, 0, 0))
        self.before = termios.tcgetattr(self.terminal)
        self.seen = ""
        self._looked = 0
        files = (self.terminal, self.terminal, self.terminal)
        env = environment(home, TERM="xterm")
        self.process: Process = start(("wowevent", *arguments), home, env, files, terminal=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.main)
        os.close(self.terminal)

    def wait_for(self, text: str) -> None:
        """Return when it is shown behind what was waited for before."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen[self._looked :]:
            if time.monotonic() > deadline or (self.process.poll() is not None and not self._read(0.1)):
                raise AssertionError(f"{text!r} was not shown, only {self.seen!r}")
            self._read(0.1)
        self._looked = self.seen.index(text, self._looked) + len(text)

    def type(self, text: str) -> None:
        """Type it."""
        os.write(self.main, text.encode())

    def answer(self, question: str, answer: str) -> None:
        """Type a line when the question is shown."""
        self.wait_for(question)
        self.type(f"{answer}\n")

    def leave(self, key: str) -> None:
        """Press a key such as Ctrl-C until it ends: one in the moment before it reads is for nobody."""
        for _ in range(int(PATIENCE)):
            self.type(key)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(2.0)
                return

    def end(self) -> tuple[int, str]:
        """The exit status, and all that was seen."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it did not end: {self.seen!r}"
            self._read(0.1)
        while self._read(0.1):
            pass
        return self.process.wait(), self.seen

    @property
    def modes(self) -> list[Any]:
        """How the terminal is set."""
        return termios.tcgetattr(self.terminal)

    def _read(self, seconds: float) -> bool:
        if not select([self.main], [], [], seconds)[0]:
            return False
        self.seen += os.read(self.main, 65_536).decode("utf-8", "replace")
        return True
