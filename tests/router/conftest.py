"""Real routers, and a client that speaks frames by another implementation of WebSocket."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.conformance.engines import url_of
from wowevent import EventBus
from wowevent.router import EventRouter
from wowevent.router.connection import Connection
from wowevent.router.desk import Desk

PATIENCE = 30.0
"""Seconds within which what is waited for must come."""

Frame = dict[str, Any]


class Talker:
    """One client: says frames, and hears them in any order that the test likes."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.kept: deque[Frame] = deque()
        """What came and was not asked for yet."""
        self._refs = itertools.count(1)

    async def text(self, text: str | bytes) -> None:
        """Send anything as one text message."""
        await self.socket.send(text, text=True)

    async def say(self, type: str, **fields: Any) -> None:
        """Send a frame."""
        await self.text(json.dumps({"type": type, **fields}))

    async def next(self) -> Frame:
        """What comes next."""
        async with asyncio.timeout(PATIENCE):
            found: Frame = json.loads(await self.socket.recv())
        await asyncio.sleep(0)  # what is buffered is read without a pause: the router needs its turn, too
        return found

    async def hear(self, *types: str, **fields: Any) -> Frame:
        """The first frame of one of these types with these fields; what else comes is kept."""

        def fits(frame: Frame) -> bool:
            return (not types or frame["type"] in types) and fields.items() <= frame.items()

        for frame in self.kept:
            if fits(frame):
                self.kept.remove(frame)
                return frame
        while not fits(frame := await self.next()):
            self.kept.append(frame)
        return frame

    async def ask(self, type: str, **fields: Any) -> Frame:
        """Send a frame, and return its answer."""
        ref = next(self._refs)
        await self.say(type, ref=ref, **fields)
        return await self.hear(ref=ref)

    async def subscribe(self, *topics: str, **wanted: Any) -> Frame:
        """The `subscribed` of a subscription, which is everything unless topics are given."""
        answer = await self.ask("subscribe", subscription={"topics": list(topics) or ["*"], **wanted})
        assert answer["type"] == "subscribed", answer
        return answer

    async def publish(self, topic: str = "task.created", n: int = 0, **fields: Any) -> Frame:
        """The `published` of an event."""
        answer = await self.ask("publish", event=event(topic, n, **fields))
        assert answer["type"] == "published", answer
        return answer

    async def publish_all(self, events: list[Frame]) -> list[Frame]:
        """Publish without waiting in between; the answers."""
        for each in events:
            await self.say("publish", event=each, ref=each["payload"]["n"])
            await asyncio.sleep(0)
        return [await self.hear("published") for _ in events]

    async def event(self, **fields: Any) -> Frame:
        """The next delivery."""
        return await self.hear("event", **fields)

    async def events(self, count: int) -> list[Frame]:
        """The next deliveries, in `event` frames or in `events` frames."""
        found: list[Frame] = []
        while len(found) < count:
            frame = await self.hear("event", "events")
            found += frame["events"] if frame["type"] == "events" else [frame]
        assert len(found) == count, "more came in one frame"
        return found

    async def nothing(self) -> None:
        """Whatever was sent before this has been carried out, and no event came of it."""
        await self.ask("ping")
        await asyncio.sleep(0.05)
        await self.ask("ping")
        assert not [frame for frame in self.kept if frame["type"] in {"event", "events"}], self.kept

    async def health(self) -> Frame:
        health: Frame = (await self.ask("get_health"))["health"]
        return health

    async def closed(self) -> tuple[int, str]:
        """Code and reason, once the router has closed."""
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(websockets.ConnectionClosed) as end:
                await self._keep_all()
        assert end.value.rcvd is not None, "cut without a word"
        return end.value.rcvd.code, end.value.rcvd.reason

    async def _keep_all(self) -> None:
        while True:
            self.kept.append(json.loads(await self.socket.recv()))

    def cut(self) -> None:
        """Break the connection without a close frame."""
        self.socket.transport.abort()


def event(topic: str = "task.created", n: int = 0, **fields: Any) -> Frame:
    """An event that says which one it is."""
    return {"topic": topic, "payload": {"n": n}, "source_agent": "tester", **fields}


def events(count: int, **fields: Any) -> list[Frame]:
    return [event(n=n, **fields) for n in range(count)]


def numbers(deliveries: list[Frame]) -> list[int]:
    """Which ones they are."""
    return [delivery["event"]["payload"]["n"] for delivery in deliveries]


class Serve(Protocol):
    """Starts one more router, over the test's log unless it is given a bus."""

    async def __call__(self, **settings: Any) -> EventRouter: ...


@pytest.fixture
def url(broker_name: str, tmp_path: Path) -> str:
    """The engine's, a log of the test's own."""
    return url_of(broker_name, tmp_path)


@pytest.fixture
async def serve(url: str, quiet: None) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def serve(**settings: Any) -> EventRouter:
            own = {} if "bus" in settings else {"url": url}
            router = EventRouter(**{"host": "127.0.0.1", "port": 0, **own, **settings})
            return await stack.enter_async_context(router)

        yield serve


@pytest.fixture
async def router(serve: Serve) -> EventRouter:
    return await serve()


Join = Callable[..., Awaitable[Talker]]
"""`await join(router, **hello)`: one more client, that has said hello if there is something to say."""


@asynccontextmanager
async def talking(router: EventRouter, **settings: Any) -> AsyncIterator[Talker]:
    """A client that was welcomed."""
    defaults = {"compression": None, "ping_interval": None, "max_size": None, "max_queue": None, "proxy": None}
    settings = {**defaults, **settings}
    async with connect(router.url, **settings) as socket:
        talker = Talker(socket)
        await talker.hear("welcome")
        yield talker


@pytest.fixture
async def join() -> AsyncIterator[Join]:
    async with AsyncExitStack() as stack:

        async def join(router: EventRouter, **hello: Any) -> Talker:
            talker = await stack.enter_async_context(talking(router))
            if hello:
                await talker.ask("hello", **hello)
            return talker

        yield join


@pytest.fixture
async def client(router: EventRouter, join: Join) -> Talker:
    return await join(router)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Fail the test in which something was unhandled: a traceback in the log, a task whose error nobody took."""
    unhandled = _Unhandled()
    loggers = [logging.getLogger("wowevent"), logging.getLogger("asyncio")]
    for logger in loggers:
        logger.addHandler(unhandled)
    yield
    for logger in loggers:
        logger.removeHandler(unhandled)
    if unhandled.lines:
        pytest.fail(f"unhandled: {unhandled.lines}")


class _Unhandled(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        own = record.name == "asyncio" and record.levelno >= logging.ERROR
        if own or record.exc_info or "Traceback" in line or "internal error" in line:
            self.lines.append(line)


async def eventually(condition: Callable[[], Awaitable[Any] | Any]) -> None:
    """Return once `condition()`, which may be awaitable, is true."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.005)


def part(of: object, name: str) -> Any:
    """What no client can see of a router; for what must be the case inside."""
    return getattr(of, name)


def bus_of(router: EventRouter) -> EventBus:
    bus: EventBus = part(router, "_bus")
    return bus


async def place(router: EventRouter, published: Frame) -> str:
    """Where an event lies, by its receipt; by the log, where the engine declares that its receipts do not say it."""
    bus = bus_of(router)
    if bus.capabilities.positions:
        return str(published["position"])
    assert "position" not in published
    (found,) = [str(each.position) async for each in bus.history() if each.event.event_id == published["event_id"]]
    return found


def desk_of(router: EventRouter) -> Desk:
    desk: Desk = part(router, "_desk")
    return desk


def connections_of(router: EventRouter) -> set[Connection]:
    connections: set[Connection] = part(router, "_connections")
    return connections
