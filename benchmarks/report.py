"""What a run found, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks.figures import Row, shown


class Report(Struct, kw_only=True):
    """One run of the tool."""

    command: str
    machine: dict[str, Any]
    scale: str
    repeat: int
    load_before: list[float]
    load_after: list[float] = []
    rows: list[Row] = []
    failures: dict[str, str] = {}
    """Workload to what went wrong: something lost, or a part that did not come through."""
    absent: list[str] = []
    """Servers that peers needed and that are not installed: their rows have no ratio."""


def to_json(report: Report) -> bytes:
    """The report with, for each row, whether its aim was met."""
    plain = msgspec.to_builtins(report)
    for fields, row in zip(plain["rows"], report.rows, strict=True):
        fields["met"] = row.met
    return msgspec.json.format(msgspec.json.encode(plain), indent=2) + b"\n"


def to_markdown(report: Report) -> str:
    """A table, and beneath it what it was measured on."""
    machine = report.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        *table(report.rows),
        "",
        f"- Command: `{report.command}` (scale {report.scale}; medians over {report.repeat} alternated rounds)",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}",
        f"- Disk: one write of 4 KiB with fdatasync takes {machine['fdatasync_us']} µs",
        f"- Versions: Python {machine['python']}, SQLite {machine['sqlite']}, {packages}",
        f"- Load average (1, 5, 15 min): {_loads(report.load_before)} before, {_loads(report.load_after)} after",
    ]
    lines += [f"- Not installed, so their rows have no ratio: {name}" for name in report.absent]
    lines += [f"- FAILED: {name}: {why}" for name, why in report.failures.items()]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of the Markdown table."""
    lines = [
        "| workload | what | measured | peer | ratio | aim | met | load |",
        "|---|---|---:|---|---:|---|---|---:|",
    ]
    for row in rows:
        peer = "" if row.peer_figure is None else f"{row.peer}: {shown(row.peer_figure)}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        met = {None: "", True: "yes", False: "**no**"}[row.met]
        aim = "" if row.aim is None else f"{row.aim}"
        measured = f"{shown(row.figure)} {row.unit}"
        cells = (row.workload, row.what, measured, peer, ratio, aim, met, f"{row.load:g}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _loads(loads: Sequence[float]) -> str:
    return " ".join(f"{each:g}" for each in loads)
