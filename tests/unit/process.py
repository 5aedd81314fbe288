"""A process that shares a log with others: a directory, and the part on it that is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.directory import Directory
from wowevent.testing import ManualClock, settle


class Part(Protocol):
    """What is built on a directory."""

    async def close(self) -> None: ...


T = TypeVar("T", bound=Part)


class Process(Generic[T]):
    """One of those on that log, with a clock of its own."""

    def __init__(self, log: MemoryLog, make: Callable[[Directory, ManualClock], T]) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker(log)
        self.directory = Directory(self.broker)
        self.part: T = make(self.directory, self.clock)

    async def look(self) -> None:
        """Know what the others have said."""
        await settle()
        await self.directory.refresh()

    async def close(self) -> None:
        await self.part.close()
        await self.directory.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
