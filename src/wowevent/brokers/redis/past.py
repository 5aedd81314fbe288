"""What a new subscription wants of the past, taken in by pieces: a script that did it at once would stop the server."""

from __future__ import annotations

from typing import Any, Final

from wowevent.broker import URGENT, Stored, Subscription
from wowevent.brokers.redis.reader import parse
from wowevent.brokers.redis.session import Session
from wowevent.routing import matches

_PIECE: Final = 500  # events that one step looks at

Behind = list[bytes]
"""What of the past it has not come to: the first position, the last, and since when, in milliseconds, if it says so."""


async def take_in(session: Session, num: str, subscription: Subscription, behind: Behind) -> None:
    """A piece of it; the fetch that comes next has it."""
    first, upto = int(behind[0]), int(behind[1])
    last = min(first + _PIECE - 1, upto)
    parts: list[Any] = []
    for stored in await _wanted(session, subscription, first, last, behind[2]):
        urgent = stored.event.priority >= URGENT and not subscription.exclusive
        parts += (stored.position.offset, int(stored.stored_at * 1000), "u" if urgent else "n")
    await session.call("fill", num, first, "" if last == upto else last + 1, *parts)


async def count(session: Session, subscription: Subscription, behind: Behind) -> int:
    """How many events of its past it has to come to."""
    found, first, upto = 0, int(behind[0]), int(behind[1])
    while first <= upto:
        last = min(first + _PIECE - 1, upto)
        found += len(await _wanted(session, subscription, first, last, behind[2]))
        first = last + 1
    return found


async def _wanted(session: Session, subscription: Subscription, first: int, last: int, since: bytes) -> list[Stored]:
    entries = await session.line.call("XRANGE", f"{session.key}:log", first, last)
    found = [parse(entry, session.epoch)[1] for entry in entries]
    return [
        each
        for each in found
        if isinstance(each, Stored)
        and (not since or each.event.timestamp.timestamp() * 1000 >= float(since))
        and matches(subscription, each.event)
    ]
