"""What an operator can tell a NATS server, and a server on a small disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.client import Client

from tests.faults.proxy import Proxy
from tests.servers import Server, nats_answers, nats_server

STREAMS = ("log", "again", "later", "dead", "control")
"""What the engine makes there, without the prefix that `stream` gives."""
LEASE = 5.0
"""Seconds of a lease in tests that end with a drain: what a dead line swallowed comes again 12 s later."""


def stream(name: str) -> str:
    """A stream's name on the server."""
    return f"wow-default-{name}"


async def tell(server: Server, what: str, **arguments: Any) -> dict[str, Any]:
    """Ask the JetStream API, as an operator would; its answer."""
    client = Client()
    await client.connect(f"nats://127.0.0.1:{server.port}", allow_reconnect=False)
    body = msgspec.json.encode(arguments) if arguments else b""
    try:
        answer = await client.request(f"$JS.API.{what}", body, timeout=5)
    finally:
        await client.close()
    found: dict[str, Any] = msgspec.json.decode(answer.data)
    assert "error" not in found, f"{what}: {found['error']}"
    return found


async def restart(server: Server, how: int = signal.SIGKILL) -> None:
    """A signal that ends it, and a start on the same port and directory."""
    await asyncio.to_thread(server.kill, how)
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def line_to(server: Server) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy, and the URL of the server by way of it."""
    async with Proxy(server.port, plain=True) as proxy:
        yield proxy, f"nats://127.0.0.1:{proxy.port}"


# ---------------------------------------------------------------------------------------------------- a small disk


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Sequence[str]]:
    """A disk at that folder which outlives the programs that see it; what a command begins with to be one of them."""
    folder.mkdir(parents=True, exist_ok=True)
    script = 'mount -t tmpfs -o "size=$1" none "$0" && echo there && exec sleep 1000'
    command = ["unshare", "-rm", "sh", "-c", script, str(folder), size]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"there\n", "no disk could be mounted"
            yield ["nsenter", "-t", str(holder.pid), "-U", "-m", "--preserve-credentials"]
        finally:
            holder.kill()


@contextmanager
def cramped_server(folder: Path, size: str) -> Iterator[tuple[Server, Path]]:
    """A server whose store is on a disk of that size, and a file of 6 MiB there that may be deleted to make room.

    The file came when the server had started: what the disk has free then is what the server takes for its own.
    """
    with small_disk(folder / "store", size) as within:
        port = nats_server(folder).port
        command = [*within, *_command(folder)]
        server = Server(command, port, folder, answers=nats_answers)
        server.start()
        try:
            assert server.process is not None
            disk = Path("/proc", str(server.process.pid), "root", *(folder / "store").parts[1:])
            (disk / "ballast").write_bytes(bytes(6 * 2**20))
            yield server, disk / "ballast"
        finally:
            server.kill()


def _command(folder: Path) -> list[str]:
    """As `nats_server` has it, whose file is there."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return [shutil.which("nats-server", path=path) or "nats-server", "-c", str(folder / "nats.conf")]
