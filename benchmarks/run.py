"""A run: one workload after the other, and for each what else the machine did; what is kept is not measured again."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.kept import Kept, source
from benchmarks.places import Absent
from benchmarks.report import Finding, Report
from benchmarks.side import RunFailed
from benchmarks.workloads import TITLES, WORKLOADS

_LOOK = 1.0  # seconds in which nothing of ours runs, to see what else does
_TRIES = 2


async def measure(names: Sequence[str], bench: Bench, command: str = "", kept: Kept | None = None) -> Report:
    """Run these workloads; one that fails does not keep the others from running.

    With `kept`, what a run before has found is taken from there, and what was measured on a busy machine is measured
    once more at the end.
    """
    report = Report(
        command=command,
        machine=await asyncio.to_thread(machine.describe, bench.directory),  # a slow disk would hold up the loop
        scale=bench.scale,
        repeat=bench.repeat,
        load_before=machine.load(),
    )
    for name in names:
        report.findings[name] = await _found(name, report, kept) or await _measured(name, bench)
        await _keep(name, report, kept)
    for name in names if kept is not None else ():  # by now, what else ran may be done
        first = report.findings[name]
        if first.disturbed and first.failure is None and first.tries < _TRIES:
            report.findings[name] = better(first, await _measured(name, bench))
            await _keep(name, report, kept)
    report.load_after = machine.load()
    return report


def better(first: Finding, second: Finding) -> Finding:
    """The one of two tries that was disturbed less; but a failure is never made good by another try."""
    chosen = second if second.failure is not None or second.busy <= first.busy else first
    chosen.tries = first.tries + 1
    return chosen


async def _found(name: str, report: Report, kept: Kept | None) -> Finding | None:
    if kept is None:
        return None
    of = await asyncio.to_thread(source, WORKLOADS[name])
    found = await asyncio.to_thread(kept.found, name, of, report)
    if found is not None:
        print(f"{name}: measured before", file=sys.stderr)
    return found


async def _keep(name: str, report: Report, kept: Kept | None) -> None:
    if kept is not None:
        await asyncio.to_thread(kept.keep, name, report)


async def _measured(name: str, bench: Bench) -> Finding:
    print(f"{name}: {TITLES.get(name, '')}", file=sys.stderr)
    look = _LOOK / 20 if bench.scale == "tiny" else _LOOK
    finding = Finding(source=await asyncio.to_thread(source, WORKLOADS[name]))
    bench.absent.clear()
    before = await asyncio.to_thread(machine.busy, look)
    began = time.monotonic()
    try:
        finding.rows = await WORKLOADS[name](bench)
    except Absent:  # what ours needs; it is among what is not installed, and there are no rows
        finding.rows = []
    except (RunFailed, TimeoutError) as error:
        finding.failure = str(error) or "took too long"
    finding.seconds = round(time.monotonic() - began, 1)
    finding.absent = sorted(bench.absent)
    finding.busy = round(max(before, await asyncio.to_thread(machine.busy, look)), 2)
    return finding
