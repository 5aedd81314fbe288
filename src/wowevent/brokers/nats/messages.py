"""What goes over a line: messages, what the server says of them, and how headers are read; pure."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

_HEAD: Final = b"NATS/1.0"
NOBODY: Final = 503
"""The status of what nobody listens to."""
EXPIRED: Final = 408
"""That of what was asked for and did not come in its time."""


class Message(Struct, frozen=True, gc=False):
    """What is to be published: `headers` are whole lines, each with its end."""

    subject: str
    body: bytes
    headers: bytes = b""


class Confirm(Struct, frozen=True, gc=False):
    """What the server says of a message that it has stored."""

    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


class Found(Struct, frozen=True, gc=False):
    """A message that was asked for."""

    subject: str
    seq: int
    body: bytes
    headers: bytes


def status_of(headers: bytes) -> int:
    """What the server says instead of a message, or 0."""
    if headers[:8] == _HEAD and headers[8:9] == b" ":
        return int(headers[9:12])
    return 0


def header_of(headers: bytes, name: bytes) -> str:
    """A header's value, or nothing."""
    start = headers.find(b"\r\n" + name + b":")
    if start < 0:
        return ""
    start += len(name) + 3
    return headers[start : headers.index(b"\r\n", start)].strip().decode("utf-8", "replace")
