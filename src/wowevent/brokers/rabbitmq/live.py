"""What is not stored: who is there, replies, and what instances say to each other.

Each instance has a mailbox, which ends with its connection. It says every few seconds, and at each change, what it
reads live and what it serves; a newcomer says hello, and all answer at once. A message to oneself through the server
comes behind all that others said before it was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
from aiormq.abc import DeliveredMessage
from msgspec import Struct
from pamqp.commands import Basic

from wowevent.brokers.rabbitmq.link import Channel, Link
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.outlet import Message
from wowevent.brokers.rabbitmq.tags import route_of
from wowevent.clock import Clock
from wowevent.ending import end
from wowevent.errors import BusError
from wowevent.presence import GONE, Note, Presence
from wowevent.shared import Shared
from wowevent.wakeup import Wakeup

_NEWCOMER: Final = 0.25  # seconds in which the answers to a hello may still be under way
_ALL: Final = "all"
_TRANSIENT: Final = 1


class Said(Struct, frozen=True, omit_defaults=True):
    """What instances say to each other: `here`, `hello`, `mark`, `free`; and what each reads and serves."""

    word: str
    note: Note
    what: str = ""


_decoder: Final = msgspec.msgpack.Decoder(Said)
_encode: Final = msgspec.msgpack.Encoder().encode


class Live:
    """The mailbox of one instance."""

    def __init__(self, link: Link, names: Names, instance: str, clock: Clock) -> None:
        """Nothing is heard before `start`."""
        self.presence: Presence = Presence(instance, clock)
        """What this instance and the others read and serve."""
        self.on_event: Callable[[DeliveredMessage], None] = lambda _: None
        """Told of each live event."""
        self.on_free: Callable[[str], None] = lambda _: None
        """Told that a lock was let go."""
        self.sync: Shared[None] = Shared(self._sync)
        """Returns once all is known that was said before the call."""
        self.changed: Shared[None] = Shared(lambda: self._say(Said("here", self.presence.note())))
        """Says what is read and served now: of many changes at a time, once."""
        self._link = link
        self._names = names
        self._instance = instance
        self._marks: dict[str, asyncio.Future[Any]] = {}
        self._number = 0
        self._since = 0.0
        self._unheard: set[str] = set()
        self._answers: set[asyncio.Task[None]] = set()
        self._news = Wakeup()
        self._channel: Channel | None = None
        self._mailbox = names.mailbox(instance)

    async def start(self, others: set[str]) -> None:
        """Make the mailbox, and say hello to these others."""
        channel = self._channel = await self._link.open_channel()
        await self._link.call(channel.queue_declare(self._mailbox, exclusive=True, auto_delete=True))
        await self._link.call(channel.queue_bind(self._mailbox, self._names.live, _ALL))
        await self._link.consume(channel, self._mailbox, self._arrive, tag="mailbox", no_ack=True)
        self._since = asyncio.get_running_loop().time()
        self._unheard = others - self.presence.others() - {self._instance}
        await self._say(Said("hello", self.presence.note()))

    async def listen(self, pattern: str) -> None:
        """Hear live events whose topics match an AMQP pattern."""
        assert self._channel is not None  # noqa: S101 - for the type checker
        await self._link.call(self._channel.queue_bind(self._mailbox, self._names.live, pattern))

    async def free(self, what: str) -> None:
        """Say that a lock is let go."""
        await self._say(Said("free", Note(self._instance), what))

    async def close(self) -> None:
        """Answer nobody any more."""
        for shared in (self.sync, self.changed):
            await shared.close()
        await end(*self._answers)

    async def leave(self) -> None:
        """Say that there is no more to come, and nothing behind that."""
        await self.changed.close()
        await self._say(Said("here", Note(self._instance, gone=True)))

    async def met(self) -> None:
        """Return once all had the time to answer our hello: a newcomer waits for that, and nobody else."""
        young = self._since + _NEWCOMER - asyncio.get_running_loop().time()
        if self._unheard and young > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(young):
                    while self._unheard:
                        await self._news.wait()

    async def _sync(self) -> None:
        await self.met()
        self._number += 1
        mark = f"{self._number}"
        done = self._marks[mark] = asyncio.get_running_loop().create_future()
        note = Said("mark", Note(self._instance), mark)
        try:
            await self._link.publish([_message("", self._mailbox, note)])
            await self._link.call(_result(done))
        finally:
            self._marks.pop(mark, None)

    def silent(self, others: set[str]) -> set[str]:
        """Those of them that say nothing, and had the time to."""
        young = asyncio.get_running_loop().time() - self._since < GONE
        return set() if young else others - self.presence.others() - {self._instance}

    async def _say(self, note: Said) -> None:
        await self._link.publish([_message(self._names.live, _ALL, note)])

    def _arrive(self, message: DeliveredMessage) -> None:
        exchange, key = route_of(message)
        if exchange and key != _ALL:
            self.on_event(message)
            return
        try:
            said = _decoder.decode(message.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return  # a stranger's: nothing of ours says it
        if said.word == "mark":
            done = self._marks.get(said.what)
            if done is not None and not done.done():
                done.set_result(None)
        elif said.word == "free":
            self.on_free(said.what)
        elif said.note.sender != self._instance:
            self._hear(said)

    def _hear(self, said: Said) -> None:
        self.presence.hear(said.note)
        self._unheard.discard(said.note.sender)
        self._news.notify()
        if said.word == "hello":
            self._answers.add(task := asyncio.create_task(self._answer(said.note.sender), name="rabbitmq:hello"))
            task.add_done_callback(self._answers.discard)

    async def _answer(self, newcomer: str) -> None:
        with suppress(BusError):  # the next beat says it again
            await self._link.publish([_message("", self._names.mailbox(newcomer), Said("here", self.presence.note()))])


def _message(exchange: str, key: str, note: Said) -> Message:
    properties = Basic.Properties(delivery_mode=_TRANSIENT, message_id="note")
    return Message(exchange, key, properties, _encode(note))


async def _result(done: asyncio.Future[Any]) -> Any:
    return await done
