"""What a message of ours says of itself beside the event: one header, in JSON."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from wowevent.event import Event
from wowevent.tag import Tag

HEADER: Final = "wowevent"
"""The header's name."""
_PERSISTENT: Final = 2


_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(Tag)


def properties(event: Event, tag: Tag) -> Basic.Properties:
    """The properties of a message that carries this event."""
    return of_copy(event.event_id, tag)


def of_copy(id: str, tag: Tag) -> Basic.Properties:
    """The same, of an event that is not read."""
    text = _encode(tag).decode()
    return Basic.Properties(
        content_type="application/json", delivery_mode=_PERSISTENT, message_id=id, headers={HEADER: text}
    )


def tag_of(message: DeliveredMessage) -> Tag:
    """What a message says of itself; one that others published says nothing, and that is said."""
    text = headers_of(message).get(HEADER)
    try:
        return _decoder.decode(text) if isinstance(text, str | bytes) else Tag(at=0.0)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Tag(at=0.0)


def headers_of(message: DeliveredMessage) -> dict[str, Any]:
    """A message's headers."""
    return message.header.properties.headers or {}


def returns_of(message: DeliveredMessage) -> int:
    """How often the server took it back from who had it."""
    count = headers_of(message).get("x-delivery-count")
    if isinstance(count, int):
        return count
    return int(bool(getattr(message.delivery, "redelivered", False)))


def number_of(message: DeliveredMessage) -> int:
    """By which it is acknowledged."""
    return getattr(message.delivery, "delivery_tag", None) or 0


def route_of(message: DeliveredMessage) -> tuple[str, str]:
    """The exchange and the key that it was published with."""
    return getattr(message.delivery, "exchange", None) or "", getattr(message.delivery, "routing_key", None) or ""


def topic_of(message: DeliveredMessage) -> str:
    """The topic that it was routed by; its key has the band behind it."""
    return route_of(message)[1].rpartition(".")[0]


def name_of(message: DeliveredMessage, tag: Tag) -> str:
    """Which message of a queue it is, whoever has it."""
    id = message.header.properties.message_id or blake2b(message.body, digest_size=12).hexdigest()
    return f"{id}/{tag.copy}"
