"""Several processes of `wowevent run`: started, watched, started again when they die or when the code changes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from wowevent.bus import EventBus
from wowevent.cli.exits import CommandError
from wowevent.ending import end
from wowevent.log import logger
from wowevent.process.loop import ending

WORKER: Final = "WOWEVENT_WORKER"
"""In a worker's environment: its number from 1."""
PARENT: Final = "WOWEVENT_PARENT"
"""In a worker's environment: a file descriptor that ends when the supervisor does."""

WELL: Final = 10.0
"""Seconds after which a worker counts as well: what it dies of then is not what those before it died of."""
BROKEN: Final = frozenset({2, 65, 74, 77, 78})
"""Exit statuses that starting again does not mend."""

_GRACE: Final = 15.0  # seconds to end when told to
_BACKOFF: Final = (0.5, 30.0)  # seconds, first and longest pause before a worker that died is started again
_SCAN: Final = 0.5  # seconds between looks at the files
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "venv", "site-packages"})


def refuse_unshared(bus: EventBus) -> None:
    """CommandError (not_supported) for an engine whose log lives in one process."""
    capabilities = bus.capabilities
    if not capabilities.shared:
        raise CommandError(
            "not_supported", f"{capabilities.name}:// lives in one process; workers need one that they share"
        )


async def supervise(arguments: Sequence[str], workers: int, watched: Path | None) -> None:
    """Keep `workers` processes of `wowevent run ARGUMENTS` alive until SIGTERM or SIGINT; with `watched`, reload them.

    Raises CommandError if one cannot be started for a reason that starting it again does not mend.
    """
    told = ending()
    read, write = os.pipe()
    jobs = [asyncio.create_task(_keep(number, arguments, read, watched)) for number in range(1, workers + 1)]
    waiting = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({waiting, *jobs}, return_when=asyncio.FIRST_COMPLETED)
        logger.info("workers are told to end", workers=workers)
    finally:
        await end(waiting, *jobs)
        os.close(read)
        os.close(write)
    for job in jobs:
        if not job.cancelled():
            job.result()


async def _keep(number: int, arguments: Sequence[str], parent: int, watched: Path | None) -> None:
    """One worker after another, until cancelled; then the last one is told to end, and waited for."""
    pause = _BACKOFF[0]
    while True:
        before = {} if watched is None else await asyncio.to_thread(scan, watched)
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "wowevent", "run", *arguments),
            env={**os.environ, WORKER: str(number), PARENT: str(parent)},
            pass_fds=(parent,),
            start_new_session=True,  # what a terminal says is for this process, which passes it on
        )
        logger.info("worker started", worker=number, process=process.pid)
        changed = await _ended_or_changed(process, watched, before)
        if changed:
            logger.info("worker is started again, the code changed", worker=number, file=changed)
            continue
        logger.error("worker died", worker=number, process=process.pid, status=process.returncode)
        if watched is not None:
            logger.info("worker waits for the code to change", worker=number)
            await _change(watched, before)
            continue
        if process.returncode in BROKEN:
            raise CommandError("workers_failed", f"worker {number} ended with status {process.returncode}; see above")
        pause = _BACKOFF[0] if time.monotonic() - began > WELL else pause
        await asyncio.sleep(pause)
        pause = min(2 * pause, _BACKOFF[1])


async def _ended_or_changed(
    process: asyncio.subprocess.Process, watched: Path | None, before: Mapping[str, int]
) -> str:
    """The file that changed, with the process told to end; nothing if the process ended by itself."""
    ended = asyncio.create_task(process.wait())
    waits: set[asyncio.Task[int] | asyncio.Task[str]] = {ended}
    changing = asyncio.create_task(_change(watched, before)) if watched is not None else None
    if changing is not None:
        waits.add(changing)
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return changing.result() if changing is not None and changing.done() else ""
    finally:
        await end(ended, changing)
        if process.returncode is None:
            await end_process(process, _GRACE)


async def end_process(process: asyncio.subprocess.Process, seconds: float) -> None:
    """Tell it to end, kill it if it has not within so many seconds, and return when it has."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        logger.error("worker did not end in time, it is killed", process=process.pid)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _change(watched: Path, before: Mapping[str, int]) -> str:
    """Return the first file that is there, gone or newer than `before` says."""
    while True:
        await asyncio.sleep(_SCAN)
        now = await asyncio.to_thread(scan, watched)
        if now != before:
            return min(file for file in now.keys() | before.keys() if now.get(file) != before.get(file))


def scan(directory: Path) -> dict[str, int]:
    """When each .py file below was changed last, in nanoseconds; hidden folders and installed packages are left out."""
    found: dict[str, int] = {}
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        for file in files:
            if file.endswith(".py"):
                path = f"{folder}/{file}"
                with suppress(OSError):
                    found[path] = os.stat(path).st_mtime_ns  # noqa: PTH116 - one call of many
    return found
