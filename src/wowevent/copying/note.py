"""What the target knows of a copy that began: how far it came, and where to look for what was under way."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from wowevent.broker import CONTROL, Position
from wowevent.directory import Directory

KIND: Final = "copy"
TOPICS: Final = f"{CONTROL}{KIND}."


class Note(Struct, frozen=True, kw_only=True):
    """A fact of the target, by the epoch of the log that is copied."""

    began: Position
    """Where the target ended before the first event was copied."""
    settled: Position
    """Up to here of the target, all that is of the copy lies at or before `source`."""
    source: Position | None = None
    """Up to here of the source, everything is at the target."""
    whole: bool = False
    """Nothing was under way when this was written: behind `settled` there is nothing of the copy."""


def read(directory: Directory, source: str, target: str) -> Note | None:
    """The note of a copy between the logs of these epochs, as that directory of the target has it."""
    value = directory.facts(KIND).get(source)
    if value is None:
        return None
    try:
        note = Note(
            began=Position.parse(value["began"]),
            settled=Position.parse(value["settled"]),
            source=None if value["source"] is None else Position.parse(value["source"]),
            whole=value["whole"] is True,
        )
    except (KeyError, ValueError, AttributeError):  # what we did not write says nothing
        return None
    # A target that was emptied is told the facts of the one before by whoever still knows them: not its events.
    return note if note.settled.epoch == target else None


async def write(directory: Directory, source: str, note: Note) -> None:
    """Returns when the target has it; BrokerError."""
    value: dict[str, Any] = {
        "began": str(note.began),
        "settled": str(note.settled),
        "source": None if note.source is None else str(note.source),
        "whole": note.whole,
    }
    await directory.put(KIND, source, value)
