"""A bus on memory with a router in front of it, and clients that end with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from wowevent import EventBus
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


@pytest.fixture
async def router(bus: EventBus) -> AsyncIterator[EventRouter]:
    async with EventRouter(port=0, bus=bus) as router:
        yield router


@pytest.fixture
async def client(router: EventRouter) -> AsyncIterator[EventRouterClient]:
    async with EventRouterClient(router.url) as client:
        yield client


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., EventRouterClient]]:
    """`make(url, …)`: a client that is disconnected at the end, with short waits."""
    made: list[EventRouterClient] = []

    def make(url: str, **settings: Any) -> EventRouterClient:
        client = EventRouterClient(url, **({"reconnect_interval": 0.05, "timeout": 2.0} | settings))
        made.append(client)
        return client

    yield make
    for client in made:
        await client.disconnect()
