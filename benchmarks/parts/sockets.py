"""Lean WebSocket clients, the same for the router and for its peer: they count, keep, and send what was made before.

publisher  ── at most so many events beyond what is confirmed and what the subscribers have ──►  server
           ◄── confirmations ──          server  ── the same to all ──►  subscribers
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Raw
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.load import PATTERN, event
from benchmarks.part import Record, Setting, Signal
from wowevent import Event
from wowevent.codec import encode as encode_event
from wowevent.router.wire import Hello, Publish, encode

_EVENT_ID = re.compile(rb'"event_id":"([^"]+)"')
_LARGEST = 64 * 2**20


class Client(WSListener):
    """One connection; each message goes to `got`."""

    def __init__(self, got: Callable[[bytes], None]) -> None:
        self._got = got
        self._awaited = b""
        self._answered = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, url: str, got: Callable[[bytes], None], **settings: Any) -> Client:
        """Connected; there is no compression on either side."""
        client = cls(got)
        await ws_connect(lambda: client, url, max_frame_size=_LARGEST, **settings)
        return client

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.socket = transport.underlying_transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002 - picows gives it
        if frame.msg_type != WSMsgType.TEXT:
            return
        data = frame.get_payload_as_bytes()
        if self._awaited and data.startswith(self._awaited):
            self._awaited = b""
            self._answered.set_result(data)
        else:
            self._got(data)

    async def ask(self, text: bytes, kind: bytes) -> bytes:
        """Send a frame, and wait for its answer."""
        self._awaited = b'{"type":"%b"' % kind
        self._answered = asyncio.get_running_loop().create_future()
        self.socket.write(masked(text))
        async with asyncio.timeout(30):
            answer: bytes = await self._answered
        return answer

    async def leave(self) -> None:
        """Say goodbye, and wait for the other's."""
        self.transport.send_close(WSCloseCode.OK)
        await self.transport.wait_disconnected()


def masked(text: bytes) -> bytes:
    """A text as a client's frame. The mask is zero, so that it can be made before: who unmasks it has the same work."""
    size = len(text)
    if size < 126:
        return b"\x81%c\0\0\0\0%b" % (0x80 | size, text)
    if size < 65_536:
        return b"\x81\xfe%b\0\0\0\0%b" % (size.to_bytes(2), text)
    return b"\x81\xff%b\0\0\0\0%b" % (size.to_bytes(8), text)


def publishing(number: int) -> tuple[str, bytes]:
    """An event's id, and the frame that publishes it: a whole envelope, as `EventRouterClient` sends it."""
    one = event(number)
    return one.event_id, frame_of(one, number)


def frame_of(one: Event, ref: int) -> bytes:
    """The frame that publishes an event."""
    return masked(encode(Publish(ref=ref, event=Raw(encode_event(one)))))


async def subscribed(
    url: str, got: Callable[[bytes], None], *, batch: bool = False, agent: str | None = None, settings: bytes = b""
) -> Client:
    """A client with one subscription."""
    client = await Client.connect(url, got)
    if batch or agent is not None:
        await client.ask(encode(Hello(batch=batch, agent=agent)), b"hello")
    wish = b'{"type":"subscribe","subscription":{"topics":["%b"]%b}}' % (PATTERN.encode(), settings)
    await client.ask(wish, b"subscribed")
    return client


class Counter:
    """What one subscriber got: how many, and the messages themselves where they are kept."""

    def __init__(self, count: int, moved: Callable[[], None] | None = None, *, keep: bool = False) -> None:
        self.seen = 0
        self.kept: list[bytes] = []
        self._count = count
        self._moved = moved
        self._keep = keep
        self.all = asyncio.Event()

    def take(self, data: bytes) -> None:
        if not (found := data.count(b'"event_id"')):  # the welcome, and answers
            return
        self.seen += found
        if self._keep:
            self.kept.append(data)
        if self.seen >= self._count:
            self.all.set()
        if self._moved is not None:
            self._moved()

    @property
    def ids(self) -> list[str]:
        return [id.decode() for data in self.kept for id in _EVENT_ID.findall(data)]


class Seen(Protocol):
    """What a publisher waits for."""

    @property
    def seen(self) -> int:
        """How many of its events have come."""
        ...


class Publisher:
    """Sends frames, and never has more than a window of them on their way."""

    def __init__(self, frames: list[bytes], window: int, watched: Sequence[Seen], *, confirmed: bool) -> None:
        """`watched` are the subscribers that must keep up; without `confirmed` nothing else holds it back."""
        self.confirmed = 0
        self.refused = 0
        self.answered = asyncio.Event()
        """All of them were, one way or the other."""
        self._frames = frames
        self._window = window
        self._watched = watched
        self._waits = confirmed
        self._sent = 0
        self.client: Client | None = None

    def take(self, data: bytes) -> None:
        if b'"queued"' in data:
            self.confirmed += 1
        elif b'"dropped"' in data or b'"error"' in data:
            self.refused += 1
        if self.confirmed + self.refused >= len(self._frames):
            self.answered.set()
        self.pump()

    def pump(self) -> None:
        """Fill the window once half of it has arrived: one write for many, since no publish waits for the last."""
        if self.client is None or self._sent >= len(self._frames):
            return
        done = min(counter.seen for counter in self._watched)
        if self._waits:
            done = min(done, self.confirmed)
        if self._sent - done <= self._window // 2:
            upto = done + self._window
            self.client.socket.write(b"".join(self._frames[self._sent : upto]))
            self._sent = min(upto, len(self._frames))


async def fan_out(setting: Setting, signal: Signal) -> Record:
    """One publisher and its subscribers; the first one's messages are kept, the others' events are counted."""
    options, url = setting.options, setting.url.partition("#")[0]
    made = [publishing(number) for number in range(setting.count)]
    publisher: Publisher

    def moved() -> None:
        publisher.pump()

    last = options["subscribers"] - 1
    counters = [
        Counter(setting.count, moved if number in {0, last} else None, keep=not number) for number in range(last + 1)
    ]
    publisher = Publisher(
        [frame for _, frame in made], options["window"], [counters[0], counters[-1]], confirmed=options["confirm"]
    )
    clients = [await subscribed(url, counter.take, batch=options.get("batch", False)) for counter in counters]
    client = await Client.connect(f"{url}/publish", publisher.take)
    await signal.ready()
    record = Record(started=time.monotonic(), published=[id for id, _ in made])
    publisher.client = client
    publisher.pump()
    for counter in counters:
        await counter.all.wait()
    record.ended, record.cpu = time.monotonic(), signal.cpu()
    if options["confirm"]:
        await publisher.answered.wait()
    await asyncio.gather(*(each.leave() for each in (client, *clients)))
    record.handled = counters[0].ids
    record.values = {
        "lost": float(publisher.refused + sum(abs(setting.count - counter.seen) for counter in counters)),
        "clients_cpu": record.cpu,
    }
    return record
