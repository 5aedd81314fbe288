"""docs/promises.md is that of the tests and says its gaps; only a long run replaces the figures of reliability.md."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.faults import promises, report
from tests.faults.promises import ENGINES, Found, gaps
from tests.faults.report import END, Figures, Run, begin, replaced
from tests.faults.wanted import Promise

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(180)
def test_the_page_is_that_of_the_tests() -> None:
    """The collecting has a process of its own: pytest runs in this one."""
    command = [sys.executable, *promises.COMMAND.split()[1:], "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)

    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nTo write the page anew: {promises.COMMAND}"


# --- gaps ---------------------------------------------------------------------------------------------------------


PROMISE = Promise(
    area="Any",
    says="It holds",
    tests=("test_one", "test_two"),
    on=("sqlite", "redis", "nats"),
    lacks={"nats": "of this"},
)


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({"test_one": ["sqlite"], "test_two": ["redis", "router"]}, []),
        ({"test_one": ["sqlite", "redis"]}, ["no test is called test_two"]),
        ({"test_one": ["sqlite"], "test_two": ["sqlite"]}, ["'It holds': no test on redis, and no reason"]),
        ({"test_one": ["sqlite", "nats"], "test_two": ["redis"]}, ["'It holds': a reason for nats, and a test"]),
    ],
    ids=["none", "a name of no test", "an engine that no test runs on", "a reason without a need"],
)
def test_gaps_are_said(found: dict[str, list[str]], wrong: list[str]) -> None:
    cells = {name: Found(dict.fromkeys(columns, "yes")) for name, columns in found.items()}

    assert gaps(cells, [PROMISE]) == wrong


@pytest.mark.parametrize(
    ("fixtures", "parameters", "engine"),
    [
        (["lab"], {}, "sqlite"),
        (["lab", "redis"], {}, "redis"),
        (["rabbit", "lab"], {}, "rabbitmq"),
        (["lab", "nats"], {"kind": "slow"}, "nats"),
        (["lab", "routed"], {}, "router"),
        (["engine", "redis"], {"broker_name": "nats"}, "nats"),
    ],
)
def test_the_fixtures_say_the_engine(fixtures: list[str], parameters: dict[str, str], engine: str) -> None:
    assert report.engine_of(fixtures, parameters) == engine


# --- figures ------------------------------------------------------------------------------------------------------

FIGURES = Figures(
    engine="redis",
    test="test_a_black_hole",
    facts={"rounds": 5, "ok": 12345, "lost": 0, "unexpected": 0, "duplicates": 0, "inversions": 2, "recovery": 0.3},
)
MACHINE = {"cores": 2, "cpu": "some", "packages": {"redis-server": "7.2.15", "redis": "6"}}
RUN = Run(long=True, at="2030-01-01 00:00 UTC", machine=MACHINE, passed=1, figures=[FIGURES])
WRITTEN = f"before\n{begin('redis')}\n\nold figures\n{END}\n{begin('nats')}\nothers\n{END}\nafter\n"


def test_a_long_run_replaces_the_figures_of_its_engine_alone() -> None:
    page = replaced(WRITTEN, RUN)

    assert "old figures" not in page
    assert "| a black hole | 5 | 12,345 | 0 | 0 | 0.30 s | inversions 2 |" in page
    assert "2 cores (some)" in page
    assert "redis-server 7.2.15" in page
    assert page.startswith("before\n")
    assert page.endswith(f"{END}\n{begin('nats')}\nothers\n{END}\nafter\n")
    assert replaced(page, RUN) == page


def test_several_runs_make_one_table() -> None:
    """In pieces; of a test that ran twice the last run holds."""
    other = msgspec.structs.replace(FIGURES, test="test_a_reset")
    again = msgspec.structs.replace(FIGURES, facts={**FIGURES.facts, "rounds": 7})
    later = msgspec.structs.replace(RUN, at="2030-01-02 00:00 UTC", figures=[other, again])
    page = replaced(WRITTEN, RUN, later)
    assert "2 runs in the long form, 2030-01-01 00:00 UTC to 2030-01-02 00:00 UTC" in page
    assert "| a black hole | 7 |" in page
    assert "| a black hole | 5 |" not in page
    assert "| a reset | 5 |" in page
    with pytest.raises(SystemExit, match="several machines"):
        replaced(WRITTEN, RUN, msgspec.structs.replace(later, machine={"cpu": "another"}))


@pytest.mark.parametrize(
    ("changes", "said"), [({"long": False}, "short form"), ({"failed": ["test_it"]}, "tests failed .*\n?test_it")]
)
def test_a_short_run_and_one_that_failed_replace_nothing(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        replaced(WRITTEN, msgspec.structs.replace(RUN, **changes))


def test_the_page_has_a_place_for_each_engine() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    for engine in report.ENGINES:
        run = msgspec.structs.replace(RUN, figures=[msgspec.structs.replace(FIGURES, engine=engine)])
        assert "| a black hole | 5 |" in replaced(page, run)
    assert set(report.ENGINES) == {*ENGINES, "router"} - {"memory"}


@pytest.mark.timeout(180)
def test_a_run_writes_what_it_measured(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    test = "tests/faults/test_kills.py::test_killed_writers_leave_no_lock"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--report", str(path), test]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=170)
    run = msgspec.json.decode(path.read_bytes(), type=Run)

    assert (run.long, run.passed, run.failed) == (False, 1, [])
    assert [(each.engine, each.test, each.facts["lost"]) for each in run.figures] == [
        ("sqlite", "test_killed_writers_leave_no_lock", 0)
    ]


def test_what_is_measured_beside_other_tests_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", "--report", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "without -n" in done.stderr
    assert not path.exists()
