"""The official client, at each of the ways in."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.processes import environment
from wowevent import EventBus
from wowevent.access.address import listen
from wowevent.access.keyring import Keyring
from wowevent.cli.router_tools import ROUTER_TOOLS
from wowevent.mcp import http
from wowevent.mcp.call import Caller
from wowevent.mcp.line import Line
from wowevent.mcp.server import BUS_TOOLS, Server
from wowevent.mcp.tool import Tool
from wowevent.settings import Settings

EVERY_TOOL = (*BUS_TOOLS, *ROUTER_TOOLS)


class Tools:
    """Tools as a test calls them."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def names(self) -> set[str]:
        return {tool.name for tool in (await self.client.list_tools()).tools}

    async def __call__(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """What it answers, which is the same as text and as an object."""
        result = await self.client.call_tool(name, arguments)
        assert not result.is_error, result.content
        answer: dict[str, Any] = result.structured_content
        assert json.loads(result.content[0].text) == answer  # type: ignore[union-attr]
        return answer

    async def refused(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """What it says when it refuses, which has a code and what to do."""
        result = await self.client.call_tool(name, arguments)
        assert result.is_error, result.content
        problem: dict[str, Any] = result.structured_content
        text = result.content[0].text  # type: ignore[union-attr]
        assert text == f"error[{problem['error']}]: {problem['message']}\n{problem['do']}"
        return problem


def line_of(url: str) -> Line:
    return Line(lambda: EventBus(url, name="mcp"))


@asynccontextmanager
async def within(
    url: str, *, allow_changes: bool = True, tools: Iterable[Tool] = EVERY_TOOL, line: Line | None = None
) -> AsyncIterator[Tools]:
    """In this process, without a transport, as the user whose process it is."""
    line = line or line_of(url)
    user = Caller()
    server = Server(tools, line, allow_changes=allow_changes, caller=lambda _: user)
    try:
        async with Client(server.protocol) as client:
            yield Tools(client)
    finally:
        await line.close()


@asynccontextmanager
async def served(
    url: str, *, keyring: Keyring | None = None, allow_changes: bool = True, **settings: Any
) -> AsyncIterator[str]:
    """Over HTTP, on a real socket of this process; gives the server's URL."""
    line = line_of(url)
    server = Server(EVERY_TOOL, line, allow_changes=allow_changes, caller=http.callers(keyring))
    listening = listen("http", "127.0.0.1", 0, allow_anonymous=False)
    try:
        async with http.serving(server, listening, Settings(**settings), keyring=keyring) as at:
            yield at
    finally:
        await line.close()


@asynccontextmanager
async def over_http(at: str, token: str | None = None, **headers: str) -> AsyncIterator[Tools]:
    """A client of a server at that URL."""
    shows = {} if token is None else {"authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=shows | headers, timeout=30) as connection,
        Client(streamable_http_client(at, http_client=connection)) as client,
    ):
        yield Tools(client)


@asynccontextmanager
async def over_stdio(home: Path, *options: str, **changes: str) -> AsyncIterator[Tools]:
    """A client that starts `wowevent mcp` in `home`."""
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "wowevent", "mcp", *options],
        env=environment(home, **changes),
        cwd=home,
    )
    with (home / "mcp-err.txt").open("w") as err:
        async with Client(stdio_client(command, errlog=err)) as client:
            yield Tools(client)


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 10.0) -> Any:
    """What `look` finds, once that is something."""
    async with asyncio.timeout(seconds):
        while not (found := await look()):  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.05)
    return found
