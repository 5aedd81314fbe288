"""Two connections to one server: by one we publish and ask, by the other one we are delivered to.

Nothing that is on its way is ever cancelled, since the driver closes a channel for that: a caller that leaves only
stops waiting. A link that breaks stays broken; who needs one dials again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import shuffle
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import aiormq
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity, DeliveryError, PublishError
from pamqp.commands import Basic, Queue

from wowevent.brokers.rabbitmq.faults import translate
from wowevent.brokers.rabbitmq.outlet import AT_ONCE, STREAMS, Message, Outlet, Stream
from wowevent.ending import seen
from wowevent.errors import BrokerUnavailable, Closed, StorageFull

SILENCE: Final = 9.0
"""Seconds without an answer after which a call fails (obligation 9)."""
HEARTBEAT: Final = 10
"""Seconds."""
_GOODBYE: Final = 2.0  # seconds that a connection has to end in good order,
_AMEN: Final = 0.5  # and one that is broken: who waits for the next one has waited for long
_LOCKED: Final = 0.02  # seconds between two looks whether a lock is free

T = TypeVar("T")
Channel = aiormq.Channel


class Link:
    """See the module."""

    def __init__(
        self, out: aiormq.Connection, feed: aiormq.Connection, publishing: Mapping[Stream, Channel], asking: Channel
    ) -> None:
        """By `dial`."""
        self.version: str = str((out.server_properties or {}).get("version", "?"))
        """The server's."""
        self.error: Exception | None = None
        """Why it broke."""
        self.on_end: list[Callable[[], object]] = []
        """Called when it broke or was closed."""
        self._out = out
        self._feed = feed
        self._outlets = {stream: Outlet(channel) for stream, channel in publishing.items()}
        self._asking = asking
        self._renewing: set[Stream] = set()
        self._jobs: set[asyncio.Future[Any]] = set()
        self._locks: set[str] = set()
        self._retired: set[object] = set()
        parts: list[aiormq.Connection | Channel] = [out, feed, asking, *publishing.values()]
        for each in parts:
            self._watch(each)

    @classmethod
    async def dial(cls, nodes: list[str]) -> Link:
        """Connect twice, to the first of these that answers; those that were tried are taken out of the list.

        BrokerUnavailable, NotPermitted.
        """
        seconds = SILENCE / len(nodes)
        while len(nodes) > 1:
            with suppress(BrokerUnavailable):
                return await cls._dial(nodes.pop(0), seconds)
        return await cls._dial(nodes.pop(0), seconds)

    @classmethod
    async def _dial(cls, url: str, seconds: float) -> Link:
        connections: list[aiormq.Connection] = []
        try:
            async with asyncio.timeout(seconds):
                for _ in range(2):
                    connection = aiormq.Connection(_beating(url))
                    connections.append(connection)
                    await connection.connect()
                out, feed = connections
                asking = await out.channel(publisher_confirms=False)
                assert isinstance(asking, Channel)  # noqa: S101 - for the type checker
                publishing = {stream: await _publishing(out) for stream in STREAMS}
                return cls(out, feed, publishing, asking)
        except BaseException as error:
            for connection in connections:
                with suppress(Exception):
                    await connection.close()
            if isinstance(error, Exception):
                raise translate(error) from error
            raise

    def _watch(self, part: aiormq.Connection | Channel) -> None:
        part.closing.add_done_callback(partial(self._ended, part))

    def _ended(self, part: aiormq.Connection | Channel, closing: asyncio.Future[Any]) -> None:
        if part in self._retired:
            self._retired.discard(part)
            return
        error = None if closing.cancelled() else closing.exception()
        self.fail(translate(error) if isinstance(error, Exception) else BrokerUnavailable("rabbitmq: connection lost"))

    def fail(self, error: Exception) -> None:
        """It is of no use any more: what waits for it is told."""
        if self.error is not None:
            return
        self.error = error
        for outlet in self._outlets.values():
            outlet.fail(error)
        for job in list(self._jobs):
            if not job.done():
                job.cancel()
        for call in list(self.on_end):
            call()

    async def close(self) -> None:
        """End both connections; what the server has of us goes back into its queues."""
        patience = _GOODBYE if self.error is None else _AMEN
        self.fail(Closed("this broker is closed"))
        await asyncio.gather(*(_ended(connection, patience) for connection in (self._feed, self._out)))
        endings = [outlet.ended() for outlet in self._outlets.values()]
        await asyncio.gather(*endings, *self._jobs, return_exceptions=True)
        for _ in range(3):  # the driver's own tasks have been told to end
            await asyncio.sleep(0)

    # --- asking ---------------------------------------------------------------------------------------------------

    def needs(self, channel: Channel) -> None:
        """A channel without whose deliveries this is of no use: somebody may delete the queue that they come from."""
        channel.on_consumer_cancel_callbacks.add(self._cancelled)

    def _cancelled(self, _: Basic.Cancel) -> None:
        self.fail(BrokerUnavailable("rabbitmq: a queue of the log is gone"))

    async def call(self, work: Awaitable[T]) -> T:
        """An answer of the driver's, or the error of ours. One that does not come in time breaks the link."""
        try:
            return await self.within(work, SILENCE)
        except TimeoutError:
            self.fail(BrokerUnavailable(f"rabbitmq: no answer within {SILENCE:g} s"))
            raise self._broken() from None

    async def within(self, work: Awaitable[T], seconds: float) -> T:
        """The same of what may be silent while the link is well: TimeoutError."""
        if self.error is not None:
            if isinstance(work, Coroutine):
                work.close()
            raise self._broken()
        job = self._begin(work)
        await asyncio.wait([job], timeout=seconds)
        if not job.done():
            raise TimeoutError
        if job.cancelled():
            raise self._broken()
        if (error := job.exception()) is not None:
            raise translate(error) from error
        return job.result()

    def _done(self, job: asyncio.Future[Any]) -> None:
        self._jobs.discard(job)
        seen(job)

    def _broken(self) -> Exception:
        error = self.error or BrokerUnavailable("rabbitmq: the channel was closed")
        return type(error)(*error.args)

    async def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """A call that cannot fail on its own, on the channel that all share."""
        return await self.call(getattr(self._asking, method)(*arguments, **options))

    async def tell(self, frames: Sequence[Any]) -> None:
        """Methods that the server does not answer, as many as one likes; returns once it has carried them out."""
        for start in range(0, len(frames), AT_ONCE):
            await self.call(_told(self._asking, frames[start : start + AT_ONCE]))

    async def open_channel(self, *, feed: bool = True) -> Channel:
        """A channel of one's own: to be delivered to, or to ask for what may not be there."""
        connection = self._feed if feed else self._out
        channel = await self.call(connection.channel(publisher_confirms=False))
        assert isinstance(channel, Channel)  # noqa: S101 - for the type checker
        # The driver makes a task of each message that comes. Taking one in is a call, and the call has been made.
        setattr(channel, "create_task", partial(_task, channel.create_task))  # noqa: B010 - it is a method
        return channel

    async def consume(
        self,
        channel: Channel,
        queue: str,
        arrive: Callable[[DeliveredMessage], None],
        *,
        tag: str,
        no_ack: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """Have `arrive` called with each message of a queue, by a channel of `open_channel`."""

        def take(message: DeliveredMessage) -> Any:
            arrive(message)
            return _TAKEN

        channel.consumers[tag] = take
        await self.call(channel.rpc(Basic.Consume(queue=queue, no_ack=no_ack, consumer_tag=tag, arguments=arguments)))

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
        """To ask for what may be refused: a refusal closes a channel, and this one is for nothing else."""
        channel = await self.open_channel(feed=False)

        async def ask(method: str, *arguments: Any, **options: Any) -> Any:
            return await self.call(getattr(channel, method)(*arguments, **options))

        try:
            yield ask
        finally:
            self.drop(channel)

    async def there(self, queues: Sequence[str]) -> bool:
        """Whether all of these queues are."""
        frames = [Queue.Declare(queue=queue, passive=True, nowait=True) for queue in queues]
        channel = await self.open_channel(feed=False)
        try:
            for start in range(0, len(frames), AT_ONCE):
                await self.call(_told(channel, frames[start : start + AT_ONCE]))
        except BrokerUnavailable as error:
            if not isinstance(error.__cause__, ChannelNotFoundEntity):
                raise
            return False
        finally:
            self.drop(channel)
        return True

    async def count(self, queues: Sequence[str]) -> int:
        """How many messages these queues have that nobody holds."""
        async with self.apart() as ask:
            return sum([int((await ask("queue_declare", queue, passive=True)).message_count or 0) for queue in queues])

    def drop(self, channel: Channel) -> None:
        """Close a channel, and wait for nothing."""
        self._begin(channel.close())

    def _begin(self, work: Awaitable[T]) -> asyncio.Future[T]:
        """It ends with this link at the latest."""
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._done)
        return job

    async def locked(self, name: str) -> Channel | None:
        """A channel that holds a lock until it is dropped by `unlock`, or None: another connection has it."""
        channel = await self.open_channel()
        try:
            await self.call(channel.queue_declare(name, exclusive=True, auto_delete=False))
        except BrokerUnavailable as error:
            self.drop(channel)
            if isinstance(error.__cause__, ChannelLockedResource):
                return None
            raise
        return channel

    async def unlock(self, channel: Channel, name: str) -> None:
        """Let others have it."""
        with suppress(BrokerUnavailable):
            await self.call(channel.queue_delete(name))
        self.drop(channel)

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """One at a time, of all connections to this server; it ends with the connection. BrokerUnavailable if busy."""
        until = asyncio.get_running_loop().time() + SILENCE
        while (held := await self._lock(name)) is None:
            if asyncio.get_running_loop().time() > until:
                raise BrokerUnavailable(f"rabbitmq: {name} is busy")
            await asyncio.sleep(_LOCKED)
        try:
            yield
        finally:
            try:
                await self.unlock(held, name)
            finally:
                self._locks.discard(name)

    async def _lock(self, name: str) -> Channel | None:
        """To the server, all of one connection is one owner: that nobody else here has it is seen to here."""
        if name in self._locks:
            return None
        self._locks.add(name)
        held: Channel | None = None
        try:
            held = await self.locked(name)
        finally:
            if held is None:
                self._locks.discard(name)
        return held

    # --- publishing -----------------------------------------------------------------------------------------------

    @property
    def blocked(self) -> bool:
        """Whether the server takes no messages: it is short of memory or disk."""
        ready = self._out.ready()
        try:
            ready.send(None)
        except StopIteration:
            return False
        ready.close()
        return True

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when all are confirmed. StorageFull before anything is sent, BrokerUnavailable at any time."""
        if self.error is not None:
            raise self._broken()
        if self.blocked:
            raise StorageFull("rabbitmq: the server is short of memory or disk, and takes no messages")
        if not messages:
            return
        outlets = [self._outlets[message.stream] for message in messages]
        answers = [outlet.put(message) for outlet, message in zip(outlets, messages, strict=True)]
        try:
            _, late = await asyncio.wait(answers, timeout=SILENCE)
        finally:
            for answer in answers:
                answer.add_done_callback(seen)  # should nobody wait any more; the driver must find it as it left it
        if late:
            raise BrokerUnavailable(f"rabbitmq: {len(late)} messages were not confirmed within {SILENCE:g} s")
        for message, outlet, answer in zip(messages, outlets, answers, strict=True):
            if (error := answer.exception()) is not None:
                if refused(error):
                    self._renew(message.stream, outlet)
                raise translate(error) from error

    def _renew(self, stream: Stream, worn: Outlet) -> None:
        """Publish by another channel from now on: what the server refused on this one it may refuse on it for ever.

        A channel that first published into a quorum queue when the node of its leader had just died goes on to ask that
        node, and refuses all until it is back, whoever leads by then (RabbitMQ 3.10).
        """
        if self._outlets[stream] is worn and stream not in self._renewing:
            self._renewing.add(stream)
            self._begin(self._exchange(stream, worn))

    async def _exchange(self, stream: Stream, worn: Outlet) -> None:
        try:
            channel = await self.call(_publishing(self._out))
            self._watch(channel)
            self._outlets[stream] = Outlet(channel)
        finally:
            self._renewing.discard(stream)
        old = await worn.retire(SILENCE)  # what was put there before is answered there
        self._retired.add(old)
        self.drop(old)


def nodes_of(url: str) -> list[str]:
    """The URL of each node that this one names, in an order of chance, so that not all clients are with the first."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    nodes = [parts._replace(netloc=f"{user}{at}{host}").geturl() for host in hosts.split(",")]
    shuffle(nodes)
    return nodes


def _beating(url: str) -> str:
    """With our heartbeat, unless it names one: by the driver's own, a line is known to be dead after three minutes."""
    parts = urlsplit(url)
    if "heartbeat" in dict(parse_qsl(parts.query)):
        return url
    return parts._replace(query=f"{parts.query}&heartbeat={HEARTBEAT}".lstrip("&")).geturl()


async def _publishing(connection: aiormq.Connection) -> Channel:
    channel = await connection.channel()
    assert isinstance(channel, Channel)  # noqa: S101 - for the type checker
    return channel


async def _ended(connection: aiormq.Connection, seconds: float) -> None:
    with suppress(Exception):
        async with asyncio.timeout(seconds):
            await connection.close()


async def _told(channel: Channel, frames: Sequence[Any]) -> None:
    await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))
    await channel.flow(active=True)  # it is answered in its turn


class _Taken:
    """What the driver gets instead of a task."""

    def add_done_callback(self, _: Any) -> None:
        """It is done, and nothing is to be looked at."""


_TAKEN: Final = _Taken()


def _task(start: Callable[[Any], Any], work: Any) -> Any:
    return work if work is _TAKEN else start(work)


def unrouted(error: BaseException) -> bool:
    """Whether a message that had to reach a queue reached none."""
    return isinstance(error.__cause__, PublishError)


def refused(error: BaseException) -> bool:
    """Whether the server said that it did not store a message, which is the driver's error."""
    return isinstance(error, DeliveryError) and isinstance(error.frame, Basic.Nack)
