"""Where the peers on RabbitMQ send. Imports nothing of ours."""

from __future__ import annotations

from typing import Any

QUEUE = "events"
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
