"""The async bus behind a blocking one: reached when it is needed first, and asked in words of queues."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from wowevent.broker import DeadQuery, Discard, Subscription, SubscriptionInfo
from wowevent.bus import EventBus
from wowevent.errors import BrokerUnavailable, BusError
from wowevent.event import Event
from wowevent.log import logger

DEAD: Final = "dlq."
"""How the name of a queue begins that shows another's dead letters."""
LOOK_SECONDS: Final = 3.0
"""For so long a health check waits for an engine."""
_PAGE: Final = 500


class Line:
    """One async bus; every call comes from the loop that it lives on."""

    def __init__(self, make: Callable[[], EventBus], patience: float) -> None:
        """`make` opens nothing. `patience` seconds are waited for an engine that has not been reached yet."""
        self.bus: EventBus = make()
        self._patience = patience
        self._started = False

    async def started(self) -> EventBus:
        """The bus, once it has reached its engine; BrokerUnavailable if it does not."""
        if self._started:
            return self.bus
        until, pause = time.monotonic() + self._patience, 0.05
        while True:
            try:
                async with asyncio.timeout(max(0.05, until - time.monotonic())):
                    await self._start()
                return self.bus
            except BrokerUnavailable:
                if time.monotonic() + pause > until:
                    raise
            except TimeoutError:
                raise BrokerUnavailable(f"the engine does not answer within {self._patience:g} s") from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _start(self) -> None:
        await self.bus.start()
        self._started = True

    async def publish(self, event: Event) -> None:
        """As the async bus does."""
        await (await self.started()).publish(event)

    async def declare(self, spec: Subscription) -> None:
        """Make a queue known, or renew its patterns."""
        broker = (await self.started()).broker
        before = await broker.info(spec.id)
        await broker.declare(spec)
        if before is not None and before.subscription.patterns != spec.patterns:
            logger.info("subscription has new settings", subscription=spec.id, patterns=",".join(spec.patterns))

    async def info(self, queue: str) -> SubscriptionInfo | None:
        """A queue's numbers; None if it is unknown."""
        return await (await self.started()).broker.info(queue)

    async def purge(self, queue: str) -> int:
        """Drop what is ready, or all of the dead letters of `dlq.…`; how many. 0 for a queue that is unknown."""
        bus = await self.started()
        if not queue.startswith(DEAD):
            return 0 if await bus.broker.info(queue) is None else await bus.broker.purge(queue)
        count, query = 0, DeadQuery(subscription=queue.removeprefix(DEAD), limit=_PAGE)
        while letters := await bus.broker.dead(query):
            count += await bus.broker.resolve([Discard(letter.id) for letter in letters])
        return count

    async def delete(self, queue: str) -> bool:
        """Forget a queue, its backlog and its dead letters; False if it was unknown."""
        bus = await self.started()
        if await bus.broker.info(queue) is None:
            return False
        await bus.remove(queue)
        return True

    async def health(self) -> dict[str, Any]:
        """`status`, `connected`, `details` as the async bus has them; there is an `error` if nothing answers in 3 s."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                if not self._started:
                    await self._start()
                found = await self.bus.health()
                connected = found[self.bus.capabilities.name] == "connected"
                return {"status": found["status"], "connected": connected, "details": found["details"]}
        except TimeoutError:
            said = f"the engine does not answer within {LOOK_SECONDS:g} s"
        except BusError as error:
            said = str(error)
        return {"status": "unhealthy", "connected": False, "details": {"error": said}}

    async def stop(self, timeout: float) -> None:
        """End the bus, whether it was started or not."""
        await self.bus.stop(timeout)
