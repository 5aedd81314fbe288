"""The queues of new subscriptions, until it is known that they survive the server's death.

A quorum queue that is younger than a second comes back from a kill without a leader, and for good: who publishes into
it is refused, who asks it is not answered. So the control log says of each subscription when its queues are old enough.

    declared ──1.5 s on one connection──> noted
        └──the connection breaks──> asked by who comes next ──answered──> noted
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
from wowevent.brokers.rabbitmq.registry import LANES, Made, Stopped
from wowevent.clock import Clock
from wowevent.ending import end
from wowevent.errors import BrokerError, Closed
from wowevent.log import logger

_ASKED: Final = 5.0  # seconds: who declared a subscription has noted it by then, or is gone
_SILENT: Final = 3.0  # seconds without an answer of a queue, where the server answers others


class Young:
    """Those that one session made, and those that it found."""

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
        self._found: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def made(self, id: str) -> None:
        """This session made its queues just now."""
        self._made[id] = self._clock.time()

    def found(self) -> None:
        """This session begins: of those that nobody noted it is not known how old they were when the last one ended."""
        self._found = {id for id in self._control.registry.known if not self._control.has(id, LANES)}
        self._ask()

    async def look(self) -> None:
        """Note those that are old enough by now; this connection has been there all the time."""
        now = self._clock.time()
        for id in [id for id, since in self._made.items() if now - since >= YOUNG]:
            await self._control.append(Made(id, LANES))
            del self._made[id]
        self._ask()

    def _ask(self) -> None:
        if self._found and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._ask_all(), name="rabbitmq:young")

    async def _ask_all(self) -> None:
        """Beside all else: it takes seconds."""
        known = self._control.registry.known
        self._found = {id for id in self._found if id in known and not self._control.has(id, LANES)}
        now = self._clock.time()
        try:
            for id in [id for id in self._found if not known[id].lapsed and now - known[id].since >= _ASKED]:
                await self._prove(id)
                self._found.discard(id)
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
