"""Where a side keeps its events: for each engine, what opens it in a private directory and says its URL.

A new engine is one function here and one line in `ENGINES`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

ENGINE_CORE: Final = 0
CLIENT_CORE: Final = 1
Place = Callable[[Path], AbstractAsyncContextManager[str]]


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


async def _answers(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return


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


def behind_socket(engine: Place) -> Place:
    """A free port, and behind `#` the engine of the server that a part will open there."""

    @asynccontextmanager
    async def place(directory: Path) -> AsyncIterator[str]:
        async with engine(directory) as url:
            yield f"ws://127.0.0.1:{free_port()}#{url}"

    return place


def given(url: str) -> Place:
    """A place that is there already."""

    @asynccontextmanager
    async def place(_directory: Path) -> AsyncIterator[str]:
        yield url

    return place


ENGINES: Final[dict[str, Place]] = {"memory": memory, "sqlite": sqlite, "redis": redis_everysec}
