"""The lineage of an event: which one its conversation began with, and who handled what on the way to it. Pure.

It goes in one header, compact JSON, which the bus writes over whatever a handler sets there:

    wowevent-lineage: {"root": event id, "visits": {"planner plan.step": 16, "worker task.done": 15}}

The way is one row of causes: of all that an event caused, each has its own. An event without the header begins one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from wowevent.event import Event

LINEAGE: Final = "wowevent-lineage"
"""The header."""
UNNAMED: Final = "live"
"""Stands for every subscription without a name: their ids are new each time, and a row must not look new for that."""
LONGEST: Final = 2_048
"""Characters of the header; where there would be more, who was seen least and longest ago is left out."""

_UNNAMED_ID: Final = f"{UNNAMED}~"

Visits = Mapping[str, Annotated[int, Meta(ge=1)]]
"""How often each subscription handled each topic, by `"{subscription} {topic}"`, in the order of the first time."""


class Lineage(Struct, frozen=True, gc=False):
    """Where an event comes from; not to be changed, since many events share one."""

    root: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_\-.:/@]{1,128}$")]
    """The event that the conversation began with, which nothing caused."""
    visits: Visits = {}


def lineage_of(event: Event) -> Lineage:
    """What its header says; one that is none says nothing."""
    text = event.head.get(LINEAGE)
    found = None if text is None else _parsed(text)
    return Lineage(event.event_id) if found is None else found


def visit(subscription: str, topic: str) -> str:
    """What a subscription's handling of a topic counts as."""
    return f"{UNNAMED if subscription.startswith(_UNNAMED_ID) else subscription} {topic}"


def extended(event: Event, subscription: str | None) -> str:
    """The header of what follows from an event that `subscription` handled; None adds nothing to its way."""
    step = None if subscription is None else visit(subscription, event.topic)
    return _extended(event.head.get(LINEAGE), event.event_id, step)


@lru_cache(maxsize=512)
def _parsed(text: str) -> Lineage | None:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None


@lru_cache(maxsize=512)  # a handler that publishes a thousand events makes it once
def _extended(text: str | None, event_id: str, step: str | None) -> str:
    before = (None if text is None else _parsed(text)) or Lineage(event_id)
    visits = dict(before.visits)
    if step is not None:
        visits[step] = visits.get(step, 0) + 1
    written = _written(before.root, visits)
    while len(written) > LONGEST and len(visits) > 1:
        del visits[min((each for each in visits if each != step), key=visits.__getitem__)]
        written = _written(before.root, visits)
    return written


def _written(root: str, visits: Visits) -> str:
    return _encode(Lineage(root, visits)).decode()


_decode: Final = msgspec.json.Decoder(Lineage).decode
_encode: Final = msgspec.json.Encoder().encode
