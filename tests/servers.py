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
                self.kill()
                raise AssertionError(f"{self._command[0]} did not start:\n{self.log[-2000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it answers: a port alone opens too early."""
        return redis_says(self.port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))

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


def redis_sentinel(folder: Path, master: Server, name: str = "mymaster") -> Server:
    """A Sentinel that watches one master, and whose word alone is enough; not started yet."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {name} 127.0.0.1 {master.port} 1\nsentinel down-after-milliseconds {name} 1000\n"
    )
    return Server(["redis-server", str(folder / "sentinel.conf"), "--sentinel"], port, folder)


@contextmanager
def redis_cluster(folder: Path, *options: str) -> Iterator[tuple[Server, Server]]:
    """Two masters with half of the slots each, so that a client which asks the wrong one is sent to the other."""
    nodes, buses = [], []
    for number in range(2):
        buses.append(free_port())
        cluster = ["--cluster-enabled", "yes", "--cluster-port", str(buses[-1]), "--cluster-node-timeout", "2000"]
        nodes.append(redis_server(folder / f"node-{number}", *cluster, *options))
    first, second = nodes
    try:
        for node, slots in ((first, b"0 8191"), (second, b"8192 16383")):
            node.start()
            assert redis_says(node.port, b"CLUSTER ADDSLOTSRANGE %b\r\n" % slots).startswith(b"+OK")
        redis_says(second.port, b"CLUSTER SET-CONFIG-EPOCH 2\r\n")  # two of the same would have to be told apart first
        redis_says(first.port, f"CLUSTER MEET 127.0.0.1 {second.port} {buses[1]}\r\n".encode())
        deadline = time.monotonic() + WITHIN
        while not all(b"cluster_state:ok" in redis_says(node.port, b"CLUSTER INFO\r\n") for node in nodes):
            assert time.monotonic() < deadline, "the cluster did not form"
            time.sleep(0.05)
        yield first, second
    finally:
        for node in nodes:
            node.kill()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and localhost that vouches for itself, and its key."""
    if shutil.which("openssl") is None:
        raise AssertionError("openssl is not installed, and TLS cannot be tested without a certificate")
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "server.crt", folder / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True, timeout=WITHIN)
    return certificate, key


@contextmanager
def redis_running(folder: Path, *options: str) -> Iterator[Server]:
    """A Redis that runs while the block does."""
    server = redis_server(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
