"""The lines of a page for a shell, run one by one in a home of their own."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import httpx

from tests.documents.pages import Block
from tests.processes import Process, end, environment, running, wowevent

T = TypeVar("T")

PATH: Final = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
"""On which `wowevent` is found, as after `make run`."""
ALONE: Final = re.compile(r"wowevent ([^|&;<>$`*?]*|(?:[^|&;<>$`\"']|'[^']*'|\"[^\"$`]*\")*)")
PATIENCE: Final = 90.0
"""Seconds for a command from nothing, on a machine that has other things to do."""


def lines(text: str) -> list[str]:
    """Its commands, without their comments."""
    stripped = (re.sub(r"(^|\s+)# .*", "", line) for line in text.replace("\\\n", " ").splitlines())
    return [line for line in stripped if line.strip()]


def wait(look: Callable[[], T], what: str) -> T:
    """What `look` finds, as soon as it is something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE:.0f} s"
        time.sleep(0.1)
    return found


class Shell:
    """What a reader has who follows a page: a folder, and settings in the environment."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.settings = settings

    def follow(
        self, block: Block, changes: Mapping[str, str] | None = None, *, statuses: tuple[int, ...] = (0,)
    ) -> str:
        """What all lines of a block print, with other names in them."""
        return "".join(self.line(line, statuses=statuses) for line in lines(block.with_(changes or {}).text))

    def line(self, line: str, *, statuses: tuple[int, ...] = (0,)) -> str:
        """What one prints on stdout. One that is a command of ours and nothing else need not start from nothing."""
        if ALONE.fullmatch(line) and "start" not in line.split() and "restart" not in line.split():
            words = shlex.split(line)[1:]
            done = wowevent(self.home, *words, timeout=PATIENCE, stdin=None, **self.settings)
            status, out, err = done.returncode, done.stdout.decode(), done.stderr.decode()
        else:
            ran = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", line],
                cwd=self.home,
                env=environment(self.home, PATH=PATH, **self.settings),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            status, out, err = ran.returncode, ran.stdout, ran.stderr
        assert status in statuses, f"{line}\nends with {status}\n{out}{err}"
        return out

    @contextmanager
    def serving(self, line: str) -> Iterator[str]:
        """A line that serves until it is told to end, on other ports: where it does. It ends with 0."""
        settings, command = re.fullmatch(r"((?:\w+=\S+ )*)wowevent (.*)", line).groups()  # type: ignore[union-attr]  # or it is no such line
        given = dict(word.split("=", 1) for word in shlex.split(settings))
        words = shlex.split(re.sub(r" --(http-)?port \d+|(?<=0\.0\.0\.0):\d+", "", command))
        words = [f"{word}:0" if word == "0.0.0.0" and words[0] == "mcp" else word for word in words]
        ports = ["--port", "0", "--http-port", "0"] if words[0] == "serve" else []
        with running(self.home, "wowevent", *words, *ports, **{**self.settings, **given}) as process:
            yield wait(self._served, f"{line}: an address")
            self.ends(process)

    def _served(self) -> str:
        """Where, once it answers there."""
        said = (self.home / "out.txt").read_text() + (self.home / "err.txt").read_text()
        found = re.search(r"https?://[\w.]+:\d+", said)
        if found is None:
            return ""
        with suppress(httpx.TransportError):
            httpx.get(f"{found[0]}/live", verify=False)  # noqa: S501 - a certificate of the test's own
            return found[0]
        return ""

    def ends(self, process: Process) -> None:
        """It drains and says that all is well."""
        assert end(process, signal.SIGTERM) == 0, (self.home / "err.txt").read_text()
