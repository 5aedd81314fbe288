"""The log backwards, of engines that read forward: windows of it, each read forward and turned round.

    after ] ............. window 3 ............. | .... window 2 .... | window 1 [ upto
                                                   <── wider and wider, up to WIDEST

An engine looks through a window for what is wanted, and no further. So a page costs what its windows are wide. They are
LOOKED places together at most, and none is begun after PATIENCE: a page that has found less by then says where the next
one goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final

from msgspec import Struct, structs

from wowevent.broker import Broker, Position, Query, Stored
from wowevent.errors import InvalidEvent, PositionLost
from wowevent.event import Event
from wowevent.reading import of_facts

LOOKED: Final = 20_000
"""Places of the log that are looked at for one page, at most."""
WIDEST: Final = 8_000
"""Places of one window, at most."""
PATIENCE: Final = 2.0
"""Seconds after which no further window is begun for a page: some engines take that long for a few thousand places."""

_NARROWEST: Final = 250


class Stretch(Struct, frozen=True):
    """A part of the log: what lies behind `after`, from its beginning if that is None, up to and with `upto`."""

    after: Position | None
    upto: Position


class Page(Struct, frozen=True):
    """Some events, the newest first."""

    found: Sequence[Stored]
    before: Position | None
    """The next page lies before that; None where there is none."""


async def stretch(
    broker: Broker,
    query: Query,
    *,
    after: Position | None = None,
    before: Position | None = None,
    stored_from: float | None = None,
    stored_until: float | None = None,
) -> Stretch:
    """What lies between two places, these not included, and was stored between two moments, these included.

    Moments are Unix seconds by the engine's clock; without an end it is the log's as it is now. Raises PositionLost for
    the place of another log, InvalidEvent where `query` is for facts: they have an order of their own.
    """
    if of_facts(query):
        raise InvalidEvent("topics of the bus's own have no newest first, and no part of the log")
    head = (await broker.ping()).head
    for place in (after, before):
        if place is not None and place.epoch != head.epoch:
            raise PositionLost("that position is of another log")
    first = 0 if after is None else after.offset
    last = head.offset if before is None else min(head.offset, before.offset - 1)
    if stored_from is not None:
        first = max(first, await _reached(broker, head, stored_from, past=False))
    if stored_until is not None:
        last = min(last, await _reached(broker, head, stored_until, past=True))
    return _between(head.epoch, first, last)


def _between(epoch: str, first: int, last: int) -> Stretch:
    """What lies behind the one place, up to the other."""
    return Stretch(Position(epoch, first) if first else None, Position(epoch, last))


async def _reached(broker: Broker, head: Position, moment: float, *, past: bool) -> int:
    """The place before what was stored at a moment or later; `past`: later. An engine finds it by halving its log."""
    async with aclosing(broker.read(Query(since=moment, upto=head))) as log:
        async for stored in log:
            if stored.stored_at > moment or (stored.stored_at == moment and not past):
                return stored.position.offset - 1
    return head.offset


async def newest(
    broker: Broker, query: Query, part: Stretch, limit: int, sees: Callable[[Event], bool] | None = None
) -> Page:
    """The last of what is wanted of a part of the log, and may be seen; fewer than `limit` where its bound is reached.

    `part` is one of that query, by `stretch`. Raises PositionLost where the log is made anew meanwhile.
    """
    epoch, top, left = part.upto.epoch, part.upto.offset, LOOKED
    end = 0 if part.after is None else part.after.offset
    width, found = max(_NARROWEST, 2 * limit), list[Stored]()
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while top > end and left > 0 and len(found) <= limit:
        first = max(end, top - min(width, left))
        kept, begins = await _window(broker, query, _between(epoch, first, top), limit + 1, sees)
        found += reversed(kept)
        left -= top - first
        top = end if begins else first
        width = min(4 * width, WIDEST)
        if loop.time() >= until:
            break
    if len(found) > limit:
        return Page(found[:limit], found[limit - 1].position)
    return Page(found, Position(epoch, top + 1) if top > end else None)


async def _window(
    broker: Broker, query: Query, part: Stretch, most: int, sees: Callable[[Event], bool] | None
) -> tuple[Sequence[Stored], bool]:
    """The last of what is wanted of a part, in the log's order; True if the log begins there by now."""
    query = structs.replace(query, upto=part.upto)
    try:
        return await _last(broker, query, part.after, most, sees), False
    except PositionLost:  # what is left of it lies where the log begins
        return await _last(broker, query, None, most, sees), True


async def _last(
    broker: Broker, query: Query, after: Position | None, most: int, sees: Callable[[Event], bool] | None
) -> Sequence[Stored]:
    kept = deque[Stored](maxlen=most)
    async with aclosing(broker.read(query, after=after)) as log:
        async for stored in log:
            if query.upto is not None and stored.position.epoch != query.upto.epoch:
                raise PositionLost("the log was made anew while it was read")
            if sees is None or sees(stored.event):
                kept.append(stored)
    return kept
