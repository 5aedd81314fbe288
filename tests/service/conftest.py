"""A client of the application over a running bus, without sockets, and a service in a process of its own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.processes import address, running
from wowevent import EventBus
from wowevent.service import create_app


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


@pytest.fixture
async def client(bus: EventBus) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(bus, hosts=("bus",)))
    async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
        yield client


@pytest.fixture
def service(tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        running(tmp_path, "wowevent.service", PORT="0"),
        httpx.Client(base_url=address(tmp_path), timeout=15) as client,
    ):
        yield client
