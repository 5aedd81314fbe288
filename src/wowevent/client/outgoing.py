"""What a client sends of its own: events by way of the outbox, requests, answers to requests of others."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Any, Final

import msgspec
from msgspec import Raw, structs

from wowevent.client.connection import Connection, error_of, refusal
from wowevent.client.link import Link, Pace
from wowevent.client.outbox import Entry, Outbox
from wowevent.client.subscription import Counters
from wowevent.clock import Clock, Timer
from wowevent.codec import encode as encode_event
from wowevent.delivery import followed, following
from wowevent.errors import BusError, Closed, InvalidEvent, PayloadTooLarge, RequestTimeout
from wowevent.event import Event
from wowevent.log import logger
from wowevent.payload import encode_payload, too_large
from wowevent.router.wire import MARGIN, Asked, Error, Published, Reply, Request, encode
from wowevent.topic import is_reserved, reserved
from wowevent.wakeup import Wakeup

_REPLIES: Final = 1_000  # answers that wait for a connection; the askers' timeouts are running
_GRACE: Final = 1.0  # seconds for the router's word that a request timed out


class Outgoing:
    """The way out of one client."""

    def __init__(
        self, link: Link, outbox: Outbox, pace: Pace, *, agent: str | None, clock: Clock, counters: Counters
    ) -> None:
        self.emptied: Wakeup = Wakeup()
        """Everything was confirmed, or cannot be now."""
        self._link = link
        self._outbox = outbox
        self._pace = pace
        self._agent = agent
        self._clock = clock
        self._counters = counters
        self._waiting: OrderedDict[int, Entry] = OrderedDict()  # for room in the outbox
        self._refused: dict[int, Entry] = {}  # for reasons that pass
        self._timer: Timer | None = None
        self._replies: deque[bytes] = deque(maxlen=_REPLIES)

    # --- events -----------------------------------------------------------------------------------------------------

    def stamped(self, event: Event) -> Event:
        """The event as it will be sent; InvalidTopic if it cannot be. In a handler it inherits."""
        if is_reserved(event.topic):
            raise reserved(event.topic)
        changes: dict[str, Any] = {}
        if not event.source_agent and self._agent is not None:
            changes["source_agent"] = self._agent
        if (delivery := followed()) is not None:
            changes |= following(event, delivery)
        return structs.replace(event, **changes) if changes else event

    async def publish(self, event: Event) -> None:
        """Return once the router has it, or once it is known that this will take longer."""
        entry = self._outbox.write(event)
        self._check_size(event, entry.data)
        if not self._outbox.fits(entry):
            raise self._outbox.full()
        if self._link.connection is None:
            self._outbox.put(entry)
            return
        entry.waiter = asyncio.get_running_loop().create_future()
        self._waiting[entry.ref] = entry
        self._admit()
        try:
            async with asyncio.timeout(self._pace.timeout):
                await entry.waiter
        except TimeoutError:
            if entry.ref in self._waiting:
                raise self._outbox.full() from None
            logger.warning("event is not confirmed yet", event_id=entry.event_id, timeout=self._pace.timeout)
        finally:
            entry.waiter = None
            self._waiting.pop(entry.ref, None)

    def _admit(self) -> None:
        """Send what waits for room in the outbox, as far as there is some; while the router confirms, there will be."""
        connection = self._link.connection
        while self._waiting and connection is not None:
            entry = next(iter(self._waiting.values()))
            if not self._outbox.has_room(entry):
                return
            del self._waiting[entry.ref]
            self._outbox.put(entry)
            connection.send(entry.data)

    def _check_size(self, event: Event, data: bytes) -> None:
        size, most = memoryview(event.body).nbytes, self._link.max_frame
        if size > most - MARGIN:
            raise too_large(size, most - MARGIN)
        if len(data) > most:
            raise PayloadTooLarge(f"frame of {len(data)} bytes; {most} is the most")

    def answer(self, frame: Published | Error) -> None:
        """The router's word on an event."""
        entry = self._outbox.get(frame.ref)
        if entry is None:
            if isinstance(frame, Error):
                logger.warning("the router reports an error", error=error_of(frame))
        elif isinstance(frame, Error):
            error = error_of(frame)
            self._refuse(entry, error, passes=error.retryable)
        elif frame.status == "dropped":
            self._refuse(entry, refusal(frame.reason or "", frame.message or ""), passes=frame.retryable)
        else:
            self._drop(entry)
            self._counters.published += 1
            entry.tell(True)

    def _refuse(self, entry: Entry, error: BusError, *, passes: bool) -> None:
        """Raise at who waits. What nobody waits for stays if the reason passes; so does all when the router leaves."""
        leaving = isinstance(error, Closed) and self._pace.auto_reconnect
        if leaving:
            entry.tell(False)
        elif entry.fail(error):
            self._drop(entry)
            return
        if leaving or passes:
            self._refused[entry.ref] = entry
            if self._timer is None:
                self._timer = self._clock.call_later(self._pace.reconnect_interval, self._send_refused)
            return
        self._drop(entry)
        self._counters.dropped += 1
        logger.error("event dropped, the router refuses it", event_id=entry.event_id, error=error)

    def _send_refused(self) -> None:
        self._timer = None
        refused, self._refused = self._refused, {}
        if (connection := self._link.connection) is not None:
            for entry in refused.values():
                connection.send(entry.data)

    def _drop(self, entry: Entry) -> None:
        self._outbox.drop(entry)
        self._admit()
        if not len(self._outbox):
            self.emptied.notify()

    # --- requests ---------------------------------------------------------------------------------------------------

    async def request(self, event: Event, timeout: float) -> Any:
        """The answer to a request; raises NoResponders, RequestFailed, RequestTimeout."""
        frame = Request(event=Raw(encode_event(event)), timeout=timeout)
        self._check_size(event, encode(frame))
        until = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(until) as limit:
                connection = await self._link.ready()
                limit.reschedule(until + _GRACE)
                left = max(until - asyncio.get_running_loop().time(), 0.001)
                return (await connection.ask(structs.replace(frame, timeout=left))).reply
        except RequestTimeout:
            raise
        except TimeoutError as error:
            raise RequestTimeout(f"no reply to {event.topic!r} within {timeout:g} s") from error

    def reply(self, request: Event, value: Any, error: str | None) -> None:
        """Answer a request that came as an event; what cannot be sent now is sent with the next connection."""
        asked = Asked(event_id=request.event_id, correlation_id=request.correlation_id, reply_to=request.reply_to or "")
        data = self._encoded(asked, value, error)
        if len(data) > self._link.max_frame:
            logger.error("delivery succeeded, but its reply is too large", event_id=request.event_id, bytes=len(data))
            data = self._encoded(asked, None, f"the reply is too large: {len(data)} bytes")
        if (connection := self._link.connection) is None:
            self._replies.append(data)
        else:
            connection.send(data)

    def _encoded(self, asked: Asked, value: Any, error: str | None) -> bytes:
        if error is None:
            try:
                value = msgspec.json.decode(encode_payload({"reply": value}))["reply"]
            except InvalidEvent as wrong:
                logger.error("delivery succeeded, but its reply is not JSON", event_id=asked.event_id, error=wrong)
                value, error = None, f"the reply is not JSON: {wrong}"
        return encode(Reply(event=asked, reply=value, error=error))

    # --- connections ------------------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """Send everything that is not confirmed, in its order, before anything newer."""
        for entry in self._outbox:
            if len(entry.data) > connection.max_frame:
                self._refuse(entry, PayloadTooLarge(f"the router takes {connection.max_frame} bytes now"), passes=False)
            else:
                connection.send(entry.data)
        while self._replies:
            connection.send(self._replies.popleft())

    def lost(self) -> None:
        """What was sent may have arrived or not: it stays, unless nobody will send it again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._refused.clear()
        for entry in self._outbox:
            if self._link.ended is None:
                entry.tell(False)
            elif entry.fail(self._link.ended):
                self._outbox.drop(entry)
        waiting, self._waiting = self._waiting, OrderedDict()
        for entry in waiting.values():
            entry.fail(self._link.ended or self._outbox.full())
        self.emptied.notify()

    async def drained(self) -> None:
        """Return once everything is confirmed, or nothing can be."""
        while len(self._outbox) and self._link.connection is not None:
            await self.emptied.wait()

    def forget(self) -> None:
        """Goodbye was said: answers to old requests are of no use."""
        self._replies.clear()
        if len(self._outbox):
            logger.warning("events are not confirmed, they are sent with the next connect()", events=len(self._outbox))
