"""Standard input as lines, as they come, without holding up the event loop or the end of the process."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from wowevent.errors import PayloadTooLarge

_CHUNK: Final = 64 * 1024
_AHEAD: Final = 4  # chunks that are read before they are wanted


def is_piped(fd: int) -> bool:
    """Whether something is sent there: a pipe, a socket or a file, and not a terminal or /dev/null."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def size(fd: int) -> int | None:
    """How many bytes there are; None where only the end will tell."""
    status = os.fstat(fd)
    return status.st_size if stat.S_ISREG(status.st_mode) else None


async def lines(fd: int, *, longest: int) -> AsyncIterator[list[bytes]]:
    """The complete lines of each read, without their ends; PayloadTooLarge for one of more than `longest` bytes."""
    rest = b""
    async for chunk in _chunks(fd):
        *complete, rest = (rest + chunk).split(b"\n")
        if len(rest) > longest or any(len(line) > longest for line in complete):
            raise PayloadTooLarge(f"a line of more than {longest} bytes")
        if complete:
            yield complete
    if rest:
        yield [rest]


async def _chunks(fd: int) -> AsyncIterator[bytes]:
    """What is read, by a thread of its own: a file cannot be polled, and a read that waits cannot be cancelled.

    `os.read`, since a thread that waits in a buffered file would hold a lock that the interpreter wants at its end.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)

    def read() -> None:
        chunk: bytes | OSError = b"-"
        with suppress(RuntimeError):  # the loop has ended, nobody wants more
            while chunk and not isinstance(chunk, OSError):
                room.acquire()
                try:
                    chunk = os.read(fd, _CHUNK)
                except OSError as error:
                    chunk = error
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

    threading.Thread(target=read, name="wowevent:stdin", daemon=True).start()
    while chunk := await chunks.get():
        if isinstance(chunk, OSError):
            raise chunk
        yield chunk
        room.release()
