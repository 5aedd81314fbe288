"""Real servers of the engines: each on a free loopback port, in a private directory, ended with the test run."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

WITHIN = 20.0


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Server:
    """One process of a server, which can be killed, stopped and started again on the same port and directory."""

    def __init__(self, command: Sequence[str], port: int, folder: Path) -> None:
        self.port = port
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command

    @property
    def log(self) -> str:
        """What it says."""
        return (self.folder / "server.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder
            )
        deadline = time.monotonic() + WITHIN
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self._command[0]} did not start:\n{self.log[-2000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it answers: a port alone opens too early."""
        return redis_says(self.port, b"PING\r\n").startswith(b"+PONG")

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End it."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(how)
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGCONT)  # a stopped one hears nothing
            self.process.wait(WITHIN)
            self.process = None

    def pause(self) -> None:
        """It lives, and does nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


def redis_says(port: int, command: bytes) -> bytes:
    """The first bytes that it answers; nothing if it does not."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.settimeout(2)
        connection.sendall(command)
        return connection.recv(4096)
    return b""


def redis_server(folder: Path, *options: str, port: int | None = None) -> Server:
    """A Redis that is not started yet; it syncs every write unless the options say otherwise."""
    if shutil.which("redis-server") is None:
        raise AssertionError("redis-server is not installed: make servers")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    fixed = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--loglevel", "warning"]
    durable = ["--appendonly", "yes", "--appendfsync", "always"]
    return Server(["redis-server", *fixed, *durable, *options], port, folder)


@contextmanager
def redis_running(folder: Path, *options: str) -> Iterator[Server]:
    """A Redis that runs while the block does."""
    server = redis_server(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
