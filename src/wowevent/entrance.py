"""The way into an engine that has a server: who comes first joins, who comes meanwhile waits along; it closes once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from wowevent.ending import finished, seen
from wowevent.errors import Closed


class Joined(Protocol):
    """What an instance has joined."""

    @property
    def broken(self) -> bool:
        """Whether another one is needed."""
        ...


S = TypeVar("S", bound=Joined)


class Entrance(Generic[S]):
    """One instance's."""

    def __init__(
        self,
        join: Callable[[S | None], Coroutine[Any, Any, S]],
        leave: Callable[[S | None], Coroutine[Any, Any, None]],
    ) -> None:
        """`join(before)` makes a session, and ends the broken one before; `leave(session)` ends the last one."""
        self.session: S | None = None
        """The one that was joined last, broken or not."""
        self.closed: bool = False
        self._join = join
        self._leave = leave
        self._joining: asyncio.Task[S] | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def enter(self) -> S:
        """Every call starts here. Closed, and what joining raises."""
        if self.closed:
            raise Closed("this broker is closed")
        if self.session is not None and not self.session.broken:
            return self.session
        if self._joining is None or self._joining.done():
            self._joining = asyncio.create_task(self._begin(), name="wowevent:join")
            self._joining.add_done_callback(seen)
        joining = self._joining
        try:
            return await asyncio.shield(joining)
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if joining.cancelled() and own is not None and not own.cancelling():
                raise Closed("this broker was closed") from None
            raise

    async def _begin(self) -> S:
        before, self.session = self.session, None
        self.session = await self._join(before)
        return self.session

    async def close(self) -> None:
        """See Broker."""
        if self._leaving is None:
            self.closed = True
            self._leaving = asyncio.create_task(self._end(), name="wowevent:leave")
        await finished(self._leaving)

    async def _end(self) -> None:
        if self._joining is not None and not self._joining.done():
            self._joining.cancel()
            await asyncio.wait([self._joining])
        await self._leave(self.session)
