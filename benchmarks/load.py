"""The events that every side carries: of one size, each with an id of its own."""

from __future__ import annotations

from typing import Any

from wowevent import Event

TOPIC = "task.created"
PATTERN = "task.*"


def payload(number: int) -> dict[str, Any]:
    """About 110 bytes of JSON."""
    return {
        "task_id": f"task-{number}",
        "number": number,
        "title": "summarise the quarterly report",
        "tags": ["a", "b"],
    }


def event(number: int, **fields: Any) -> Event:
    """One event."""
    return Event(topic=TOPIC, source_agent="bench", payload=payload(number), **fields)
