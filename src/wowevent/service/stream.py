"""GET /events/stream: the log as Server-Sent Events, at the client's pace, and on from where the client was.

    retry: 1000                     once, with the id from where it goes on
    id: 1f0c2a9e-41

    id: 1f0c2a9e-42                 one event, in the shape of GET /events
    data: {"event":{…},"position":"1f0c2a9e-42","stored_at":…}

    event: skipped                  with `max_rate`: so many were left out here
    data: {"skipped":7}

    event: reset                    what lay here, so many at least, is gone; it goes on behind the gap
    data: {"lost":7,"message":"…"}

    : ping                          nothing happened for a while

An event has no `event:` field: so it is a `message`, which EventSource hands to `onmessage`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from wowevent.broker import Iteration, Position, Stored
from wowevent.ending import end
from wowevent.errors import BusError, PositionLost, printable
from wowevent.log import logger
from wowevent.service.access import asker, note, permit, sight, standing
from wowevent.service.answers import line, shown_stored
from wowevent.service.asking import bus_of, level_of, limit_of, position_of
from wowevent.service.borrowed import LAST_WORDS, cut_off, fallen
from wowevent.service.failures import Refusal
from wowevent.service.newest import Newest

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

    from wowevent.access.rights import Identity
    from wowevent.event import Event

MEDIA_TYPE: Final = "text/event-stream"
FASTEST: Final = 1000
"""The most events a second that can be asked for."""

_RETRY: Final = 1000  # milliseconds
_TURN: Final = 500  # events that are read before others get their turn on the loop
_HEADERS: Final = (
    (b"content-type", f"{MEDIA_TYPE}; charset=utf-8".encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events until it has a buffer full of them
)

Follow = Callable[[Position | None], Iteration]


class Streams:
    """The open streams of one application: bounded in number, and ended together."""

    def __init__(self, *, limit: int = 1000, ping: float = 15.0, patience: float = 30.0) -> None:
        """Seconds: without an event until a `ping`, and for which a client may take nothing before it is cut off."""
        self.limit: int = limit
        self.ping: float = ping
        self.patience: float = patience
        self.open: int = 0
        self.of: Counter[str] = Counter()
        """How many are open by who listens."""
        self.ended: asyncio.Event = asyncio.Event()

    def check_room(self, identity: Identity | None) -> None:
        """Refusal if there are as many as there may be, of all or of this one."""
        own = None if identity is None else identity.limits.clients
        if self.open >= self.limit:
            message = f"{self.limit} streams are open; that is the most"
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too_many_streams", message)
        if identity is not None and own is not None and self.of[identity.name] >= own:
            message = f"{identity.name} may have {own} streams at once"
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too_many_streams", message)

    def end(self) -> None:
        """End all, those to come included."""
        self.ended.set()


async def stream(request: Request) -> EventStream:
    """What is published from now on, or behind `Last-Event-ID` or `?after=`; the first of these wins.

    What lies behind a place was published before: who wants that has to be granted `replay`, too.
    """
    bus, asked, streams = bus_of(request), request.query_params, request.app.state.streams
    seen = request.headers.get("last-event-id")
    after = position_of(seen, "Last-Event-ID") if seen else position_of(asked.get("after"), "after")
    patterns = asked.getlist("pattern") or None
    most = limit_of(asked.get("max_rate"), FASTEST, "max_rate")
    permit(request, "subscribe", patterns)
    if after is not None:
        permit(request, "replay", patterns)
    follow = partial(
        bus.follow,
        patterns,
        types=asked.getlist("types") or None,
        priorities=[level_of(each) for each in asked.getlist("priorities")] or None,
        min_priority=level_of(asked["min_priority"]) if "min_priority" in asked else None,
        sources=asked.getlist("sources") or None,
    )
    follow()  # refuses wrong filters while there still is a status to say so
    head = (await bus.broker.ping()).head
    streams.check_room(asker(request))
    sees = sight(request, "subscribe")
    reading = _following(follow) if sees is None else _followed_by(follow, sees)
    note(request, "stream", patterns=" ".join(patterns or ("#",)), after=after)
    return EventStream(reading, after or head, streams, listener=asker(request), stands=standing(request), most=most)


def _following(follow: Callable[..., Iteration]) -> Follow:
    return lambda place: follow(after=place)


def _followed_by(follow: Callable[..., Iteration], sees: Callable[[Event], bool]) -> Follow:
    """Only what may be seen."""

    async def seen(place: Position | None) -> AsyncGenerator[Stored]:
        async with aclosing(follow(after=place)) as log:
            async for stored in log:
                if sees(stored.event):
                    yield stored

    return seen


class EventStream:
    """The answer, an ASGI application of its own: it ends when the client, the bus or the service does."""

    def __init__(
        self,
        follow: Follow,
        after: Position,
        streams: Streams,
        *,
        listener: Identity | None = None,
        stands: Callable[[], bool] | None = None,
        most: int | None = None,
    ) -> None:
        """`follow(position)` reads the log from behind it, `follow(None)` from what is left of it.

        It ends once `stands` says that the token of its listener holds no more. `most` is how many a second it is sent;
        None: all of them.
        """
        self._listener = "" if listener is None else listener.name
        self._stands = stands
        self._follow = follow
        self._after = after
        self._streams = streams
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until one of them ends; a client that takes nothing for too long is cut off."""
        self._streams.open += 1
        self._streams.of[self._listener] += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["method"] != "HEAD":
                await self._until_the_end(receive, send)
            await self._send(send, {"type": "http.response.body", "body": b""}, LAST_WORDS)
        except TimeoutError:
            logger.warning("stream cut off, its client does not read", path=scope["path"])
            cut_off(scope)
        finally:
            self._streams.open -= 1
            self._streams.of -= Counter([self._listener])

    async def _until_the_end(self, receive: Receive, send: Send) -> None:
        ends: list[Coroutine[Any, Any, object]] = [self._pump(send), _gone(receive), self._streams.ended.wait()]
        if self._stands is not None:
            ends.append(fallen(self._stands, self._listener))
        tasks = [asyncio.create_task(each, name="wowevent:stream") for each in ends]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(*tasks)
        for task in done:
            task.result()

    async def _pump(self, send: Send) -> None:
        after: Position | None = self._after
        words = b"retry: %d\nid: %s\n\n" % (_RETRY, str(after).encode())
        while True:
            try:
                async with aclosing(self._follow(after)) as log:
                    relay = self._relay if self._most is None else self._sample
                    return await relay(log, send, words)
            except PositionLost as lost:
                data = msgspec.json.encode({"lost": lost.lost, "message": printable(str(lost))})
                after, words = None, b"event: reset\ndata: %s\n\n" % data
            except BusError as error:  # the client comes again, with the id of the last event that it has
                logger.error("stream ended early", code=error.code, error=error)
                return None

    async def _relay(self, log: Iteration, send: Send, words: bytes) -> None:
        """Say these words, then hand over what comes until the log ends.

        The log is asked first: who is slow to hear of a gap must not lose more behind it meanwhile.
        """
        while True:
            coming = asyncio.create_task(_next(log))
            try:
                if words:
                    await self._write(send, words)
                while not (await asyncio.wait({coming}, timeout=self._streams.ping))[0]:
                    await self._write(send, b": ping\n\n")
            finally:
                await end(coming)
            if (stored := coming.result()) is None:
                return
            words = _message(stored)

    async def _sample(self, log: Iteration, send: Send, words: bytes) -> None:
        """As `_relay`, but the log is read at its own pace, and what is too much is left out."""
        loop, news, newest = asyncio.get_running_loop(), asyncio.Event(), Newest(self._most or FASTEST)
        reading = asyncio.create_task(_take_in(log, newest, news), name="wowevent:stream:read")
        try:
            if words:
                await self._write(send, words)
            while len(newest) or not reading.done():
                if len(newest):
                    await asyncio.sleep(newest.wait(loop.time()))
                    await self._write(send, _sampled(*newest.take(loop.time())))
                    continue
                news.clear()
                try:
                    async with asyncio.timeout(self._streams.ping):
                        await news.wait()
                except TimeoutError:
                    await self._write(send, b": ping\n\n")
            reading.result()
        finally:
            await end(reading)

    async def _write(self, send: Send, data: bytes) -> None:
        await self._send(send, {"type": "http.response.body", "body": data, "more_body": True}, self._streams.patience)

    async def _send(self, send: Send, message: Message, patience: float) -> None:
        """Send; TimeoutError if the client, who has what is before this to read, does not."""
        async with asyncio.timeout(patience):
            await send(message)


async def _take_in(log: Iteration, newest: Newest, news: asyncio.Event) -> None:
    """Read until the log ends, and let others have their turns; whoever waits is told of the end, too."""
    count = 0
    try:
        async for stored in log:
            newest.put(stored)
            news.set()
            count += 1
            if count % _TURN == 0:
                await asyncio.sleep(0)
    finally:
        news.set()


def _message(stored: Stored) -> bytes:
    return b"id: %s\ndata: %s\n\n" % (str(stored.position).encode(), line(shown_stored(stored)))


def _sampled(skipped: int, taken: Sequence[Stored]) -> bytes:
    told = b'event: skipped\ndata: {"skipped":%d}\n\n' % skipped if skipped else b""
    return told + b"".join(map(_message, taken))


async def _next(log: Iteration) -> Stored | None:
    return await anext(log, None)


async def _gone(receive: Receive) -> None:
    """Return when the client is."""
    while (await receive())["type"] != "http.disconnect":
        pass
