"""The fixtures of the fault tests, and the table that a run ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.faults.checker import Report
from tests.faults.lab import Lab
from tests.faults.rabbit import Rabbit
from tests.faults.router_lab import RouterLab
from tests.servers import Server, nats_running, redis_running

_FIGURES = pytest.StashKey[list[str]]()


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


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`measured(rounds, report, **facts)`: a line of the table in docs/reliability.md, shown when the run ends."""
    figures = request.config.stash.setdefault(_FIGURES, [])

    def note(rounds: int, report: Report | None = None, **facts: Any) -> None:
        numbers: dict[str, Any] = {"rounds": rounds}
        if report is not None:
            names = ("ok", "lost", "unexpected", "recovered", "duplicates", "inversions")
            numbers |= {name: len(getattr(report, name)) for name in names}
        numbers |= {name: f"{fact:.2f}" if isinstance(fact, float) else fact for name, fact in facts.items()}
        told = "  ".join(f"{name} {number}" for name, number in numbers.items())
        figures.append(f"{request.node.name}\n    {told}")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table."""
    if figures := terminalreporter.config.stash.get(_FIGURES, []):
        terminalreporter.section("faults: what was measured")
        terminalreporter.write_line("\n".join(figures))
