"""What a run found, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from benchmarks.figures import Row, shown

BUSY: Final = 0.25
"""Cores: while somebody else uses more of them, a figure says little."""
_OWN = "DESIGN 6"


class Finding(Struct, kw_only=True):
    """What one workload found."""

    rows: list[Row] = []
    failure: str | None = None
    """What went wrong: something lost, or a part that did not come through."""
    absent: list[str] = []
    """Servers and peers that it needed and that are not installed: their rows have no ratio, or are not there."""
    seconds: float = 0.0
    busy: float = 0.0
    """Cores that somebody else used right before or right after; whichever was more."""
    tries: int = 1
    source: str = ""
    """A digest of what was measured, and with."""

    @property
    def disturbed(self) -> bool:
        """Whether the machine was too busy for it."""
        return self.busy > BUSY


class Report(Struct, kw_only=True):
    """One run of the tool."""

    command: str
    machine: dict[str, Any]
    scale: str
    repeat: int
    load_before: list[float]
    load_after: list[float] = []
    findings: dict[str, Finding] = {}
    """By workload, in the order in which they were asked for."""

    @property
    def rows(self) -> list[Row]:
        """Those of all workloads."""
        return [row for finding in self.findings.values() for row in finding.rows]

    @property
    def failures(self) -> dict[str, str]:
        """Workload to what went wrong."""
        return {name: finding.failure for name, finding in self.findings.items() if finding.failure is not None}

    @property
    def absent(self) -> list[str]:
        """What is not installed, of all workloads."""
        return sorted({each for finding in self.findings.values() for each in finding.absent})


def to_json(report: Report) -> bytes:
    """The report with, for each row, whether its aim was met."""
    plain = msgspec.to_builtins(report)
    for name, finding in report.findings.items():
        for fields, row in zip(plain["findings"][name]["rows"], finding.rows, strict=True):
            fields["met"] = row.met
    return msgspec.json.format(msgspec.json.encode(plain), indent=2) + b"\n"


def from_json(data: bytes) -> Report:
    """A report that was kept. msgspec.DecodeError if it is none, or one of another form."""
    return msgspec.json.decode(data, type=Report)


def to_markdown(report: Report) -> str:
    """A table, and beneath it what it was measured on."""
    lines = [*table(report.findings.values()), "", *described(report)]
    lines += [f"- Not installed, so rows lack a ratio or are not there: {name}" for name in report.absent]
    lines += [f"- FAILED: {name}: {why}" for name, why in report.failures.items()]
    return "\n".join(lines) + "\n"


def described(report: Report) -> list[str]:
    """What it was measured with, and on what."""
    machine = report.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    minutes = sum(finding.seconds for finding in report.findings.values()) / 60
    rounds = f"medians over {report.repeat} alternated rounds; {minutes:.1f} minutes of measuring"
    return [
        f"- Command: `{report.command}` (scale {report.scale}; {rounds})",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}",
        f"- Disk: one write of 4 KiB with fdatasync takes {machine['fdatasync_us']} µs",
        f"- Python: a turn of a bare loop takes {machine['loop_ns']} ns",
        f"- Versions: Python {machine['python']}, SQLite {machine['sqlite']}, {packages}",
        f"- Load average (1, 5, 15 min): {_loads(report.load_before)} before, {_loads(report.load_after)} after",
    ]


def table(findings: Iterable[Finding]) -> list[str]:
    """The lines of the Markdown table; what somebody else used of the machine is said where it was too much."""
    lines = [
        "| workload | what | aim | measured | peer | ratio | met | others used |",
        "|---|---|---|---:|---|---:|---|---|",
    ]
    for finding in findings:
        others = f"{finding.busy:.1f} cores" if finding.disturbed else ""
        lines += [f"| {' | '.join((*_cells(row), others))} |" for row in finding.rows]
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    aim = "" if row.aim is None else f"{row.aim}" if row.aim.source == _OWN else f"{row.aim} ({row.aim.source})"
    peer = "" if row.peer_figure is None else f"{row.peer}: {shown(row.peer_figure)}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    met = {None: "", True: "yes", False: "**no**"}[row.met]
    return row.workload, row.what, aim, f"{shown(row.figure)} {row.unit}", peer, ratio, met


def _loads(loads: list[float]) -> str:
    return " ".join(f"{each:g}" for each in loads)
