"""POST /events publishes, GET /events reads the history."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct, structs
from starlette.responses import Response, StreamingResponse

from wowevent.broker import Iteration, Stored
from wowevent.errors import BusError, InvalidEvent, Unauthenticated
from wowevent.log import logger
from wowevent.replay import build_query
from wowevent.rewind import newest, stretch
from wowevent.service.access import asker, permit, sight, stamped, standing
from wowevent.service.answers import (
    PositionText,
    Receipts,
    StoredEvent,
    answer,
    line,
    shown_receipt,
    shown_stored,
)
from wowevent.service.asking import (
    FURTHEST,
    TRACEPARENT,
    bus_of,
    choice_of,
    limit_of,
    name_of,
    position_of,
    time_of,
    traceparent_of,
)
from wowevent.service.borrowed import Borrowed
from wowevent.service.failures import problem_of
from wowevent.service.idempotency import HEADER, Keys, fingerprint, id_of, key_of
from wowevent.service.intake import JSON, Lacking, events_of, sent

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from wowevent.broker import Broker, Position, Query
    from wowevent.event import Event
    from wowevent.rewind import Page, Stretch

NDJSON: Final = "application/x-ndjson"
MOST: Final = 1000
"""Events of one page of history."""

ORDERS: Final = ("oldest", "newest")
"""Which events come first; the first one if it is not said."""
PARTS: Final = frozenset({"before", "stored_from", "stored_until"})
"""What says which part of the log is meant, beside `after`."""

_PAGE: Final = "100"


class History(Struct):
    """A page of the log; `next`, if not null, goes on: with `?after=`, newest first with `?before=`."""

    events: list[StoredEvent]
    next: PositionText | None


async def publish(request: Request) -> Response:
    """202 and `{"receipts": [{event_id, position, duplicate, matched, unserved}]}`, one an event, in their order.

    `?delay=` (seconds) or `?at=` (a time) sends all of it later. Nothing of a batch is stored unless all is right. With
    an `Idempotency-Key` it may be sent again; a `traceparent` is that of every event without one of its own.
    """
    bus = bus_of(request)
    moment = _moment(request.query_params)
    key = key_of(request.headers.getlist(HEADER))
    carried = await sent(request)
    owner = "" if (identity := asker(request)) is None else identity.name
    id_for = None if key is None else partial(id_of, bus.namespace, key, owner=owner)
    lacking = Lacking(id_for, traceparent_of(request.headers.getlist(TRACEPARENT)))
    events = stamped(request, await events_of(carried, lacking))
    if moment is not None:
        events = [structs.replace(event, not_before=moment) for event in events]
    if key is None:
        return answer(Receipts([shown_receipt(receipt) for receipt in await bus.publish_many(events)]), 202)
    keys: Keys = request.app.state.keys
    asked = fingerprint(request.url.query.encode(), carried.media.encode(), carried.body)
    return Response(await keys.once(key, asked, partial(bus.publish_many, events), owner=owner), 202, media_type=JSON)


async def history(request: Request) -> Response | Borrowed:
    """`{"events": [{event, position, stored_at}], "next": …}` by pattern, time and correlation, oldest first.

    `next`, if not null, goes on with `?after=`, and with `?before=` where `?order=newest` was asked for. With `Accept:
    application/x-ndjson` one event a line, and all of them unless `limit` says otherwise.
    """
    broker, asked = bus_of(request).broker, request.query_params
    patterns = asked.getlist("pattern") or None
    permit(request, "replay", patterns)
    sees = sight(request, "replay")
    stream = NDJSON in request.headers.get("accept", "")
    limit = limit_of(asked.get("limit"), FURTHEST) if stream else limit_of(asked.get("limit", _PAGE), MOST)
    backwards = choice_of(asked, "order", ORDERS) == "newest"
    query = build_query(
        patterns,
        time_of(asked, "start_time"),
        time_of(asked, "end_time"),
        correlation_id=name_of(asked, "correlation_id"),
    )
    after = position_of(asked.get("after"), "after")
    if backwards or not asked.keys().isdisjoint(PARTS):
        part = await _part(broker, query, asked, after)
        if backwards:
            if stream or limit is None:
                raise InvalidEvent("order=newest comes in pages, not as lines")
            return _shown(await newest(broker, query, part, limit, sees))
        query, after = structs.replace(query, upto=part.upto), part.after
    most = limit if stream or limit is None else limit + 1
    found = broker.read(structs.replace(query, limit=most if sees is None else None), after=after)
    if sees is not None:
        found = _seen(found, sees, most)
    if stream:
        return Borrowed(await _streamed(found, standing(request)), request)
    page = [stored async for stored in found]
    more = limit is not None and len(page) > limit
    shown = [shown_stored(stored) for stored in page[:limit]]
    return answer(History(shown, shown[-1].position if more else None))


async def _part(broker: Broker, query: Query, asked: QueryParams, after: Position | None) -> Stretch:
    """The part of the log that is asked for."""
    begin, end = time_of(asked, "stored_from"), time_of(asked, "stored_until")
    return await stretch(
        broker,
        query,
        after=after,
        before=position_of(asked.get("before"), "before"),
        stored_from=None if begin is None else begin.timestamp(),
        stored_until=None if end is None else end.timestamp(),
    )


def _shown(page: Page) -> Response:
    return answer(
        History([shown_stored(stored) for stored in page.found], None if page.before is None else str(page.before))
    )


def _moment(asked: QueryParams) -> datetime | None:
    """When to send, as `delay` or `at` say."""
    if "delay" not in asked:
        return time_of(asked, "at")
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


async def _seen(log: Iteration, sees: Callable[[Event], bool], limit: int | None) -> AsyncGenerator[Stored]:
    """Those that may be seen, so many at most."""
    count = 0
    async with aclosing(log):
        async for stored in log:
            if sees(stored.event):
                yield stored
                count += 1
                if count == limit:
                    return


async def _streamed(found: Iteration, stands: Callable[[], bool] | None) -> Response:
    """One event a line. The first is read before the answer begins, so that its failure still has a status."""
    return StreamingResponse(_lines(await anext(found, None), found, stands), media_type=NDJSON)


async def _lines(first: Stored | None, rest: Iteration, stands: Callable[[], bool] | None) -> AsyncIterator[bytes]:
    """The events; an error in their midst is the last line, in the shape of any other error."""
    async with aclosing(rest):
        try:
            if first is not None:
                yield line(shown_stored(first)) + b"\n"
            async for stored in rest:
                if stands is not None and not stands():
                    raise Unauthenticated("this token is not valid any more")
                yield line(shown_stored(stored)) + b"\n"
        except BusError as error:
            logger.error("history ended early", code=error.code, error=error)
            yield line(problem_of(error)) + b"\n"
