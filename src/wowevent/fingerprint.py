"""Dead letters that died of the same: one group for an error, whatever the numbers and names in its text. Pure.

    reason · error without its numbers, ids and quoted words · file and function where it was raised  ->  16 hex digits

The same error of two subscriptions is one group: what mends it mends both.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from heapq import heappush, heappushpop
from typing import Final

from msgspec import Struct, field

from wowevent.broker import DeadLetter, Reason
from wowevent.errors import InvalidEvent, printable, shown

PATTERN: Final = "^[0-9a-f]{16}$"
"""What a fingerprint looks like."""
IDS: Final = 100
"""Letters that a group names."""
NAMES: Final = 100
"""Topics, and subscriptions, that a group counts apart."""
MOST: Final = 1_000
"""Groups that are told apart; what would be one more is left out, and that is said."""

_ERROR: Final = 500  # characters of an error that tell it from others
_SHOWN: Final = 2_000  # characters of an error that a group keeps,
_TRACEBACK: Final = 8_000  # and of the end of a traceback, where the cause stands
_VARYING: Final = (  # what differs from one event to the next; the longest first
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "ID"),
    (re.compile(r"0x[0-9a-fA-F]+|\b(?=[a-fA-F]*\d)[0-9a-fA-F]{12,}\b"), "ID"),
    (re.compile(r"'[^']{0,200}'|\"[^\"]{0,200}\""), "TEXT"),
    (re.compile(r"\d+(?:\.\d+)?"), "N"),
)
_FRAME: Final = re.compile(r'^[ |+-]*File "([^"\n]*)", line \d+, in (.+)$', re.MULTILINE)
_SLASH: Final = re.compile(r"[/\\]")
_MARK: Final = re.compile(PATTERN)


def fingerprint(letter: DeadLetter) -> str:
    """What it died of, in sixteen hexadecimal digits: the same for all that died of that."""
    error = letter.error[: 4 * _ERROR]
    for pattern, word in _VARYING:
        error = pattern.sub(word, error)
    said = "\0".join((letter.reason, error[:_ERROR], _place(letter.traceback)))
    return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def check_fingerprint(text: str) -> str:
    """The text itself; InvalidEvent for what can be none."""
    if _MARK.fullmatch(text) is None:
        raise InvalidEvent(f"fingerprint: {shown(text)} is none: 16 hexadecimal digits")
    return text


@lru_cache(maxsize=64)  # what died of the same has the same traceback, more often than not
def _place(traceback: str) -> str:
    """Where it was raised: not the line, which the next edit moves, nor the folder, which is another machine's."""
    frames = _FRAME.findall(traceback[-_TRACEBACK:])
    if not frames:
        return ""
    file, function = frames[-1]
    return f"{_SLASH.split(file)[-1]}:{function}"


class LetterGroup(Struct, frozen=True, kw_only=True):
    """Dead letters with the same fingerprint."""

    fingerprint: str
    count: int
    reason: Reason
    error: str
    """Of the newest."""
    traceback: str
    """Of the newest; its end, where it is long."""
    subscriptions: dict[str, int]
    """How many of each, the most first."""
    topics: dict[str, int]
    first: float
    """When the oldest was buried, Unix seconds,"""
    last: float
    """and the newest."""
    least: int
    """The attempts at the one with the fewest,"""
    most: int
    """and at the one with the most."""
    newest: str
    """The id of the newest letter,"""
    ids: tuple[str, ...]
    """and those of the newest hundred, that one first."""


class LetterGroups(Struct, frozen=True):
    """Groups, the largest first."""

    groups: tuple[LetterGroup, ...]
    more: bool
    """There are others that were left out."""


class _Part(Struct, gc=False):
    """A group that is being made. Of its newest letter the event is not kept, which may be large."""

    reason: Reason
    error: str = ""
    traceback: str = ""
    newest: str = ""
    count: int = 0
    first: float = float("inf")
    last: float = float("-inf")
    least: int = 2**31
    most: int = 0
    subscriptions: Counter[str] = field(default_factory=Counter)
    topics: Counter[str] = field(default_factory=Counter)
    ids: list[tuple[float, int, str]] = field(default_factory=list)
    """A heap of the newest, by their time and by when they came here."""

    def add(self, letter: DeadLetter) -> None:
        self.count += 1
        attempts = len(letter.attempts)
        self.least, self.most = min(self.least, attempts), max(self.most, attempts)
        self.first = min(self.first, letter.time)
        if letter.time >= self.last:
            self.last, self.newest = letter.time, letter.id
            self.error = printable(letter.error)[:_SHOWN]
            self.traceback = printable(letter.traceback)[-_TRACEBACK:]
        put = heappush if len(self.ids) < IDS else heappushpop
        put(self.ids, (letter.time, self.count, letter.id))
        for counts, name in ((self.subscriptions, letter.subscription), (self.topics, letter.event.topic)):
            if name in counts or len(counts) < NAMES:
                counts[name] += 1


class Grouping:
    """Groups that are being made of letters in whatever order; what is kept does not grow with their number."""

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}
        self._cut = False

    def add(self, letter: DeadLetter) -> None:
        """Take one in."""
        mark = fingerprint(letter)
        part = self._parts.get(mark)
        if part is None:
            if len(self._parts) >= MOST:
                self._cut = True
                return
            part = self._parts[mark] = _Part(letter.reason)
        part.add(letter)

    def groups(self, limit: int) -> LetterGroups:
        """At most so many of them, the largest first; of those that are as large, what died last."""
        marks = sorted(self._parts, key=lambda mark: (-self._parts[mark].count, -self._parts[mark].last, mark))
        found = tuple(_group(mark, self._parts[mark]) for mark in marks[:limit])
        return LetterGroups(found, more=self._cut or len(marks) > limit)


def _group(mark: str, part: _Part) -> LetterGroup:
    return LetterGroup(
        fingerprint=mark,
        count=part.count,
        reason=part.reason,
        error=part.error,
        traceback=part.traceback,
        subscriptions=dict(part.subscriptions.most_common()),
        topics=dict(part.topics.most_common()),
        first=part.first,
        last=part.last,
        least=part.least,
        most=part.most,
        newest=part.newest,
        ids=tuple(id for *_, id in sorted(part.ids, reverse=True)),
    )
