"""Which subscriptions there are, and which of them somebody serves: the engine's answer, kept for a few seconds.

A receipt must not wait for a question of its own, so it is told by the last answer. As long as somebody wants to know,
it is asked for again every 5 seconds, and every second while a receipt names one that is not served: then, where
instances tell each other who is there, what this one has heard will do. A process that was killed is counted by the
engine for up to 15 more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from wowevent.broker import Broker, Present
from wowevent.ending import end
from wowevent.errors import BrokerError, Closed
from wowevent.log import logger
from wowevent.routing import Routes
from wowevent.shared import Shared

_PERIOD: Final = 5.0  # seconds between two looks, while somebody wants to know
_SOON: Final = 1.0  # seconds, while a receipt says that one is not served
_PATIENCE: Final = 1.0  # seconds that the first receipt waits for the first look,
_QUICK: Final = 0.05  # and a later one for the first one after a pause, if the last one took no longer than this
_SHARE: Final = 20  # a look that takes long is taken less often: of the time, one part in so many


class Census:
    """The last answer, if there is one."""

    def __init__(self, broker: Broker) -> None:
        self.asked: bool = False
        """Somebody wanted to know; set by whoever does."""
        self.served: frozenset[str] | None = None
        """Ids of the subscriptions that somebody serves; None where it is not known."""
        self.ready: bool = False
        """It was looked, or waited for that as long as it is; else `begin`, and who must know waits for `known`."""
        self._broker = broker
        self._look = Shared(partial(self._ask, fresh=True))
        self._glance = Shared(partial(self._ask, fresh=False))
        self._found: Sequence[Present] = ()
        self._ids: frozenset[str] = frozenset()
        self._routes: Routes | None = None  # of what was found, once somebody wants them
        self._looking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._doubt = False
        self._took = 0.0
        self._at = float("-inf")

    def begin(self) -> None:
        """Find out, and go on knowing it while somebody wants to."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on(self._look), name="wowevent:census")

    async def known(self) -> None:
        """Return once it is known, or would take long."""
        if self._took < _QUICK:
            await self._try(self._look, _PATIENCE)
        self.ready = True

    async def look(self, age: float = 0.0) -> Routes:
        """All subscriptions, as they were at most `age` seconds ago. Raises BrokerError."""
        if asyncio.get_running_loop().time() - self._at > age or age <= 0:
            await self._look()
        if self._routes is None:
            self._routes = Routes()
            for each in self._found:
                self._routes.add(each.subscription)
        return self._routes

    def unserved(self, matched: tuple[str, ...]) -> tuple[str, ...]:
        """Those of them that nobody serves, as far as is known."""
        served = self.served
        if served is None:
            return ()
        found = tuple(id for id in matched if id not in served and id in self._ids)
        self._doubt = self._doubt or bool(found)
        return found

    async def close(self) -> None:
        """Ask no more."""
        if self._timer is not None:
            self._timer.cancel()
        await end(self._looking)
        await self._look.close()
        await self._glance.close()

    async def _look_on(self, look: Shared[None]) -> None:
        """Look once, and see later whether to look again."""
        await self._try(look, None)
        self.ready = True
        self._wait()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(_SOON, _SHARE * self._took), self._due)

    def _due(self) -> None:
        self._timer = None
        if not self._doubt and asyncio.get_running_loop().time() - self._at < _PERIOD:
            self._wait()
        elif self.asked:
            self.asked = self._doubt = False
            self._looking = asyncio.create_task(self._look_on(self._glance), name="wowevent:census")
        else:
            self._looking, self.served, self.ready = None, None, False  # whoever asks next begins anew

    async def _try(self, look: Shared[None], patience: float | None) -> None:
        try:
            async with asyncio.timeout(patience):
                await look()
        except (BrokerError, Closed, TimeoutError) as error:
            self.served = None  # no answer is better than one of long ago
            logger.info("who is served is not known now", error=error)

    async def _ask(self, *, fresh: bool) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        found = await self._broker.presence(fresh=fresh)
        self._found, self._routes, self._at, self._took = found, None, began, loop.time() - began
        self._ids = frozenset(each.subscription.id for each in found)
        self.served = frozenset(each.subscription.id for each in found if each.consumers)
