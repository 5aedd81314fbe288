"""docs/promises.md: what must hold, and which test shows it on which engine: `python -m tests.faults.promises`.

What is promised, and the names of the tests, are written here; on which engines a test of that name runs is asked of
pytest. A name that no test has fails, and so does an engine that no test of a promise runs on and no reason excuses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import Struct

from tests import made_pages
from tests.faults.guards import GUARDS
from tests.faults.report import engine_of
from tests.faults.wanted import PROMISES, Promise
from tests.made_pages import row

TESTS: Final = Path(__file__).parents[1]
PAGE: Final = TESTS.parent / "docs" / "promises.md"
COMMAND: Final = "python -m tests.faults.promises"
COLUMNS: Final = ("memory", "sqlite", "redis", "rabbitmq", "nats", "router")
ENGINES: Final = COLUMNS[:-1]
SUITES: Final = (
    "conformance",
    "faults",
    "router",
    "engines",
    "client/test_publishing.py",
    "service/test_access.py",
    "unit/test_access_*.py",
    "unit/test_codec.py",
    "unit/test_topic.py",
    "unit/test_guards.py",
)
"""Where the tests that are named here live."""

INTRODUCTION: Final = f"""\
# Promises: which test shows what, on which engine

<!-- Made by `{COMMAND}` of tests/faults/wanted.py, tests/faults/guards.py and of what pytest collects.
     Change those, not this page. -->

Each line is a promise that users of such a system rely on; below it stand the tests that show it. `make test` runs all
of them on the engines named, but those that say **long**, which only `make faults` runs: others show the same there in
a shorter time.

- **yes**: the test runs on this engine. The column `router` is `wowevent serve` with clients over a network.
- **once**: it needs no engine, and what it shows holds on all.
- **no**: no test shows it there; why not stands below the table.

What the runs measured is in [reliability.md](reliability.md); the conformance suite, test by test, in
[conformance.md](conformance.md).
"""

GUARDED: Final = """
## Guards, taken out

A fault test counts once it was seen to fail. Each of these tests takes a guard out by itself and expects what follows
from that; with the guard, the same test or the one beside it expects that nothing does. `make test` runs them all, or
one by its name: `pytest tests --broker=redis -k without_known_ids`. What the checker saw is in
[reliability.md](reliability.md#the-guards-taken-out).
"""


class Found(Struct):
    """Where a test of one name runs, by column: yes, long or once."""

    cells: dict[str, str]


def collected() -> dict[str, Found]:
    """Every test of the suites, by its name. Once a process, and none in which pytest runs."""
    places = [path for suite in SUITES for path in sorted(TESTS.glob(suite))]
    found: dict[str, Found] = {}
    for item in made_pages.collected(places, ENGINES):
        cells = found.setdefault(item.function.__name__, Found({})).cells
        for column in columns_of(item):
            word = "long" if item.name in getattr(item.module, "FOR_LONG", ()) else "yes"
            # One of its parameters may be for the short form, or another module's test of that name.
            cells[column] = word if cells.get(column, "long") == "long" else cells[column]
        if not cells:
            cells.update(dict.fromkeys(COLUMNS, "once"))
    return found


def columns_of(item: pytest.Function) -> Sequence[str]:
    """In which columns this run of a test stands; in none if it needs no engine."""
    parameters: Mapping[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    where = item.path.relative_to(TESTS).parts
    if where[0] == "faults":
        engine = engine_of(item.fixturenames, parameters)
        return [engine] if engine != "memory" else []  # no fault leaves a log there
    if where[0] in ("router", "client"):
        return ["router"]
    if where[0] == "engines":
        return [name for name in ENGINES if where[1] == name or where[1].startswith(f"test_{name}")]
    return [str(parameters["broker_name"])] if "broker_name" in parameters else []


# --- the page -----------------------------------------------------------------------------------------------------


def gaps(found: Mapping[str, Found], promises: Sequence[Promise] = (*PROMISES, *GUARDS)) -> list[str]:
    """What is wrong with the lists: names of no test, columns without a test or a reason, reasons without a need."""
    wrong: list[str] = []
    for promise in promises:
        wrong += [f"no test is called {name}" for name in promise.tests if name not in found]
        shown = {column for name in promise.tests if name in found for column in found[name].cells}
        for column in promise.on:
            if column not in shown and column not in promise.lacks:
                wrong.append(f"{promise.says!r}: no test on {column}, and no reason")
        wrong += [f"{promise.says!r}: a reason for {column}, and a test" for column in promise.lacks if column in shown]
    return wrong


def page(found: Mapping[str, Found]) -> str:
    """docs/promises.md."""
    areas = dict.fromkeys(promise.area for promise in PROMISES)
    chapters = [_chapter(f"## {area}", [each for each in PROMISES if each.area == area], found) for area in areas]
    guards = dict.fromkeys(guard.area for guard in GUARDS)
    taken = [_chapter(f"### {area}", [each for each in GUARDS if each.area == area], found) for area in guards]
    return INTRODUCTION + "".join(chapters) + GUARDED + "".join(taken)


def _chapter(title: str, promises: Sequence[Promise], found: Mapping[str, Found]) -> str:
    rows = [("", *COLUMNS), ("---",) * (1 + len(COLUMNS))]
    notes: list[str] = []
    for promise in promises:
        rows.append((f"**{promise.says}**", *("**no**" if column in promise.lacks else "" for column in COLUMNS)))
        for name in promise.tests:
            cells = [found[name].cells.get(column, "") for column in COLUMNS]
            rows.append((f"`{name.removeprefix('test_')}`", *cells))
        by_reason: dict[str, list[str]] = {}
        for column, reason in promise.lacks.items():
            by_reason.setdefault(reason, []).append(column)
        notes += [f"- {promise.says}: on {', '.join(columns)} {reason}" for reason, columns in by_reason.items()]
    told = "".join(f"{note}\n" for note in notes)
    return f"\n{title}\n\n{''.join(map(row, rows))}" + (f"\n{told}" if told else "")


def main(collect: Callable[[], Mapping[str, Found]] = collected) -> None:
    """Write the page; with `--check` only say what would change, and end with 1 if anything would."""
    found = collect()
    if wrong := gaps(found):
        sys.exit("\n".join(wrong))
    made_pages.write({PAGE: page(found)}, COMMAND)


if __name__ == "__main__":
    main()
