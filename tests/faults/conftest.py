"""The fixtures of the fault tests, and the table that a run ends with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from benchmarks.machine import describe
from tests.faults.checker import Report
from tests.faults.lab import Lab
from tests.faults.load import UNANSWERED
from tests.faults.rabbit import Rabbit
from tests.faults.report import Figures, Run, engine_of, line
from tests.faults.router_lab import RouterLab
from tests.servers import Server, nats_running, redis_running

_RUN = pytest.StashKey[Run]()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A log of its own, whose programs end with the test."""
    lab = Lab(tmp_path)
    yield lab
    lab.close()


@pytest.fixture
def routed(lab: Lab) -> RouterLab:
    """A router on that log, once it is started."""
    return RouterLab(lab)


@pytest.fixture
def redis(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Server]:
    """A server of its own, which syncs every write; the lab's log is there."""
    if "redis" not in request.config.getoption("--broker").split(","):
        pytest.skip("--broker does not name redis")
    with redis_running(lab.folder / "redis") as server:
        lab.url = f"redis://127.0.0.1:{server.port}"
        yield server


@pytest.fixture
def nats(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Server]:
    """A server of its own, which syncs every write; the lab's log is there."""
    if "nats" not in request.config.getoption("--broker").split(","):
        pytest.skip("--broker does not name nats")
    with nats_running(lab.folder / "nats") as server:
        lab.url = f"nats://127.0.0.1:{server.port}"
        yield server
        lab.close()  # first: who is connected would only be cut off


@pytest.fixture(scope="session")
def mortal_rabbit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """A server of the fault tests' own."""
    if "rabbitmq" not in request.config.getoption("--broker").split(","):
        pytest.skip("--broker does not name rabbitmq")
    rabbit = Rabbit(tmp_path_factory.mktemp("rabbitmq"))
    yield rabbit
    rabbit.server.kill()


@pytest.fixture
def rabbit(mortal_rabbit: Rabbit, lab: Lab) -> Iterator[Rabbit]:
    """That server, which runs, with an empty virtual host; the lab's log is there."""
    lab.url = mortal_rabbit.empty()
    lab.forgiven = UNANSWERED
    yield mortal_rabbit
    lab.close()  # first: who is connected would only be cut off
    mortal_rabbit.start()
    mortal_rabbit.delete()


class Engine(Struct, frozen=True):
    """One engine that processes share."""

    url: str
    server: Server | None
    """What tests may kill, and start again on the same port and directory; None where there is no server."""

    @property
    def restart(self) -> Callable[[], None] | None:
        """Both at once."""
        return None if self.server is None else partial(_restart, self.server)


@pytest.fixture
def engine(request: pytest.FixtureRequest, broker_name: str, tmp_path: Path) -> Engine:
    """Each that `--broker` names, with a server of the test's own."""
    if broker_name == "memory":
        pytest.skip("no other process shares this log")
    if broker_name == "sqlite":
        return Engine(f"sqlite:///{tmp_path / 'events.db'}", None)
    if broker_name == "rabbitmq":
        rabbit: Rabbit = request.getfixturevalue("rabbit")
        return Engine(rabbit.url, rabbit.server)
    server: Server = request.getfixturevalue(broker_name)
    return Engine(request.getfixturevalue("lab").url, server)


def _restart(server: Server) -> None:
    server.kill()
    server.start()


@pytest.fixture(autouse=True)
def _not_all(request: pytest.FixtureRequest, long_form: bool) -> None:
    """A module's `FOR_LONG` names the tests that others show in a short time, and that take long there."""
    if not long_form and request.node.name in getattr(request.module, "FOR_LONG", ()):
        pytest.skip("for the long form")


# --- what was measured ----------------------------------------------------------------------------------------------


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`measured(rounds, report, **facts)`: a line of what the run ends with, and of what `--report` writes."""
    run = _run(request.config)

    def note(rounds: int, report: Report | None = None, **facts: Any) -> None:
        numbers: dict[str, Any] = {"rounds": rounds}
        if report is not None:
            names = ("ok", "lost", "unexpected", "recovered", "duplicates", "inversions")
            numbers |= {name: len(getattr(report, name)) for name in names}
        numbers |= {name: round(fact, 3) if isinstance(fact, float) else fact for name, fact in facts.items()}
        parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
        engine = engine_of(request.fixturenames, parameters)
        run.figures.append(Figures(engine=engine, test=request.node.name, facts=numbers))

    return note


def _run(config: pytest.Config) -> Run:
    return config.stash.setdefault(_RUN, Run(long=config.getoption("--long")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Figures of a run in which something failed are none that a page may show."""
    report = yield
    run = _run(item.config)
    if report.failed:
        run.failed.append(f"{report.nodeid} ({report.when})")
    run.skipped += report.skipped
    run.passed += report.passed and report.when == "call"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, and its JSON where that is asked for."""
    run = _run(terminalreporter.config)
    if run.figures:
        terminalreporter.section("faults: what was measured")
        terminalreporter.write_line("\n".join(map(line, run.figures)))
    if path := terminalreporter.config.getoption("--report"):
        run.at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        run.machine = describe(Path(path).absolute().parent)
        Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(run)))
