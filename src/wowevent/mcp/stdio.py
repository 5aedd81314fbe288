"""The server over stdin and stdout, for the client that started this process: with the rights of its user."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from mcp.server.stdio import stdio_server

from wowevent.log import logger
from wowevent.mcp.line import Line
from wowevent.mcp.server import Server


async def serve(server: Server, line: Line) -> None:
    """Serve until the client closes stdin; on a signal the bus is closed, and the process ends here."""
    leaving: set[asyncio.Task[Any]] = set()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: leaving.add(asyncio.create_task(_leave(line))))
    async with stdio_server() as (read, write):
        await server.protocol.run(read, write, server.protocol.create_initialization_options())


async def _leave(line: Line) -> None:
    """End now: a thread of the SDK sits in a read of stdin, which only the client could end."""
    try:
        await line.close()
        logger.info("stopped")
    finally:
        os._exit(0)
