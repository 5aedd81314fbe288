"""Wake-ups between processes: one small datagram on the loopback, to those whom a commit concerns.

    0      epoch, 8 bytes of hexadecimal text: which log
    8      one unsigned 32-bit number a subscription that something is ready for, big-endian;
           0 stands for "the log grew", 0xFFFFFFFF for "look everywhere"

Anybody on the machine may send one: it only makes an instance look. A lost one is made up for by a look each second.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable

GREW: Final = 0
EVERYWHERE: Final = 0xFFFFFFFF
_MOST: Final = 300
_EPOCH_BYTES: Final = 8
_AT_ONCE: Final = 256


def pack(epoch: str, nums: Collection[int]) -> bytes:
    """The datagram for these subscriptions."""
    wanted = nums if len(nums) <= _MOST else (GREW, EVERYWHERE)
    return epoch.encode() + struct.pack(f"!{len(wanted)}I", *wanted)


def unpack(datagram: bytes) -> tuple[str, tuple[int, ...]]:
    """The log and the subscriptions of a datagram; what is none of ours says nothing."""
    count, rest = divmod(len(datagram) - _EPOCH_BYTES, 4)
    if count < 0 or rest or not datagram[:_EPOCH_BYTES].isascii():
        return "", ()
    return datagram[:_EPOCH_BYTES].decode(), struct.unpack_from(f"!{count}I", datagram, _EPOCH_BYTES)


class Bell:
    """One socket, to hear and to ring; without a loopback it stays silent, and the look once a second must do."""

    def __init__(self, loop: asyncio.AbstractEventLoop, heard: Callable[[str, set[int]], None]) -> None:
        """`heard(epoch, numbers)` is called on the loop."""
        self._loop = loop
        self._heard = heard
        self._socket: socket.socket | None = None
        self.port: int = 0
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
            loop.add_reader(sock, self._read)
        except (OSError, NotImplementedError):  # no socket, or a loop that watches none: the look each second is left
            sock.close()
            return
        self._socket = sock
        self.port = sock.getsockname()[1]

    def ring(self, ports: Iterable[int], datagram: bytes) -> None:
        """Send it to these; from any thread. Whoever is gone or cannot take it does not matter."""
        sock = self._socket
        if sock is None:
            return
        for port in ports:
            with contextlib.suppress(OSError):
                sock.sendto(datagram, ("127.0.0.1", port))

    def _read(self) -> None:
        heard: dict[str, set[int]] = {}
        for _ in range(_AT_ONCE):
            try:
                datagram = self._socket.recv(65_535) if self._socket is not None else b""
            except BlockingIOError:
                break
            except OSError:  # an earlier datagram of ours found nobody
                continue
            epoch, nums = unpack(datagram)
            heard.setdefault(epoch, set()).update(nums)
        for epoch, found in heard.items():
            self._heard(epoch, found)

    def close(self) -> None:
        """Leave the socket; the writer must not ring any more."""
        sock, self._socket = self._socket, None
        if sock is not None:
            self._loop.remove_reader(sock)
            sock.close()
