"""`python -m MODULE ARGUMENTS…` as a fork of a process that has imported all of it already: see tests/zygote.py."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.zygote import NUMBER, Order

# What an interpreter reads at its start: whoever changes it wants another one.
_AT_START: Final = ("PYTHON", "LANG", "LC_", "LD_", "TZ", "TMPDIR")
_WITHIN: Final = 20.0  # seconds, for the fork, and for the first the imports


class Forked:
    """One command; what it has in common with `subprocess.Popen` is as there."""

    def __init__(self, order: Order, files: Sequence[int], zygote: socket.socket) -> None:
        self.returncode: int | None = None
        self._command = [order["module"], *order["arguments"]]
        self._told, others = socket.socketpair()
        with others:
            socket.send_fds(zygote, [b"+"], [others.fileno(), *files])
        self._told.settimeout(_WITHIN)
        self.pid: int = self._number()
        self._told.sendall(json.dumps(order).encode())
        self._told.shutdown(socket.SHUT_WR)

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status; subprocess.TimeoutExpired after that many seconds."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self._command, timeout or 0.0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int, /) -> None:
        """Nothing if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        with self._told:
            self.returncode = self._number()

    def _number(self) -> int:
        answer = self._told.recv(NUMBER.size)
        assert len(answer) == NUMBER.size, "the process that forks commands is gone"
        number: int = NUMBER.unpack(answer)[0]
        return number


class Forks:
    """The process that forks commands: started when the first is wanted, and ended with this one."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._environment: dict[str, str] = {**os.environ, "PYTHONUNBUFFERED": "1"}

    def can(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork is what an interpreter of that environment would be."""
        return _at_start(environment) == _at_start(self._environment)

    def fork(self, order: Order, files: Sequence[int]) -> Forked:
        """The command, on these as stdin, stdout and stderr; it is there when this returns, if not ready yet."""
        if self._control is None:
            self._control = self._started()
        return Forked(order, files, self._control)

    def _started(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("zygote.py")), str(number)],
                env=self._environment,
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(_ended, ours, process)
        return ours


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_AT_START)}


def _ended(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """Its end, waited for: what it has measured has to be written."""
    control.close()
    process.wait(_WITHIN)
