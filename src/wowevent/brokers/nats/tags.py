"""What a message of ours bears beside the event: its headers."""

from __future__ import annotations

from math import isfinite
from typing import Final

import msgspec
from msgspec import structs

from wowevent.brokers.nats.messages import Message, header_of
from wowevent.codec import encode
from wowevent.event import Event
from wowevent.tag import Tag

_ID: Final = b"Nats-Msg-Id"
_TAG: Final = b"Wow"
_AT: Final = b"Wow-At"
_BARE: Final = Tag(at=0.0)
MOST: Final = 32_768
"""Bytes of what a message says of itself: the server takes no headers of more than 64 KiB."""

_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(Tag)


def published(subject: str, event: Event, at: float) -> Message:
    """An event as it is published: the server knows its id, and we when that was."""
    return Message(subject, encode(event), b"%b: %b\r\n%b: %.6f\r\n" % (_ID, event.event_id.encode(), _AT, at))


def copied(subject: str, body: bytes, tag: Tag, id: str = "", more: bytes = b"") -> Message:
    """A copy, with what became of it; the server takes only one of that id. `more` are headers of its own."""
    known = b"%b: %b\r\n" % (_ID, id.encode()) if id else b""
    return Message(subject, body, b"%b%b: %b\r\n%b" % (known, _TAG, _fitting(tag), more))


def _fitting(tag: Tag) -> bytes:
    """The tag, its texts as short as they have to be. Of many attempts the first ones go, their numbers stay."""
    text, longest = _encode(tag), MOST
    while len(text) > MOST:
        attempts = tag.attempts if longest > _SHORT else tag.attempts[len(tag.attempts) // 2 :]
        longest = max(longest // 2, _SHORT)
        tag = structs.replace(
            tag,
            attempts=tuple(structs.replace(each, error=each.error[:longest]) for each in attempts),
            error=tag.error[:longest],
            traceback=tag.traceback[-longest:],  # what was raised stands at its end
        )
        text = _encode(tag)
    return text


_SHORT: Final = 128  # characters of an error that says enough


def tag_of(headers: bytes) -> Tag:
    """What a message says of itself; a stranger's says nothing."""
    if text := header_of(headers, _TAG):
        try:
            return _decoder.decode(text)
        except (msgspec.MsgspecError, RecursionError):
            return _BARE
    try:
        at = float(header_of(headers, _AT) or 0.0)
    except ValueError:
        return _BARE
    return Tag(at=at) if isfinite(at) else _BARE


def expecting(seq: int) -> bytes:
    """Store it only if this is the newest of its subject; 0: if there is none."""
    return b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % seq


def living(seconds: float) -> bytes:
    """The server forgets it then."""
    return b"Nats-TTL: %ds\r\n" % max(1, round(seconds))
