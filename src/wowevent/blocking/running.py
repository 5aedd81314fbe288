"""What a blocking bus has while it runs: a loop's thread, the async bus on it, an outbox, the queues it consumes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from wowevent.blocking.consuming import HANDLER_SECONDS, Consuming
from wowevent.blocking.letters import Letters
from wowevent.blocking.line import Line
from wowevent.blocking.loop import LoopThread
from wowevent.blocking.outbox import Outbox
from wowevent.bus import EventBus
from wowevent.errors import BrokerUnavailable, BusError
from wowevent.log import logger

T = TypeVar("T")

_MARGIN: Final = 5.0  # seconds that a thread waits for the loop beyond what the loop waits for the engine
_ENGINE_SECONDS: Final = 10.0  # for so long an engine may be silent, and a publish is tried
_FLUSH_SECONDS: Final = 1.0  # at least


class Running:
    """One process's own: a forked child makes another."""

    def __init__(self, make: Callable[[], EventBus], patience: float) -> None:
        """`make` makes the async bus, `patience` is how many seconds its engine may take to be reached."""
        self.pid: int = os.getpid()
        self.line: Line = Line(make, patience)
        self.consuming: dict[str, Consuming] = {}
        self._seconds = patience + _ENGINE_SECONDS + _MARGIN
        self._closing: asyncio.Task[None] | None = None
        self._exiting = False
        self.loop: LoopThread = LoopThread("wowevent-blocking")
        self.outbox: Outbox = Outbox(self.line, self.loop.post)
        self.loop.post(self._open)

    def _open(self) -> None:
        self._sending = asyncio.get_running_loop().create_task(self.outbox.run(), name="wowevent:outbox")
        self._sending.add_done_callback(_report)

    def call(self, job: Callable[[], Coroutine[Any, Any, T]], seconds: float | None = None) -> T:
        """What the job gives or raises; BrokerUnavailable if it takes longer than `seconds`, or than any engine may."""
        limit = self._seconds if seconds is None else seconds + _MARGIN
        try:
            return self.loop.call(job, limit)
        except TimeoutError as error:
            if isinstance(error, BusError):
                raise
            raise BrokerUnavailable(f"there was no answer within {limit:g} s") from None

    def stop_consuming(self, name: str) -> None:
        """End the consuming of a queue; a callback of it ends it without waiting, which would be for itself."""
        consuming = self.consuming.get(name)
        if consuming is None:
            return
        consuming.stopping = True
        if consuming.worker.here:
            self.loop.post(consuming.begin_ending)
        else:
            self.call(consuming.end, HANDLER_SECONDS + _ENGINE_SECONDS)

    def close(self, timeout: float, *, exiting: bool = False) -> None:
        """Close all of it within `timeout` seconds or little more; in a callback, when the callback has returned.

        `exiting`: the interpreter ends, and has ended the thread pools, without which an engine cannot close its files.
        """
        self._exiting = exiting
        self.loop.post(lambda: self._begin_closing(timeout))
        if not any(consuming.worker.here for consuming in list(self.consuming.values())):
            self.join(timeout)

    def join(self, timeout: float) -> None:
        """Wait for the end of it."""
        if not self.loop.join(timeout + _MARGIN):
            logger.error("bus did not close in time", timeout=timeout)
            self.loop.end()

    def _begin_closing(self, timeout: float) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(timeout), name="wowevent:close")
            self._closing.add_done_callback(lambda _: self.loop.end())

    async def _close(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        consuming = list(self.consuming.values())
        for each in consuming:
            each.stopping = True
        try:
            await self.outbox.flush(max(timeout, _FLUSH_SECONDS))
            self._sending.cancel()
            await _end([each for each in consuming if isinstance(each.feed, Letters)], timeout)
            await self.line.stop(max(0.0, until - time.monotonic()))
            await _end(consuming, _FLUSH_SECONDS)  # their consumers, the bus has ended
        except Exception as error:  # noqa: BLE001 - whatever it was, the rest must end
            if not (self._exiting and isinstance(error, RuntimeError)):
                logger.error("bus did not close in order", exc_info=error)
        for each in consuming:
            each.abandon()


async def _end(consuming: Sequence[Consuming], timeout: float) -> None:
    ending = [asyncio.create_task(each.end()) for each in consuming]
    if ending:
        await asyncio.wait(ending, timeout=timeout)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("publishing without confirmation has ended by an internal error", exc_info=error)
