"""`python -m benchmarks.page RESULT.json`: what a run found goes into docs/performance.md, with charts.

<!-- figures: redis redis-one -->     what stands between is written anew from a run that has rows of all of these;
<!-- /figures -->                     until there is one, it is as somebody wrote it
<!-- figures: run -->                 what the run was measured on, and which aims it missed

The run itself lies beside the page afterwards, as performance.json.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.bars import drawn
from benchmarks.figures import shown
from benchmarks.report import BUSY, Report, described, from_json, table, to_json
from benchmarks.workloads import TITLES

DOCS: Final = Path(__file__).parents[1] / "docs"
_RUN: Final = "run"
_GENERATED: Final = "<!-- written by python -m benchmarks.page, from performance.json -->"
_SECTION: Final = re.compile(r"^<!-- figures: ([a-z -]+) -->\n(.*?)^<!-- /figures -->$", re.DOTALL | re.MULTILINE)


class PageError(Exception):
    """The run and the page do not fit."""


class Written(Struct, frozen=True):
    """A page and what belongs to it."""

    text: str
    charts: dict[str, str]
    """SVG by file name."""


def main(arguments: Sequence[str] | None = None) -> int:
    what = "Put a run into docs/performance.md, with charts."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=what)
    parser.add_argument("result", type=Path, metavar="RESULT.json", help="what `python -m benchmarks --json` wrote")
    asked = parser.parse_args(arguments)
    try:
        publish(asked.result.read_bytes(), DOCS)
    except (OSError, PageError, msgspec.DecodeError) as error:
        print(f"{asked.result}: {error}", file=sys.stderr)
        return 1
    return 0


def publish(result: bytes, docs: Path) -> None:
    """Write page, charts and JSON. PageError, and nothing written, if one failed or the page has more of them."""
    report = from_json(result)
    if report.failures:
        raise PageError(f"these failed: {', '.join(report.failures)}")
    page = docs / "performance.md"
    written = rewritten(page.read_text(encoding="utf-8"), report)
    charts = docs / "performance"
    charts.mkdir(exist_ok=True)
    for old in charts.glob("*.svg"):
        if _is_ours(old):
            old.unlink()
    for name, chart in written.charts.items():
        (charts / name).write_text(chart, encoding="utf-8")
    (docs / "performance.json").write_bytes(to_json(report))
    page.write_text(written.text, encoding="utf-8")


def differences(docs: Path) -> list[str]:
    """What of the page is not what the JSON beside it says; without one, what says that it came from there."""
    text, kept = (docs / "performance.md").read_text(encoding="utf-8"), docs / "performance.json"
    if not kept.exists():
        ours = [names for names, body in _SECTION.findall(text) if _GENERATED in body]
        return [f"{names}: there is no performance.json" for names in ours]
    report = from_json(kept.read_bytes())
    try:
        written = rewritten(text, report)
    except PageError as error:
        return [str(error)]
    now, then = _SECTION.findall(text), _SECTION.findall(written.text)
    found = [names for (names, is_there), (_, is_right) in zip(now, then, strict=True) if is_there != is_right]
    charts = {file.name: file for file in (docs / "performance").glob("*.svg") if _is_ours(file)}
    found += sorted(charts.keys() ^ written.charts.keys())
    shared = sorted(charts.keys() & written.charts.keys())
    return found + [name for name in shared if charts[name].read_text(encoding="utf-8") != written.charts[name]]


def named(text: str) -> list[str]:
    """The workloads that the page has a place for."""
    return [name for names, _ in _SECTION.findall(text) for name in names.split() if name != _RUN]


def rewritten(text: str, report: Report) -> Written:
    """The page with this run in it. PageError if it names no workload, or has of a run before what this one lacks."""
    if unknown := sorted(set(named(text)) - TITLES.keys()):
        raise PageError(f"the page names what is no workload: {', '.join(unknown)}")
    charts: dict[str, str] = {}

    def section(found: re.Match[str]) -> str:
        names, body = found[1].split(), found[2]
        lines = _ran(report) if names == [_RUN] else _measured(names, report, charts)
        if lines is None and _GENERATED in body:
            raise PageError(f"the page has of a run before what this one lacks: {found[1]}")
        if lines is not None:
            body = "\n".join((_GENERATED, "", *lines, "")) + "\n"
        return f"<!-- figures: {found[1]} -->\n{body}<!-- /figures -->"

    return Written(_SECTION.sub(section, text), charts)


def _measured(names: Sequence[str], report: Report, charts: dict[str, str]) -> list[str] | None:
    """The chart and the table of these workloads, and what each is; None if the run has not all of them."""
    findings = [report.findings[name] for name in names if name in report.findings and report.findings[name].rows]
    if len(findings) < len(names):
        return None
    lines = []
    chart = drawn(", ".join(names), [row for finding in findings for row in finding.rows])
    if chart is not None:
        charts[f"{names[0]}.svg"] = chart
        lines = [f"![Bars of the rows below that have a peer or an aim](performance/{names[0]}.svg)", ""]
    return [*lines, *table(findings), "", *(f"- `{name}`: {TITLES[name]}" for name in names)]


def _ran(report: Report) -> list[str]:
    """What it was measured on, and its aims; which were missed, by how much."""
    aimed = [row for row in report.rows if row.met is not None]
    missed = [row for row in aimed if not row.met]
    lines = [*described(report), f"- {len(aimed) - len(missed)} of {len(aimed)} aims are met; missed are:"]
    for row in missed:
        value = row.figure if row.aim is None or row.aim.of == "figure" else row.ratio or 0.0
        lines.append(f"    - `{row.workload}`, {row.what}: {shown(value)}, aim {row.aim}")
    busy = ", ".join(name for name, finding in report.findings.items() if finding.disturbed)
    if busy:
        lines.append(f"- Measured while others used more than {BUSY:g} cores: {busy}")
    return lines


def _is_ours(file: Path) -> bool:
    """Whether a chart is one of a workload's: other tools' charts may lie beside them."""
    return file.stem in TITLES


if __name__ == "__main__":
    sys.exit(main())
