"""Request and reply: questions that wait for an answer, and the answers, which go by the engine's live path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

from msgspec import structs

from wowevent.broker import LIVE, Appended, Broker, Position, Query
from wowevent.clock import Clock
from wowevent.delivery import inherited
from wowevent.errors import BrokerError, Closed, InvalidEvent, PositionLost, RequestFailed
from wowevent.event import Event, new_id
from wowevent.log import logger
from wowevent.routing import Routes

_FRESH: Final = 1.0  # seconds for which who is served is taken from memory
_TRY: Final = 0.05  # seconds, the first time, until it is tried again whether answers are heard
_PAUSE: Final = 0.2  # seconds before the replies are read again after trouble

Send = Callable[[Sequence[Event]], Awaitable[Sequence[Appended]]]


class Requests:
    """The open questions of one bus, and its answers to those of others."""

    def __init__(self, broker: Broker, send: Send, clock: Clock) -> None:
        """`send` is the bus's way to the engine."""
        self.topic: str = f"{LIVE}{new_id()}"
        """Where the answers to this bus go."""
        self._broker = broker
        self._send = send
        self._clock = clock
        self._open: dict[str, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        self._responders: tuple[float, Routes] | None = None

    async def ask(self, event: Event, publish: Callable[[Event], Awaitable[object]]) -> Any:
        """Publish a question and wait for its answer; RequestFailed if the answer says so."""
        if not self._heard.is_set():
            await self._listen()
        future = self._open[event.event_id] = asyncio.get_running_loop().create_future()
        try:
            await publish(event)
            return await future
        finally:
            del self._open[event.event_id]

    async def answer(self, request: Event, value: Any, error: str | None) -> None:
        """Answer a question of somebody; what cannot be sent is logged, since the asker's timeout is running."""
        if request.reply_to is None or not request.reply_to.startswith(LIVE):
            return
        try:
            reply = Event(topic=request.reply_to, payload={"reply": value} if error is None else {"error": error})
        except InvalidEvent as wrong:
            logger.error("delivery succeeded, but its reply is not JSON", event_id=request.event_id, error=wrong)
            reply = Event(topic=request.reply_to, payload={"error": f"the reply is not JSON: {wrong}"})
        try:
            await self._send((structs.replace(reply, **inherited(reply, request)),))
        except (BrokerError, Closed) as trouble:
            logger.error("reply could not be sent", event_id=request.event_id, error=trouble)

    async def has_responder(self, event: Event) -> bool:
        """Whether somebody is served who gets this; a no is never taken from memory."""
        now = self._clock.monotonic()
        if self._responders is not None and now - self._responders[0] < _FRESH and self._responders[1].match(event):
            return True
        routes = Routes()
        for info in await self._broker.subscriptions():
            if info.consumers:
                routes.add(info.subscription)
        self._responders = (now, routes)
        return bool(routes.match(event))

    async def close(self) -> None:
        """End the reader; who still waits gets Closed."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        for future in self._open.values():
            if not future.done():
                future.set_exception(Closed("the bus was stopped"))

    async def _listen(self) -> None:
        """Begin to read, and return once what is said to this bus is heard: until then an answer would be lost."""
        if self._reader is None:
            head = (await self._broker.ping()).head
            if self._reader is None:  # nobody else began while the engine answered
                self._reader = asyncio.create_task(self._read(head), name="wowevent:replies")
        pause = _TRY
        while not self._heard.is_set():
            await self._send((Event(topic=self.topic),))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._heard.wait()
            pause = min(2 * pause, _FRESH)

    async def _read(self, head: Position | None) -> None:
        query = Query(patterns=(self.topic,))
        while True:
            try:
                head = head or (await self._broker.ping()).head
                async with aclosing(self._broker.read(query, after=head, follow=True)) as replies:  # type: ignore[type-var]  # an async generator
                    async for stored in replies:
                        head = stored.position
                        self._heard.set()
                        self._take(stored.event)
                return
            except Closed:
                return
            except PositionLost:
                head = None
            except BrokerError as error:
                logger.error("replies cannot be read now", error=error, retry_in=_PAUSE)
                await self._clock.sleep(_PAUSE)

    def _take(self, reply: Event) -> None:
        """The first answer to an open question wins; any other is nobody's."""
        future = self._open.get(reply.parent_event_id or "")
        if future is None or future.done():
            return
        if "error" in reply.payload:
            future.set_exception(RequestFailed(reply.payload["error"]))
        else:
            future.set_result(reply.payload.get("reply"))
