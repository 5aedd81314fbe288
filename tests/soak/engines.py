"""The engines of a soak: each with a server of its own that may be killed, and what it takes of the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from msgspec import Struct

from tests.faults.rabbit import YOUNG, Rabbit
from tests.servers import Server, nats_running, redis_running

KEPT = 120
"""Seconds that a log keeps its events: what is older is trimmed, unread or not, so that nothing is meant to grow."""
_STREAM = 20_000_000  # bytes of RabbitMQ's history, which is trimmed by whole files: a quarter of that


class Engine(Struct, frozen=True):
    """One that is running."""

    name: str
    url: str
    folder: Path
    """All of its files."""
    server: Server | None = None
    restart: Callable[[], None] | None = None
    """SIGKILL of its server, and a start; None where there is no server."""
    young: float = 0.0
    """Seconds for which a server that is killed may lose a subscription that was just made."""

    def behind(self, port: int) -> str:
        """The URL with another port, for those whose line is a bad one."""
        return self.url if self.server is None else self.url.replace(f":{self.server.port}", f":{port}", 1)

    def taken(self) -> dict[str, float]:
        """MiB of its server's memory, of its files, and of a write-ahead log."""
        taken = {f"disk {self.name}": _size(self.folder)}
        if self.server is not None and self.server.process is not None:
            taken[f"server {self.name}"] = _memory(self.server.process.pid)
        if self.server is None:
            taken[f"wal {self.name}"] = sum(_bytes(file) for file in self.folder.glob("*-wal")) / 2**20
        return taken


@contextmanager
def running(name: str, folder: Path) -> Iterator[Engine]:
    """That engine, with its files in this folder."""
    folder.mkdir(parents=True)
    match name:
        case "sqlite":
            yield Engine(name, f"sqlite:///{folder / 'events.db'}?max_age={KEPT}", folder)
        case "redis":
            with redis_running(folder) as server:
                yield _served(name, f"redis://127.0.0.1:{server.port}", server)
        case "nats":
            with nats_running(folder) as server:
                yield _served(name, f"nats://127.0.0.1:{server.port}", server)
        case "rabbitmq":
            rabbit = Rabbit(folder)
            try:
                url = f"{rabbit.empty()}?max_age={KEPT}&max_bytes={_STREAM}"
                yield Engine(name, url, folder, rabbit.server, rabbit.restart, YOUNG)
            finally:
                rabbit.server.kill()
        case _:
            raise ValueError(f"no engine {name!r}")


def _served(name: str, url: str, server: Server) -> Engine:
    def restart() -> None:
        server.kill()
        server.start()

    return Engine(name, f"{url}?max_age={KEPT}", server.folder, server, restart)


def _memory(pid: int) -> float:
    """MiB of a process with all that it started."""
    found = 0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                found += each.memory_info().rss
    return found / 2**20


def _size(folder: Path) -> float:
    """MiB below it; unlike a glob, a walk does not mind folders that go while it is under way."""
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(_bytes(file) for file in found) / 2**20


def _bytes(file: Path) -> int:
    """Of a file that may be gone by now."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0
