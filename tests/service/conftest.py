"""Clients of the application over a running bus, without sockets or with them, and a service in its own process."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conformance.engines import url_of
from tests.processes import address, running
from tests.service.described import Described
from tests.service.guarded import Guarded
from tests.service.sockets import Served, serving
from wowevent import EventBus
from wowevent.service import create_app, drain


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


@pytest.fixture
async def client(bus: EventBus) -> AsyncIterator[httpx.AsyncClient]:
    async for client in _client(bus):
        yield client


@pytest.fixture
async def guarded(bus: EventBus, tmp_path: Path) -> AsyncIterator[Guarded]:
    """Over the bus of the test."""
    guarded = Guarded(bus, tmp_path / "tokens.json")
    yield guarded
    await drain(guarded.app)


@pytest.fixture
async def engine_bus(broker_name: str, tmp_path: Path) -> AsyncIterator[EventBus]:
    """A bus on each engine."""
    async with EventBus(url_of(broker_name, tmp_path)) as bus:
        yield bus


@pytest.fixture
async def engine_client(engine_bus: EventBus) -> AsyncIterator[httpx.AsyncClient]:
    async for client in _client(engine_bus):
        yield client


@pytest.fixture
async def served(engine_bus: EventBus) -> AsyncIterator[Served]:
    """The application behind a real socket."""
    async with serving(engine_bus) as served:
        yield served


@pytest.fixture
def service(tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        running(tmp_path, "wowevent.service", PORT="0"),
        httpx.Client(base_url=address(tmp_path), timeout=15) as client,
    ):
        yield client


async def _client(bus: EventBus) -> AsyncIterator[httpx.AsyncClient]:
    """Each of its answers is looked up in the OpenAPI document, and must be as that says."""
    app = create_app(bus, hosts=("bus",))
    hooks = {"response": [Described().check]}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bus", event_hooks=hooks) as client:
        yield client
    await drain(app)
