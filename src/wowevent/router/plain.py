"""The fast way in: a `publish` frame that is byte for byte what we would write ourselves.

What is decoded into exact types and comes out as the same bytes again hides nothing: no key twice, no unknown field, no
number or text that is not as it seems. Names, topics and ranges are left to check. Any other frame, one with a mistake
too, is None here and takes the long way, which says what is wrong.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from wowevent.errors import BusError
from wowevent.event import Event, check_name
from wowevent.payload import MAX_DEPTH
from wowevent.topic import check_topic

_Ref = str | int | float | None


class _Plain(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The fields that most events have, in the order in which an event is encoded."""

    v: Literal[1]
    event_id: str
    event_type: str
    topic: str
    source_agent: str
    timestamp: datetime
    priority: Literal[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    correlation_id: str
    payload: dict[str, Any]


class _Read(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type",
            tag="publish", gc=False):  # fmt: skip
    """What is compared."""

    ref: _Ref = None
    event: _Plain


class _Taken(Struct, frozen=True, kw_only=True, tag_field="type", tag="publish", gc=False):
    """What is kept: the payload stays as it came."""

    event: Event


_read: Final = msgspec.json.Decoder(_Read).decode
_take: Final = msgspec.json.Decoder(_Taken).decode
_encode: Final = msgspec.json.Encoder().encode
_is_id: Final = re.compile(r"[A-Za-z0-9_\-.:/@]{1,128}").fullmatch
_HEAD: Final = b'"event":{"v":1,'
_WITHIN: Final = 160  # bytes in which an envelope must have begun: a `ref` is short


def published(data: bytes) -> tuple[Event, _Ref] | None:
    """The event and the `ref` of such a frame, as `codec.parse` would give them; None for any other."""
    if data.find(_HEAD, 0, _WITHIN) < 0:
        return None
    try:
        frame = _read(data)
        if _encode(frame) != data or data.count(b"{") + data.count(b"[") > MAX_DEPTH or not _allowed(frame.event):
            return None
        return _take(data).event, frame.ref
    except (BusError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _allowed(event: _Plain) -> bool:
    """Whether all fields say what they may; raises what the checks of topics and names raise."""
    check_topic(event.topic)
    check_topic(event.event_type)
    if event.source_agent:
        check_name(event.source_agent)
    id, correlation = event.event_id, event.correlation_id
    same = correlation == id or _is_id(correlation)
    return bool(event.timestamp.tzinfo is UTC and same and _is_id(id))
