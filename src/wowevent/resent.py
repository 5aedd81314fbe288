"""A corrected event: it stands for one that a subscription could not handle, and goes to that subscription alone. Pure.

One header says so, compact JSON:

    wowevent-resent: {"event": its id, "to": subscription, "letter": dead letter, "by": "ops", "reason": "no sum"}

It holds for the event that it names: who passes headers on passes no audience on.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct, structs

from wowevent.event import Event

RESENT: Final = "wowevent-resent"
"""The header."""

_MILLISECONDS: Final = 2**48 - 1


class Resent(Struct, frozen=True, gc=False, omit_defaults=True):
    """For whom an event is, what it was corrected for, and who did it."""

    event: str
    to: str
    """The only subscription that gets it."""
    letter: str
    """The dead letter that it stands for."""
    by: str = ""
    reason: str = ""


def resent_of(event: Event) -> Resent | None:
    """What its header says, if that was written for this event."""
    text = event.head.get(RESENT)
    found = None if text is None else _parsed(text)
    return found if found is not None and found.event == event.event_id else None


def corrected(event: Event, payload: Any, mark: Resent, now: datetime) -> Event:
    """The event that stands for this one, with another payload; InvalidEvent for what is no payload.

    All that a handler or a filter looks at is as it was. It happens now, so that its time to live begins anew, and
    nobody waits for its reply any more.
    """
    return structs.replace(
        event,
        event_id=mark.event,
        body=Event(topic=event.topic, payload=payload).body,
        decoded=None,
        timestamp=now,
        not_before=None,
        reply_to=None,
        replay_of=event.event_id,
        retry_count=0,
        head={**event.head, RESENT: _encode(mark).decode()},
    )


def corrected_id(letter: str, subscription: str, event_id: str, buried: float) -> str:
    """The id of what stands for a dead letter: always the same one, so that doing it again adds nothing.

    It is a UUID of version 7 of the moment when the letter was buried: no search for it has to begin earlier.
    """
    named = f"{letter}\0{subscription}\0{event_id}"
    bits = int.from_bytes(blake2b(named.encode("utf-8", "surrogatepass"), digest_size=10).digest())
    at = max(0, int(buried * 1000)) & _MILLISECONDS
    return str(UUID(int=at << 80 | 0x7 << 76 | (bits >> 62 & 0xFFF) << 64 | 0b10 << 62 | bits & 2**62 - 1))


@lru_cache(maxsize=512)  # each subscription that may want it asks
def _parsed(text: str) -> Resent | None:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None


_decode: Final = msgspec.json.Decoder(Resent).decode
_encode: Final = msgspec.json.Encoder().encode
