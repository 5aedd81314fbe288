"""What somebody whom nobody knows may send: so many bytes, for so long, and no further."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.keys import Keys
from wowevent import EventBus
from wowevent.access import audit
from wowevent.access.address import listen
from wowevent.process import logs
from wowevent.service import connection, create_app
from wowevent.service.connection import http_server

HEAD = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """Of a service that asks for tokens."""
    async with EventBus("memory://") as bus:
        at = listen("http", "127.0.0.1", 0, allow_anonymous=False)
        served = http_server(create_app(bus, keyring=Keys(tmp_path).ring()))
        task = asyncio.create_task(served.serve(sockets=[at.socket]))
        yield int(at.url.rpartition(":")[2])
        served.should_exit = True
        await task


async def sent(port: int, first: bytes, more: bytes, most: int = 8_000_000) -> int:
    """How many bytes of `more`, again and again, could be sent before the connection was cut."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    try:
        writer.write(first)
        while count < most:
            writer.write(more)
            await writer.drain()
            count += len(more)
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return count


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (b"GET /", b"a" * 10_000),
        (HEAD, b"x: " + b"a" * 10_000 + b"\r\n"),
        (HEAD + b"x: ", b"a" * 10_000),
        (POST + b"\r\n0\r\n", b"x: " + b"a" * 10_000 + b"\r\n"),
        (POST + b"\r\n0\r\nx: ", b"a" * 10_000),
        (POST + b"\r\n", b"1;" + b"a" * 10_000 + b"\r\na\r\n"),
    ],
    ids=["path", "headers", "header", "trailers", "trailer", "chunks' extensions"],
)
async def test_nobody_sends_without_end(port: int, first: bytes, more: bytes) -> None:
    assert await sent(port, first, more) < 8_000_000


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /metr", HEAD, HEAD + b"\r\n", POST + b"\r\n", HEAD + b"\r\n" + HEAD],
    ids=["nothing", "half a line", "half a head", "nothing more", "half a body", "half of the next"],
)
async def test_nobody_stays_who_does_not_get_on(port: int, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(connection, "_SLOWEST", 0.4)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    writer.write(said)

    async def dribble() -> None:
        while True:
            await asyncio.sleep(0.1)
            writer.write(b"\r\n" if said.endswith(b"\r\n\r\n") and said != POST + b"\r\n" else b"1\r\na\r\n")

    dribbling = asyncio.create_task(dribble()) if said else None
    try:
        async with asyncio.timeout(4):
            while await reader.read(1000):
                pass
    except ConnectionError:
        pass
    finally:
        if dribbling is not None:
            dribbling.cancel()
        writer.transport.abort()
    assert time.monotonic() - began < 3


async def test_a_body_may_come_in_the_smallest_chunks(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + b"\r\n" + b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n" + HEAD + b"connection: close\r\n\r\n")
    async with asyncio.timeout(10):
        answers = await reader.read()
    assert answers.count(b"HTTP/1.1 401 ") == 2
    writer.close()


async def test_a_path_with_a_slash_too_many_leads_nowhere(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /topics/ HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"evil.example" not in answer
    writer.close()


async def test_strangers_do_not_fill_the_log(
    port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they send that is no HTTP, or asks in the name of another page: a line a second, and not one each."""
    monkeypatch.setattr(audit, "_refused", {})
    monkeypatch.setattr(logging.getLogger("uvicorn"), "level", logs._LOGGERS["uvicorn"])  # noqa: SLF001 - as it is set
    logging.getLogger("uvicorn.error").manager._clear_cache()  # type: ignore[attr-defined]  # noqa: SLF001 - as setLevel does
    for said in (b"nonsense\r\n\r\n", HEAD + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n") * 20:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        await writer.drain()
        writer.close()
        await asyncio.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert any("action=request" in line for line in lines)
    assert len(lines) < 10
