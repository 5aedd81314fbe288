"""A bad line between clients and a server: slow, chopped, dead, cut, or deaf for one kind of frame or call.

client <── what the proxy does to it ──> proxy <──────> router, or an engine
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import Random
from typing import Self

from tests.faults.raw import TEXT, Frames, reset_on_close

_BUFFERED = 64  # reads that wait for their time
_HEARD = 0.1  # seconds in which a server has done what it was asked, and answered

Cut = Callable[[bytes], tuple[bytes, bool]]
"""What of this passes, and whether the line ends behind it."""


class Proxy:
    """Forwards TCP to one port of this machine; its attributes may be changed while it runs."""

    def __init__(self, port: int, *, plain: bool = False) -> None:
        """A `plain` one reads nothing of what passes; without it, what passes is WebSocket."""
        self.delay: float = 0.0
        """Seconds that each direction takes."""
        self.chopped: bool = False
        """Whether what passes is cut into pieces of 1 to 7 bytes, each a packet of its own."""
        self.lose: Callable[[bytes], bool] | None = None
        """A message of the router for which this is true is lost with all behind it, and the line is cut."""
        self.lost: int = 0
        """How many were."""
        self.swallow: bytes = b""
        """Plain only: what is sent with this in it arrives, once, and all answers are lost until the line is cut."""
        self.connections: int = 0
        """Since it was made."""
        self.port: int = 0
        self._target = port
        self._plain = plain
        self._open = asyncio.Event()
        self._open.set()
        self._random = Random(4)
        self._writers: set[asyncio.StreamWriter] = set()
        self._lines: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"ws://localhost:{self.port}"

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut all lines, listen no more."""
        assert self._server is not None
        self._server.close()
        self._open.set()
        self.reset()
        for line in list(self._lines):
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    def stop_passing(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._open.clear()

    def pass_on(self) -> None:
        """All passes again, what was held back too."""
        self._open.set()

    def strand(self) -> None:
        """The lines that are there are dead from now on, and nobody is told; new ones pass."""
        self._open.clear()
        self._open = asyncio.Event()
        self._open.set()

    def reset(self) -> None:
        """Cut every line by RST, to both sides."""
        for writer in list(self._writers):
            _cut(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        self.connections += 1
        writers = {writer}
        self._writers |= writers
        try:
            there, towards = await asyncio.open_connection("127.0.0.1", self._target)
            writers.add(towards)
            self._writers |= writers
            async with asyncio.TaskGroup() as group:
                asking, answering = self._cuts(writers)
                group.create_task(self._line(reader, towards, asking))
                group.create_task(self._line(there, writer, answering))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # the line is cut, by us or by one side: the other one hears of it below
        finally:
            self._writers -= writers
            self._lines.discard(task)
            for each in writers:
                _cut(each)

    def _cuts(self, writers: set[asyncio.StreamWriter]) -> tuple[Cut, Cut]:
        if self._plain:
            deaf = Deaf(self, writers)
            return deaf.asked, deaf.answered
        return Line().cut, Line(self).cut

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut_at: Cut) -> None:
        """One direction. What is read waits for its time, so that a slow line is not a narrow one."""
        loop, passes = asyncio.get_running_loop(), self._open
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_BUFFERED)

        async def read() -> None:
            while data := await reader.read(2**16):
                await queue.put((loop.time() + self.delay, data))
            await queue.put((loop.time() + self.delay, b""))

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read())
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await passes.wait()
                passing, cut = cut_at(data)
                await self._write(writer, passing)
                if cut or not data:
                    reading.cancel()
                    raise ConnectionResetError  # ends the other direction, too

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        at = 0
        while at < len(data):
            size = self._random.randint(1, 7) if self.chopped else len(data)
            writer.write(data[at : at + size])
            at += size
            await writer.drain()
            await asyncio.sleep(0)


class Line:
    """What passes of a direction: all of it, or whole frames up to the one that is to be lost."""

    def __init__(self, proxy: Proxy | None = None) -> None:
        self._proxy = proxy
        self._head = b""
        self._upgraded = False
        self._frames = Frames()

    def cut(self, data: bytes) -> tuple[bytes, bool]:
        """What of this passes, and whether the line ends behind it."""
        if self._proxy is None:
            return data, False
        passing = b""
        if not self._upgraded:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return b"", False
            passing, self._upgraded = head + end, True
        for kind, payload, whole in self._frames.feed(data):
            if kind == TEXT and self._proxy.lose is not None and self._proxy.lose(payload):
                self._proxy.lost += 1
                return passing, True
            passing += whole
        return passing, False


class Deaf:
    """A plain line, which hears no answer from the moment on that it carries what is to be swallowed."""

    def __init__(self, proxy: Proxy, writers: set[asyncio.StreamWriter]) -> None:
        self._proxy = proxy
        self._writers = writers
        self._deaf = False

    def asked(self, data: bytes) -> tuple[bytes, bool]:
        """Towards the server; it gets all, and a moment to do what it says."""
        if self._proxy.swallow and self._proxy.swallow in data:
            self._proxy.swallow = b""
            self._proxy.lost += 1
            self._deaf = True
            asyncio.get_running_loop().call_later(_HEARD, self._end)
        return data, False

    def answered(self, data: bytes) -> tuple[bytes, bool]:
        """Towards the client."""
        return (b"" if self._deaf else data), False

    def _end(self) -> None:
        for writer in list(self._writers):
            _cut(writer)


def _cut(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        reset_on_close(writer.get_extra_info("socket"))
        writer.transport.abort()
