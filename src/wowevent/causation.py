"""What belongs together, asked for: from an id to the events in the log and the dead letters.

An engine with an index looks the ids up. One that has to look through its log is told where to begin: an id that is a
UUID of version 7 says when it was made, and no event of a conversation is older than the ids that name it.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from msgspec import structs

from wowevent.broker import Broker, DeadLetter, DeadQuery, Position, Query, Stored
from wowevent.conversation import Found, unknown
from wowevent.errors import FormatTooNew, PositionLost, StorageDamaged
from wowevent.event import check_name
from wowevent.id import made_at

MOST: Final = 10_000
"""Events of one conversation, unless it is asked for more."""

_APART: Final = 30.0  # seconds that clocks may differ: beyond that `wowevent doctor` calls them wrong
_TRIES: Final = 5  # readings of a log whose beginning goes meanwhile
_IN_A_ROW: Final = 1_000  # events that cannot be read: it is the log that cannot be


async def find(broker: Broker, id: str, limit: int, now: float) -> Found:
    """The conversation of an event or of a correlation id: its first events, at most so many, and their dead letters.

    `now` is the time by the bus's clock. Raises ConversationNotFound, InvalidEvent for what is no id, BrokerError.
    """
    check_name(id)
    stored, unreadable = list[Stored](), 0
    if (first := await _first(broker, id, now)) is None:
        id = await _named_by_letters(broker, id)
    elif first.event.correlation_id == id:
        stored, unreadable = await _begun(broker, first, limit + 1)
    else:
        id = first.event.correlation_id
        query = Query(correlation_id=id, since=_begin(first, now), limit=limit + 1)
        stored, unreadable = await _stored(broker, query)
    letters = await broker.dead(DeadQuery(correlation_id=id, limit=limit + 1))
    more = len(stored) > limit or len(letters) > limit
    stored, letters = stored[:limit], letters[:limit]
    if more:  # whose event is not among these may still be in the log
        known = {each.event.event_id for each in stored}
        letters = [letter for letter in letters if letter.event.event_id in known]
    return Found(id=id, stored=stored, letters=letters, unreadable=unreadable, more=more)


async def find_event(broker: Broker, id: str, now: float) -> Stored | None:
    """The event of that id, if the log has it; `now` is the time by the bus's clock. Raises InvalidEvent, BrokerError.

    All of the log is looked through before it is said to have none, where there is no index.
    """
    check_name(id)
    query, made = Query(conversation=id, event_ids=(id,), limit=1), made_at(id)
    if made is not None and made <= now + _APART:
        found, _ = await _stored(broker, structs.replace(query, since=made - _APART))
        if found:
            return found[0]
    found, _ = await _stored(broker, query)
    return found[0] if found else None


async def _first(broker: Broker, id: str, now: float) -> Stored | None:
    """The first event of that id or correlation id. All of the log is looked through before it is said to have none."""
    made = made_at(id)
    if made is not None and made <= now + _APART:
        found, _ = await _stored(broker, Query(conversation=id, since=made - _APART, limit=1))
        if found:
            return found[0]
    found, _ = await _stored(broker, Query(conversation=id, limit=1))
    return found[0] if found else None


async def _begun(broker: Broker, first: Stored, limit: int) -> tuple[list[Stored], int]:
    """A conversation of which this is the first event: what lies before was looked at."""
    query = Query(correlation_id=first.event.correlation_id, limit=limit)
    try:
        found, unreadable = await _read(broker, structs.replace(query, limit=limit - 1), first.position)
    except PositionLost:  # it is gone meanwhile
        return await _stored(broker, query)
    return [first, *found], unreadable


def _begin(first: Stored, now: float) -> float | None:
    """Where to begin in a log that is looked through; None is its beginning."""
    made = made_at(first.event.correlation_id)
    if made is None or made > now + _APART:
        return None
    # If the clock of who made the ids is ahead of the engine's, this event has seemed to come before it was made.
    ahead = (made_at(first.event.event_id) or 0.0) - first.stored_at
    return made - _APART - max(0.0, ahead)


async def _stored(broker: Broker, query: Query) -> tuple[list[Stored], int]:
    """The events that are asked for, and how many cannot be read."""
    for _ in range(_TRIES):
        try:
            return await _read(broker, query)
        except PositionLost:  # retention takes what lies at the beginning: what is left begins behind it
            continue
    return await _read(broker, query)


async def _read(broker: Broker, query: Query, after: Position | None = None) -> tuple[list[Stored], int]:
    found: list[Stored] = []
    unreadable = in_a_row = 0
    async with aclosing(broker.read(query, after=after)) as log:
        while True:
            try:
                found.append(await anext(log))
                in_a_row = 0
            except StopAsyncIteration:
                return found, unreadable
            except (StorageDamaged, FormatTooNew):
                unreadable, in_a_row = unreadable + 1, in_a_row + 1
                if in_a_row == _IN_A_ROW:
                    raise


async def _named_by_letters(broker: Broker, id: str) -> str:
    """The conversation of an id that the log has no more, if a dead letter has it."""
    letters: list[DeadLetter] = [
        *await broker.dead(DeadQuery(event_id=id, limit=1)),
        *await broker.dead(DeadQuery(correlation_id=id, limit=1)),
    ]
    if not letters:
        raise unknown(id)
    return letters[0].event.correlation_id
