"""The bus of the server: opened when a tool first needs it, so that an engine that is away can be repaired by tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wowevent.bus import EventBus
from wowevent.ending import end
from wowevent.errors import Closed

_GOODBYE = 5.0  # seconds for what is under way to end


class Line:
    """One bus for all calls; whoever needs it first starts it, and a start that failed is tried again by the next."""

    def __init__(self, make: Callable[[], EventBus]) -> None:
        """`make` opens nothing yet; what it raises, as for a URL that is none, is raised by `bus`."""
        self._make = make
        self._bus: EventBus | None = None
        self._starting: asyncio.Task[EventBus] | None = None
        self._closed = False

    async def bus(self) -> EventBus:
        """The running bus. Raises what its start does, and Closed."""
        if self._closed:
            raise Closed("this server is ending")
        if self._bus is not None:
            return self._bus
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start(), name="wowevent:mcp:start")
        return await asyncio.shield(self._starting)

    async def close(self) -> None:
        """Stop it; nothing is opened any more."""
        self._closed = True
        await end(self._starting)
        if self._bus is not None:
            await self._bus.stop(timeout=_GOODBYE)

    async def _start(self) -> EventBus:
        bus = self._make()
        try:
            await bus.start()
        except BaseException:
            await bus.stop(timeout=0)
            raise
        self._bus = bus
        return bus
