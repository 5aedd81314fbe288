"""Events as a tool shows them: complete but for what is empty, and bounded, since whoever reads has little room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from wowevent.broker import Stored
from wowevent.codec import to_fields
from wowevent.event import Event

ROOM: Final = 64 * 1024
"""Bytes of events in one answer, about."""
PAYLOAD: Final = 4 * 1024
"""Bytes of the largest payload that is shown, unless more is asked for."""
MOST_PAYLOAD: Final = 32 * 1024

_EMPTY: Final[tuple[Any, ...]] = (None, "", {}, [])
_ALWAYS: Final = frozenset({"event_id", "topic", "payload", "source_agent"})


def shown_event(event: Event, most: int = PAYLOAD) -> dict[str, Any]:
    """An event; a payload of more than `most` bytes is left out, and how many it has is said."""
    size = len(memoryview(event.body))
    fields = {name: value for name, value in to_fields(event).items() if name in _ALWAYS or value not in _EMPTY}
    if size > most:
        fields |= {"payload": None, "payload_left_out": f"{size} bytes"}
    return fields


def shown_stored(stored: Stored, most: int = PAYLOAD) -> dict[str, Any]:
    """An event of the log, with its place in it."""
    return {
        "position": str(stored.position),
        "stored_at": stored.stored_at,
        "event": shown_event(stored.event, most),
    }


def fitting(items: Iterable[dict[str, Any]], room: int = ROOM) -> list[dict[str, Any]]:
    """As many of them as there is room for, from the first on; one at least."""
    found: list[dict[str, Any]] = []
    for item in items:
        room -= len(msgspec.json.encode(item))
        if room < 0 and found:
            break
        found.append(item)
    return found
