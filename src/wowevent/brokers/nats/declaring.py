"""Declaring a subscription: where a new one begins, and what an older declaration still holds for."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

from wowevent.broker import Position, Subscription
from wowevent.brokers.nats.consumers import unread
from wowevent.brokers.nats.history import epoch_of
from wowevent.brokers.nats.registry import Known, Registry, Spec, declared
from wowevent.brokers.nats.session import Session
from wowevent.errors import PositionLost, StorageFull
from wowevent.routing import spec_of


async def remember(session: Session, subscription: Subscription) -> None:
    """It is remembered as it is declared now, and has its consumers.

    PositionLost for a start at a position that the log does not go on from; StorageFull where this is news.
    """
    await session.control.sync()
    id, registry = subscription.id, session.registry
    known = registry.known.get(id)
    first, head = await session.ends()
    begins, since = beginning(registry, subscription, first, head)
    # Whether what was published by now may be unread: else the declarations that it was published under are past.
    still = head if known is None else await _unread(session, known, head)
    now, text = session.clock.time(), spec_of(subscription)

    def change(known: Known | None) -> Known:
        if known is not None:
            return declared(known, subscription, head, still, now)
        until = head if since else 0
        log = "" if registry.log is None else registry.log.created
        specs = (Spec(begins - 1, text),)
        return Known(id, begins, log=log, since=since, until=until, specs=specs, at=now, born=uuid4().hex[:8])

    try:
        await session.consumers.change(id, change)
    except StorageFull:
        known = registry.known.get(id)
        if known is None or known.lapsed or known.specs[-1].text != text:
            raise
        await session.consumers.make(id)  # that it was declared once more is all that cannot be noted


def beginning(registry: Registry, subscription: Subscription, first: int, head: int) -> tuple[int, float]:
    """The first sequence that a new one gets, and of what is there, from which moment on, in Unix seconds."""
    start = subscription.start
    if start == "new":
        return head + 1, 0.0
    if isinstance(start, datetime):
        return first, start.timestamp()
    if isinstance(start, Position):
        if start.epoch != epoch_of(registry) or start.offset > head:
            raise PositionLost("that position is not one that the log goes on from")
        return start.offset + 1, 0.0
    return first, 0.0


async def _unread(session: Session, known: Known, head: int) -> int:
    """The first sequence that it may not have settled."""
    if known.lapsed:
        return head + 1
    states = await session.consumers.states(session.consumers.wanted(known, of_log=True))
    return min([head + 1, *(unread(state, known, head) for state in states)])
