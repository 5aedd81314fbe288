"""What a run of the fault tests measured: as JSON, and as a table in docs/reliability.md.

`pytest tests/faults --long --broker=sqlite,redis --report run.json` writes the one. Of it,
`python -m tests.faults.report run.json` makes the other: the tables of its engines replace those that were there. What
takes hours can be run in pieces: the files of several runs make one table.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct, field

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
ENGINES: Final = ("sqlite", "redis", "rabbitmq", "nats", "router")
"""In the order of the page. The router's own tests have it on SQLite."""
END: Final = "<!-- so far -->"
_COUNTED: Final = ("unexpected", "recovered", "inversions")
"""Those of the checker's numbers that are said only where they are not 0."""
_NONE: Final = "–"  # noqa: RUF001 - as the page has it
_COLUMNS: Final = {"rounds": "rounds", "ok": "confirmed", "lost": "lost", "duplicates": "duplicates"}

Fact = int | float | str


class Figures(Struct, frozen=True, kw_only=True):
    """What one test measured."""

    engine: str
    test: str
    """Its name, with its parameters."""
    facts: dict[str, Fact]
    """Seconds are floats."""


class Run(Struct, kw_only=True):
    """One run of pytest."""

    long: bool
    """Whether in the long form."""
    pieces: int = 1
    """Of how many runs it was joined."""
    at: str = ""
    """When it ended, UTC; of several, the first and the last."""
    machine: dict[str, Any] = {}
    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    figures: list[Figures] = field(default_factory=list)


def engine_of(fixtures: Sequence[str], parameters: Mapping[str, Any]) -> str:
    """On which engine a test runs, by the fixtures that it has; a lab's log is on SQLite if nothing else is said."""
    if "broker_name" in parameters:
        return str(parameters["broker_name"])
    for fixture, engine in {"routed": "router", "redis": "redis", "rabbit": "rabbitmq", "nats": "nats"}.items():
        if fixture in fixtures:
            return engine
    return "sqlite"


def begin(engine: str) -> str:
    """The line of the page that stands before an engine's figures."""
    return (
        f"<!-- measured on {engine}: `python -m tests.faults.report` writes what follows, up to the next such line -->"
    )


def line(figures: Figures) -> str:
    """As the end of a run shows it."""
    told = "  ".join(f"{name} {_word(fact)}" for name, fact in figures.facts.items())
    return f"{figures.test}\n    {told}"


def table(run: Run, engine: str) -> str:
    """An engine's part of the page: on what it was measured, and one row a test."""
    rows = ["test", *_COLUMNS.values(), "recovery", "what else"], ["---"] * (len(_COLUMNS) + 3)
    told = [*rows, *(_row(each) for each in run.figures if each.engine == engine)]
    return f"{_where(run)}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in told).replace("| --- ", "|---")


def _where(run: Run) -> str:
    machine, packages = run.machine, run.machine.get("packages", {})
    servers = [f"{name} {packages[name]}" for name in sorted(packages) if name.endswith("-server")]
    parts = [f"{machine.get('cores')} cores ({machine.get('cpu')})", str(machine.get("system"))]
    parts += [f"Python {machine.get('python')}", f"SQLite {machine.get('sqlite')}", *servers]
    sync = f"a durable write of 4 KiB takes {machine.get('fdatasync_us')} µs there"
    runs = "One run" if run.pieces == 1 else f"{run.pieces} runs"
    return f"{runs} in the long form, {run.at}, on {', '.join(parts)}; {sync}."


def _row(figures: Figures) -> list[str]:
    facts = dict(figures.facts)
    cells = [_word(facts.pop(name, _NONE)) for name in _COLUMNS]
    recovery = facts.pop("recovery", _NONE)
    else_ = {name: fact for name, fact in facts.items() if fact or name not in _COUNTED}
    told = ", ".join(f"{name.replace('_', ' ')} {_word(fact)}" for name, fact in else_.items())
    name = figures.test.removeprefix("test_").replace("_", " ")
    return [name, *cells, f"{_word(recovery)} s" if isinstance(recovery, float) else _word(recovery), told]


def _word(fact: Fact) -> str:
    return f"{fact:.2f}" if isinstance(fact, float) else f"{fact:,}" if isinstance(fact, int) else fact


def joined(runs: Sequence[Run]) -> Run:
    """Runs of one machine as one; what was measured twice is as the last of them found it."""
    for run in runs:
        if not run.long:
            raise SystemExit("a run in the short form replaces no figures: pytest --long")
        if run.failed:
            raise SystemExit("\n".join(["a run in which tests failed replaces no figures:", *run.failed]))
    if len({str(run.machine.get("cpu")) for run in runs}) > 1:
        raise SystemExit("runs of several machines make no table")
    first, last = runs[0], runs[-1]
    return Run(
        long=True,
        pieces=len(runs),
        at=first.at if len(runs) == 1 else f"{first.at} to {last.at}",
        machine=last.machine,
        figures=list({(each.engine, each.test): each for run in runs for each in run.figures}.values()),
    )


def replaced(page: str, *runs: Run) -> str:
    """The page with the tables of these runs; those of engines that they have no figures of stay as they are."""
    run = joined(runs)
    for engine in ENGINES:
        if any(figures.engine == engine for figures in run.figures):
            before, mark, rest = page.partition(begin(engine))
            _, end, after = rest.partition(END)
            assert mark and end, f"docs/reliability.md lacks {begin(engine)!r} or {END!r} behind it"  # noqa: PT018 - one message
            page = f"{before}{mark}\n\n{table(run, engine)}\n{END}{after}"
    return page


def main() -> None:
    """Write the tables of these runs into the page."""
    page = PAGE.read_text(encoding="utf-8")
    runs = [msgspec.json.decode(Path(path).read_bytes(), type=Run) for path in sys.argv[1:]]
    PAGE.write_text(replaced(page, *runs), encoding="utf-8")


if __name__ == "__main__":
    main()
