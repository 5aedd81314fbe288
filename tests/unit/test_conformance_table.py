"""docs/conformance.md and the table in docs/engines.md are those of the code, and say nothing that is not so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import table
from tests.conformance.engines import ENGINES
from tests.conformance.making import same, store
from wowevent.broker import Broker, Capabilities

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]


def test_the_pages_are_those_of_the_code() -> None:
    """The collecting has a process of its own: pytest runs in this one."""
    command = [sys.executable, *table.COMMAND.split()[1:], "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nTo write the pages anew: {table.COMMAND}"


def test_make_test_runs_the_engines_of_the_page() -> None:
    (brokers,) = re.findall(r"^BROKERS \?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert brokers.split(",") == list(ENGINES)


def test_every_capability_is_explained() -> None:
    assert set(table.explained()) == set(Capabilities.__struct_fields__) - {"name", "promise"}
    assert table.explained()["exact"] == ("`leased`, `delayed`, `oldest` and `lost` are known.", "They may be None.")


# --- what a test looks at -----------------------------------------------------------------------------------------


def looks_itself(broker: Broker) -> None:
    assert broker.capabilities.lasting_leases


def looks_inside(broker: Broker) -> None:
    assert all(broker.capabilities.matches for _ in range(3))


async def looks_by_the_words_of_the_suite(broker: Broker) -> None:
    assert same(broker, await store(broker, []), [])


def looks_at_nothing(broker: Broker) -> None:
    assert broker.capabilities.promise


@pytest.mark.parametrize(
    ("test", "found"),
    [
        (looks_itself, {"lasting_leases"}),
        (looks_inside, {"matches"}),
        (looks_by_the_words_of_the_suite, {"exact", "positions"}),
        (looks_at_nothing, set()),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_a_test_looks_at_is_found(test, found: set[str]) -> None:
    assert table.looks(test) == found


def test_a_test_that_runs_on_some_engines_alone_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"runs on \['redis'\] alone"):
        table.Test(area="a", about="", name="test_it", engines=frozenset({"redis"}), runs=1, looks=frozenset())


# --- no test is skipped -------------------------------------------------------------------------------------------

SKIPPING = {
    "by itself": "import pytest\n\ndef test():\n    pytest.skip('not here')",
    "by a mark": "import pytest\n\n@pytest.mark.skip(reason='not here')\ndef test(): pass",
    "by a fixture": "import pytest\n\n@pytest.fixture\ndef it(): pytest.skip('not here')\n\ndef test(it): pass",
}


@pytest.mark.parametrize("source", SKIPPING.values(), ids=SKIPPING)
def test_a_test_of_the_suite_that_skips_fails(pytester: pytest.Pytester, source: str) -> None:
    pytester.makeconftest((ROOT / "tests" / "conformance" / "conftest.py").read_text())
    pytester.makepyfile(source)
    result = pytester.runpytest_subprocess("-c", ROOT / "pyproject.toml", "--rootdir", pytester.path, pytester.path)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines("*a test of the conformance suite was skipped*not here*")
