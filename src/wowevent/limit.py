"""How long a wait may last, where it is waited so often that a timer for each would cost more than the work."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any, TypeVar, cast

Result = TypeVar("Result")


class TimeLimit:
    """As `asyncio.timeout(seconds)`, again and again and by many tasks at a time, with one timer for all of them.

    They all last equally long, so the first that began is the first that is late. A task may be in it once.
    """

    def __init__(self, seconds: float) -> None:
        """What is still under way after `seconds` is cancelled, and TimeoutError to whoever began it."""
        self._seconds = seconds
        self._begun: dict[asyncio.Task[object], tuple[float, int]] = {}  # when it is late, and who had cancelled it
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None or task in self._begun:
            raise RuntimeError("a time limit is for a task, which is in it once")
        loop = task.get_loop()
        late = loop.time() + self._seconds
        self._begun[task] = late, task.cancelling()
        if self._timer is None:
            self._timer = loop.call_at(late, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it has been in here
        _, cancelling = self._begun.pop(task)
        if task in self._late:
            self._late.remove(task)
            if task.uncancel() <= cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    @types.coroutine
    def keep(self, work: Coroutine[Any, Any, Result]) -> Generator[Any, Any, Result]:
        """Await `work` within the limit; what ends without having waited for anything is not timed at all."""
        try:
            awaited = work.send(None)
        except StopIteration as done:
            return cast(Result, done.value)
        with self:
            while True:  # as `await work` would go on from here
                try:
                    step = partial(work.send, (yield awaited))
                except GeneratorExit:
                    work.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - it is for the work to know
                    step = partial(work.throw, error)
                try:
                    awaited = step()
                except StopIteration as done:
                    return cast(Result, done.value)

    def close(self) -> None:
        """Nobody begins any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        for task, (late, _) in self._begun.items():  # in the order in which they began
            if late > loop.time():
                self._timer = loop.call_at(late, self._look)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel()
