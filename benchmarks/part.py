"""One process of a side: `python -m benchmarks.part MODULE:FUNCTION SETTING`.

tool ──────────────── setting ────────────────► part     starts, opens, subscribes
     ◄─────────────── ready ──────────────────
     ──────────────── go ─────────────────────►          measures
     ◄─────────────── record, as JSON ────────
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
from typing import Any

import msgspec
import uvloop
from msgspec import Struct


class Setting(Struct, frozen=True, kw_only=True):
    """What a part is told."""

    url: str
    count: int
    core: int | None = None
    options: dict[str, Any] = {}


class Record(Struct, kw_only=True):
    """What a part saw. Times are of the machine's monotonic clock, which its processes share."""

    started: float = 0.0
    ended: float = 0.0
    cpu: float = 0.0
    """Seconds of processor time between go and the end, all threads."""
    published: list[str] = []
    handled: list[str] = []
    """What went in here and what came out here; over all parts of a side they must be the same."""
    values: dict[str, float] = {}
    samples: dict[str, list[float]] = {}


class Signal:
    """Ready, and go."""

    def __init__(self) -> None:
        self._cpu = 0.0

    async def ready(self) -> None:
        """Say so, and wait until all parts are."""
        print("ready", flush=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        if line != "go\n":
            raise SystemExit("the tool has gone")
        self._cpu = time.process_time()

    def cpu(self) -> float:
        """Processor time since go."""
        return time.process_time() - self._cpu


async def _run(name: str, setting: Setting) -> Record:
    module, _, function = name.partition(":")
    signal = Signal()
    record: Record = await getattr(importlib.import_module(module), function)(setting, signal)
    record.cpu = record.cpu or signal.cpu()
    return record


def main() -> None:
    setting = msgspec.json.decode(sys.argv[2], type=Setting)
    if setting.core is not None:
        os.sched_setaffinity(0, {setting.core})
    record = uvloop.run(_run(sys.argv[1], setting))
    rest = memoryview(msgspec.json.encode(record) + b"\n")
    while rest:  # unbuffered (PYTHONUNBUFFERED), one write into a pipe may take a part of it
        rest = rest[os.write(sys.stdout.fileno(), rest) :]


if __name__ == "__main__":
    main()
