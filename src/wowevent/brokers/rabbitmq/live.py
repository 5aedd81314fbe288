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

from wowevent.broker import Subscription
from wowevent.brokers.rabbitmq.link import Channel, Link, Message
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.shared import Shared
from wowevent.brokers.rabbitmq.tags import route_of
from wowevent.clock import Clock
from wowevent.errors import BusError
from wowevent.routing import Routes, spec_of, subscription_of
from wowevent.wakeup import Wakeup

GONE: Final = 15.0
"""Seconds of silence after which an instance is taken to be gone."""
_NEWCOMER: Final = 0.25  # seconds in which the answers to a hello may still be under way
_ALL: Final = "all"
_TRANSIENT: Final = 1


class Note(Struct, frozen=True, omit_defaults=True):
    """What instances say to each other: `here` (what it reads and serves), `hello`, `bye`, `mark`, `free`."""

    word: str
    sender: str
    live: dict[str, str] = {}
    """Live subscriptions, as `spec_of` writes them."""
    serves: tuple[str, ...] = ()
    what: str = ""


_decoder: Final = msgspec.msgpack.Decoder(Note)
_encode: Final = msgspec.msgpack.Encoder().encode


class Live:
    """The mailbox of one instance."""

    def __init__(self, link: Link, names: Names, instance: str, clock: Clock) -> None:
        """Nothing is heard before `start`."""
        self.reading: dict[str, Subscription] = {}
        """What this instance reads live."""
        self.serving: set[str] = set()
        """What it serves."""
        self.routes: Routes = Routes()
        """What anyone reads live."""
        self.on_event: Callable[[DeliveredMessage], None] = lambda _: None
        """Told of each live event."""
        self.on_free: Callable[[str], None] = lambda _: None
        """Told that a lock was let go."""
        self.sync: Shared[None] = Shared(self._sync)
        """Returns once all is known that was said before the call."""
        self._link = link
        self._names = names
        self._instance = instance
        self._clock = clock
        self._heard: dict[str, tuple[float, Note]] = {}
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
        self._unheard = others - self._heard.keys() - {self._instance}
        await self._say(self._note("hello"))

    async def listen(self, pattern: str, *, stop: bool = False) -> None:
        """Hear live events whose topics match an AMQP pattern, or no more."""
        assert self._channel is not None  # noqa: S101 - for the type checker
        change = self._channel.queue_unbind if stop else self._channel.queue_bind
        await self._link.call(change(self._mailbox, self._names.live, pattern))

    async def changed(self) -> None:
        """Say what is read and served now."""
        await self._say(self._note("here"))

    async def free(self, what: str) -> None:
        """Say that a lock is let go."""
        await self._say(Note("free", self._instance, what=what))

    async def close(self) -> None:
        """Answer nobody any more."""
        await self.sync.close()
        for task in self._answers:
            task.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)

    async def leave(self) -> None:
        """Say that there is no more to come."""
        await self._say(Note("bye", self._instance))

    async def _sync(self) -> None:
        """For a newcomer, once all had the time to answer."""
        young = self._since + _NEWCOMER - asyncio.get_running_loop().time()
        if self._unheard and young > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(young):
                    while self._unheard:
                        await self._news.wait()
        self._number += 1
        mark = f"{self._number}"
        done = self._marks[mark] = asyncio.get_running_loop().create_future()
        note = Note("mark", self._instance, what=mark)
        try:
            await self._link.publish([_message("", self._mailbox, note)])
            await self._link.call(_result(done))
        finally:
            self._marks.pop(mark, None)

    def silent(self, others: set[str]) -> set[str]:
        """Those of them that say nothing, and had the time to."""
        self._expire()
        young = asyncio.get_running_loop().time() - self._since < GONE
        return set() if young else others - self._heard.keys() - {self._instance}

    def consumers(self, id: str) -> int:
        """How many instances serve it."""
        self._expire()
        return (id in self.serving) + sum(id in note.serves for _, note in self._heard.values())

    def present(self) -> list[Subscription]:
        """Everyone's live subscriptions."""
        self._expire()
        return self.routes.all()

    def _note(self, word: str) -> Note:
        live = {id: spec_of(subscription) for id, subscription in self.reading.items()}
        self._fold_routes()
        return Note(word, self._instance, live, tuple(self.serving))

    async def _say(self, note: Note) -> None:
        await self._link.publish([_message(self._names.live, _ALL, note)])

    def _arrive(self, message: DeliveredMessage) -> None:
        exchange, key = route_of(message)
        if exchange and key != _ALL:
            self.on_event(message)
            return
        try:
            note = _decoder.decode(message.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return  # a stranger's: nothing of ours says it
        if note.word == "mark":
            done = self._marks.get(note.what)
            if done is not None and not done.done():
                done.set_result(None)
        elif note.word == "free":
            self.on_free(note.what)
        elif note.sender != self._instance:
            self._hear(note)

    def _hear(self, note: Note) -> None:
        before = self._heard.pop(note.sender, None)
        self._unheard.discard(note.sender)
        self._news.notify()
        if note.word != "bye":
            self._heard[note.sender] = (self._clock.monotonic(), note)
        if before is None or before[1].live != note.live:
            self._fold_routes()
        if note.word == "hello":
            self._answers.add(task := asyncio.create_task(self._answer(note.sender), name="rabbitmq:hello"))
            task.add_done_callback(self._answers.discard)

    async def _answer(self, newcomer: str) -> None:
        with suppress(BusError):  # the next beat says it again
            await self._link.publish([_message("", self._names.mailbox(newcomer), self._note("here"))])

    def _expire(self) -> None:
        silent = [sender for sender, (at, _) in self._heard.items() if self._clock.monotonic() - at > GONE]
        for sender in silent:
            del self._heard[sender]
        if silent:
            self._fold_routes()

    def _fold_routes(self) -> None:
        self.routes = Routes()
        for subscription in self.reading.values():
            self.routes.add(subscription)
        for _, note in self._heard.values():
            for id, spec in note.live.items():
                try:
                    self.routes.add(subscription_of(id, spec))
                except BusError:
                    continue  # one that a newer version may understand


def _message(exchange: str, key: str, note: Note) -> Message:
    properties = Basic.Properties(delivery_mode=_TRANSIENT, message_id="note")
    return Message(exchange, key, properties, _encode(note))


async def _result(done: asyncio.Future[Any]) -> Any:
    return await done
