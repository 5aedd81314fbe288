"""How long each target is fuzzed, and the table that a run ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzz.rounds import Rounds

_FIGURES = pytest.StashKey[list[str]]()
_GRACE = 600.0  # seconds: a round that began in time is finished, and what fails is made smaller


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """No test is cut off within its time."""
    seconds = 60 * config.getoption("--minutes") + _GRACE
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(seconds))


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """The test's share of what `--minutes` gives to its file; 0 without."""
    mine = [item for item in request.session.items if item.path == request.path]
    share: float = 60 * request.config.getoption("--minutes") / len(mine)
    return share


@pytest.fixture
def fuzz(seconds: float, noted: Callable[[int, float], None]) -> Iterator[Rounds]:
    """Looks at properties, for as long as there is time."""
    rounds = Rounds(seconds)
    yield rounds
    noted(rounds.examples, rounds.seconds)


@pytest.fixture
def noted(request: pytest.FixtureRequest) -> Callable[[int, float], None]:
    """`noted(examples, seconds)`: a line of the table in docs/reliability.md, shown when a long run ends."""
    figures = request.config.stash.setdefault(_FIGURES, [])

    def note(examples: int, seconds: float) -> None:
        figures.append(
            f"{request.path.stem.removeprefix('test_')}: {request.node.name}\n    {examples:,} in {seconds:,.0f} s"
        )

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table."""
    config = terminalreporter.config
    if config.getoption("--minutes") and (figures := config.stash.get(_FIGURES, [])):
        terminalreporter.section("fuzzed: examples, and how long")
        terminalreporter.write_line("\n".join(figures))
