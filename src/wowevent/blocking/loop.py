"""An event loop in a thread of its own, which other threads call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from wowevent.blocking.latch import Answer, Latch
from wowevent.ending import end
from wowevent.errors import Closed

T = TypeVar("T")

Job = Callable[[], Coroutine[Any, Any, T]]


class LoopThread:
    """One event loop, and the thread that runs it.

    The thread is a daemon: a program whose last line is reached ends, whatever it left open. No lock is held while
    a thread waits for the loop, and none by the loop at all.
    """

    def __init__(self, name: str) -> None:
        """The loop runs when this returns."""
        self._outstanding: set[Answer[Any]] = set()
        self._ended = Latch()
        ready: Answer[asyncio.AbstractEventLoop] = Answer()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=name, daemon=True)
        self._thread.start()
        self._loop: asyncio.AbstractEventLoop = ready.wait(60)

    def call(self, job: Job[T], timeout: float) -> T:
        """What `await job()` gives or raises, on the loop and in the caller's context.

        Raises TimeoutError after `timeout` seconds, in which case the job is cancelled; Closed when the loop has ended;
        RuntimeError in the loop's own thread, which cannot wait for itself.
        """
        self.refuse_itself()
        answer: Answer[T] = Answer()
        tasks: list[asyncio.Task[T]] = []
        self._outstanding.add(answer)
        try:
            self.post(lambda: _begin(job, answer, tasks))
            return answer.wait(timeout)
        except TimeoutError:
            with suppress(Closed):
                self.post(lambda: [task.cancel() for task in tasks])
            raise
        finally:
            self._outstanding.discard(answer)

    def refuse_itself(self) -> None:
        """RuntimeError in the loop's own thread."""
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError(
                "the blocking bus was called in its own event loop's thread, which cannot wait for itself: call it "
                "in a callback or in another thread, or use wowevent.EventBus and await"
            )

    def post(self, function: Callable[[], object]) -> None:
        """Call `function()` on the loop, soon and in the caller's context; Closed when the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError as error:
            raise Closed("this bus is closed") from error

    def end(self) -> None:
        """Cancel what is under way and end the thread; `join` waits for that. Ending twice is ending once."""
        with suppress(Closed):
            self.post(self._loop.stop)

    def join(self, timeout: float) -> bool:
        """Whether the thread has ended, within `timeout` seconds."""
        return self._ended.wait(timeout)

    def _run(self, ready: Answer[asyncio.AbstractEventLoop]) -> None:
        loop = _new_loop()
        try:
            ready.give(loop)
            loop.run_forever()
            loop.run_until_complete(_wind_up())
        finally:
            loop.close()  # from here on `post` refuses; who has posted in vain is told
            for answer in list(self._outstanding):
                answer.fail(Closed("this bus is closed"))
            self._ended.open()


def _new_loop() -> asyncio.AbstractEventLoop:
    """One of uvloop where that exists: a third faster at being called by threads."""
    try:
        import uvloop  # noqa: PLC0415 - not everywhere
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _begin(job: Job[T], answer: Answer[T], tasks: list[asyncio.Task[T]]) -> None:
    def done(task: asyncio.Task[T]) -> None:
        if task.cancelled():
            answer.fail(Closed("this bus is closed"))
        elif (error := task.exception()) is not None:
            answer.fail(error)
        else:
            answer.give(task.result())

    task = asyncio.get_running_loop().create_task(job())
    tasks.append(task)
    task.add_done_callback(done)


async def _wind_up() -> None:
    """Cancel what is left, and let it end."""
    await end(*asyncio.all_tasks() - {asyncio.current_task()})
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
