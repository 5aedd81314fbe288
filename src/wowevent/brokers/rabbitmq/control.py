"""The control log: appending to it, following it, and being sure that all of it that was written is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from wowevent.brokers.rabbitmq.link import Link
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.outlet import Message
from wowevent.brokers.rabbitmq.registry import Begun, Entry, Mark, Registry, pack, unpack
from wowevent.brokers.rabbitmq.stream import Follower
from wowevent.brokers.rabbitmq.tags import route_of, tag_of, topic_of
from wowevent.ending import end
from wowevent.errors import BrokerUnavailable, BusError
from wowevent.log import logger
from wowevent.shared import Shared

LIMITS: Final[dict[str, Any]] = {"x-max-length-bytes": 100_000_000, "x-stream-max-segment-size-bytes": 10_000_000}
"""Of the stream. It forgets its oldest segments: what they say is in a snapshot by then."""
_SNAPSHOT: Final = 30_000_000  # bytes of entries after which all of it is written down again


class Control:
    """The log of one link."""

    def __init__(self, link: Link, names: Names, changed: Callable[[Entry], None]) -> None:
        """`changed` is told of each entry, once it is folded."""
        self.registry: Registry = Registry()
        """What all of it says."""
        self._link = link
        self._names = names
        self._changed = changed
        self._me = uuid4().hex[:12]
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self.sync: Shared[Any] = Shared(lambda: self.append(Mark()))
        """Returns once all is folded that was written before the call."""
        self._number = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self, epoch: str, *, anew: bool) -> None:
        """Read all that there is. `anew`: the log's history was lost, so that its positions mean nothing any more."""
        follower = await Follower.follow(self._link, self._names.control, 0)
        self._task = asyncio.create_task(self._follow(follower), name="rabbitmq:control")
        await self.append(Mark())
        if not self.registry.epoch or anew:
            await self.append(Begun(epoch, self.registry.epoch))

    async def close(self) -> None:
        """Follow no more."""
        await self.sync.close()
        await end(self._task)
        self._fail(BrokerUnavailable("rabbitmq: the connection was lost"))

    async def append(self, entry: Entry) -> Any:
        """Write an entry; returns once it is folded, with what it changed."""
        self._number += 1
        ref = f"{self._me}.{self._number}"
        folded = self._waiting[ref] = asyncio.get_running_loop().create_future()
        properties = Basic.Properties(delivery_mode=2, message_id=ref)
        try:
            message = Message("", self._names.control, properties, pack(entry), mandatory=True, stream="control")
            await self._link.publish([message])
            return await self._link.call(_result(folded))
        finally:
            self._waiting.pop(ref, None)

    def has(self, id: str, what: str) -> bool:
        """Whether that queue was made for a subscription."""
        known = self.registry.known.get(id)
        return known is not None and what in known.made

    async def _follow(self, follower: Follower) -> None:
        try:
            while True:
                offset, message = await follower.next()
                try:
                    self._fold(offset, message)
                except BusError as error:
                    self.registry.offset = offset
                    logger.error("an entry of the control log cannot be read", offset=offset, error=error)
        except BusError as error:
            self._fail(error)
        finally:
            follower.close()

    def _fold(self, offset: int, message: DeliveredMessage) -> None:
        registry = self.registry
        registry.bytes += len(message.body)
        if route_of(message)[0]:
            registry.fold_fact(offset, topic_of(message), tag_of(message).at, message.body)
            return
        entry = unpack(message.body)
        result = registry.fold(offset, entry)
        folded = self._waiting.get(message.header.properties.message_id or "")
        if folded is not None and not folded.done():
            folded.set_result(result)
        self._changed(entry)

    async def compact(self) -> None:
        """Write all of it down again, should so much have been written that the oldest of it may be forgotten."""
        if self.registry.bytes > _SNAPSHOT:
            await self.append(self.registry.snapshot())

    def _fail(self, error: Exception) -> None:
        for folded in self._waiting.values():
            if not folded.done():
                folded.set_exception(error)
                folded.exception()


async def _result(folded: asyncio.Future[Any]) -> Any:
    return await folded
