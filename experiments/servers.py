"""Starts a private Redis, RabbitMQ or NATS on a free loopback port in a temporary directory, and ends it.

Every experiment does `with redis_server() as server:` and connects to `server.url`. Nothing outlives the
block: not the process, not its directory, not Erlang's port mapper.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NO_RETRY: Any = None  # how redis-py is told to send a command once; by default it sends it up to eleven times
ERLANG = "-start_epmd false +S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
DEBIAN_RABBITMQ = "/usr/lib/rabbitmq/bin"  # the wrapper in PATH changes user and directory; the real script is here


@dataclass
class Server:
    """One running engine: where it listens, and how to end it as gently or as rudely as a test needs."""

    url: str
    port: int
    directory: Path
    command: Sequence[str]
    hello: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self, within: float = 60.0) -> None:
        """Start it and wait until it answers; raise with its log's end when it does not."""
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment},
                cwd=self.directory,
                start_new_session=True,
            )
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if self.answers():
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"{self.command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")

    def answers(self) -> bool:
        """Does it answer the protocol's first bytes? A port alone opens too early after a crash."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.settimeout(2)
            connection.sendall(self.hello)
            answer = connection.recv(64)
            return bool(answer) and not answer.startswith(b"-")  # "-LOADING" of Redis
        return False

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End the whole process group; SIGKILL unless told otherwise."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def crash_and_restart(self) -> None:
        """Kill -9, then start again on the same port and directory."""
        self.kill()
        self.start()


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def program(name: str, *also_in: str) -> str:
    """The path of an installed program, or an error that says what to install."""
    search = os.pathsep.join([*also_in, os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    found = shutil.which(name, path=search)
    if found is None:
        raise SystemExit(f"{name} is not installed; see experiments/README.md")
    return found


@contextmanager
def redis_server(*options: str) -> Iterator[Server]:
    """A Redis with appendonly and fsync at every write; further options as on its command line."""
    with tempfile.TemporaryDirectory(prefix="wow-redis-") as name:
        port = free_port()
        base = [
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            name,
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            "noeviction",
        ]
        server = Server(
            f"redis://127.0.0.1:{port}/0", port, Path(name), [program("redis-server"), *base, *options], b"PING\r\n"
        )
        yield from _running(server)


@contextmanager
def nats_server(extra: str = "") -> Iterator[Server]:
    """A NATS server with JetStream on file, `sync_interval: always` unless `extra` says otherwise."""
    with tempfile.TemporaryDirectory(prefix="wow-nats-") as name:
        port = free_port()
        sync = "" if "sync_interval" in extra else "sync_interval: always"
        config = Path(name) / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{\n store_dir: "{name}/js"\n {sync}\n {extra}\n}}\n')
        command = [program("nats-server"), "-c", str(config)]
        yield from _running(Server(f"nats://127.0.0.1:{port}", port, Path(name), command))


@contextmanager
def rabbitmq_server(extra: str = "") -> Iterator[Server]:
    """A RabbitMQ node of its own name, with its own port mapper; `extra` goes into its rabbitmq.conf."""
    with tempfile.TemporaryDirectory(prefix="wow-rabbit-") as name, _port_mapper(Path(name)) as mapper:
        port, directory = free_port(), Path(name)
        config = directory / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nraft.wal_max_size_bytes = 33554432\n{extra}\n")
        (directory / "plugins").write_text("[].\n")
        environment = {
            "HOME": name,
            "ERL_EPMD_PORT": str(mapper),
            "RABBITMQ_NODENAME": f"wow{port}@localhost",
            "RABBITMQ_MNESIA_BASE": f"{name}/data",
            "RABBITMQ_LOG_BASE": f"{name}/log",
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{name}/plugins",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": f"{name}/none",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
        }
        command = [program("rabbitmq-server", DEBIAN_RABBITMQ)]
        yield from _running(
            Server(
                f"amqp://guest:guest@127.0.0.1:{port}/", port, directory, command, b"AMQP\x00\x00\x09\x01", environment
            )
        )


@contextmanager
def _port_mapper(directory: Path) -> Iterator[int]:
    """Erlang's port mapper as our own child: started by a node it would outlive the experiment."""
    port = free_port()
    command = [program("epmd"), "-port", str(port), "-address", "127.0.0.1"]
    with (
        (directory / "epmd.log").open("ab") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as mapper,
    ):
        try:
            yield port
        finally:
            mapper.kill()


def _running(server: Server) -> Iterator[Server]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a terminated experiment still ends its server
    try:
        server.start()
        yield server
    finally:
        server.kill(signal.SIGTERM)
