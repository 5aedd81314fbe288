"""An event on its way out: what a routing key makes of it, what is refused, what it inherits."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from wowevent.delivery import followed, following
from wowevent.errors import InvalidEvent, InvalidTopic, shown
from wowevent.event import Event, checked
from wowevent.payload import too_large
from wowevent.priority import BANDS, band, priority_level
from wowevent.topic import check_topic, is_reserved, reserved

LEVELS: Final = {name: priority_level(name) for name in BANDS}
"""The level that stands for a band: low 3, normal 5, high 7, critical 9."""


def outgoing(event: Event, routing_key: str | None, max_payload: int) -> Event:
    """The event as it is sent; InvalidEvent, InvalidTopic or PayloadTooLarge for one that cannot be."""
    if not isinstance(event, Event):
        raise InvalidEvent(f"publish takes an Event, not {type(event).__name__}")
    if routing_key is not None:
        event = addressed(event, routing_key)
    if is_reserved(event.topic):
        raise reserved(event.topic)
    if (size := len(memoryview(event.body))) > max_payload:
        raise too_large(size, max_payload)
    return event


def addressed(event: Event, routing_key: str) -> Event:
    """The event with that topic, and its priority moved into the band that the key ends with; its type stays."""
    if not isinstance(routing_key, str):
        raise InvalidTopic(f"{shown(routing_key)} is not a routing key: a topic, with or without a band behind it")
    topic, _, last = checked(check_topic, routing_key).rpartition(".")
    if not topic or last not in BANDS:
        return structs.replace(event, topic=str.__str__(routing_key))
    level = event.priority if band(event.priority) == last else LEVELS[last]
    return structs.replace(event, topic=topic, priority=level)


def stamped(event: Event) -> Event:
    """The event with what it inherits in a callback, for one that another task than the caller's sends."""
    delivery = followed()
    return event if delivery is None else structs.replace(event, **following(event, delivery))
