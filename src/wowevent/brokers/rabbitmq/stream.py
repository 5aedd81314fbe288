"""Following a stream: its messages by offset, from a place on."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from aiormq.abc import DeliveredMessage

from wowevent.brokers.rabbitmq.link import Channel, Link
from wowevent.brokers.rabbitmq.tags import headers_of, number_of
from wowevent.ending import seen
from wowevent.errors import BrokerUnavailable
from wowevent.wakeup import Wakeup

_AHEAD: Final = 500  # messages that the server may send before they are acknowledged

ARGUMENTS: Final[dict[str, Any]] = {"x-queue-type": "stream"}
"""Of every stream of ours."""


class Follower:
    """One consumer of a stream. It is told where the stream goes on, never that it ends."""

    def __init__(self, link: Link, channel: Channel, first: int, news: Wakeup) -> None:
        """By `follow`."""
        self._link = link
        self._channel = channel
        self._first = first
        self._arrived: deque[DeliveredMessage] = deque()
        self._news = news
        self._taken = 0
        self._closed = False
        self._ending: asyncio.Future[Any] = channel.closing
        self._ending.add_done_callback(lambda _: self._news.notify())

    @classmethod
    async def follow(
        cls, link: Link, stream: str, first: int, news: Wakeup | None = None, *, most: int | None = None
    ) -> Follower:
        """From the first message whose offset is `first` or more; -1: from the next one on. `news` is woken by each.

        `most`: so many come at most, and of those before `first` too that lie in one chunk with it.
        """
        channel = await link.open_channel()
        link.needs(channel)
        follower = cls(link, channel, first if most is None else 0, news or Wakeup())
        try:
            await link.call(channel.basic_qos(prefetch_count=most or _AHEAD))
            arguments: dict[str, Any] = {"x-stream-offset": "next" if first < 0 else first}
            await link.consume(channel, stream, follower._arrive, tag="stream", arguments=arguments)
        except BaseException:
            follower.close()
            raise
        return follower

    def _arrive(self, message: DeliveredMessage) -> None:
        self._arrived.append(message)
        self._news.notify()

    def poll(self) -> tuple[int, DeliveredMessage] | None:
        """The next message, if it is here."""
        while self._arrived:
            message = self._arrived.popleft()
            self._taken += 1
            if self._taken % (_AHEAD // 2) == 0 and not (self._closed or self._channel.is_closed):
                tag = number_of(message)
                job = asyncio.ensure_future(self._channel.basic_ack(tag, multiple=True, wait=False))
                job.add_done_callback(seen)
            offset = int(headers_of(message)["x-stream-offset"])
            if offset >= self._first:  # the server begins with the chunk that has it
                return offset, message
        return None

    async def next(self) -> tuple[int, DeliveredMessage]:
        """Wait for the next message; BrokerUnavailable when the connection is gone."""
        while (found := self.poll()) is None:
            if self._ending.done() or self._link.error is not None:
                raise BrokerUnavailable("rabbitmq: the connection was lost")
            await self._news.wait()
        return found

    def close(self) -> None:
        """Read no more."""
        self._closed = True
        self._link.drop(self._channel)
        self._news.notify()
