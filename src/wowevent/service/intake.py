"""A request's body, as events or as an order: its size bounded, its media type known, all of it checked first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import Struct
from starlette.exceptions import HTTPException

from wowevent.codec import from_fields, loads
from wowevent.errors import BusError, InvalidEvent, PayloadTooLarge
from wowevent.service.access import check_standing

if TYPE_CHECKING:
    from starlette.requests import Request

    from wowevent.event import Event

T = TypeVar("T")

JSON: Final = "application/json"
CLOUD: Final = "application/cloudevents+json"
CLOUD_BATCH: Final = "application/cloudevents-batch+json"

_PATIENCE: Final = 30.0  # seconds for a whole body to arrive
_TURN: Final = 200  # events that are checked before others get their turn on the loop


class Sent(Struct, frozen=True):
    """What a request carries, as it came."""

    media: str
    body: bytes


class Lacking(Struct, frozen=True):
    """What the events of a request get that have none of their own."""

    id_of: Callable[[int], str] | None = None
    """The id of the event with that number, from 0."""
    traceparent: str | None = None


async def sent(request: Request) -> Sent:
    """The body of a request that carries events.

    Raises InvalidEvent or PayloadTooLarge, and HTTPException (415) for a media type that is not ours.
    """
    media = _media_type(request, JSON, CLOUD, CLOUD_BATCH)
    return Sent(media, await _body(request))


async def events_of(carried: Sent, lacking: Lacking) -> list[Event]:
    """The events of a request, in their order; InvalidEvent or PayloadTooLarge if one of them is wrong."""
    media, found = carried.media, loads(carried.body)
    if media == CLOUD_BATCH and not isinstance(found, list):
        raise InvalidEvent(f"{CLOUD_BATCH} is an array of CloudEvents")
    if not isinstance(found, list) or media == CLOUD:
        return [_event(found, media, lacking, 0)]
    if not found:
        raise InvalidEvent("an empty array: there is no event in it")
    events = []
    for number, fields in enumerate(found):
        try:
            events.append(_event(fields, media, lacking, number))
        except BusError as error:
            raise _same_kind(error, f"event {number} of {len(found)}: {error}") from error
        if number % _TURN == _TURN - 1:
            await asyncio.sleep(0)
    return events


async def order_of(request: Request, kind: type[T]) -> T:
    """The JSON object of a request as a value of `kind`; raises as `events_of` does."""
    _media_type(request, JSON)
    try:
        return msgspec.convert(loads(await _body(request)), kind)
    except msgspec.ValidationError as error:
        raise InvalidEvent(f"the request body: {error}") from error


async def no_order(request: Request) -> None:
    """The path says all: a body that would say something else is refused."""
    if "content-type" in request.headers:
        _media_type(request, JSON)
    body = await _body(request)
    if body and body.strip() != b"{}":
        raise InvalidEvent("the path says what is to be done: send no body")


def _same_kind(error: BusError, message: str) -> BusError:
    """The same error with a message that says where."""
    return type(error)(message)


def _event(fields: object, media: str, lacking: Lacking, number: int) -> Event:
    if media != JSON and not (isinstance(fields, dict) and "specversion" in fields):
        raise InvalidEvent("CloudEvents: specversion is missing")
    if isinstance(fields, dict):
        _complete(fields, lacking, number)
    return from_fields(fields)


def _complete(fields: dict[str, Any], lacking: Lacking, number: int) -> None:
    """Give the event what it lacks. A CloudEvent always has an id, or is none."""
    nameless = "specversion" not in fields and fields.get("event_id") is None and fields.get("id") is None
    if nameless and lacking.id_of is not None:
        fields["event_id"] = lacking.id_of(number)
    if lacking.traceparent is not None and fields.get("traceparent") is None:
        fields["traceparent"] = lacking.traceparent


def _media_type(request: Request, *ours: str) -> str:
    """One of ours. Asking for it also keeps web pages from publishing: a browser asks before it sends these."""
    media, _, rest = request.headers.get("content-type", "").lower().partition(";")
    charset = rest.partition("charset=")[2].strip(' "') or "utf-8"
    if media.strip() not in ours or charset not in {"utf-8", "utf8"}:
        raise _unsupported(f"send {' or '.join(ours)}, in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("send it uncompressed")
    return media.strip()


def _unsupported(message: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)


async def _body(request: Request) -> bytes:
    """The body; refused by the length that it announces, and else as soon as it is too long."""
    limit: int = request.app.state.body_limit
    too_large = PayloadTooLarge(f"a request body of more than {limit} bytes")
    announced = request.headers.get("content-length", "0")
    if len(announced) > len(str(limit)) or int(announced) > limit:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(_PATIENCE):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise InvalidEvent(f"the request body did not arrive within {_PATIENCE:.0f} s") from None
    check_standing(request)
    return b"".join(chunks)
