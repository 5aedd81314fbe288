"""What every side's events carry. Imports nothing of ours: peers in an environment of their own take it, too."""

from __future__ import annotations

from typing import Any

import msgspec


def payload(number: int) -> dict[str, Any]:
    """About 110 bytes of JSON."""
    return {
        "task_id": f"task-{number}",
        "number": number,
        "title": "summarise the quarterly report",
        "tags": ["a", "b"],
    }


def id_of(number: int) -> str:
    """An id as long as a UUID, for sides that make none themselves."""
    return f"event-{number:012d}-0000-0000-000000000000"


class Messages:
    """The bodies of a peer: `size` bytes each, by their number a few more, as what our bus sends for an event is."""

    def __init__(self, size: int) -> None:
        self._fill = ""
        self._fill = "x" * (size - len(self.encoded(0)))

    def plain(self, number: int) -> dict[str, Any]:
        """One that is not encoded yet."""
        return {"id": id_of(number), "body": payload(number), "fill": self._fill}

    def encoded(self, number: int) -> bytes:
        """One as JSON."""
        return _encode(self.plain(number))


_encode = msgspec.json.Encoder().encode
