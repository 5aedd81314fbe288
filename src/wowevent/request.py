"""Request and reply: questions that wait for an answer, and the answers, which go by the engine's live path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from msgspec import structs

from wowevent.broker import LIVE, Appended, Broker
from wowevent.clock import Clock
from wowevent.delivery import inherited
from wowevent.ear import Ear
from wowevent.errors import BrokerError, Closed, InvalidEvent, RequestFailed
from wowevent.event import Event
from wowevent.id import new_id
from wowevent.log import logger
from wowevent.routing import Routes

_FRESH: Final = 1.0  # seconds for which who is served is taken from memory

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
        self._ear = Ear(broker, clock, self.topic, self._take, "replies")
        self._responders: tuple[float, Routes] | None = None

    async def ask(self, event: Event, publish: Callable[[Event], Awaitable[object]]) -> Any:
        """Publish a question and wait for its answer; RequestFailed if the answer says so."""
        if not self._ear.hears:
            await self._ear.start(lambda: self._send((Event(topic=self.topic),)))
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
        for present in await self._broker.presence():
            if present.consumers:
                routes.add(present.subscription)
        self._responders = (now, routes)
        return bool(routes.match(event))

    async def close(self) -> None:
        """End the reader; who still waits gets Closed."""
        await self._ear.close()
        for future in self._open.values():
            if not future.done():
                future.set_exception(Closed("the bus was stopped"))

    def _take(self, reply: Event) -> None:
        """The first answer to an open question wins; any other is nobody's."""
        future = self._open.get(reply.parent_event_id or "")
        if future is None or future.done():
            return
        if "error" in reply.payload:
            future.set_exception(RequestFailed(reply.payload["error"]))
        else:
            future.set_result(reply.payload.get("reply"))
