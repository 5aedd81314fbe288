"""Where a new subscription begins in the past: what it wants of the history is copied into its queues.

A queue gets only what is published after its binding. So it is filled up to the history's end, bound, and filled again
with what came in between. What came twice has one id, and is dropped where it is fetched; at that seam, the order is
not the log's.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeGuard

from wowevent.broker import URGENT, Position, Query, Stored, Subscription
from wowevent.brokers.rabbitmq.history import Pages
from wowevent.brokers.rabbitmq.lanes import QUORUM
from wowevent.brokers.rabbitmq.outlet import Message
from wowevent.brokers.rabbitmq.session import Session
from wowevent.brokers.rabbitmq.tags import properties
from wowevent.codec import encode
from wowevent.errors import BusError
from wowevent.routing import matches
from wowevent.tag import Tag


async def copy_past(session: Session, subscription: Subscription) -> None:
    """Its queues with what it wants of the past, and bound."""
    names, id = session.names, subscription.id
    for queue in (names.plain(id), names.urgent(id)):  # what a declaration left behind that did not come to its end
        await session.link.ask("queue_declare", queue, durable=True, arguments=QUORUM)
        await session.link.ask("queue_purge", queue)
    epoch = session.control.registry.epoch
    start = subscription.start if isinstance(subscription.start, Position) else None
    reached = await session.head()
    await _copy(session, subscription, start)
    await session.route(subscription)
    await _copy(session, subscription, Position(epoch, reached + 1))


async def _copy(session: Session, subscription: Subscription, after: Position | None) -> None:
    since = subscription.start if isinstance(subscription.start, datetime) else None
    pages = Pages(Query(patterns=("#", *_reserved(subscription)), start_time=since), after)
    try:
        while (found := await pages.next(session)) is not None:
            await session.link.publish(
                [_message(session, subscription, each) for each in found if _is(each, subscription)]
            )
    finally:
        pages.close()


def _reserved(subscription: Subscription) -> list[str]:
    return [pattern for pattern in subscription.patterns if pattern.startswith("_")]


def _is(item: Stored | BusError, subscription: Subscription) -> TypeGuard[Stored]:
    if isinstance(item, BusError):
        raise item
    return matches(subscription, item.event)


def _message(session: Session, subscription: Subscription, item: Stored) -> Message:
    event, names = item.event, session.names
    urgent = event.priority >= URGENT and not subscription.exclusive
    queue = names.urgent(subscription.id) if urgent else names.plain(subscription.id)
    tag = Tag(at=item.stored_at, seen=session.control.registry.offset)
    return Message("", queue, properties(event, tag), encode(event), mandatory=True)
