"""Real servers of the engines: each on a free loopback port, in a private directory, ended with the test run."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

WITHIN = 20.0
RABBITMQ_WITHIN = 60.0  # five seconds of two free cores, and these are seldom free
DEBIAN_RABBITMQ = "/usr/lib/rabbitmq/bin"  # what is on the PATH there changes user and directory; this is what it calls


def free_port() -> int:
    """A port that nobody has just now, and that no client's end will be given.

    The system's own choice could be: while a server starts, who tries to connect to it would meet itself there one day.
    """
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Server:
    """One server with what it starts, which can be killed, stopped and started again on the same port and directory.

    It is a process group, so that all of it gets each signal, and ends with this process, however that ends.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        folder: Path,
        *,
        answers: Callable[[int], bool] | None = None,
        environment: Mapping[str, str] | None = None,
        within: float = WITHIN,
    ) -> None:
        """`answers` says of a port whether it is this server's (default: Redis), `within` how long that may take."""
        self.port = port
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: Mapping[str, str] | None = environment
        """What it and its tools are started with; None is this process's."""
        self._command = command
        self._answers = answers or redis_answers
        self._within = within
        self._leash: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it says."""
        return (self.folder / "server.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.begin()
        self.ready()

    def begin(self) -> None:
        """Start it: one of several that answer once they have found each other."""
        with (self.folder / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )
        self._leash = _leash(self.process.pid)

    def ready(self) -> None:
        """Wait until it answers."""
        assert self.process is not None
        deadline = time.monotonic() + self._within
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self._command[0]} did not start:\n{self.log[-2000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it answers: a port alone opens too early."""
        return self._answers(self.port)

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End it."""
        if self.process is not None:
            self._signal(how)
            self._signal(signal.SIGCONT)  # a stopped one hears nothing
            self.process.wait(self._within)
            self.process = None
        if self._leash is not None:
            with self._leash as leash:
                leash.kill()
            self._leash = None

    def pause(self) -> None:
        """It lives, and does nothing."""
        assert self.process is not None
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self.process is not None
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def _leash(group: int) -> subprocess.Popen[bytes]:
    """What ends a process group when this process has ended, of SIGKILL too: it waits at a pipe that only we hold."""
    wait = 'read -r _; kill -9 "-$1"'
    quiet = subprocess.DEVNULL
    command = ["sh", "-c", wait, "leash", str(group)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)


def says(port: int, command: bytes) -> bytes:
    """The first bytes that a server answers; none if it does not."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.settimeout(2)
        connection.sendall(command)
        return connection.recv(4096)
    return b""


def redis_says(port: int, command: bytes) -> bytes:
    """The first bytes that it answers; nothing if it does not."""
    return says(port, command)


def redis_answers(port: int) -> bool:
    """Whether a Redis serves there: one that loads its log does not yet."""
    return says(port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))


def amqp_answers(port: int) -> bool:
    """Whether AMQP 0-9-1 is spoken there: a greeting is answered by the first method of a connection."""
    return says(port, b"AMQP\x00\x00\x09\x01").startswith(b"\x01\x00\x00")


def redis_server(folder: Path, *options: str, port: int | None = None) -> Server:
    """A Redis that is not started yet; it syncs every write unless the options say otherwise."""
    if shutil.which("redis-server") is None:
        raise AssertionError("redis-server is not installed: make servers")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    fixed = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--loglevel", "warning"]
    durable = ["--appendonly", "yes", "--appendfsync", "always"]
    return Server(["redis-server", *fixed, *durable, *options], port, folder)


def redis_sentinel(folder: Path, master: Server, name: str = "mymaster", *, quorum: int = 1) -> Server:
    """A Sentinel that watches one master, and `quorum` of which must agree that it is gone; not started yet."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {name} 127.0.0.1 {master.port} {quorum}\n"
        f"sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 5000\n"
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


def nats_server(folder: Path, *conf_lines: str, port: int | None = None, sync: str = "always") -> Server:
    """A NATS server with JetStream, not started yet, at nats://127.0.0.1:{port}; `conf_lines` go into its file."""
    program = shutil.which("nats-server", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise AssertionError("nats-server is not installed: make test installs it from the package index")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    file = folder / "nats.conf"
    file.write_text(
        f'listen: "127.0.0.1:{port}"\n'
        f'jetstream {{\n  store_dir: "{folder}/store"\n  sync_interval: {sync}\n}}\n'
        + "".join(f"{line}\n" for line in conf_lines)
    )
    return Server([program, "-c", str(file)], port, folder, answers=nats_answers)


def nats_answers(port: int) -> bool:
    """Whether a NATS server with its JetStream ready says hello there."""
    with suppress(OSError, ValueError), socket.create_connection(("127.0.0.1", port), timeout=2) as line:
        line.settimeout(2)
        hello = line.recv(4096)
        line.sendall(b'CONNECT {"verbose":false}\r\nSUB i 1\r\nPUB $JS.API.INFO i 0\r\n\r\nPING\r\n')
        got = b""
        while b"PONG" not in got:
            got += line.recv(4096)
        line.settimeout(0.2)
        with suppress(TimeoutError):
            got += line.recv(4096)
        return hello.startswith(b"INFO") and b"account_info" in got
    return False


def nats_emptied(port: int, account: str) -> None:
    """An account, whose user and password have its name, loses all its streams."""

    def says(subject: str) -> dict[str, Any]:
        line.sendall(f"PUB $JS.API.{subject} i 0\r\n\r\n".encode())
        while True:
            head = stream.readline()
            if head.startswith(b"PING"):
                line.sendall(b"PONG\r\n")
            elif head.startswith(b"MSG"):
                found: dict[str, Any] = json.loads(stream.read(int(head.split()[-1]) + 2))
                return found

    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN) as line, line.makefile("rb") as stream:
        login = json.dumps({"verbose": False, "user": account, "pass": account})
        line.sendall(f"CONNECT {login}\r\nSUB i 1\r\n".encode())
        for name in says("STREAM.NAMES").get("streams") or ():
            says(f"STREAM.DELETE.{name}")


@contextmanager
def nats_running(folder: Path, *conf_lines: str, sync: str = "always") -> Iterator[Server]:
    """One that runs while the block does."""
    server = nats_server(folder, *conf_lines, sync=sync)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def rabbitmq_server(
    folder: Path,
    *conf_lines: str,
    port: int | None = None,
    plugins: Sequence[str] = (),
    shared: tuple[Path, int] | None = None,
) -> Server:
    """A RabbitMQ that is not started yet, at amqp://127.0.0.1:{port} as guest; `conf_lines` go into its rabbitmq.conf.

    It shares nothing with another one of this machine: not its name, its files, its port mapper, nor settings. A queue
    that is younger than a second may not survive its SIGKILL, whatever was confirmed: version 3.10 saves in which
    directory a queue's log lies half a second later, and starts that queue anew, without a leader, if it does not know.
    Nodes of a cluster have a home, where the cookie is, and the port of a mapper in common: `shared`.
    """
    search = os.pathsep.join([DEBIAN_RABBITMQ, os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
    program = shutil.which("rabbitmq-server", path=search)
    if program is None:
        raise AssertionError("rabbitmq-server is not installed: make servers")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    home, mapper = shared or (folder, free_port())
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\n"
        "raft.wal_max_size_bytes = 33554432\n"  # half a gigabyte of disk otherwise, and all of it read at a start
        "vm_memory_high_watermark.relative = 0.8\n"  # a publisher that must wait for memory is no test's matter
        "log.file = false\nlog.console = true\nlog.console.level = warning\nlog.console.use_colors = off\n"
        + "".join(f"{line}\n" for line in conf_lines)
    )
    (folder / "plugins").write_text(f"[{','.join(plugins)}].\n")
    others = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")}
    environment = {
        **others,
        "HOME": str(home),  # the cookie
        "ERL_EPMD_PORT": str(mapper),
        "RABBITMQ_NODENAME": f"wowevent{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            "-start_epmd false +S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
        ),
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node, so that we wait for the node itself
    }
    # The port mapper is in our group: one that the node starts would outlive it.
    start_mapper = "" if shared else f"epmd -port {mapper} -address 127.0.0.1 & "
    command = ["sh", "-c", f'{start_mapper}exec "$0"', program]
    return Server(command, port, folder, answers=amqp_answers, environment=environment, within=RABBITMQ_WITHIN)


def rabbitmq_says(server: Server, expression: str) -> str:
    """What an expression gives that a node evaluates. `rabbitmqctl` would take seconds."""
    program, environment = shutil.which("erl_call"), server.environment or {}
    if program is None:
        raise AssertionError("erl_call is not installed: it comes with Erlang")
    done = subprocess.run(
        [program, "-n", environment["RABBITMQ_NODENAME"], "-c", _cookie(environment), "-e"],
        input=f"{expression}\n",
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert not done.stdout.startswith("{error"), f"{expression}: {done.stdout}"
    return done.stdout.strip()


def _cookie(environment: Mapping[str, str]) -> str:
    return (Path(environment["HOME"]) / ".erlang.cookie").read_text().strip()


@contextmanager
def rabbitmq_running(folder: Path, *conf_lines: str) -> Iterator[Server]:
    """A RabbitMQ that runs while the block does."""
    server = rabbitmq_server(folder, *conf_lines)
    server.start()
    try:
        yield server
    finally:
        server.kill()
