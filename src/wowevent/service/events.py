"""POST /events publishes, GET /events reads the history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from msgspec import structs
from starlette.responses import JSONResponse, Response, StreamingResponse

from wowevent.broker import Position, Stored
from wowevent.codec import to_fields
from wowevent.errors import BusError, Closed, InvalidEvent
from wowevent.event import check_name, utc
from wowevent.log import logger
from wowevent.service.access import check_access
from wowevent.service.failures import printable
from wowevent.service.intake import events_of

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from wowevent.bus import EventBus, Receipt

NDJSON: Final = "application/x-ndjson"
MOST: Final = 1000
"""Events of one page of history."""

_PAGE: Final = 100
_FURTHEST: Final = 2**63 - 1


async def publish(request: Request) -> Response:
    """202 and `{"receipts": [{event_id, position, duplicate, matched}]}`, one an event, in their order.

    `?delay=` (seconds) or `?at=` (a time) sends all of it later. Nothing of a batch is stored unless all is right.
    """
    bus = _bus(request)
    _known(request.query_params, "delay", "at")
    moment = _moment(request.query_params)
    events = await events_of(request, request.app.state.body_limit)
    if moment is not None:
        events = [structs.replace(event, not_before=moment) for event in events]
    receipts = [_shown_receipt(receipt) for receipt in await bus.publish_many(events)]
    return JSONResponse({"receipts": receipts}, 202)


async def history(request: Request) -> Response:
    """`{"events": [{event, position, stored_at}], "next": …}` by pattern, time and correlation, oldest first.

    `next`, if not null, goes on with `?after=`. With `Accept: application/x-ndjson` one event a line, and all of them
    unless `limit` says otherwise.
    """
    bus = _bus(request)
    asked = request.query_params
    _known(asked, "pattern", "start_time", "end_time", "correlation_id", "after", "limit")
    stream = NDJSON in request.headers.get("accept", "")
    limit = _limit(asked.get("limit"), _FURTHEST) if stream else _limit(asked.get("limit", str(_PAGE)), MOST)
    found = bus.history(
        asked.getlist("pattern") or None,
        start_time=_time(asked, "start_time"),
        end_time=_time(asked, "end_time"),
        correlation_id=check_name(asked["correlation_id"]) if "correlation_id" in asked else None,
        after=_position(asked.get("after")),
        limit=limit if stream or limit is None else limit + 1,
    )
    if stream:
        return await _streamed(found)
    page = [stored async for stored in found]
    more = limit is not None and len(page) > limit
    shown = [_shown(stored) for stored in page[:limit]]
    return Response(
        msgspec.json.encode({"events": shown, "next": shown[-1]["position"] if more else None}),
        media_type="application/json",
    )


def _bus(request: Request) -> EventBus:
    """The bus, for who may use it; Closed while it is switched off or draining."""
    check_access(request)
    bus = cast("EventBus | None", request.app.state.bus)
    if bus is None:
        raise Closed("the event bus is disabled (EVENT_BUS_ENABLED)")
    if request.app.state.draining:
        raise Closed("the service is draining; ask another one")
    return bus


def _known(asked: QueryParams, *names: str) -> None:
    """A misspelt filter must not be ignored: the answer would be to another question."""
    if strange := sorted(set(asked) - set(names)):
        raise InvalidEvent(f"unknown query parameter {strange[0]!r:.80}; known are {', '.join(names)}")


def _moment(asked: QueryParams) -> datetime | None:
    """When to send, as `delay` or `at` say."""
    if "delay" not in asked:
        return _time(asked, "at")
    if "at" in asked:
        raise InvalidEvent("delay and at exclude each other")
    try:
        return datetime.now(UTC) + timedelta(seconds=_not_negative(float(asked["delay"])))
    except (ValueError, OverflowError) as error:
        raise InvalidEvent(f"delay: {asked['delay']!r:.40} is not a number of seconds") from error


def _not_negative(seconds: float) -> float:
    if not seconds >= 0:
        raise ValueError
    return seconds


def _time(asked: QueryParams, name: str) -> datetime | None:
    """A time of the query; a '+' of its offset that came unescaped, and so as a blank, is put back."""
    return utc(asked[name].replace(" ", "+") if "T" in asked[name] else asked[name], name) if name in asked else None


def _limit(text: str | None, most: int) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise InvalidEvent(f"limit: {text!r:.40} is not a number from 1 to {most}")
    return int(text)


def _position(text: str | None) -> Position | None:
    if text is None:
        return None
    try:
        position = Position.parse(text)
    except ValueError as error:
        raise InvalidEvent(f"after: {error}") from error
    if not 0 <= position.offset <= _FURTHEST:
        raise InvalidEvent(f"after: {text!r:.80} is not a position")
    return position


def _shown_receipt(receipt: Receipt) -> dict[str, Any]:
    return {
        "event_id": receipt.event_id,
        "position": None if receipt.position is None else str(receipt.position),
        "duplicate": receipt.duplicate,
        "matched": receipt.matched,
    }


def _shown(stored: Stored) -> dict[str, Any]:
    return {"event": to_fields(stored.event), "position": str(stored.position), "stored_at": stored.stored_at}


async def _streamed(found: AsyncIterator[Stored]) -> Response:
    """One event a line. The first is read before the answer begins, so that its failure still has a status."""
    return StreamingResponse(_lines(await anext(found, None), found), media_type=NDJSON)


async def _lines(first: Stored | None, rest: AsyncIterator[Stored]) -> AsyncIterator[bytes]:
    """The events; an error in their midst is the last line, in the shape of any other error."""
    async with aclosing(rest):  # type: ignore[type-var]  # an async generator, whatever the protocol promises
        try:
            if first is not None:
                yield msgspec.json.encode(_shown(first)) + b"\n"
            async for stored in rest:
                yield msgspec.json.encode(_shown(stored)) + b"\n"
        except BusError as error:
            logger.error("history ended early", code=error.code, error=error)
            yield msgspec.json.encode({"error": error.code, "message": printable(str(error))}) + b"\n"
