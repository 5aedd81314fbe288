"""What breaks the rules of WebSocket, over a plain socket: each ends with its right close code, and others go on."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from tests.router.conftest import Serve, connections_of, event, part, talking
from wowevent.router import EventRouter, server

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, bits: int = 0, mask: bool = True) -> bytes:
    """A frame as RFC 6455 draws it: FIN, three reserved bits, opcode; mask bit, length; mask, payload."""
    size = len(payload)
    length = (
        bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65_536 else b"\x7f" + size.to_bytes(8)
    )
    head = bytes([fin << 7 | bits << 4 | opcode])
    if not mask:
        return head + length + payload
    key = os.urandom(4)
    masked = bytes(byte ^ key[n % 4] for n, byte in enumerate(payload))
    return head + bytes([length[0] | 0x80]) + length[1:] + key + masked


class Raw:
    """One plain socket behind the handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, *data: bytes) -> None:
        self._writer.write(b"".join(data))

    def stop_reading(self) -> None:
        """Let what comes fill the socket."""
        cast("asyncio.Transport", self._writer.transport).pause_reading()

    async def drain(self) -> None:
        """Return once most of what was sent is out."""
        await self._writer.drain()

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        async with asyncio.timeout(5):
            head = await self._reader.readexactly(2)
            assert head[0] & 0xF0 == 0x80
            assert not head[1] & 0x80, "a server does not mask"
            size = head[1]
            if size >= 126:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8))
            return head[0] & 0x0F, await self._reader.readexactly(size)

    async def answer(self, type: str) -> dict:
        """The next frame of that type."""
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT and (found := json.loads(payload))["type"] == type:
                return found

    async def close_code(self) -> int:
        """The code of the close frame, which is followed by the end of the connection."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                break
        async with asyncio.timeout(5):
            assert await self._reader.read(1) == b""
        return int.from_bytes(payload[:2])


@asynccontextmanager
async def raw(router: EventRouter) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(HANDSHAKE.format(port=router.port).encode())
    async with asyncio.timeout(5):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    one = Raw(reader, writer)
    await one.answer("welcome")
    try:
        yield one
    finally:
        writer.transport.abort()


PUBLISH = json.dumps({"type": "publish", "event": event()}).encode()

VIOLATIONS = {
    "unmasked": (frame(TEXT, b"{}", mask=False), 1002),
    "first reserved bit": (frame(TEXT, b"{}", bits=4), 1002),
    "second reserved bit": (frame(TEXT, b"{}", bits=2), 1002),
    "third reserved bit": (frame(TEXT, b"{}", bits=1), 1002),
    "reserved bit of a ping": (frame(PING, bits=4), 1002),
    "unknown opcode 3": (frame(3, b"{}"), 1002),
    "unknown opcode 7": (frame(7), 1002),
    "unknown control opcode 11": (frame(11), 1002),
    "unknown control opcode 15": (frame(15), 1002),
    "fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "fragmented close": (frame(CLOSE, (1000).to_bytes(2), fin=False), 1002),
    "oversized ping": (frame(PING, b"x" * 126), 1002),
    "oversized close": (frame(CLOSE, (1000).to_bytes(2) + b"x" * 124), 1002),
    "continuation without a start": (frame(CONTINUATION, b"{}"), 1002),
    "continuation after a whole message": (frame(TEXT, PUBLISH) + frame(CONTINUATION, b"{}"), 1002),
    "new text inside a fragmented one": (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
    "new fragment inside a fragmented one": (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}", fin=False), 1002),
    "binary": (frame(BINARY, b"{}"), 1003),
    "fragmented binary": (frame(BINARY, b"{", fin=False), 1003),
    "bad UTF-8": (frame(TEXT, b'{"type":"\xff"}'), 1007),
    "overlong UTF-8": (frame(TEXT, b'{"type":"\xc0\xaf"}'), 1007),
    "surrogate in UTF-8": (frame(TEXT, b'{"type":"ping","echo":"\xed\xa0\x80"}'), 1007),
    "truncated UTF-8": (frame(TEXT, b"\xe2\x82"), 1007),
    "bad UTF-8 over fragments": (frame(TEXT, b'{"\xe2', fin=False) + frame(CONTINUATION, b'\xff"}'), 1007),
    "too large": (frame(TEXT, b"x" * 400_000), 1009),
    "100 MiB announced": (bytes([0x81, 0xFF]) + (100 * 2**20).to_bytes(8) + b"mask" + b"x" * 1000, 1009),
    "2^63 announced": (bytes([0x81, 0xFF]) + (2**63).to_bytes(8) + b"mask", 1002),
    "2^63 - 1 announced": (bytes([0x81, 0xFF]) + (2**63 - 1).to_bytes(8) + b"mask", 1009),
    "too large in fragments": (frame(TEXT, b"x" * 200_000, fin=False) + frame(CONTINUATION, b"x" * 200_000), 1009),
    "fragments without end": (frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 50_000, 1009),
    "close with one byte": (frame(CLOSE, b"\x03"), 1002),
    "close with code 999": (frame(CLOSE, (999).to_bytes(2)), 1002),
    "close with code 1004": (frame(CLOSE, (1004).to_bytes(2)), 1002),
    "close with code 1005": (frame(CLOSE, (1005).to_bytes(2)), 1002),
    "close with code 1006": (frame(CLOSE, (1006).to_bytes(2)), 1002),
    "close with code 1016": (frame(CLOSE, (1016).to_bytes(2)), 1002),
    "close with code 2999": (frame(CLOSE, (2999).to_bytes(2)), 1002),
    "close with code 5000": (frame(CLOSE, (5000).to_bytes(2)), 1002),
    "close with code 65535": (frame(CLOSE, (65535).to_bytes(2)), 1002),
    "close with a bad UTF-8 reason": (frame(CLOSE, (1000).to_bytes(2) + b"\xff"), 1007),
    # Not violations: goodbyes, which are answered.
    "close without a code": (frame(CLOSE), 1000),
    "close with code 1000": (frame(CLOSE, (1000).to_bytes(2) + b"bye"), 1000),
    "close with code 1001": (frame(CLOSE, (1001).to_bytes(2)), 1001),
    "close with code 3000": (frame(CLOSE, (3000).to_bytes(2)), 3000),
    "close with code 4999": (frame(CLOSE, (4999).to_bytes(2)), 4999),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_each_violation_has_its_close_code_and_others_go_on(router: EventRouter, violation: str):
    data, code = VIOLATIONS[violation]
    async with talking(router) as other:
        async with raw(router) as bad:
            bad.send(data)
            assert await bad.close_code() == code
        async with asyncio.timeout(1):
            await other.publish()


async def test_nothing_of_what_follows_a_violation_is_carried_out(router: EventRouter):
    for violation in (frame(TEXT, b"{}", bits=4), frame(TEXT, b"{}", mask=False), frame(BINARY, b"{}")):
        async with raw(router) as bad, talking(router) as other:
            await other.subscribe()
            bad.send(violation, frame(TEXT, PUBLISH))
            await bad.close_code()
            await other.nothing()


async def test_a_text_in_fragments_with_a_ping_between_them_is_one_message(router: EventRouter):
    async with raw(router) as one:
        text = '{"type":"ping","echo":"grüße 🎉"}'.encode()
        for at in range(len(text)):  # also in the midst of a character
            one.send(
                frame(TEXT, text[:at], fin=False),
                frame(PING, b"between"),
                frame(CONTINUATION, b"", fin=False),
                frame(CONTINUATION, text[at:]),
            )
            assert await one.frame() == (PONG, b"between")
            assert (await one.answer("pong"))["echo"] == "grüße 🎉"


async def test_pings_are_answered_with_what_they_say_and_pongs_are_not(router: EventRouter):
    async with raw(router) as one:
        for said in (b"", b"x", b"x" * 125):
            one.send(frame(PONG, said), frame(PING, said))
            assert await one.frame() == (PONG, said)


async def test_bytes_may_come_one_at_a_time(router: EventRouter):
    async with raw(router) as one:
        for byte in frame(TEXT, PUBLISH):
            one.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await one.answer("published"))["status"] == "queued"


async def test_who_pings_without_end_and_reads_nothing_fills_nothing(router: EventRouter):
    async with raw(router) as bad, talking(router) as other:
        bad.stop_reading()
        for _ in range(100):
            bad.send(frame(PING, b"x" * 125) * 2_000)
            async with asyncio.timeout(5):
                await bad.drain()
        await other.publish()
        sizes = [part(each, "_socket").get_write_buffer_size() for each in connections_of(router)]
        assert max(sizes) < 1_000_000


# --- before there is WebSocket --------------------------------------------------------------------------------------


def without(line: str) -> Callable[[str], bytes]:
    return lambda good: "".join(each for each in good.splitlines(keepends=True) if not each.startswith(line)).encode()


def instead(old: str, new: str) -> Callable[[str], bytes]:
    def change(good: str) -> bytes:
        assert old in good
        return good.replace(old, new).encode("utf-8", "surrogateescape")

    return change


HANDSHAKES = {
    "no Upgrade": without("Upgrade"),
    "no Connection": without("Connection"),
    "no key": without("Sec-WebSocket-Key"),
    "no version": without("Sec-WebSocket-Version"),
    "another version": instead("Version: 13", "Version: 12"),
    "a short key": instead("dGhlIHNhbXBsZSBub25jZQ==", "abc"),
    "POST": instead("GET", "POST"),
    "HTTP/1.0": instead("HTTP/1.1", "HTTP/1.0"),
    "garbage": lambda _: b"\x00\x01\x02 garbage\r\n\r\n",
    "TLS": lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    "Redis": lambda _: b"*1\r\n$4\r\nPING\r\n\r\n",
    "an empty line": lambda _: b"\r\n\r\n",
    "a folded header": instead("Upgrade: websocket", "Upgrade:\r\n websocket"),
    "a header without a colon": instead("Upgrade: websocket", "Upgrade websocket"),
    "a NUL in a header": instead("Host: ", "Host: \x00"),
    "a lone CR in a header": instead("Host: ", "X: a\rb\r\nHost: "),
    "a body": instead("Host: ", "Content-Length: 5\r\nHost: "),
    "chunks": instead("Host: ", "Transfer-Encoding: chunked\r\nHost: "),
    "ten thousand headers": instead("Host: ", "X: y\r\n" * 10_000 + "Host: "),
    "a long header": instead("Host: ", f"X: {'y' * 1_000_000}\r\nHost: "),
}


@pytest.mark.parametrize("what", HANDSHAKES)
async def test_a_handshake_that_is_none_is_refused_and_the_next_is_served(router: EventRouter, what: str):
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(HANDSHAKES[what](HANDSHAKE.format(port=router.port)))
    try:
        async with asyncio.timeout(5):
            said = await reader.read()
        assert b"HTTP/1.1 4" in said[:20] or not said
    except ConnectionResetError:
        pass  # refused while we were still talking
    finally:
        writer.transport.abort()
    async with asyncio.timeout(1), talking(router) as other:
        await other.publish()


@pytest.mark.parametrize("value", ["Upgrade", "upgrade", "keep-alive, Upgrade", "keep-alive,upgrade"])
async def test_browsers_name_the_upgrade_among_other_things(router: EventRouter, value: str):
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    good = HANDSHAKE.format(port=router.port)
    writer.write(good.replace("Connection: Upgrade", f"Connection: {value}").encode())
    async with asyncio.timeout(5):
        assert (await reader.readline()).split()[1] == b"101"
    writer.transport.abort()


async def test_who_takes_too_long_to_shake_hands_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "_HANDSHAKE", 0.2)
    router = await serve()
    for begin in (b"", b"GET / HT", HANDSHAKE.format(port=router.port).encode()[:-1]):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(begin)
        async with asyncio.timeout(3):
            assert await reader.read() == b""
        writer.transport.abort()


async def test_a_handshake_cannot_smuggle_lines_into_the_answer_or_the_log(
    router: EventRouter, caplog: pytest.LogCaptureFixture
):
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    good = HANDSHAKE.format(port=router.port)
    writer.write(good.replace("\r\n\r\n", "\r\nOrigin: http://a\x0b\x85evil\r\n\r\n").encode())
    async with asyncio.timeout(5):
        said = await reader.read()
    assert said.split()[1] in {b"403", b"400"}
    writer.transport.abort()
    for record in caplog.records:
        assert record.name != "wowevent" or record.getMessage().isprintable()
