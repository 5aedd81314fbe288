"""Dead letters that died of the same: one group for an error, whatever the numbers and names in its text; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct

from wowevent.broker import DeadLetter, Reason
from wowevent.errors import printable
from wowevent.mcp.shown import shown_event

_LONGEST: Final = 500  # characters of an error,
_TRACEBACK: Final = 2000  # and of the end of a traceback, where the reason stands
_PATTERNS: Final = (  # what differs from one event to the next; the longest first
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "ID"),
    (re.compile(r"0x[0-9a-fA-F]+|\b(?=[a-fA-F]*\d)[0-9a-fA-F]{12,}\b"), "ID"),
    (re.compile(r"'[^']{0,200}'|\"[^\"]{0,200}\""), "TEXT"),
    (re.compile(r"\d+(?:\.\d+)?"), "N"),
)

_MEANING: Final[Mapping[Reason, str]] = MappingProxyType({
    Reason.HANDLER_ERROR: "The handler raised on every attempt. Correct the handler, or what it depends on, then "
    "redeliver; before that it dies again.",
    Reason.TIMEOUT: "The handler took longer than its timeout on every attempt. Look at what it waits for, or give it "
    "more time, then redeliver.",
    Reason.VALIDATION_ERROR: "The payload does not fit its schema or payload model. Redelivering helps once the schema "
    "or the model was corrected; else the publisher has to publish a right one.",
    Reason.SUBSCRIBER_UNAVAILABLE: "Nobody was there to handle it. See that it is served, then redeliver.",
    Reason.DESERIALIZATION_ERROR: "The event could not be read. The publisher has to publish it again, rightly.",
    Reason.UNKNOWN: "No reason was given. The error and the traceback are all there is.",
    Reason.REJECTED: "The handler itself said that it will never succeed. Redeliver only if that is true no more.",
    Reason.CRASHED: "The process that handled it died, each time. Find out why (memory, a native library) before "
    "redelivering: it will kill the process again.",
    Reason.LOOP_DETECTED: "The conversation went too far: agents answer each other without end, or too many at once. "
    "Stop what loops first; redelivering starts it again.",
})  # fmt: skip
"""What a reason means, and what helps."""


class Group(Struct, frozen=True, kw_only=True):
    """Dead letters of one subscription with the same reason and, but for numbers and names, the same error."""

    fingerprint: str
    subscription: str
    reason: Reason
    meaning: str
    """What that means, and what to do."""
    count: int
    first: float
    """When the first was buried, Unix seconds,"""
    last: float
    """and the last."""
    topics: dict[str, int]
    """How many of each."""
    error: str
    """Of the last one."""
    traceback: str
    """Its end."""
    example: dict[str, Any]
    """The last one: its id as a dead letter, its attempts, its event."""


def fingerprint(letter: DeadLetter) -> str:
    """What it died of, in twelve letters: the same for all that died of that."""
    error = letter.error
    for pattern, word in _PATTERNS:
        error = pattern.sub(word, error)
    said = "\0".join((letter.subscription, letter.reason, error[:_LONGEST]))
    return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def grouped(letters: Iterable[DeadLetter]) -> list[Group]:
    """The groups, the largest first."""
    parts: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        parts.setdefault(fingerprint(letter), []).append(letter)
    return sorted((_group(mark, part) for mark, part in parts.items()), key=lambda group: -group.count)


def _group(mark: str, letters: Sequence[DeadLetter]) -> Group:
    last = max(letters, key=lambda letter: letter.time)
    topics: dict[str, int] = {}
    for letter in letters:
        topics[letter.event.topic] = topics.get(letter.event.topic, 0) + 1
    return Group(
        fingerprint=mark,
        subscription=last.subscription,
        reason=last.reason,
        meaning=_MEANING[last.reason],
        count=len(letters),
        first=min(letter.time for letter in letters),
        last=last.time,
        topics=dict(sorted(topics.items(), key=lambda item: -item[1])[:10]),
        error=printable(last.error)[:_LONGEST],
        traceback=printable(last.traceback)[-_TRACEBACK:],
        example={"id": last.id, "attempts": len(last.attempts), "event": shown_event(last.event)},
    )
