"""What the suite needs of an engine: instances over one log, and a clock to move. A new engine is one entry more."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.rabbitmq import shared_rabbit
from tests.servers import nats_emptied, nats_running, redis_cluster, redis_running, redis_says, redis_sentinel
from wowevent import EventBus
from wowevent.broker import Broker, Retention
from wowevent.brokers import open_broker
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.clock import Clock
from wowevent.testing import ManualClock, settle

Open = Callable[[Retention | None, Clock], Broker]
"""Opens one more instance over one log."""


def url_of(engine: str, folder: Path) -> str:
    """A URL of that engine, of a log that only this test uses."""
    if engine == "redis":
        return shared_redis.emptied()
    if engine == "rabbitmq":
        return shared_rabbit.empty(folder)
    if engine == "nats":
        return shared_nats.emptied()
    return {"memory": f"memory://{folder.name}", "sqlite": f"sqlite:///{folder / 'events.db'}"}[engine]


def memory(_folder: Path) -> Open:
    log = MemoryLog()
    return lambda retention, clock: MemoryBroker(log, retention=retention, clock=clock)


def sqlite(folder: Path) -> Open:
    url = f"sqlite:///{folder / 'events.db'}"
    return lambda retention, clock: open_broker(url, retention=retention, clock=clock)


def redis(folder: Path) -> Open:
    url = shared_redis.url()
    namespace = f"{folder.name[-40:]}-{next(_numbers)}"  # a log of its own
    return lambda retention, clock: open_broker(url, namespace=namespace, retention=retention, clock=clock)


def rabbitmq(folder: Path) -> Open:
    url = shared_rabbit.empty(folder)
    return lambda retention, clock: open_broker(url, retention=retention, clock=clock)


def nats(folder: Path) -> Open:
    url = shared_nats.url()
    namespace = f"{folder.name[-40:]}-{next(_numbers)}"  # a log of its own
    return lambda retention, clock: open_broker(url, namespace=namespace, retention=retention, clock=clock)


class SharedNats:
    """One server for all tests of a process, ended with the run."""

    def __init__(self) -> None:
        self._url = ""
        self._accounts = [f"a{number}" for number in range(16)]

    def url(self) -> str:
        """Where it is."""
        if not self._url:
            folder = Path(tempfile.mkdtemp(prefix="wowevent-nats-"))
            running = ExitStack()
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            atexit.register(running.close)
            users = "".join(
                f"  {name}: {{ users: [{{ user: {name}, password: {name} }}], jetstream: enabled }}\n"
                for name in ("everyone", *self._accounts)
            )
            accounts = f"accounts {{\n{users}}}\nno_auth_user: everyone"
            server = running.enter_context(nats_running(folder, accounts, sync="10s"))  # that is the faults' matter
            self._url = f"nats://127.0.0.1:{server.port}"
        return self._url

    def emptied(self) -> str:
        """The URL of an account that has nothing."""
        where = urlsplit(self.url())
        name = self._accounts[next(_numbers) % len(self._accounts)]
        nats_emptied(int(where.port or 0), name)
        return f"nats://{name}:{name}@{where.hostname}:{where.port}"


class SharedRedis:
    """One server for all tests of a run, or one behind a Sentinel, or a cluster; ended with the run."""

    def __init__(self) -> None:
        self.form: str = "plain"
        """plain, sentinel or cluster: what `--redis` says."""
        self._ports: list[int] = []
        self._url = ""

    def url(self) -> str:
        """Where it is."""
        if not self._url:
            folder = Path(tempfile.mkdtemp(prefix="wowevent-redis-"))
            running = ExitStack()
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            atexit.register(running.close)
            self._url = self._start(folder, running)
        return self._url

    def _start(self, folder: Path, running: ExitStack) -> str:
        syncs = ("--appendfsync", "everysec")  # its syncing is the faults' matter
        if self.form == "cluster":
            nodes = running.enter_context(redis_cluster(folder, *syncs))
            self._ports = [node.port for node in nodes]
            return f"redis+cluster://127.0.0.1:{self._ports[0]}"
        server = running.enter_context(redis_running(folder / "server", *syncs))
        self._ports = [server.port]
        if self.form == "plain":
            return f"redis://127.0.0.1:{server.port}"
        sentinel = redis_sentinel(folder / "sentinel", server)
        sentinel.start()
        running.callback(sentinel.kill)
        return f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster"

    def emptied(self) -> str:
        """The URL of an empty database. A cluster has one only, so that tests with a `rig` lose theirs by this."""
        url, database = self.url(), 0 if self.form == "cluster" else 1 + next(_numbers) % 15
        for port in self._ports:
            redis_says(port, f"SELECT {database}\r\nFLUSHDB\r\nPING\r\n".encode())
        return url if self.form == "cluster" else f"{url}/{database}"


_numbers = itertools.count()
shared_redis = SharedRedis()
shared_nats = SharedNats()
ENGINES: dict[str, Callable[[Path], Open]] = {
    "memory": memory, "sqlite": sqlite, "redis": redis, "rabbitmq": rabbitmq, "nats": nats
}  # fmt: skip


class Rig:
    """One log of one engine, the instances and buses over it, and the clock that they all go by."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine = engine
        self.clock = ManualClock()
        self._folder = folder
        self._open = ENGINES[engine](folder)
        self._brokers: list[Broker] = []
        self._buses: list[EventBus] = []
        self._others: list[Rig] = []

    def broker(self, *, retention: Retention | None = None) -> Broker:
        """One more instance."""
        broker = self._open(retention, self.clock)
        self._brokers.append(broker)
        return broker

    @property
    def crowd(self) -> int:
        """As many instances as a test may have in one process.

        On RabbitMQ each has two connections and reads what all of them note, which grows by the square.
        """
        return 10 if self.engine == "rabbitmq" else 50

    async def bus(self, *, start: bool = True, **settings: Any) -> EventBus:
        """One more bus, on an instance of its own: to the engine, one more process."""
        bus = EventBus(self.broker(retention=settings.pop("retention", None)), clock=self.clock, **settings)
        self._buses.append(bus)
        if start:
            await bus.start()
        return bus

    def another_log(self) -> Rig:
        """The same engine, with a log that has nothing to do with this one."""
        folder = self._folder / f"other-{len(self._others)}"
        folder.mkdir()
        self._others.append(Rig(self.engine, folder))
        return self._others[-1]

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, slowly enough for engines that answer from another thread."""
        await self.breathe()  # what happened before must have reached the engine before, or it is due later
        while seconds > 0:
            step = min(seconds, max(10.0, seconds / 10) if self.engine == "rabbitmq" else 3.0)
            await self.clock.advance(step)
            seconds -= step
            await self.breathe()

    async def breathe(self) -> None:
        """Return when what is under way has reached the engine and come back."""
        for broker in self._brokers[:2]:
            for _ in range(2 if self.engine == "rabbitmq" else 4):
                try:
                    await broker.ping()
                except Exception:  # noqa: BLE001 - it is closed, or the test has broken it
                    break
                await settle()

    async def close(self) -> None:
        """Stop every bus, close every instance."""
        for bus in self._buses:
            await bus.stop(timeout=1)
        await asyncio.gather(*(broker.close() for broker in self._brokers))
        for other in self._others:
            await other.close()
        if self.engine == "rabbitmq":
            shared_rabbit.erase(self._folder)  # the queues of a whole run would drown the server


@pytest.fixture
async def rig(broker_name: str, tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(broker_name, tmp_path)
    yield rig
    await rig.close()


async def eventually(condition: Callable[[], Awaitable[Any] | Any], seconds: float = 10.0) -> None:
    """Return once `condition()`, which may be awaitable, is true."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.002)
