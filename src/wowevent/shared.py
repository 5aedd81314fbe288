"""One answer for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from wowevent.ending import end, seen
from wowevent.errors import BrokerUnavailable

T = TypeVar("T")


class Shared(Generic[T]):
    """Who asks while an answer is under way shares the next one: it begins after each of them has asked."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        """`ask` gets an answer."""
        self._ask = ask
        self._under_way: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._next is not None or (self._under_way is not None and not self._under_way.done())

    async def __call__(self) -> T:
        """An answer that was asked for after this call began."""
        if self._next is None:
            self._next = asyncio.create_task(self._answer(self._under_way), name="shared answer")
            self._next.add_done_callback(seen)
        answer = self._next
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if answer.cancelled() and own is not None and not own.cancelling():
                raise BrokerUnavailable("the connection was given up") from None
            raise

    async def _answer(self, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait([before])
        self._under_way, self._next = self._next, None
        return await self._ask()

    async def close(self) -> None:
        """Whoever still waits waits in vain."""
        await end(self._under_way, self._next)
