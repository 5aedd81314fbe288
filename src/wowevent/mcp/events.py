"""Tools for events: publish, wait for what comes, ask, look back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct, structs

from wowevent.broker import Iteration, Position, Stored
from wowevent.bus import EventBus
from wowevent.errors import InvalidEvent
from wowevent.event import Event
from wowevent.mcp.call import Call
from wowevent.mcp.shown import MOST_PAYLOAD, PAYLOAD, ROOM, fitting, shown_stored
from wowevent.mcp.tool import Tool
from wowevent.service.asking import position_of

_LONGEST: Final = 60.0  # seconds that a call may wait: clients give up on those that take longer
_MOST: Final = 100  # events of an answer
_LOOKED_AT: Final = 10_000  # places of the log, from its end, that are looked at for the newest
_STANDING: Final = 1.0  # seconds between two looks at whether the caller's token holds

Topic = Annotated[str, Meta(description="Such as task.created: words joined by dots.", max_length=200)]
Pattern = Annotated[str, Meta(description="Such as task.*; # is everything.", max_length=200)]
Payload = Annotated[dict[str, Any], Meta(description="A JSON object.")]
Place = Annotated[str, Meta(description="A position, as answers name them: what lies behind it.", max_length=200)]
Id = Annotated[str, Meta(max_length=128)]
Bytes = Annotated[
    int,
    Meta(description="Bytes of the largest payload that is shown; larger ones are left out.", ge=0, le=MOST_PAYLOAD),
]
Seconds = Annotated[float, Meta(description="Seconds to wait at most.", gt=0, le=_LONGEST)]


class Publish(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to publish."""

    topic: Topic
    payload: Payload = {}
    event_type: Annotated[str, Meta(description="What happened; the topic without one.")] | None = None
    priority: Annotated[int, Meta(description="1 to 10, urgent is high.", ge=1, le=10)] = 5
    target_agent: Annotated[str, Meta(description="Only this agent gets it.")] | None = None
    correlation_id: Annotated[str, Meta(description="The conversation that it belongs to.")] | None = None
    parent_event_id: Annotated[str, Meta(description="The event that caused it.")] | None = None
    event_id: (
        Annotated[str, Meta(description="Of your own, so that publishing again with it stores it once.")] | None
    ) = None
    delay: Annotated[float, Meta(description="Seconds after which it is sent.", ge=0, le=31_536_000)] | None = None


async def publish(call: Call, asked: Publish) -> dict[str, Any]:
    """Publish one event; answers once the engine has it as durably as it promises.

    Answers {event_id, position, duplicate, matched, unserved}: `matched` is how many known subscriptions get it, and 0
    means that nobody is known to listen; `unserved` are those of them that nobody serves now. `position` is null for a
    delayed one, and always on RabbitMQ. Who published it is this server's name, or the token's.
    Errors: invalid_topic, invalid_event, validation_error, payload_too_large, broker_unavailable, storage_full.
    """
    event = call.stamped(_event(asked))
    bus = await call.bus()
    receipt = await bus.publish(event, delay=asked.delay)
    call.note("publish", topic=event.topic, event_id=receipt.event_id)
    position = None if receipt.position is None else str(receipt.position)
    return {**structs.asdict(receipt), "position": position}


class Wait(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to wait for."""

    pattern: Pattern
    count: Annotated[int, Meta(description="Answer once so many have come.", ge=1, le=_MOST)] = 1
    timeout: Seconds = 10.0
    after: Place | None = None
    max_payload: Bytes = PAYLOAD


async def subscribe_and_wait(call: Call, asked: Wait) -> dict[str, Any]:
    """Wait for events that are published from now on, and answer with them.

    Answers {events: [{position, stored_at, event}], position, timed_out}: as soon as `count` have come, else after
    `timeout` seconds with those that came, which may be none. To miss nothing between two calls, give the
    `position` of the last answer, or of a publish, as `after`. Only listens: no event is taken from anybody.
    Errors: invalid_topic, position_lost, broker_unavailable.
    """
    call.permit("subscribe", asked.pattern)
    if asked.after is not None:
        call.permit("replay", asked.pattern)
    bus = await call.bus()
    after = position_of(asked.after, "after") or (await bus.broker.ping()).head
    found: list[Stored] = []
    collecting = asyncio.create_task(_collect(call, bus, asked, after, found), name="wowevent:mcp:wait")
    try:
        await _until(call, collecting, asked.timeout)
    finally:
        collecting.cancel()
        await asyncio.wait([collecting], timeout=1.0)
    if collecting.done() and not collecting.cancelled():
        collecting.result()
    return _answer(found, asked, after)


class Request(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to ask."""

    topic: Topic
    payload: Payload = {}
    timeout: Seconds = 10.0
    target_agent: Annotated[str, Meta(description="Only this agent is asked.")] | None = None
    correlation_id: Annotated[str, Meta(description="The conversation that it belongs to.")] | None = None


async def request(call: Call, asked: Request) -> dict[str, Any]:
    """Publish a request and wait for the reply of whoever handles it; the first reply wins.

    Answers {reply}: what the responder's handler returned; one of more than 64 KiB is left out, and how many bytes it
    has is said.
    Errors: no_responders at once if nobody serves the topic, request_failed if the responder failed for the last time,
    request_timeout.
    """
    event = call.stamped(
        Event(
            topic=asked.topic,
            payload=asked.payload,
            target_agent=asked.target_agent,
            correlation_id=asked.correlation_id,
        )
    )
    bus = await call.bus()
    call.note("request", topic=event.topic, event_id=event.event_id)
    reply = await bus.request(event, timeout=asked.timeout)
    size = len(msgspec.json.encode(reply))
    return {"reply": reply} if size <= ROOM else {"reply": None, "reply_left_out": f"{size} bytes"}


class History(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which events of the log."""

    pattern: Pattern = "#"
    start_time: Annotated[str, Meta(description="ISO 8601, naive is UTC: events from then on.")] | None = None
    end_time: Annotated[str, Meta(description="Events up to then.")] | None = None
    correlation_id: Annotated[str, Meta(description="Those of one conversation.")] | None = None
    after: Place | None = None
    newest: Annotated[
        bool, Meta(description="The newest that fit, of the last 10,000 events; without it the oldest first.")
    ] = False
    limit: Annotated[int, Meta(description="At most so many.", ge=1, le=_MOST)] = 20
    max_payload: Bytes = PAYLOAD


async def history(call: Call, asked: History) -> dict[str, Any]:
    """Look back: the events of the log that fit, oldest first.

    Answers {events: [{position, stored_at, event}], next}: `next`, if not null, goes on as `after`. With `newest` the
    last ones of the log instead, for what happened lately.
    Errors: invalid_topic, invalid_event (a time or position that is none), position_lost, broker_unavailable.
    """
    call.permit("replay", asked.pattern)
    if asked.newest and asked.after is not None:
        raise InvalidEvent("newest and after exclude each other")
    bus = await call.bus()
    after = await _near_the_end(bus) if asked.newest else position_of(asked.after, "after")
    log = bus.history(asked.pattern, asked.start_time, asked.end_time, asked.correlation_id, after)
    seen = _seen(call, log)
    if asked.newest:
        newest = await _last(seen, asked.limit)
        shown = fitting(shown_stored(stored, asked.max_payload) for stored in reversed(newest))
        return {"events": shown[::-1], "next": None}
    page = await _first(seen, asked.limit + 1)
    shown = fitting(shown_stored(stored, asked.max_payload) for stored in page[: asked.limit])
    return {"events": shown, "next": shown[-1]["position"] if len(shown) < len(page) else None}


TOOLS: Final = (
    Tool(call=publish, arguments=Publish, rights=("publish",), changes=True, data=False),
    Tool(call=subscribe_and_wait, arguments=Wait, rights=("subscribe",)),
    Tool(call=request, arguments=Request, rights=("publish",), changes=True),
    Tool(call=history, arguments=History, rights=("replay",)),
)


def _event(asked: Publish) -> Event:
    given = {name: value for name, value in structs.asdict(asked).items() if value is not None and name != "delay"}
    return Event(**given)


async def _collect(call: Call, bus: EventBus, asked: Wait, after: Position, found: list[Stored]) -> None:
    """Add what comes until there is enough."""
    async with aclosing(bus.follow(asked.pattern, after=after)) as log:
        async for stored in log:
            if call.sees("subscribe", stored.event):
                found.append(stored)
                if len(found) >= asked.count:
                    return


async def _until(call: Call, collecting: asyncio.Task[None], timeout: float) -> None:
    """Wait for it or for the time; Unauthenticated once the caller's token ends."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while not collecting.done() and (left := end - loop.time()) > 0:
        await asyncio.wait([collecting], timeout=min(left, _STANDING))
        call.check_standing()


def _answer(found: Sequence[Stored], asked: Wait, after: Position) -> dict[str, Any]:
    shown = fitting(shown_stored(stored, asked.max_payload) for stored in found)
    return {
        "events": shown,
        "position": shown[-1]["position"] if shown else str(after),
        "timed_out": len(found) < asked.count,
    }


async def _near_the_end(bus: EventBus) -> Position | None:
    head = (await bus.broker.ping()).head
    return Position(head.epoch, head.offset - _LOOKED_AT) if head.offset > _LOOKED_AT else None


async def _seen(call: Call, log: Iteration) -> AsyncGenerator[Stored]:
    """Those that the caller may see."""
    async with aclosing(log):
        async for stored in log:
            if call.sees("replay", stored.event):
                yield stored


async def _first(log: Iteration, count: int) -> list[Stored]:
    found: list[Stored] = []
    async with aclosing(log):
        async for stored in log:
            found.append(stored)
            if len(found) >= count:
                break
    return found


async def _last(log: Iteration, count: int) -> list[Stored]:
    found: deque[Stored] = deque(maxlen=count)
    async with aclosing(log):
        async for stored in log:
            found.append(stored)
    return list(found)
