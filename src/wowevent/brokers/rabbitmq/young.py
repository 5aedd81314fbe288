"""The queues of new subscriptions, until it is known that they survive the server's death.

A quorum queue that is younger than a second comes back from a kill without a leader, and for good: who publishes into
it is refused, who asks it is not answered. So the control log says of each subscription when its queues are old enough.

    declared ──1.5 s on one connection──> noted
        └──not noted after 10 s──> asked by whoever is connected ──answered──> noted
                                          └──silence──> deleted, made anew, and its subscription is told
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from pamqp.commands import Basic

from wowevent.brokers.rabbitmq.control import Control
from wowevent.brokers.rabbitmq.lanes import YOUNG
from wowevent.brokers.rabbitmq.link import Link
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.registry import LANES, Known, Made, Stopped
from wowevent.clock import Clock
from wowevent.ending import end
from wowevent.errors import BrokerError, Closed
from wowevent.log import logger

_ASKED: Final = 10.0  # seconds: who declared a subscription has noted it by then, or its connection broke
_SILENT: Final = 3.0  # seconds without an answer of a queue, where the server answers others


class Young:
    """Those that one session made, and those that nobody noted."""

    def __init__(
        self,
        link: Link,
        names: Names,
        control: Control,
        clock: Clock,
        renew: Callable[[str, Sequence[str]], Awaitable[None]],
    ) -> None:
        """`renew` makes those queues of a subscription anew; it is called under the lock of its declaration."""
        self._link = link
        self._names = names
        self._control = control
        self._clock = clock
        self._renew = renew
        self._made: dict[str, float] = {}  # when
        self._task: asyncio.Task[None] | None = None

    def made(self, id: str) -> None:
        """This session made its queues just now."""
        self._made[id] = self._clock.time()

    async def look(self) -> None:
        """Note those that are old enough by now; this connection has been there all the time."""
        now = self._clock.time()
        for id in [id for id, since in self._made.items() if now - since >= YOUNG]:
            await self._control.append(Made(id, LANES))
            del self._made[id]
        self.ask()

    def ask(self) -> None:
        """Ask the queues that nobody noted in time: it is not known how old they were when a connection broke."""
        if self._task is None or self._task.done():
            now = self._clock.time()
            unknown = [id for id, known in self._control.registry.known.items() if self._unnoted(id, known, now)]
            if unknown:
                self._task = asyncio.create_task(self._ask_all(unknown), name="rabbitmq:young")

    def _unnoted(self, id: str, known: Known, now: float) -> bool:
        return not known.lapsed and now - known.since >= _ASKED and not self._control.has(id, LANES)

    async def _ask_all(self, unknown: Sequence[str]) -> None:
        """Beside all else: it takes seconds."""
        try:
            for id in unknown:
                await self._prove(id)
        except (BrokerError, Closed) as error:
            logger.debug("whether queues answer was not found out", error=error)

    async def _prove(self, id: str) -> None:
        async with self._link.lock(self._names.lock(f"declare.{id}")):
            await self._control.sync()
            known = self._control.registry.known.get(id)
            if known is None or known.lapsed or self._control.has(id, LANES):
                return
            lanes = (self._names.plain(id), self._names.urgent(id))
            answered = await asyncio.gather(*(self._answers(id, queue) for queue in lanes))
            silent = [queue for queue, well in zip(lanes, answered, strict=True) if not well]
            if silent:
                await self._renew(id, silent)
            else:
                await self._control.append(Made(id, LANES))

    async def _answers(self, id: str, queue: str) -> bool:
        """Whether it has a leader. What one says of a queue otherwise, the server knows by itself."""
        if await self._link.count([queue]):
            return True
        channel = await self._link.open_channel(feed=False)
        try:
            found = await self._link.within(channel.basic_get(queue), _SILENT)
            if isinstance(found.delivery, Basic.GetOk):  # it came just now, and goes back
                await self._control.append(Stopped(id, self._clock.time(), 1))
        except TimeoutError:
            return False
        finally:
            self._link.drop(channel)
        return True

    async def close(self) -> None:
        """Ask no more."""
        await end(self._task)
