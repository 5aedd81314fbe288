"""What a soak found, as JSON, as Markdown, and as a chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks.chart import Panel, lines
from benchmarks.figures import shown
from tests.soak.soak import Asked, Outcome

_PANELS = (
    ("Memory", "MiB", ("memory",)),
    ("Open handles", "files and sockets", ("handles",)),
    ("Tasks", "of each loop", ("tasks",)),
    ("Waiting", "events", ("ready", "leased", "delayed", "dead")),
    ("The engine", "MiB", ("server", "disk", "wal")),
)
"""Title, unit, and the series that are drawn in it."""
_SUMMED = ("ready", "leased", "delayed", "dead")
"""Drawn as one line each, of all subscriptions."""


class Report(Struct, frozen=True, kw_only=True):
    """One run of the tool."""

    command: str
    asked: Asked
    machine: dict[str, Any]
    outcomes: list[Outcome]

    @property
    def failures(self) -> list[str]:
        """Why it was not good; empty if it was."""
        return [f"{outcome.engine}: {failure}" for outcome in self.outcomes for failure in outcome.failures]


def to_json(report: Report) -> bytes:
    """All of it, with every sample."""
    plain = msgspec.to_builtins(report)
    return msgspec.json.format(msgspec.json.encode({**plain, "failures": report.failures}), indent=1) + b"\n"


def to_markdown(report: Report) -> str:
    """What came of the events, what was flat, and what went wrong in between."""
    asked, machine = report.asked, report.machine
    lines = [*_events(report.outcomes), "", *_series(report.outcomes), ""]
    lines += [f"- {outcome.engine}: {_faults(outcome)}" for outcome in report.outcomes]
    lines += [
        f"- Command: `{report.command}`",
        f"- Load: {asked.rate:g} events/s for {asked.seconds:g} s on each engine, seed {asked.seed}",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}",
    ]
    lines += [f"- FAILED: {failure}" for failure in report.failures]
    return "\n".join(lines) + "\n"


def _events(outcomes: Sequence[Outcome]) -> list[str]:
    names = (
        "events", "ok", "lost", "unexpected", "altered", "conflicts", "recovered", "duplicates", "inversions",
        "redelivered", "ticks", "asked", "unanswered", "came", "turned_away",
    )  # fmt: skip
    heads = [name.replace("_", " ").replace("ok", "confirmed") for name in names]
    rows = [[outcome.engine, *(f"{outcome.counts.get(name, 0):,}" for name in names)] for outcome in outcomes]
    return [f"| {' | '.join(['engine', *heads])} |", "|---|" + "---:|" * len(names), *(_row(row) for row in rows)]


def _series(outcomes: Sequence[Outcome]) -> list[str]:
    found = ["| engine | series | second quarter | last fifth | may be | flat |", "|---|---|---:|---:|---:|---|"]
    for outcome in outcomes:
        for each in outcome.findings:
            flat = {None: "too short to tell", True: "yes", False: "**no**"}[each.flat]
            after = f"{shown(each.after)} {each.unit}"
            found.append(_row([outcome.engine, each.name, shown(each.before), after, shown(each.bound), flat]))
    return found


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _faults(outcome: Outcome) -> str:
    counts = Counter(fault.what for fault in outcome.faults)
    longest = {what: max(f.seconds for f in outcome.faults if f.what == what) for what in counts}
    told = [f"{what} {count} times ({longest[what]:.1f} s at most)" for what, count in sorted(counts.items())]
    return "; ".join(told) or "nothing went wrong"


def chart(report: Report) -> str:
    """A row for each engine; a dashed mark is a fault."""
    panels = [
        Panel(f"{outcome.engine}: {title}", unit, _lines(outcome, kinds), [fault.at for fault in outcome.faults])
        for outcome in report.outcomes
        for title, unit, kinds in _PANELS
    ]
    minutes = report.asked.seconds / 60
    return lines(f"{report.asked.rate:g} events/s for {minutes:g} minutes on each engine", panels, len(_PANELS))


def _lines(outcome: Outcome, kinds: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for kind in kinds:
        of_kind = {name: samples for name, samples in outcome.series.items() if name.partition(" ")[0] == kind}
        if kind in _SUMMED:
            sums: Counter[float] = Counter()
            for samples in of_kind.values():
                sums.update({sample.at: sample.value for sample in samples})
            found[kind] = sorted(sums.items())
        else:
            short = len(kinds) == 1
            for name, samples in sorted(of_kind.items()):
                label = name.partition(" ")[2] if short else kind
                found[label] = [(sample.at, sample.value) for sample in samples]
    return found
