"""The tables of docs/engines.md and docs/conformance.md, made of the code: `python -m tests.conformance.table`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

import pytest
from msgspec import Struct

import wowevent.broker
from tests import made_pages
from tests.conformance.engines import ENGINES
from tests.made_pages import row
from wowevent.broker import Capabilities
from wowevent.brokers import open_broker

ROOT: Final = Path(__file__).parents[2]
SUITE: Final = Path(__file__).parent
COMMAND: Final = "python -m tests.conformance.table"
BEGIN: Final = f"<!-- made by `{COMMAND}` of what the engines declare, as far as the next such line -->"
END: Final = "<!-- so far -->"
URLS: Final = {
    "memory": "memory://",
    "sqlite": "sqlite:///events.db",
    "redis": "redis://localhost",
    "rabbitmq": "amqp://localhost",
    "nats": "nats://localhost",
}
"""An engine says what it can do before it is connected."""

INTRODUCTION: Final = f"""\
# Conformance: every test, on every engine

<!-- Made by `{COMMAND}` of the tests that pytest collects. Change the tests, not this page. -->

One suite ([`tests/conformance`](../tests/conformance/README.md)) proves of each engine what the bus promises: {{tests}}
tests, {{runs}} runs with their parameters, on real servers. `make test` runs exactly these, and each must pass. None is
skipped: one that skips itself fails. The rules' numbers are those of the protocol (`src/wowevent/broker.py`).

- **yes**: runs on this engine, and is asked in full.
- **the name of a capability**: runs on this engine, and must pass. The engine declares that it lacks this
  ([what that means](engines.md#what-each-engine-declares)); where the test looks at it, it asks for what the engine
  promises in its place.
- **once**: needs no engine.

What an engine lacks makes an answer weaker, and no call of its protocol impossible; so there is no test here that
NotSupported excuses. What is refused for want of a capability lies above: several workers on an engine that is not
`shared` (`tests/cli/test_workers.py`).

This page says what is run, not what came of it. Time is moved by hand in these tests; what kills, cuts and full disks
do is in [reliability.md](reliability.md). Redis is one server here, behind a Sentinel and as a cluster in
`make nightly`. Where fifty instances compete, RabbitMQ has ten with five consumers each.

| | {{engines}} |
|---|{{line}}
| tests asked in full | {{full}} |
| tests that look at what it lacks | {{eased}} |
"""


class Test(Struct, frozen=True, kw_only=True):
    """One test function of the suite, as pytest collected it."""

    area: str
    """The name of its file."""
    about: str
    """What the file says of itself."""
    name: str
    engines: frozenset[str]
    """Those that it runs on; none if it needs none."""
    runs: int
    """How often it runs, on all of them together."""
    looks: frozenset[str]
    """The capabilities that it, or what it calls in the suite, looks at."""

    def __post_init__(self) -> None:
        """Whatever needs an engine runs on all of them, or the page would hide a gap."""
        assert self.engines in (frozenset(), frozenset(ENGINES)), f"{self.name} runs on {sorted(self.engines)} alone"

    def cell(self, engine: Capabilities) -> str:
        """What the table says of it on that engine."""
        if not self.engines:
            return "once"
        return ", ".join(f"`{name}`" for name in sorted(self.looks) if not getattr(engine, name)) or "yes"


# --- what engines declare -----------------------------------------------------------------------------------------


def declared() -> list[Capabilities]:
    """Each engine's own word; nothing is connected."""
    return [open_broker(URLS[name]).capabilities for name in ENGINES]


def explained() -> dict[str, tuple[str, str]]:
    """Of each capability what it means, and what is so where it is missing, by the docstrings of `Capabilities`."""
    (body,) = [
        node.body
        for node in ast.parse(inspect.getsource(wowevent.broker)).body
        if isinstance(node, ast.ClassDef) and node.name == "Capabilities"
    ]
    found = {}
    for field, doc in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
            assert isinstance(doc.value, ast.Constant)
            meaning, _, otherwise = " ".join(str(doc.value.value).split()).partition(" Else ")
            found[field.target.id] = (meaning, otherwise[:1].upper() + otherwise[1:])
    return {name: texts for name, texts in found.items() if name not in {"name", "promise"}}


def capabilities_table() -> str:
    """One row a capability, one column an engine."""
    engines = declared()
    rows = [("capability", *(each.name for each in engines), "what it means", "where it is missing"), ("---",) * 8]
    for name, texts in explained().items():
        values = [getattr(each, name) for each in engines]
        rows.append((f"`{name}`", *(_word(value) for value in values), *texts))
    return "".join(row(cells) for cells in rows)


def _word(value: bool | int) -> str:
    return str(value) if not isinstance(value, bool) else "yes" if value else "**no**"


# --- what tests look at -------------------------------------------------------------------------------------------

FLAGS: Final = frozenset(name for name, value in Capabilities.__annotations__.items() if value in {bool, "bool"})


def looks(test: Callable[..., Any]) -> frozenset[str]:
    """The capabilities that a test looks at, itself or by a function of the suite that it calls by name."""
    found: set[str] = set()
    seen: set[FunctionType] = set()
    waiting = [inspect.unwrap(test)]
    while waiting:
        function = waiting.pop()
        if not isinstance(function, FunctionType) or function in seen:
            continue
        seen.add(function)
        for code in _codes(function.__code__):
            if "capabilities" in code.co_names:
                found |= FLAGS & set(code.co_names)
            called = [function.__globals__.get(name) for name in code.co_names]
            waiting += [each for each in called if getattr(each, "__module__", "").startswith("tests.conformance")]
    return frozenset(found)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """That, and what is defined in it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def collected() -> list[Test]:
    """The suite's tests in the order of their files and lines. Once a process, and none in which pytest runs."""
    found: dict[Callable[..., Any], list[pytest.Function]] = {}
    items = made_pages.collected([SUITE], ENGINES)
    for item in sorted(items, key=lambda item: (item.path.name, item.reportinfo()[1] or 0)):
        found.setdefault(item.function, []).append(item)
    return [_test(function, items) for function, items in found.items()]


def _test(function: Callable[..., Any], items: Sequence[pytest.Function]) -> Test:
    first = items[0]
    engines = [item.callspec.params["broker_name"] for item in items if "broker_name" in item.fixturenames]
    return Test(
        area=first.path.name,
        about=" ".join((first.module.__doc__ or "").partition("\n\n")[0].split()),
        name=function.__name__,
        engines=frozenset(map(str, engines)),
        runs=len(items),
        looks=looks(function),
    )


# --- the pages ----------------------------------------------------------------------------------------------------


def conformance_page(tests: Sequence[Test]) -> str:
    """docs/conformance.md: one row a test, one column an engine, a chapter a file."""
    engines = declared()
    cells = [[test.cell(engine) for engine in engines] for test in tests]
    columns = list(zip(*cells, strict=True))
    head = INTRODUCTION.format(
        tests=len(tests),
        runs=f"{sum(test.runs for test in tests):,}",
        engines=" | ".join(engine.name for engine in engines),
        line="---|" * len(engines),
        full=" | ".join(str(column.count("yes")) for column in columns),
        eased=" | ".join(str(sum(cell.startswith("`") for cell in column)) for column in columns),
    )
    parts = {"The broker protocol": "test_[!b]*.py", "The bus over each engine": "test_bus_*.py"}
    chapters = [
        f"\n## {title}\n" + "".join(_chapter(area, tests) for area in _areas(tests) if Path(area).match(pattern))
        for title, pattern in parts.items()
    ]
    return head + "".join(chapters)


def _areas(tests: Sequence[Test]) -> list[str]:
    return list(dict.fromkeys(test.area for test in tests))


def _chapter(area: str, tests: Sequence[Test]) -> str:
    engines, own = declared(), [test for test in tests if test.area == area]
    rows = [(area.removesuffix(".py"), *(each.name for each in engines)), ("---",) * (1 + len(engines))]
    rows += [(_sentence(test.name), *(test.cell(each) for each in engines)) for test in own]
    return f"\n### {own[0].about.rstrip('.')}\n\n" + "".join(row(cells) for cells in rows)


def _sentence(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def engines_page(page: str) -> str:
    """docs/engines.md with the table that belongs between its two lines."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"docs/engines.md lacks {BEGIN!r} or {END!r}"  # noqa: PT018 - they lack together or not at all
    return f"{before}{BEGIN}\n{capabilities_table()}{END}{after}"


def main() -> None:
    """Write both pages; with `--check` only say what would change, and end with 1 if anything would."""
    engines, conformance = ROOT / "docs" / "engines.md", ROOT / "docs" / "conformance.md"
    pages = {engines: engines_page(engines.read_text()), conformance: conformance_page(collected())}
    made_pages.write(pages, COMMAND)


if __name__ == "__main__":
    main()
