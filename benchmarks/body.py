"""What every side's events carry. Imports nothing of ours: peers in an environment of their own take it, too."""

from __future__ import annotations

from typing import Any


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
