"""What others publish to our exchanges: their JSON as an event, routed by the key that they gave it."""

from __future__ import annotations

from contextlib import suppress

from aiormq.abc import DeliveredMessage
from msgspec import structs

from wowevent.brokers.rabbitmq.tags import HEADER, headers_of, route_of
from wowevent.codec import decode, encode, from_fields, loads
from wowevent.errors import BusError
from wowevent.event import Event, check_name
from wowevent.priority import BANDS, band, priority_level
from wowevent.topic import check_topic, is_reserved


def event_of(message: DeliveredMessage) -> Event:
    """The event of a message: as we wrote it, or in any spelling that a stranger may use.

    Of a stranger's, the routing key says topic and band, as in `publish(event, routing_key=...)`, and `message_id` is
    the event's id if it has none itself. Raises InvalidEvent for a stranger's bytes that are none, StorageDamaged for
    bytes of ours, FormatTooNew.
    """
    if HEADER in headers_of(message):
        return decode(message.body)
    fields = loads(message.body)
    if isinstance(fields, dict) and (id := given_id(message)) and not fields.keys() & {"event_id", "id"}:
        fields["event_id"] = id
    return _routed(from_fields(fields), *route_of(message))


def given_id(message: DeliveredMessage) -> str:
    """The message's id, if it could be an event's; else nothing."""
    with suppress(BusError):
        return check_name(message.header.properties.message_id or "")
    return ""


def envelope(message: DeliveredMessage, event: Event | None = None) -> tuple[str, bytes]:
    """The id and the bytes that a copy has, which bears our header: then only ours can be read. `event` is in it."""
    if HEADER not in headers_of(message):
        with suppress(BusError):  # what cannot be read stays as it is
            event = event or event_of(message)
            return event.event_id, encode(event)
    return message.header.properties.message_id or "", message.body


def _routed(event: Event, exchange: str, key: str) -> Event:
    """With the topic and the band of that key, unless it is none, or one of a queue (to which there is no exchange)."""
    topic, _, last = key.rpartition(".")
    if not topic or last not in BANDS:
        topic, last = key, band(event.priority)
    try:
        check_topic(topic)
    except BusError:
        return event
    if not exchange or is_reserved(topic):
        return event
    level = event.priority if band(event.priority) == last else priority_level(last)
    return structs.replace(event, topic=topic, priority=level)
