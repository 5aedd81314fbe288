"""What an operator can tell a NATS server, traffic that notes what it was promised, and a server on a small disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.client import Client

from tests.faults.checker import Report
from tests.faults.lab import SUBSCRIPTION, Lab, Program
from tests.faults.proxy import Proxy
from tests.servers import Server, nats_answers, nats_server
from wowevent import Event, EventBus
from wowevent.errors import BusError

STREAMS = ("log", "again", "later", "dead", "control")
"""What the engine makes there, without the prefix that `stream` gives."""
LEASE = 5.0
"""Seconds of a lease in tests that end with a drain: what a dead line swallowed comes again 12 s later."""
_AGAIN = {"settled_twice", "revived"}


def promises(report: Report) -> dict[str, frozenset[str]]:
    """Those that were broken. What was acknowledged when the server or a line died may come once more: no promise."""
    return {name: found for name, found in report.broken().items() if name not in _AGAIN}


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


# ---------------------------------------------------------------------------------------------------- traffic


class Traffic:
    """Two buses: one publishes and notes what was confirmed, one has a subscription and notes what it handled."""

    def __init__(self, publishing: EventBus, consuming: EventBus) -> None:
        self._publishing = publishing
        self._consuming = consuming
        self._number = 0
        self.handled: list[str] = []
        self.confirmed: set[str] = set()

    async def start(self) -> None:
        """Subscribe."""
        await self._consuming.subscribe("load.#", self._handle, SUBSCRIPTION, subscription=SUBSCRIPTION, lease=LEASE)

    def _handle(self, event: Event) -> None:
        self.handled.append(event.event_id)

    async def publish(self) -> str:
        """One event, which is confirmed; its id."""
        self._number += 1
        event = Event(topic="load.made", event_id=f"n-{self._number}")
        await self._publishing.publish(event)
        self.confirmed.add(event.event_id)
        return event.event_id

    async def goes_on(self, *, within: float) -> float:
        """Until an event that is confirmed now is handled; how many seconds that took."""
        began = time.monotonic()
        while True:
            assert time.monotonic() - began < within, "nothing comes"
            id = ""
            with suppress(BusError):
                id = await self.publish()
            for _ in range(10):
                if id in self.handled:
                    return time.monotonic() - began
                await asyncio.sleep(0.02)


class Load:
    """A publisher and a consumer, each a process, at one URL."""

    def __init__(self, lab: Lab, url: str) -> None:
        self._lab = lab
        self._url = url
        self.programs: list[Program] = []

    async def start(self) -> None:
        """Both work."""
        await self._lab.declare(lease=LEASE)
        self.programs = [
            self._lab.consumer(url=self._url, concurrency=4, lease=LEASE),
            self._lab.publisher(url=self._url, tasks=4),
        ]
        await self.goes_on(20)

    async def goes_on(self, count: int, *, timeout: float = 30.0) -> float:
        """Wait until so many more were confirmed, and so many more acknowledged; how many seconds that took."""
        began = time.monotonic()
        for what in ("ok", "acked"):
            await self._lab.written(len(self._lab.history(what)) + count, what, timeout=timeout)
        return time.monotonic() - began

    async def judge(self, measured: Any, rounds: int, **facts: object) -> Report:
        """End both; nothing that was confirmed is lost, and everything is in the log once."""
        consumer, publisher = self.programs
        publisher.kill()
        consumer.signal(signal.SIGTERM)
        assert await self._lab.ended(consumer) == 0
        drain = await self._lab.drain(lease=LEASE, timeout=90)
        stored = await self._lab.stored()
        report = await self._lab.verdict()
        again = len(report.broken().get("revived", ()))
        measured(rounds, report, **facts, acked_and_delivered_again=again, drain=drain)
        assert not promises(report)
        assert len(stored) == len(set(stored))
        assert report.ok <= report.handled
        assert report.ok <= set(stored)
        return report


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
