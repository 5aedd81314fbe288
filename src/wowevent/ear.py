"""One topic of the live path, followed as long as the bus runs: what is heard there is passed on, trouble is waited out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from wowevent.broker import Broker, Position, Query
from wowevent.clock import Clock
from wowevent.errors import BrokerError, Closed, PositionLost
from wowevent.event import Event
from wowevent.log import logger

_PAUSE: Final = 0.2  # seconds before it is listened again after trouble


class Ear:
    """What is said on one topic from `start` on; a word that is said during trouble is lost."""

    def __init__(self, broker: Broker, clock: Clock, topic: str, take: Callable[[Event], object], what: str) -> None:
        """`take(event)` is called for each; `what` names them in log lines."""
        self._broker = broker
        self._clock = clock
        self._topic = topic
        self._take = take
        self._what = what
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return once it listens. Twice is once. Raises BrokerError."""
        if self._reader is None:
            head = (await self._broker.ping()).head
            if self._reader is None:  # nobody else began while the engine answered
                self._reader = asyncio.create_task(self._read(head), name=f"wowevent:{self._what}")
                await asyncio.sleep(0)  # its read is under way before somebody is asked

    async def close(self) -> None:
        """Listen no more."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self, head: Position | None) -> None:
        query = Query(patterns=(self._topic,))
        while True:
            try:
                head = head or (await self._broker.ping()).head
                async with aclosing(self._broker.read(query, after=head, follow=True)) as words:  # type: ignore[type-var]  # an async generator
                    async for stored in words:
                        head = stored.position
                        self._take(stored.event)
                return
            except Closed:
                return
            except PositionLost:
                head = None
            except BrokerError as error:
                logger.error(f"{self._what} cannot be read now", error=error, retry_in=_PAUSE)
                await self._clock.sleep(_PAUSE)
