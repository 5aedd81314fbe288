"""Every tool, by the official client: over stdio, over HTTP, and on the engines."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.conformance.engines import url_of
from tests.keys import Keys
from tests.mcp.clients import EVERY_TOOL, over_http, over_stdio, served, within
from tests.mcp.every import agents, drive_bus, drive_router
from tests.processes import environment


async def test_every_tool_over_stdio(home: Path) -> None:
    url = f"sqlite:///{home}/events.db"

    async with agents(url), over_stdio(home, "--allow-changes", "--url", url) as tools:
        driven = await drive_bus(tools) | await drive_router(tools)
        assert driven == await tools.names() == {tool.name for tool in EVERY_TOOL}

    told = (home / "mcp-err.txt").read_text()
    for action in ("publish", "request", "dead_letter redelivered", "pause", "resume", "router start", "router stop"):
        assert f"audit action={action!r}" in told or f"audit action={action} " in told
    assert '"n": 1' not in told


async def test_every_tool_over_http(home: Path) -> None:
    url = f"memory://{home.name}"
    keys = Keys(home)
    secret = keys.token("ops", publish=["#"], subscribe=["#"], replay=["#"], dead_letters=["#"], admin=["#"])

    async with agents(url), served(url, keyring=keys.ring()) as at, over_http(at, secret) as tools:
        driven = await drive_bus(tools) | await drive_router(tools)
        assert driven == await tools.names() == {tool.name for tool in EVERY_TOOL}


async def test_the_tools_on_each_engine(broker_name: str, tmp_path: Path) -> None:
    url = url_of(broker_name, tmp_path)

    async with agents(url), within(url) as tools:
        await drive_bus(tools)


async def test_over_stdio_it_ends_when_it_is_told_to_though_its_client_stays(home: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wowevent", "mcp", env=environment(home), cwd=home, stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    async with asyncio.timeout(20):
        await process.stdout.readline()
        process.terminate()
        assert await process.wait() == 0
    process.stdin.close()
