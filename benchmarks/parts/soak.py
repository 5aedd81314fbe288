"""A bus at work for minutes: three remembered subscriptions, one of them flaky; and what it takes of the machine."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.load import PATTERN, event
from benchmarks.part import Record, Setting, Signal
from wowevent import Event, EventBus
from wowevent.retry import RetryPolicy

_SAMPLES = 60
_PAGE = os.sysconf("SC_PAGE_SIZE")


async def soak(setting: Setting, signal: Signal) -> Record:
    """Publish at a steady rate until the count is reached; what each subscription handled is a byte an event."""
    logging.getLogger("wowevent").setLevel(logging.CRITICAL)  # the flaky one's failures are the point
    seen = {name: bytearray(setting.count) for name in ("one", "two", "flaky")}
    bus = EventBus(setting.url)
    for name, marks in seen.items():
        await bus.subscribe(PATTERN, _handler(marks, flaky=name == "flaky"), name, retry=RetryPolicy(initial=0.05))
    record = Record()
    async with bus:
        await signal.ready()
        record.started = time.monotonic()
        sampling = asyncio.create_task(_sample(record.samples, setting))
        await _publish(bus, setting)
        await bus.join(60)
        sampling.cancel()
        record.ended = time.monotonic()
    record.values["lost"] = sum(marks.count(0) for marks in seen.values())
    return record


def _handler(marks: bytearray, *, flaky: bool) -> Any:
    async def handle(event: Event) -> None:
        if flaky and event.payload["number"] % 50 == 0 and not event.retry_count:
            raise RuntimeError("flaky")
        marks[event.payload["number"]] = 1

    return handle


async def _publish(bus: EventBus, setting: Setting) -> None:
    """In small bursts every 10 ms, which keeps the rate without a timer an event."""
    rate, began, number = setting.options["rate"], time.monotonic(), 0
    while number < setting.count:
        due = min(setting.count, int((time.monotonic() - began) * rate) + 1)
        if number < due:
            await bus.publish_many([event(n) for n in range(number, due)])
            number = due
        await asyncio.sleep(0.01)


async def _sample(samples: dict[str, list[float]], setting: Setting) -> None:
    """Resident memory in MiB, open files, tasks, and the write-ahead log in MiB, about sixty times."""
    pause = setting.count / setting.options["rate"] / _SAMPLES
    wal = Path(setting.url.removeprefix("sqlite:///").partition("?")[0] + "-wal")
    while True:
        await asyncio.sleep(pause)
        for name, amount in {**_taken(wal), "tasks": float(len(asyncio.all_tasks()))}.items():
            samples.setdefault(name, []).append(amount)


def _taken(wal: Path) -> dict[str, float]:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "rss_mib": pages * _PAGE / 2**20,
        "fds": float(sum(1 for _ in Path("/proc/self/fd").iterdir())),
        "wal_mib": wal.stat().st_size / 2**20 if wal.exists() else 0.0,
    }
