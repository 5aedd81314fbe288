"""The events of our sides: all of one size, each with an id of its own."""

from __future__ import annotations

from typing import Any

from benchmarks.body import payload
from wowevent import Event

TOPIC = "task.created"
PATTERN = "task.*"


def event(number: int, **fields: Any) -> Event:
    """One event."""
    return Event(topic=TOPIC, source_agent="bench", payload=payload(number), **fields)
