"""The server over stdin and stdout, for the client that started this process: with the rights of its user."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from typing import Any

from mcp.server.stdio import stdio_server

from wowevent.log import logger
from wowevent.mcp.call import Caller
from wowevent.mcp.line import Line
from wowevent.mcp.server import Server
from wowevent.mcp.tool import Tool


async def serve(tools: Iterable[Tool], line: Line, *, allow_changes: bool) -> None:
    """Serve until the client closes stdin, or a signal says so; then the bus is closed."""
    user = Caller()
    server = Server(tools, line, allow_changes=allow_changes, caller=lambda _: user).protocol
    leaving: set[asyncio.Task[Any]] = set()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: leaving.add(asyncio.create_task(_leave(line))))
    try:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
    finally:
        await line.close()


async def _leave(line: Line) -> None:
    """End now: a thread of the SDK sits in a read of stdin, which only the client could end."""
    try:
        await line.close()
        logger.info("stopped")
    finally:
        os._exit(0)
