"""Coalesces concurrent calls: what gathers while one round trip is out goes in the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batch(Generic[Item, Result]):
    """Many callers, one round trip at a time or a few, first come first sent.

    A caller who finds the line free sends at once and alone: without company, coalescing costs nothing.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        limit: int = 500,
        rounds: int = 1,
        hopeless: tuple[type[Exception], ...] = (),
    ) -> None:
        """`send` takes items in order and answers each; at most `limit` items go into one call of it.

        `rounds` calls of it may be under way at a time, begun in the order of their items.
        What it raises of `hopeless` is the answer to all that gathered meanwhile, too: they have waited as long.
        """
        self._hopeless = hopeless
        self._send = send
        self._limit = limit
        self._free = rounds
        self._waiting: deque[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]] = deque()
        self._drainers: set[asyncio.Task[None]] = set()

    async def call(self, items: Sequence[Item]) -> Sequence[Result]:
        """The results of `items`, or what `send` raised for the batch they were in."""
        if not self._free:
            future: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
            self._waiting.append((items, future))
            return await future
        self._free -= 1
        try:
            return await self._send(items)
        except self._hopeless as error:
            self._fail(self._waiting, error)
            self._waiting.clear()
            raise
        finally:
            if self._waiting:
                self._drainers.add(drainer := asyncio.get_running_loop().create_task(self._drain()))
                drainer.add_done_callback(self._drainers.discard)
            else:
                self._free += 1

    async def _drain(self) -> None:
        try:
            while self._waiting:
                calls = self._gather()
                if calls:
                    await self._send_for(calls)
                    await asyncio.sleep(0)  # who was answered and has more to say goes with the others, not after them
        except BaseException:  # the loop is shutting down
            for _, future in self._waiting:
                future.cancel()
            self._waiting.clear()
            raise
        finally:
            self._free += 1

    @staticmethod
    def _fail(calls: Iterable[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]], error: Exception) -> None:
        for _, future in calls:
            if not future.done():
                future.set_exception(error)

    def _gather(self) -> list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]]:
        """The next calls that fit into one batch; callers who gave up are passed over."""
        calls: list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]] = []
        count = 0
        while self._waiting and (not calls or count + len(self._waiting[0][0]) <= self._limit):
            call = self._waiting.popleft()
            if not call[1].done():
                calls.append(call)
                count += len(call[0])
        return calls

    async def _send_for(self, calls: list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]]) -> None:
        try:
            results = await self._send([item for items, _ in calls for item in items])
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets it
            self._fail(calls, error)
            if isinstance(error, self._hopeless):
                self._fail(self._waiting, error)
                self._waiting.clear()
            return
        except BaseException:  # the loop is shutting down
            for _, future in calls:
                future.cancel()
            raise
        at = 0
        for items, future in calls:
            if not future.done():
                future.set_result(results[at : at + len(items)])
            at += len(items)
