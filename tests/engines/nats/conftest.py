"""A NATS server for the tests of its engine, and short times for what takes long."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.engines import Rig, shared_nats
from wowevent.brokers.nats import consumers, locks, session


@pytest.fixture(scope="module")
def named(request: pytest.FixtureRequest) -> None:
    if "nats" not in request.config.getoption("--broker").split(","):
        pytest.skip("--broker does not name nats")
    shared_nats.url()  # now: starting it would block the loop of the first test


@pytest.fixture
async def rig(named: None, tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig("nats", tmp_path)
    yield rig
    await rig.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server waits for two seconds; what is declared with a lease of one is looked after all the time."""
    monkeypatch.setattr(consumers, "_LEAST", 2.0)
    monkeypatch.setattr(consumers, "_MARGIN", 0.2)
    monkeypatch.setattr(session, "_TOUCH", 0.3)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock whose holder says nothing is free after two seconds."""
    monkeypatch.setattr(locks, "LOCK", 2.0)
    monkeypatch.setattr(session, "LOCK", 2.0)
    monkeypatch.setattr(session, "_TOUCH", 0.3)
