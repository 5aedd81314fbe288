"""One queue while it is consumed: its thread, what brings its events there, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from wowevent.blocking.latch import Latch
from wowevent.blocking.line import Line
from wowevent.blocking.worker import Worker
from wowevent.broker import Subscription
from wowevent.consumer import Options
from wowevent.errors import BusError, SubscriptionNotFound
from wowevent.handler import adapt
from wowevent.log import logger
from wowevent.subscription import Handle

HANDLER_SECONDS: Final = 10.0
"""For so long a running callback is waited for when its queue is consumed no longer."""
_LOOK_SECONDS: Final = 0.5


class Feed(Protocol):
    """What brings a queue's events to its thread; called on the loop."""

    async def begin(self) -> None:
        """Return once it is known that somebody consumes; raises what prevents it."""
        ...

    async def run(self) -> None:
        """Returns when it was told to end; raises what ended it else."""
        ...

    async def end(self) -> None:
        """Bring nothing more, and wait for a callback that runs, `HANDLER_SECONDS` at most."""
        ...


class Events:
    """The events of an ordinary queue."""

    def __init__(
        self, line: Line, spec: Subscription, callback: Callable[..., Any], options: Options, worker: Worker
    ) -> None:
        self._line = line
        self._spec = spec
        self._handler = adapt(callback, to_thread=worker.run)
        self._options = options
        self._handle: Handle | None = None
        self._stopping = False

    async def begin(self) -> None:
        """See Feed. What others have declared since holds: only `subscribe` declares."""
        bus = await self._line.started()
        known = await bus.broker.info(self._spec.id)
        spec = self._spec if known is None else known.subscription
        self._handle = await bus.serve(spec, self._handler, self._options)

    async def run(self) -> None:
        """See Feed. A consumer outlives its engine's absence; a queue that was deleted ends it."""
        while self._handle is not None and self._handle.active:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(_LOOK_SECONDS)
        if not self._stopping:
            raise SubscriptionNotFound(f"queue {self._spec.id!r} was deleted while it was consumed")

    async def end(self) -> None:
        """See Feed."""
        self._stopping = True
        if self._handle is not None:
            await self._handle.cancel()


class Consuming:
    """From `start_consuming` to its end."""

    def __init__(self, name: str, make: Callable[[Worker], Feed], gone: Callable[[Consuming], object]) -> None:
        """`gone(self)` is called, on the loop, when it has ended."""
        self.name = name
        self.worker: Worker = Worker(f"wowevent-{name}")
        self.ended: Latch = Latch()
        self.error: Exception | None = None
        """What ended it, if nobody told it to."""
        self.stopping: bool = False
        """It was told to end."""
        self.feed: Feed = make(self.worker)
        self._gone = gone
        self._running: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Return once it is consumed; where that fails it has ended. A callback may have ended it meanwhile."""
        try:
            await self.feed.begin()
        except BaseException:
            await self.end()
            raise
        if self.stopping:
            await self.feed.end()
            return
        self._running = asyncio.create_task(self.feed.run(), name=f"wowevent:consuming:{self.name}")
        self._running.add_done_callback(self._over)

    async def end(self) -> None:
        """Return once it has ended; ending twice is ending once."""
        self.begin_ending()
        if self._ending is not None:
            await asyncio.shield(self._ending)

    def begin_ending(self) -> None:
        """`end`, without waiting: for the callback that runs."""
        self.stopping = True
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end(), name=f"wowevent:ending:{self.name}")

    def abandon(self) -> None:
        """Let who waits for its end go on, though a callback still runs: the loop ends."""
        self.worker.end()
        self.ended.open()

    async def _end(self) -> None:
        try:
            await self.feed.end()
        except BusError as error:
            logger.warning("queue could not be left in order", queue=self.name, error=error)
        finally:
            if self._running is not None:
                self._running.cancel()
                with suppress(asyncio.CancelledError, Exception):  # what it raised, `_over` has seen
                    await self._running
            self._gone(self)
            self.abandon()

    def _over(self, running: asyncio.Task[None]) -> None:
        """It ended by itself: that must not go unseen."""
        if running.cancelled() or self.stopping:
            return
        error = running.exception()
        if isinstance(error, Exception):
            self.error = error
            logger.error("queue is consumed no longer", queue=self.name, error=error)
        self.begin_ending()
