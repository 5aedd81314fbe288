"""Remembered subscriptions, declared at the target so that each begins with the oldest event that it had not handled.

What an engine tells of a subscription is how old its oldest unsettled event is, and how many are ready. The first is
enough: what is stored at that moment or later goes to it again, and some of that it may have handled. Without it, only
a subscription that has nothing to do can be moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Final, Literal

from msgspec import Struct, structs

from wowevent.broker import Broker, Position, Query, Stored, SubscriptionInfo
from wowevent.clock import Clock
from wowevent.copying.past import Past
from wowevent.routing import matches

_SLACK: Final = 0.01  # seconds: an engine's times may be of whole milliseconds

Begins = Literal["new", "unread", "there", "unknown"]


class Standing(Struct, frozen=True, kw_only=True):
    """What became of one subscription at the target."""

    id: str
    begins: Begins
    """`new`: it has handled everything. `unread`: with `event_id`. `there`: the target knew it, and it is as it was.

    `unknown`: the source cannot tell what it has not handled, so it was not declared.
    """
    event_id: str | None = None
    """The first event that it gets, the oldest that it had not handled."""
    ready: int = 0
    """Events that wait for it at the source."""
    dead: int = 0
    """Dead letters, which stay at the source."""


async def carry_over(
    source: Broker, target: Broker, upto: Position, behind: Position | None, clock: Clock
) -> list[Standing]:
    """Declare what the source remembers at the target, which has the source's events up to a position. BrokerError.

    `behind` is where the target ended before; `clock` is the one that the source's instance goes by.
    """
    found: list[Standing] = []
    waiting: dict[str, tuple[SubscriptionInfo, float]] = {}
    for each in await source.subscriptions():
        now, id = clock.time(), each.subscription.id
        info = await source.info(id) if each.subscription.durable else None  # anew: its age is that of this moment
        if info is None:
            continue
        if await target.info(id) is not None:
            found.append(_standing(info, "there"))
        elif info.oldest is not None and not info.lapsed:
            waiting[id] = info, now - info.oldest - _SLACK
        elif _idle(source, info):
            await target.declare(info.subscription)
            found.append(_standing(info, "new"))
        else:
            found.append(_standing(info, "unknown"))
    if waiting:
        first = await _first(source, upto, waiting)
        found += await _place(target, behind, [info for info, _ in waiting.values()], first)
    return found


def _standing(info: SubscriptionInfo, begins: Begins, event_id: str | None = None) -> Standing:
    return Standing(id=info.subscription.id, begins=begins, event_id=event_id, ready=info.ready, dead=info.dead)


def _idle(source: Broker, info: SubscriptionInfo) -> bool:
    """Whether it has handled all that it got, as far as this engine can tell."""
    if info.lapsed:
        return True
    # Where leases are not told they end with their holder: without one, what is not ready waits for its next attempt.
    held = info.consumers > 0 and not source.capabilities.exact
    return not (info.ready or info.leased or info.delayed or held)


async def _first(
    source: Broker, upto: Position, waiting: dict[str, tuple[SubscriptionInfo, float]]
) -> dict[str, Stored | None]:
    """For each the first event that it may not have handled; None if all of these lie behind `upto`."""
    left, first = dict(waiting), dict[str, Stored | None]()
    async with aclosing(Past(source, None).read()) as events:
        async for stored in events:
            for id, (info, moment) in list(left.items()):
                if stored.stored_at >= moment and matches(info.subscription, stored.event):
                    first[id] = stored if upto.covers(stored.position) else None
                    del left[id]
            if not left:
                break
    return first


async def _place(
    target: Broker, behind: Position | None, infos: Sequence[SubscriptionInfo], first: dict[str, Stored | None]
) -> list[Standing]:
    """Declare each before the place that its first event has at the target."""
    ids = tuple({stored.event.event_id for stored in first.values() if stored is not None})
    places: dict[str, Position] = {}
    if ids:
        async with aclosing(Past(target, behind, query=Query(event_ids=ids)).read()) as events:
            places = {stored.event.event_id: stored.position async for stored in events}
    standings = []
    for info in infos:
        subscription, stored = info.subscription, first.get(info.subscription.id)
        place = None if stored is None else places.get(stored.event.event_id)
        if stored is not None and place is not None:
            before = Position(place.epoch, place.offset - 1)
            await target.declare(structs.replace(subscription, start=before))
            standings.append(_standing(info, "unread", stored.event.event_id))
        elif stored is None and subscription.id in first:  # the next run brings it
            await target.declare(subscription)
            standings.append(_standing(info, "new"))
        else:
            standings.append(_standing(info, "unknown"))
    return standings
