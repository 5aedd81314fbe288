"""What is published without waiting: a bounded outbox between the publishing threads and the engine."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from wowevent.blocking.line import Line
from wowevent.errors import BusError
from wowevent.event import Event
from wowevent.log import logger

CAPACITY: Final = 10_000
_BATCH: Final = 500
_ROOM_SECONDS: Final = 1.0  # for so long a publisher waits for room
_LOOK_SECONDS: Final = 0.001


class Outbox:
    """Events on their way; put in by any thread, sent by the loop.

    A full outbox makes its publishers wait for room, so that a loop of publishes goes at the engine's pace and loses
    nothing; where none comes within a second (the engine is away), the event is dropped, counted and said.
    """

    def __init__(self, line: Line, post: Callable[[Callable[[], object]], None]) -> None:
        """`post` calls a function on the line's loop. `run` there sends."""
        self.dropped: int = 0
        """Events that were not sent: there was no room, or the engine did not take them."""
        self._line = line
        self._post = post
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._idle = False

    def put(self, event: Event) -> bool:
        """Send it soon; False if it was dropped, since there is no room. Called from any thread but the loop's."""
        until = time.monotonic() + _ROOM_SECONDS
        while len(self._events) >= CAPACITY:
            if time.monotonic() > until:
                self._post(partial(self._drop, 1, "the outbox is full"))  # one thread counts
                return False
            time.sleep(_LOOK_SECONDS)
        self._events.append(event)
        if self._idle:
            self._post(self._news.set)
        return True

    async def run(self) -> None:
        """Send what gathers, until cancelled."""
        while True:
            self._idle = True
            while not self._events:  # looked at after `_idle` is set: who puts one in now wakes us
                self._empty.set()
                await self._news.wait()
                self._news.clear()
            self._idle = False
            self._empty.clear()
            events = [self._events.popleft() for _ in range(min(_BATCH, len(self._events)))]
            try:
                await (await self._line.started()).publish_many(events)
            except BusError as error:
                self._drop(len(events), str(error))

    async def flush(self, timeout: float) -> None:
        """Return when all of it was sent, or dropped; what is left after `timeout` seconds is dropped."""
        try:
            async with asyncio.timeout(timeout):
                while self._events or not self._empty.is_set():
                    await self._empty.wait()
                    await asyncio.sleep(0)
        except TimeoutError:
            if self._events:
                self._drop(len(self._events), "the bus was closed")

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        logger.error("publish without confirmation failed, event dropped", dropped=count, why=why, total=self.dropped)
