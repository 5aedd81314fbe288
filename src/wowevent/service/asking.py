"""What a request asks: the bus, and the parts of its query, each checked before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from wowevent.broker import Position
from wowevent.errors import Closed, InvalidEvent
from wowevent.event import check_name, utc
from wowevent.tracing import parse

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from wowevent.bus import EventBus

FURTHEST: Final = 2**63 - 1
"""The largest number that a position or a limit can be."""
TRACEPARENT: Final = "traceparent"


def any_bus_of(request: Request) -> EventBus:
    """The bus, also while it drains; Closed while it is switched off."""
    bus = cast("EventBus | None", request.app.state.bus)
    if bus is None:
        raise Closed("the event bus is disabled (EVENT_BUS_ENABLED)")
    return bus


def bus_of(request: Request) -> EventBus:
    """The bus; Closed while it is switched off or draining."""
    bus = any_bus_of(request)
    if request.app.state.draining:
        raise Closed("the service is draining; ask another one")
    return bus


def known(asked: QueryParams, names: Collection[str]) -> None:
    """A misspelt filter must not be ignored: the answer would be to another question."""
    if strange := sorted(set(asked) - set(names)):
        raise InvalidEvent(f"unknown query parameter {strange[0]!r:.80}; known are {', '.join(names) or 'none'}")


def time_of(asked: QueryParams, name: str) -> datetime | None:
    """A time of the query; a '+' of its offset that came unescaped, and so as a blank, is put back."""
    return utc(asked[name].replace(" ", "+") if "T" in asked[name] else asked[name], name) if name in asked else None


def flag_of(asked: QueryParams, name: str) -> bool:
    """Whether the query says `true`; `false` is as good as nothing."""
    return choice_of(asked, name, ("false", "true")) == "true"


def choice_of(asked: QueryParams, name: str, choices: Sequence[str]) -> str:
    """One of these words; the first, if the query does not say."""
    said = asked.get(name, choices[0])
    if said not in choices:
        raise InvalidEvent(f"{name}: {said!r:.40} is none of {', '.join(choices)}")
    return said


def limit_of(text: str | None, most: int, name: str = "limit") -> int | None:
    """A number of items, from 1 to `most`."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise InvalidEvent(f"{name}: {text!r:.40} is not a number from 1 to {most}")
    return int(text)


def name_of(asked: QueryParams, name: str) -> str | None:
    """A name or an id of the query."""
    return check_name(asked[name]) if name in asked else None


def level_of(text: str) -> int | str:
    """A priority of the query: a number, or a name that is looked up later."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= len("10") else text


def traceparent_of(headers: Sequence[str]) -> str | None:
    """The trace that a request belongs to, as version 00 of W3C Trace Context writes it; None where there is none.

    A header that is malformed, or stands there twice, counts as none. Of a later version what we know is kept.
    """
    found = parse(headers[0].strip(" \t")) if len(headers) == 1 else None
    return None if found is None else found.traceparent


def position_of(text: str | None, name: str) -> Position | None:
    """A place in the log, from what `name` says."""
    if text is None:
        return None
    try:
        position = Position.parse(text)
    except ValueError as error:
        raise InvalidEvent(f"{name}: {error}") from error
    if not 0 <= position.offset <= FURTHEST:
        raise InvalidEvent(f"{name}: {text!r:.80} is not a position")
    return position
