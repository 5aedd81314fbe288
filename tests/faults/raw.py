"""WebSocket spoken by hand over a plain socket: a client that reads when it is told to, and not before.

Nothing here answers, pings or hangs up by itself, and how much the kernel keeps is set, not guessed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import struct
from collections import deque
from typing import Any, Self

import msgspec

TEXT, CLOSE = 1, 8
PATIENCE = 10.0
_RESET = struct.pack("ii", 1, 0)


class Frames:
    """Cuts what a server sends into frames; `(opcode, payload, the frame's bytes)`."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes, bytes]]:
        """The frames that are whole by now."""
        self._rest += data
        found: list[tuple[int, bytes, bytes]] = []
        at = 0
        while (size := _frame(self._rest, at)) is not None:
            head, body = size
            end = at + head + body
            if end > len(self._rest):
                break
            found.append((self._rest[at] & 15, self._rest[at + head : end], self._rest[at:end]))
            at = end
        self._rest = self._rest[at:]
        return found


def _frame(data: bytes, at: int) -> tuple[int, int] | None:
    """How many bytes head and body of the frame there have; None if that cannot be said yet."""
    if len(data) < at + 2:
        return None
    size = data[at + 1] & 127
    more = {126: 2, 127: 8}.get(size, 0)
    if len(data) < at + 2 + more:
        return None
    return 2 + more, int.from_bytes(data[at + 2 : at + 2 + more]) if more else size


def frame(text: bytes) -> bytes:
    """A client's text message, masked with zeros: the mask guards proxies, and there is none."""
    size = len(text)
    if size < 126:
        return b"\x81%c\0\0\0\0%b" % (0x80 | size, text)
    if size < 65_536:
        return b"\x81\xfe%b\0\0\0\0%b" % (size.to_bytes(2), text)
    return b"\x81\xff%b\0\0\0\0%b" % (size.to_bytes(8), text)


class Raw:
    """One such client."""

    def __init__(self, sock: socket.socket) -> None:
        self.close_code: int = 0
        """Why the server hung up, as far as it was read; 0 if it did not say."""
        self.close_reason: str = ""
        self.bytes: int = 0
        """How many were read."""
        self._socket = sock
        self._frames = Frames()
        self._messages: deque[bytes] = deque()

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int = 0) -> Self:
        """A connection past its handshake. `receive_buffer` bytes are what the kernel keeps for us, about."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            await loop.sock_connect(sock, ("127.0.0.1", port))
            key = base64.b64encode(os.urandom(16)).decode()
            head = (
                f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await loop.sock_sendall(sock, head.encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += await loop.sock_recv(sock, 4096)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        client = cls(sock)
        client._take(answer.partition(b"\r\n\r\n")[2])
        return client

    async def send(self, **fields: Any) -> None:
        """Send a frame."""
        await asyncio.get_running_loop().sock_sendall(self._socket, frame(msgspec.json.encode(fields)))

    async def send_part(self, size: int, **fields: Any) -> None:
        """Send the first `size` bytes of a frame."""
        data = frame(msgspec.json.encode(fields))
        await asyncio.get_running_loop().sock_sendall(self._socket, data[:size])

    async def receive(self, timeout: float = PATIENCE) -> dict[str, Any] | None:
        """The next message; None once the connection is over. TimeoutError if there is neither."""
        async with asyncio.timeout(timeout):
            while not self._messages:
                try:
                    data = await asyncio.get_running_loop().sock_recv(self._socket, 2**18)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._take(data)
        return dict(msgspec.json.decode(self._messages.popleft()))

    async def until(self, kind: str) -> dict[str, Any]:
        """The next message of a type; what comes before it is dropped."""
        while (message := await self.receive()) is not None:
            if message["type"] == kind:
                return message
        raise AssertionError(f"the connection ended before {kind!r}: {self.close_code} {self.close_reason}")

    def _take(self, data: bytes) -> None:
        self.bytes += len(data)
        for kind, payload, _ in self._frames.feed(data):
            if kind == TEXT:
                self._messages.append(payload)
            elif kind == CLOSE:
                self.close_code = int.from_bytes(payload[:2])
                self.close_reason = payload[2:].decode()

    def close(self, *, reset: bool = False) -> None:
        """Let go of the socket without a goodbye; with `reset` so that the other side hears of it as an error."""
        if reset:
            reset_on_close(self._socket)
        self._socket.close()

    async def goodbye(self) -> None:
        """Send a close frame, and let go."""
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self._socket, b"\x88\x82\0\0\0\0\x03\xe8")
        self._socket.close()


def reset_on_close(sock: Any) -> None:
    """Closing this socket sends RST, and drops what is on its way."""
    with contextlib.suppress(OSError, ValueError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
