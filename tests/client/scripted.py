"""Routers that do what a test says: one by another implementation of WebSocket, and a line to the real one."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

WELCOME = {"type": "welcome", "client_id": "c", "server_time": "2026-01-01T00:00:00Z", "protocol": 1}


class Peer:
    """One client, as a scripted router sees it."""

    def __init__(self, socket: ServerConnection, number: int) -> None:
        self.socket = socket
        self.number = number
        """1 for the first connection."""

    async def greet(self, max_frame: int = 327_680) -> dict[str, Any]:
        """Welcome, and the answer to hello."""
        await self.send(WELCOME | {"max_frame": max_frame})
        hello = await self.expect("hello")
        await self.send({"type": "hello", "ref": hello["ref"], "batch": True, "agent": None, "client": None})
        return hello

    async def read(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await self.socket.recv())
        return frame

    async def expect(self, kind: str) -> dict[str, Any]:
        """The next frame of this kind; pings before it are answered, others are passed over."""
        while True:
            frame = await self.read()
            if frame["type"] == kind:
                return frame
            if frame["type"] == "ping":
                await self.send({"type": "pong", "ref": frame["ref"], "echo": None, "timestamp": 0.0})

    async def send(self, frame: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(frame))

    async def confirm(self, frame: dict[str, Any]) -> None:
        """Say that an event was stored."""
        id = frame["event"]["event_id"]
        await self.send({"type": "published", "ref": frame["ref"], "event_id": id, "status": "queued"})

    async def serve(self, frame: dict[str, Any], id: str = "sub-1", position: str = "e-0", **more: Any) -> None:
        """Say that a subscription is served."""
        answer = {"type": "subscribed", "ref": frame["ref"], "subscription_id": id, "topics": ["*"], "recovered": True}
        await self.send(answer | {"position": position, "lost": None} | more)

    async def deliver(self, event: dict[str, Any], id: str = "sub-1", **more: Any) -> None:
        await self.send({"type": "event", "subscription_id": id, "event": event} | more)

    async def silent(self) -> None:
        """Say nothing more, for as long as the client is there."""
        with suppress(ConnectionClosed):
            while True:
                await self.socket.recv()


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """A router that runs `script(peer)` for each client; its url. What a script asserts is raised at the end."""
    wrong: list[BaseException] = []
    count = 0

    async def accept(socket: ServerConnection) -> None:
        nonlocal count
        count += 1
        try:
            await script(Peer(socket, count))
        except ConnectionClosed:
            pass
        except Exception as error:  # noqa: BLE001 - raised at the end
            wrong.append(error)

    async with serve(accept, "localhost", 0, compression=None, close_timeout=0.2) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://localhost:{port}"
    assert not wrong, wrong


def envelope(n: int = 1, topic: str = "task.created", **more: Any) -> dict[str, Any]:
    """An event as a router sends it."""
    fields = {
        "v": 1,
        "event_id": f"id-{n}",
        "event_type": topic,
        "topic": topic,
        "source_agent": "",
        "payload": {"n": n},
        "timestamp": "2026-01-01T00:00:00Z",
        "priority": 5,
        "correlation_id": f"id-{n}",
    }
    return fields | more


class Line:
    """A TCP line to a router, which can be cut, and whose way back can be swallowed."""

    def __init__(self, port: int) -> None:
        self.swallowing = False
        """What the router says does not arrive."""
        self.url = ""
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._own = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._own)
        self._own = self._server.sockets[0].getsockname()[1]
        self.url = f"ws://localhost:{self._own}"

    async def cut(self) -> None:
        """Break what is connected, and let nobody in until `open`."""
        assert self._server is not None
        self._server.close()
        self.break_now()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def break_now(self) -> None:
        """Break what is connected; the next connection works."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        for job in (self._pump(reader, back, back=False), self._pump(there, writer, back=True)):
            task = asyncio.create_task(job)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if not (back and self.swallowing):
                    writer.write(data)
        writer.close()


@asynccontextmanager
async def line(port: int) -> AsyncIterator[Line]:
    made = Line(port)
    await made.open()
    try:
        yield made
    finally:
        await made.cut()


async def until(look: Callable[[], Any], seconds: float = 10.0) -> None:
    """Return once `look()` is true, or what it awaits is; for what nothing tells of."""
    async with asyncio.timeout(seconds):
        while not await _seen(look):  # noqa: ASYNC110 - that is what it is for
            await asyncio.sleep(0.005)


async def _seen(look: Callable[[], Any]) -> Any:
    found = look()
    return await found if inspect.isawaitable(found) else found


class Got:
    """A handler that keeps what it gets, and lets a test wait for it."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._news = asyncio.Event()

    async def __call__(self, event: Any) -> None:
        self.events.append(event)
        self._news.set()

    @property
    def ns(self) -> list[int]:
        return [event.payload["n"] for event in self.events]

    async def count(self, count: int) -> None:
        """Return once there are so many."""
        async with asyncio.timeout(10.0):
            while len(self.events) < count:
                self._news.clear()
                await self._news.wait()
