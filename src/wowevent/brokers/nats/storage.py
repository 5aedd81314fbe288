"""Streams that store nothing any more: a disk that was full, or fails, leaves them so until the server is restarted.

The server tells nobody: it does not answer who publishes, and goes on reading, delivering and taking in what is
acknowledged. It says so to who wants a message deleted, one that never was for our purpose. A stream with replicas is
not asked: its group would have to agree on that, and goes on by those of its servers that can write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from wowevent.brokers.nats.faults import NOT_DELETED, code_of, is_missing
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.messages import Message
from wowevent.brokers.nats.names import Names
from wowevent.errors import BrokerError, BrokerUnavailable, StorageFull
from wowevent.log import logger

_NEVER: Final = 2**62  # a sequence that no stream reaches


class Storage:
    """What one instance knows of it, by one link."""

    def __init__(self, link: Link, names: Names) -> None:
        """Nothing is asked before it is doubted."""
        self._link = link
        self._names = names
        self._stuck: set[str] = set()
        self._alone: set[str] = set()

    def learn(self, stream: str, replicas: int) -> None:
        """That it is there, on so many servers."""
        if replicas == 1:
            self._alone.add(stream)
        else:
            self._alone.discard(stream)

    async def refuses(self, messages: Sequence[Message]) -> BrokerError | None:
        """Why these are not stored, if the server says so."""
        return await self._look({self._names.stream_of(message.subject) for message in messages})

    async def look(self, *, everywhere: bool = False) -> None:
        """Of the log and what was found stuck, or of all streams. StorageFull, BrokerUnavailable, if one is so now."""
        streams = self._alone if everywhere else {self._names.log, *self._stuck}
        if (error := await self._look(streams)) is not None:
            raise error

    async def _look(self, streams: Iterable[str]) -> BrokerError | None:
        found = None
        every = [stream for stream in streams if stream in self._alone]
        for stream, error in zip(every, await asyncio.gather(*map(self._ask, every)), strict=True):
            if error is None:
                self._stuck.discard(stream)
                continue
            if stream not in self._stuck:
                logger.error("a stream stores nothing until its server is restarted", stream=stream, error=error)
            self._stuck.add(stream)
            found = found or error
        self._link.doubted = bool(self._stuck)
        return found

    async def _ask(self, stream: str) -> BrokerError | None:
        try:
            await self._link.ask(f"STREAM.MSG.DELETE.{stream}", seq=_NEVER, no_erase=True)
        except BrokerError as error:
            if code_of(error) != NOT_DELETED or is_missing(error):
                return None
            kind = StorageFull if isinstance(error, StorageFull) else BrokerUnavailable
            ours = kind(f"nats: {stream} stores nothing until its server is restarted: {error.__cause__}")
            ours.__cause__ = error.__cause__
            return ours
        return None
