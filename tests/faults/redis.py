"""What an operator can tell a Redis server, and lines to it that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from tests.faults.proxy import Proxy
from tests.servers import Server, redis_says
from wowevent.brokers import open_broker
from wowevent.brokers.redis import RedisBroker
from wowevent.brokers.redis.script import SCRIPTS
from wowevent.errors import BrokerUnavailable

KEY = "wowevent:{default}"
"""What the names of the engine's keys begin with."""


def answer_of(redis: Server, *words: str) -> str:
    """What the server answers to a command, its beginning."""
    parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    answer = redis_says(redis.port, f"*{len(words)}\r\n{parts}".encode()).decode()
    assert answer, f"no answer to {words}"
    assert not answer.startswith("-"), answer
    return answer


async def say(redis: Server, *words: str) -> str:
    """The same; a disk that takes its time blocks no loop."""
    return await asyncio.to_thread(answer_of, redis, *words)


def behind(proxy: Proxy) -> str:
    """The server's URL by way of the proxy."""
    return f"redis://127.0.0.1:{proxy.port}"


@asynccontextmanager
async def line_to(redis: Server) -> AsyncIterator[tuple[Proxy, RedisBroker]]:
    """A proxy, and one instance of the engine behind it."""
    async with Proxy(redis.port, plain=True) as proxy:
        broker = cast("RedisBroker", open_broker(behind(proxy)))
        await broker.open()
        yield proxy, broker
        await broker.close()


async def swallowed(proxy: Proxy, script: str, call: Callable[[], Awaitable[object]]) -> None:
    """The server does what the call asks for, and its answer never comes."""
    proxy.swallow, before = SCRIPTS[script].sha.encode(), proxy.lost
    with pytest.raises(BrokerUnavailable):
        await call()
    assert proxy.lost == before + 1
