"""GET /topics: what was published lately, by topic; read from the log, so it is what all processes published."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct

from wowevent.broker import Position
from wowevent.errors import PositionLost
from wowevent.replay import build_query, upto
from wowevent.service.access import permit
from wowevent.service.answers import PositionText, UnixSeconds, answer
from wowevent.service.asking import bus_of, limit_of
from wowevent.topic import is_reserved

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from wowevent.broker import Broker, Query, Stored

MOST: Final = 100_000
"""How far back one answer looks, in places of the log."""
USUAL: Final = 10_000
"""The same, unless it is asked for."""

_TURN: Final = 500  # events that are counted before others get their turn on the loop


class TopicShown(Struct):
    """What was published on one topic, of the events that were looked at."""

    topic: str
    count: int
    event_types: Annotated[list[str], Meta(description="What happened there, by name.")]
    last_position: PositionText
    last_stored_at: UnixSeconds


class Topics(Struct):
    """The topics of the last events of the log, by name; `events` is the sum of their counts."""

    topics: list[TopicShown]
    events: int


async def topics(request: Request) -> Response:
    """`{"topics": [{topic, count, event_types, last_position, last_stored_at}], "events": n}`, by name.

    Counted over the last places of the log (`last`), those that match `pattern`, without the bus's own topics.
    """
    bus, asked = bus_of(request), request.query_params
    patterns = asked.getlist("pattern") or None
    permit(request, "replay", patterns)
    last = limit_of(asked.get("last"), MOST, "last") or USUAL
    found = await _count(bus.broker, build_query(patterns), last)
    shown = [found[name] for name in sorted(found)]
    for each in shown:
        each.event_types.sort()
    return answer(Topics(shown, sum(each.count for each in shown)))


async def _count(broker: Broker, query: Query, last: int) -> dict[str, TopicShown]:
    """The topics of the last places of the log, as it ends now."""
    head = (await broker.ping()).head
    after = Position(head.epoch, head.offset - last) if head.offset > last else None
    found = dict[str, TopicShown]()
    at = seen = 0
    while True:
        try:
            async with aclosing(upto(broker.read(query, after=after), head)) as log:
                async for stored in log:
                    if stored.position.offset > at:
                        at = stored.position.offset
                        _add(found, stored)
                    seen += 1
                    if seen % _TURN == 0:
                        await asyncio.sleep(0)
            return found
        except PositionLost:  # retention was there first; what is left lies behind what was counted
            after = None


def _add(found: dict[str, TopicShown], stored: Stored) -> None:
    """Count one event."""
    event = stored.event
    if is_reserved(event.topic):
        return
    topic = found.get(event.topic)
    if topic is None:
        topic = found[event.topic] = TopicShown(event.topic, 0, [], "", 0.0)
    topic.count += 1
    topic.last_position, topic.last_stored_at = str(stored.position), stored.stored_at
    if event.kind not in topic.event_types:
        topic.event_types.append(event.kind)
