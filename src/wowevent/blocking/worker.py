"""One queue's thread: its callbacks run there, one at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any

Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Context, Callable[[], Any]]


class Worker:
    """A thread that makes calls for an event loop, in their order."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether this is its thread: a callback is calling."""
        return threading.get_ident() == self._thread.ident

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the function returns or raises, in that thread, with the caller's context.

        A call that is cancelled while it runs goes on to its end, and nobody hears of it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._calls.put((loop, future, copy_context(), lambda: function(*args, **kwargs)))
        return await future

    def end(self) -> None:
        """End the thread, once it has made the calls before."""
        self._calls.put(None)

    def join(self, timeout: float) -> None:
        """Wait for its end, `timeout` seconds at most."""
        self._thread.join(timeout)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            loop, future, context, function = call
            if future.cancelled():
                continue
            result, error = None, None
            try:
                result = context.run(function)
            except BaseException as raised:  # noqa: BLE001 - the consumer judges what a callback raises
                error = raised
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(_tell, future, result, error)
            del call, future, context, function, result, error  # nothing is kept alive while nothing is to do


def _tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration | KeyboardInterrupt | SystemExit | asyncio.CancelledError):
        # A future cannot hold the first, the others would end the loop: from a callback they are failures like any.
        failure = RuntimeError(f"the callback raised {type(error).__name__}: {error}")
        failure.__cause__ = error
        future.set_exception(failure)
    else:
        future.set_exception(error)
