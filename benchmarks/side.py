"""One side of a comparison: its place and its processes; run once, with a proof that nothing was lost."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks import peers
from benchmarks.part import Record, Setting
from benchmarks.places import Place

_LINE = 2**30  # bytes of a record: a million ids are 40 MB


class RunFailed(Exception):
    """A part of a side did not do what it was there for."""


class Lost(RunFailed):
    """What came out is not what went in."""


class Part(Struct, frozen=True):
    """One process: what it runs, and on which core (None: on any)."""

    function: str
    core: int | None = None
    peer: str | None = None
    """Runs in the environment of this peer; None: in ours."""


class Side(Struct, frozen=True, kw_only=True):
    """One side, as often as it is run."""

    name: str
    place: Place
    parts: tuple[Part, ...]
    count: int
    """Events, or what else the parts count."""
    options: dict[str, Any] = {}
    timeout: float = 120.0


class Outcome(Struct, frozen=True):
    """One run of one side."""

    rate: float
    """Events a second, from the first publish to the end of the last handler."""
    cpu_us: float
    """Microseconds of processor time an event, of all our parts; not of a server."""
    values: dict[str, float]
    samples: dict[str, list[float]]


async def run(side: Side, directory: Path) -> Outcome:
    """Run it once in a fresh directory below this one. RunFailed, Lost, or Absent if a server is not installed."""
    with tempfile.TemporaryDirectory(dir=directory) as own:
        async with side.place(Path(own)) as url, AsyncExitStack() as stack:
            processes = []
            async with asyncio.timeout(side.timeout):
                for part in side.parts:
                    process = await _start(part, side, url)
                    stack.push_async_callback(_end, process)
                    processes.append(process)
                    await _ready(process, part)
                for process in processes:
                    _say_go(process)
                records = await asyncio.gather(*(_record(*pair) for pair in zip(processes, side.parts, strict=True)))
    return outcome(side, records)


def outcome(side: Side, records: Sequence[Record]) -> Outcome:
    """What the records of all parts say together; Lost if they do not agree."""
    published = Counter(id for record in records for id in record.published)
    handled = Counter(id for record in records for id in record.handled)
    values = {name: value for record in records for name, value in record.values.items()}
    said = sum(record.values.get("lost", 0) for record in records)
    if published != handled or said:
        lost, more = (published - handled).total(), (handled - published).total()
        raise Lost(f"{side.name}: lost {lost or said:g}, {more} twice or unknown, of {side.count}")
    samples = {name: found for record in records for name, found in record.samples.items()}
    took = max(record.ended for record in records) - min(record.started for record in records if record.started)
    cpu = sum(record.cpu for record in records)
    return Outcome(side.count / took if took else 0.0, cpu / side.count * 1e6, values, samples)


async def _start(part: Part, side: Side, url: str) -> asyncio.subprocess.Process:
    python = sys.executable if part.peer is None else peers.python(part.peer)
    core = part.core if part.core in os.sched_getaffinity(0) else None
    setting = Setting(url=url, count=side.count, core=core, options=side.options)
    return await asyncio.create_subprocess_exec(
        python, "-m", "benchmarks.part", part.function, msgspec.json.encode(setting).decode(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip


async def _ready(process: asyncio.subprocess.Process, part: Part) -> None:
    if await _line(process) != b"ready\n":
        raise RunFailed(f"{part.function} did not become ready")


def _say_go(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.write(b"go\n")


async def _record(process: asyncio.subprocess.Process, part: Part) -> Record:
    line = await _line(process)
    if not line or await process.wait():
        raise RunFailed(f"{part.function} ended without a record; it says why above")
    return msgspec.json.decode(line, type=Record)


async def _line(process: asyncio.subprocess.Process) -> bytes:
    return await process.stdout.readline() if process.stdout is not None else b""


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
