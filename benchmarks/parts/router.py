"""WowEvent's router as a process of its own; it serves until its clients have left."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.part import Record, Setting, Signal
from wowevent import EventBus
from wowevent.router import EventRouter

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOK = 0.25  # seconds between looks for clients: a look is work of the router's own


async def serve(setting: Setting, signal: Signal) -> Record:
    """Serve; what its named subscription still has at the end is lost."""
    async with _router(setting) as (router, bus):
        await signal.ready()
        cpu = await _until_left(router, signal)
        record = Record(cpu=cpu, values={"server_cpu": cpu})
        if (name := setting.options.get("name")) is not None:
            info = await bus.info(name)
            record.values["lost"] = 1.0 if info is None else float(info.ready + (info.leased or 0) + info.dead)
    return record


async def serve_idle(setting: Setting, signal: Signal) -> Record:
    """Serve clients that do nothing: KiB of resident memory for each, and microseconds a second that they cost."""
    async with _router(setting) as (router, _bus):
        before = resident()
        await signal.ready()
        clients = (await router.health())["clients"]
        await asyncio.sleep(setting.options["settle"])
        took, began = time.process_time(), time.monotonic()
        await asyncio.sleep(setting.options["idle"])
        took = (time.process_time() - took) / (time.monotonic() - began)
        values = {"kib_each": (resident() - before) / 1024 / clients, "cpu_percent": 100 * took}
        values["lost"] = float(setting.count - clients)
        await _until_left(router, signal)
    return Record(values=values)


class _router:  # noqa: N801 - reads as the context that it is
    """A bus, and a router in front of it at the port of the URL."""

    def __init__(self, setting: Setting) -> None:
        url, _, engine = setting.url.partition("#")
        self._bus = EventBus(engine)
        self._router = EventRouter(
            "127.0.0.1", urlsplit(url).port or 0, max_clients=10_000, bus=self._bus, **setting.options.get("router", {})
        )

    async def __aenter__(self) -> tuple[EventRouter, EventBus]:
        await self._bus.start()
        await self._router.open()
        return self._router, self._bus

    async def __aexit__(self, *_: object) -> None:
        await self._router.stop()
        await self._bus.stop()


async def _until_left(router: EventRouter, signal: Signal) -> float:
    """Return once no client is there any more, with the processor time until then."""
    while (await router.health())["clients"]:  # noqa: ASYNC110 - the router tells nobody that a client left
        await asyncio.sleep(_LOOK)
    return signal.cpu()


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
