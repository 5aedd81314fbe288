"""One topic of the live path, followed until it is closed: what is heard there is passed on, trouble is waited out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Final

from wowevent.broker import Broker, Position, Query
from wowevent.clock import Clock
from wowevent.ending import end
from wowevent.errors import BrokerError, Closed, PositionLost
from wowevent.event import Event
from wowevent.log import logger

_TRY: Final = (0.05, 1.0)  # seconds, the first and the longest time, until it is tried again whether anything is heard
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
        self._heard = asyncio.Event()

    @property
    def hears(self) -> bool:
        """Whether something was heard by now."""
        return self._heard.is_set()

    async def start(self, knock: Callable[[], Awaitable[object]]) -> None:
        """Begin to read, and return once what is said is heard: until then it would be lost.

        `knock()` says something there. Raises what that raises, Closed after `close`; who calls has a timeout.
        """
        if self._reader is None:
            head = (await self._broker.ping()).head
            if self._reader is None:  # nobody else began while the engine answered
                self._reader = asyncio.create_task(self._read(head), name=f"wowevent:{self._what}")
        pause, longest = _TRY
        while not self.hears:
            if self._reader.done():
                raise Closed(f"{self._what}: nobody listens here any more")
            await knock()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._heard.wait()
            pause = min(2 * pause, longest)

    async def still(self, knock: Callable[[], Awaitable[object]]) -> None:
        """Return once something that is said from now on is heard; as `start` otherwise."""
        self._heard.clear()
        await self.start(knock)

    async def close(self) -> None:
        """Listen no more."""
        await end(self._reader)

    async def _read(self, head: Position | None) -> None:
        query = Query(patterns=(self._topic,))
        while True:
            try:
                head = head or (await self._broker.ping()).head
                async with aclosing(self._broker.read(query, after=head, follow=True)) as words:
                    async for stored in words:
                        head = stored.position
                        self._heard.set()
                        self._take(stored.event)
                return
            except Closed:
                return
            except PositionLost:
                head = None
            except BrokerError as error:
                logger.error(f"{self._what} cannot be read now", error=error, retry_in=_PAUSE)
                await self._clock.sleep(_PAUSE)
