"""The application behind a real socket, and a reader of Server-Sent Events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import httpx
import uvicorn
from starlette.applications import Starlette

from wowevent import EventBus
from wowevent.access.address import listen
from wowevent.service import create_app, drain
from wowevent.service.connection import http_server

PATIENCE = 30.0


class Served(NamedTuple):
    app: Starlette
    server: uvicorn.Server
    url: str
    client: httpx.AsyncClient

    def listen(self, query: str = "", last: str | None = None) -> Any:
        """An open stream, as `async with`: an EventSource."""
        return listening(self.client, f"/events/stream{query}", last)


@asynccontextmanager
async def serving(bus: EventBus) -> AsyncIterator[Served]:
    app = create_app(bus)
    listening = listen("http", "127.0.0.1", 0, allow_anonymous=False)
    server = http_server(app)
    task = asyncio.create_task(server.serve(sockets=[listening.socket]))
    try:
        async with httpx.AsyncClient(base_url=listening.url, timeout=PATIENCE) as client:
            yield Served(app, server, listening.url, client)
    finally:
        await drain(app)
        server.should_exit = True
        await task


class Frame(NamedTuple):
    """One block of a stream: fields, and comments under the empty name."""

    id: str | None = None
    event: str | None = None
    data: Any = None
    retry: str | None = None
    comment: str | None = None


class EventSource:
    """Reads a stream as the HTML standard has it."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.last = ""
        self._lines = answer.aiter_lines()

    async def frame(self) -> Frame:
        """The next block; StopAsyncIteration at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE):
            while line := await anext(self._lines):
                name, _, value = line.partition(":")
                assert name not in fields, "data in one line, and no field twice"
                fields[name] = value.removeprefix(" ")
        self.last = fields.get("id", self.last)
        data = json.loads(fields["data"]) if "data" in fields else None
        return Frame(fields.get("id"), fields.get("event"), data, fields.get("retry"), fields.get(""))

    async def message(self) -> Frame:
        """The next block with data: what a browser calls somebody for."""
        while (frame := await self.frame()).data is None:
            pass
        return frame

    async def rest(self) -> int:
        """How many blocks there are until the end of the stream, which must come whole."""
        count = 0
        with suppress(StopAsyncIteration):
            while await self.frame():
                count += 1
        return count

    async def numbers(self, count: int) -> list[int]:
        """`n` of the payloads of the next events."""
        frames = [await self.message() for _ in range(count)]
        assert [frame.event for frame in frames] == [None] * count
        return [frame.data["event"]["payload"]["n"] for frame in frames]


@asynccontextmanager
async def listening(client: httpx.AsyncClient, path: str, last: str | None = None) -> AsyncIterator[EventSource]:
    headers = {} if last is None else {"last-event-id": last}
    async with client.stream("GET", path, headers=headers) as answer:
        if answer.status_code != 200:
            await answer.aread()
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield EventSource(answer)
