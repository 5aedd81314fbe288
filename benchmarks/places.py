"""Where a side keeps its events: for each engine, what opens it in a private directory and says its URL.

A new engine is one function here and one line in `ENGINES`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

ENGINE_CORE: Final = 0
CLIENT_CORE: Final = 1
Place = Callable[[Path], AbstractAsyncContextManager[str]]
_DEBIAN_RABBITMQ: Final = "/usr/lib/rabbitmq/bin"
"""What Debian has on the PATH changes the user; the script itself is here."""


class Absent(Exception):
    """A server that this side needs is not installed."""


@asynccontextmanager
async def memory(_directory: Path) -> AsyncIterator[str]:
    """A log within the one process."""
    yield "memory://"


@asynccontextmanager
async def sqlite(directory: Path) -> AsyncIterator[str]:
    """A file; FULL is the engine's default and is named all the same."""
    yield f"sqlite:///{directory / 'events.db'}?synchronous=full"


@asynccontextmanager
async def redis_always(directory: Path) -> AsyncIterator[str]:
    """A redis-server of our own that confirms what is on disk, as a commit in FULL does."""
    async with _redis(directory, "always") as url:
        yield url


@asynccontextmanager
async def redis_everysec(directory: Path) -> AsyncIterator[str]:
    """The same, confirming what it has; it is on disk about a second later."""
    async with _redis(directory, "everysec") as url:
        yield url


@asynccontextmanager
async def _redis(directory: Path, fsync: str) -> AsyncIterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        raise Absent("redis-server")
    port = free_port()
    options = f"--bind 127.0.0.1 --port {port} --appendonly yes --appendfsync {fsync} --daemonize no".split()
    process = await asyncio.create_subprocess_exec(
        program, *options, "--save", "", "--dir", str(directory), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await _answers(port)
        _pin(process.pid)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@asynccontextmanager
async def nats(directory: Path) -> AsyncIterator[str]:
    """A nats-server of our own that confirms what it has; it is on disk within two minutes, its default."""
    async with _nats(directory) as url:
        yield url


@asynccontextmanager
async def nats_always(directory: Path) -> AsyncIterator[str]:
    """The same, confirming what is on disk."""
    async with _nats(directory, "sync_interval: always") as url:
        yield url


@asynccontextmanager
async def _nats(directory: Path, *settings: str) -> AsyncIterator[str]:
    program = nats_program()
    if program is None:
        raise Absent("nats-server")
    port = free_port()
    stored = "\n".join((f'store_dir: "{directory / "store"}"', *settings))
    file = directory / "nats.conf"
    file.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{\n{stored}\n}}\n', encoding="utf-8")
    async with _group(program, "-c", str(file), "-l", str(directory / "log")):
        await _answers(port, hello=b"PING\r\n")
        yield f"nats://127.0.0.1:{port}"


def nats_program() -> str | None:
    """The server, if it is installed: it comes with the tests' packages, too."""
    search = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return shutil.which("nats-server", path=os.pathsep.join(search))


@asynccontextmanager
async def rabbitmq(directory: Path) -> AsyncIterator[str]:
    """A RabbitMQ node of our own, with its own port mapper, its settings those of the box but for the ports."""
    program = rabbitmq_program()
    mapper = shutil.which("epmd")
    if program is None or mapper is None:
        raise Absent("rabbitmq-server")
    port, mapped = free_port(), free_port()
    (directory / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n", encoding="utf-8")
    (directory / "plugins").write_text("[].\n", encoding="utf-8")
    environment = {
        "HOME": str(directory),  # its cookie is there
        "ERL_EPMD_PORT": str(mapped),
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
    }
    # A mapper that the node started would outlive it.
    async with _group(mapper, "-port", str(mapped), "-address", "127.0.0.1"), _group(program, **environment):
        await _answers(port, hello=b"AMQP\x00\x00\x09\x01", seconds=60)
        yield f"amqp://guest:guest@127.0.0.1:{port}/"


def rabbitmq_program() -> str | None:
    """The server's own script, if it is installed."""
    return shutil.which("rabbitmq-server", path=os.pathsep.join([_DEBIAN_RABBITMQ, os.environ.get("PATH", "")]))


@asynccontextmanager
async def _group(program: str, *arguments: str, **environment: str) -> AsyncIterator[None]:
    """A program with all the processes that it starts; nothing of it is kept, so it is killed."""
    with _on_engine_core():
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@contextlib.contextmanager
def _on_engine_core() -> Iterator[None]:
    """What is started here runs there. Erlang and Go count their processors when they start: one core, one thread."""
    before = os.sched_getaffinity(0)
    if ENGINE_CORE in before:
        os.sched_setaffinity(0, {ENGINE_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def _answers(port: int, *, hello: bytes = b"", seconds: float = 10) -> None:
    """Wait until it listens, and says something to a hello."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(hello)
                said = not hello or await reader.read(1)
                writer.close()
                await writer.wait_closed()
                if said:
                    return
            await asyncio.sleep(0.05)


def _pin(pid: int) -> None:
    """Every thread of a server onto the engine's core."""
    if ENGINE_CORE in os.sched_getaffinity(0):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {ENGINE_CORE})


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def behind_socket(engine: Place, servers: int = 1) -> Place:
    """A free port for each server, with commas between, and behind `#` the engine of those that parts open there."""

    @asynccontextmanager
    async def place(directory: Path) -> AsyncIterator[str]:
        async with engine(directory) as url:
            yield f"{','.join(f'ws://127.0.0.1:{free_port()}' for _ in range(servers))}#{url}"

    return place


def given(url: str) -> Place:
    """A place that is there already."""

    @asynccontextmanager
    async def place(_directory: Path) -> AsyncIterator[str]:
        yield url

    return place


ENGINES: Final[dict[str, Place]] = {
    "memory": memory, "sqlite": sqlite, "redis": redis_everysec, "rabbitmq": rabbitmq, "nats": nats
}  # fmt: skip
