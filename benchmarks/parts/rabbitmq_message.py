"""What the peers on RabbitMQ send: the payload, made as long as what our bus sends for it. Imports nothing of ours."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks.body import id_of, payload

QUEUE = "events"
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
_encode = msgspec.json.Encoder().encode


class Messages:
    """The bodies of one side: `size` bytes each, by their number a few more, as ours are."""

    def __init__(self, size: int) -> None:
        self._fill = ""
        self._fill = "x" * (size - len(self.encoded(0)))

    def plain(self, number: int) -> dict[str, Any]:
        """One that is not encoded yet."""
        return {"id": id_of(number), "body": payload(number), "fill": self._fill}

    def encoded(self, number: int) -> bytes:
        """One as JSON."""
        return _encode(self.plain(number))
