"""What engines share that look through their log by themselves: what was asked for, and an iteration that goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from wowevent.broker import CONTROL, DeadLetter, DeadQuery, Query, Reason, Stored
from wowevent.errors import BusError
from wowevent.event import Event
from wowevent.topic import matches_any

_REASONS: Final = frozenset(Reason)

Turn = Callable[[], Awaitable[Sequence[Stored | BusError] | None]]
"""Gives what comes next; when it has nothing it waits, or None says that there will be no more."""


def wanted(query: Query, event: Event) -> bool:
    """Whether a read asked for this event."""
    return (
        (query.start_time is None or event.timestamp >= query.start_time)
        and (query.end_time is None or event.timestamp <= query.end_time)
        and query.correlation_id in (None, event.correlation_id)
        and (query.conversation is None or query.conversation in (event.correlation_id, event.event_id))
        and (query.event_ids is None or event.event_id in query.event_ids)
        and matches_any(query.patterns, event.topic)
    )


def named(query: Query) -> bytes | None:
    """What the bytes of every event that is wanted contain, as our codec writes them; None where nothing is certain.

    To look for it costs a tenth of reading the event. Other codecs escape a slash.
    """
    id = query.conversation if query.correlation_id is None else query.correlation_id
    return None if id is None or "/" in id else id.encode(errors="backslashreplace")


def narrowed(query: Query, found: list[Stored]) -> list[Stored]:
    """Those of many among which the wanted ones are, by a first look that costs a fifth of `wanted`."""
    if (id := query.conversation) is not None:
        found = [each for each in found if id in (each.event.correlation_id, each.event.event_id)]
    if (id := query.correlation_id) is not None:
        found = [each for each in found if each.event.correlation_id == id]
    return found


async def reached(at: Callable[[int], Awaitable[float | None]], first: int, last: int, moment: float) -> int:
    """The place, from `first` to `last`, at which a log comes to a moment; behind `last` if it does not.

    `at` says when the event of a place was stored; None where nothing says so, and then the search may end too early,
    never too late.
    """
    while first <= last:
        middle = (first + last) // 2
        when = await at(middle)
        if when is None or when >= moment:
            last = middle - 1
        else:
            first = middle + 1
    return first


def of_facts(query: Query) -> bool:
    """Whether a read of this, if it does not follow, is one of facts (obligation 11)."""
    return bool(query.patterns) and all(pattern.startswith(CONTROL) for pattern in query.patterns)


def asked_for(query: DeadQuery, letter: DeadLetter) -> bool:
    """Whether this dead letter was asked for."""
    return (
        (query.ids is None or letter.id in query.ids)
        and query.subscription in (None, letter.subscription)
        and query.reason in (None, letter.reason)
        and query.event_id in (None, letter.event.event_id)
        and query.correlation_id in (None, letter.event.correlation_id)
    )


def reason_of(text: str) -> Reason:
    """The reason of a dead letter, as it was written; one that a newer version may know is UNKNOWN."""
    return Reason(text) if text in _REASONS else Reason.UNKNOWN


def once(ask: Callable[[], Awaitable[Sequence[Stored | BusError]]]) -> Turn:
    """A turn that has what `ask` gives, and behind it no more."""
    asked = False

    async def turn() -> Sequence[Stored | BusError] | None:
        nonlocal asked
        if asked:
            return None
        found = await ask()
        asked = True
        return found

    return turn


class Reading:
    """An iteration over the log. After it raised PositionLost or StorageDamaged it goes on behind the gap."""

    def __init__(
        self,
        turn: Turn,
        limit: int | None,
        end: Callable[[], object] = lambda: None,
    ) -> None:
        """`end` is called when nothing is read any more, perhaps more than once."""
        self._turn = turn
        self._left = limit
        self._end = end
        self._items: deque[Stored | BusError] = deque()
        self._at_end = False

    def __aiter__(self) -> Reading:
        return self

    async def __anext__(self) -> Stored:
        if self._left == 0:
            await self.aclose()
            raise StopAsyncIteration
        while not self._items:
            if self._at_end:
                raise StopAsyncIteration
            found = await self._turn()
            if found is None:
                await self.aclose()
                continue
            self._items.extend(found)
        item = self._items.popleft()
        if isinstance(item, BusError):
            raise item
        if self._left is not None:
            self._left -= 1
        return item

    async def aclose(self) -> None:
        """Read no more."""
        self._at_end = True
        self._items.clear()
        self._end()
