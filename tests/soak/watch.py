"""What a system under load takes, looked at again and again: its processes, its engine, what waits in it."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress

import httpx
import psutil
from msgspec import Struct

from tests.soak.engines import Engine
from tests.soak.ledger import Ledger
from tests.soak.verdict import Sample
from wowevent import EventBus
from wowevent.errors import BusError

PASSING = "passing-"
"""Subscriptions whose names begin so come and go: they are counted, and not looked at one by one."""

_PATIENCE = 2.0  # seconds: an engine that is just being killed does not answer, and nothing is sampled of it
_TASKS = re.compile(r"^wowevent_tasks(?:{[^}]*})? ([0-9.]+)", re.MULTILINE)


class Watched(Struct, frozen=True):
    """A process, and where it tells its tasks, if that is not in its journal."""

    pid: int
    metrics: str = ""


class Watch:
    """Samples by the name of their series."""

    def __init__(self, engine: Engine, bus: EventBus, ledger: Ledger, watched: Callable[[], Mapping[str, Watched]]):
        """`watched` are the processes that are there now and that no fault touches."""
        self.series: dict[str, list[Sample]] = defaultdict(list)
        self._engine = engine
        self._bus = bus
        self._ledger = ledger
        self._watched = watched
        self._began = time.monotonic()

    async def run(self, every: float) -> None:
        """Look again and again, until cancelled."""
        self._began = time.monotonic()
        async with httpx.AsyncClient(timeout=_PATIENCE) as http:
            due = self._began
            while True:
                due = max(due + every, time.monotonic())
                await asyncio.sleep(due - time.monotonic())
                await self._look(http)

    async def _look(self, http: httpx.AsyncClient) -> None:
        watched = self._watched()
        self._note(await asyncio.to_thread(self._engine.taken))
        self._note(await asyncio.to_thread(_held, watched))
        self._note(await self._tasks(http, watched))
        self._note(await self._waiting())

    def _note(self, found: Mapping[str, float]) -> None:
        at = time.monotonic() - self._began
        for name, value in found.items():
            self.series[name].append(Sample(at, value))

    async def _tasks(self, http: httpx.AsyncClient, watched: Mapping[str, Watched]) -> dict[str, float]:
        """Of a service by its metrics, of our own programs by what they said last."""
        found = {}
        for name, each in watched.items():
            if not each.metrics:
                if "tasks" in (note := self._ledger.notes.get(name, {})):
                    found[f"tasks {name}"] = float(note["tasks"])
                continue
            with suppress(httpx.HTTPError):
                text = (await http.get(f"{each.metrics}/metrics", headers={"accept": "text/plain"})).text
                if told := _TASKS.search(text):
                    found[f"tasks {name}"] = float(told[1])
        return found

    async def _waiting(self) -> dict[str, float]:
        """What the engine says of each subscription; nothing while it does not answer."""
        try:
            async with asyncio.timeout(_PATIENCE):
                infos = await self._bus.subscriptions()
        except (BusError, TimeoutError):
            return {}
        found = {"subscriptions all": float(len(infos))}
        for info in infos:
            if not info.subscription.id.startswith(PASSING) and info.subscription.durable:
                for kind in ("ready", "leased", "delayed", "dead"):
                    if (count := getattr(info, kind)) is not None:
                        found[f"{kind} {info.subscription.id}"] = float(count)
        return found


def _held(watched: Mapping[str, Watched]) -> dict[str, float]:
    """MiB and open handles of each process that is there."""
    found = {}
    for name, each in watched.items():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(each.pid)
            found[f"memory {name}"] = process.memory_info().rss / 2**20
            found[f"handles {name}"] = float(process.num_fds())
    return found
