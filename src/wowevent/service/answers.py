"""What answers have in common: JSON, its parts, and the shapes that more than one path answers with.

What one path alone takes and answers stands in its own file, with what makes it. GET /openapi.json describes all of it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from wowevent.broker import Stored
from wowevent.codec import to_fields
from wowevent.receipt import Receipt

_LINE_ENDS: Final = "\u2028\u2029\u0085"  # JSON escapes the others itself

EventFields = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": "#/components/schemas/Event"})]
PositionText = Annotated[
    str, Meta(description="A place in the log, as `after` takes it.", extra_json_schema={"example": "1f0c2a9e-42"})
]
UnixSeconds = Annotated[float, Meta(description="Unix seconds.")]


class ReceiptShown(Struct):
    """That the engine has one event, as durably as it promises."""

    event_id: str
    position: PositionText | None
    duplicate: Annotated[bool, Meta(description="An event of that id was there already; nothing was added.")]
    matched: Annotated[int, Meta(description="How many known subscriptions it goes to.")]
    unserved: Annotated[int, Meta(description="How many of those nobody serves now, as was known some seconds ago.")]


class Receipts(Struct):
    """One receipt an event, in their order."""

    receipts: list[ReceiptShown]


class StoredEvent(Struct):
    """One event of the log."""

    event: EventFields
    position: PositionText
    stored_at: UnixSeconds


def answer(body: Struct, status: int = 200, **headers: str) -> Response:
    """One of these shapes as JSON."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def line(body: Struct) -> bytes:
    """One of these shapes as JSON in one line, also to readers that take more than CR and LF for its end."""
    text = msgspec.json.encode(body)
    for character in _LINE_ENDS:
        text = text.replace(character.encode(), b"\\u%04x" % ord(character))
    return text


def shown_receipt(receipt: Receipt) -> ReceiptShown:
    """A receipt for outside."""
    position = None if receipt.position is None else str(receipt.position)
    return ReceiptShown(receipt.event_id, position, receipt.duplicate, receipt.matched, len(receipt.unserved))


def shown_stored(stored: Stored) -> StoredEvent:
    """An event of the log for outside."""
    return StoredEvent(to_fields(stored.event), str(stored.position), stored.stored_at)
