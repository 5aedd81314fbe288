"""Reading a stream: following it as it grows, or a range of it in pages. Neither leaves anything behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.messages import EXPIRED, NOBODY, header_of, status_of
from wowevent.errors import BrokerUnavailable
from wowevent.wakeup import Wakeup

PAGE: Final = 500
"""Messages of one page."""
_IDLE: Final = 5.0  # seconds after which the server says that nothing comes
_FORGOTTEN: Final = 60.0  # seconds after which it forgets a reader that is gone
_ANSWER: Final = 1.0  # seconds for the answer to what was asked for, where nothing more is wanted
_LATE: Final = 2.0  # seconds beyond its time after which what was asked for ahead is taken to be lost
_AHEAD: Final = 4_000  # messages that lie here, read and not taken, before the server is asked to wait


class Item(Struct, frozen=True, gc=False):
    """One message of a stream."""

    subject: str
    body: bytes
    headers: bytes
    seq: int
    """Its place in the stream."""
    pending: int
    """How many come after it."""
    delivered: int = 1
    """How often it was delivered, this time included."""
    reply: bytes = b""
    """Where it is settled."""


def item_of(subject: bytes, reply: bytes, body: bytes, headers: bytes) -> Item:
    """A message as a consumer delivers it: `$JS.ACK.[domain.account.]stream.consumer.delivered.seq.n.time.pending`."""
    words = reply.split(b".")
    at = 4 if len(words) == _PLAIN else 6
    return Item(subject.decode(), body, headers, int(words[at + 1]), int(words[at + 4]), int(words[at]), reply)


_PLAIN: Final = 9  # words of that subject, where there is no domain


def _config(subjects: list[str], first: int, **more: Any) -> dict[str, Any]:
    start = {"deliver_policy": "by_start_sequence", "opt_start_seq": first} if first > 1 else {"deliver_policy": "all"}
    return {
        "filter_subjects": subjects,
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(_FORGOTTEN * 1e9),
        **start,
        **more,
    }


class Follower:
    """What a stream has and gets, in its order. It breaks with its link, and breaks that where something is missing."""

    def __init__(self, link: Link, news: Wakeup) -> None:
        """By `follow`."""
        self.waiting: int = 0
        """What lay in the stream when the following began, and has not been taken yet."""
        self._link = link
        self._news = news
        self._items: deque[Item] = deque()
        self._stalled = b""
        self._expected = 1
        self._number = 0
        self._name = ""
        self._stream = ""
        self._heard = 0.0

    @classmethod
    async def follow(
        cls, link: Link, stream: str, subjects: list[str], first: int = 1, news: Wakeup | None = None, **more: Any
    ) -> Follower:
        """From that place on; `news` is notified when something comes."""
        self = cls(link, news or Wakeup())
        inbox = link.new_inbox()
        self._number = link.hear(inbox, self._hear)
        self._stream = stream
        self._heard = asyncio.get_running_loop().time()
        config = _config(
            subjects,
            first,
            deliver_subject=inbox,
            flow_control=True,
            idle_heartbeat=int(_IDLE * 1e9),
            **more,
        )
        made = await link.ask(f"CONSUMER.CREATE.{stream}", stream_name=stream, config=config)
        self._name, self.waiting = (
            made["name"],
            int(made.get("num_pending", 0)) + int(made.get("delivered", {}).get("consumer_seq", 0)),
        )
        return self

    def poll(self) -> Item | None:
        """The next one, if it is here."""
        if not self._items:
            return None
        item = self._items.popleft()
        if self._stalled and len(self._items) < _AHEAD // 2:
            self._link.send(self._stalled.decode())
            self._stalled = b""
        return item

    async def next(self) -> Item:
        """The next one. BrokerUnavailable."""
        while (item := self.poll()) is None:
            if self._link.error is not None:
                raise BrokerUnavailable("nats: the connection was lost")
            await self._news.wait()
        return item

    @property
    def waits(self) -> bool:
        """Whether the next one is here."""
        return bool(self._items)

    @property
    def silent(self) -> float:
        """Seconds for which the server has said nothing, not even that nothing comes."""
        return asyncio.get_running_loop().time() - self._heard

    async def close(self) -> None:
        """Follow no more."""
        await self._link.unhear(self._number)
        if self._name and self._link.error is None:
            self._link.send(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}")

    def _hear(self, subject: bytes, reply: bytes, body: bytes, headers: bytes) -> None:
        self._heard = asyncio.get_running_loop().time()
        if status_of(headers):
            stalled = reply or header_of(headers, b"Nats-Consumer-Stalled").encode()
            if stalled and len(self._items) < _AHEAD:
                self._link.send(stalled.decode())
            elif stalled:
                self._stalled = stalled
            return
        number = int(reply.split(b".")[-3])
        if number != self._expected:
            self._link.fail(BrokerUnavailable("nats: something of a stream did not come"))
            return
        self._expected += 1
        self._items.append(item_of(subject, reply, body, headers))
        self._news.notify()


class Feed:
    """A consumer that is asked for messages: for those that it has now, or ahead of those that will come."""

    def __init__(self, link: Link, stream: str, consumer: str, arrive: Callable[[Item], object]) -> None:
        """`arrive` is called with each message."""
        self.asked: int = 0
        """Messages that were asked for ahead, and have not come."""
        self.gone: bool = False
        """The consumer is not there, or is none that can be asked."""
        self.on_end: Callable[[bool], object] = lambda _expired: None
        """Told when what was asked for ahead comes no more, and whether that is since its time was up."""
        self._link = link
        self._arrive = arrive
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = ""
        self._number = 0
        self._now: asyncio.Future[None] | None = None
        self._left = 0
        self._until = 0.0

    def _open(self) -> None:
        if not self._inbox:
            inbox = self._inbox = self._link.new_inbox()
            self._number = self._link.hear(f"{inbox}.*", self._hear)

    async def now(self, count: int) -> None:
        """Let up to `count` messages that are there arrive."""
        self._open()
        while self._now is not None and not self._now.done():  # one at a time: a message does not say whose it is
            await self._link.patiently(self._now)
        if self.asked:  # who waits for messages has all that are there
            await self._link.reach()
            return
        self._left, self._now = count, asyncio.get_running_loop().create_future()
        self._link.send(self._subject, _encode({"batch": count, "no_wait": True}), f"{self._inbox}.now")
        await self._link.patiently(self._now)

    def ahead(self, count: int, seconds: float) -> None:
        """Have `count` messages on their way, or arriving as they come; after so many seconds that is over.

        Half as many will do: what is asked for costs the server as much as an event, however little it is.
        """
        self._open()
        more = count - self.asked
        if more > 0 and 2 * more >= count:
            self.asked += more
            self._until = asyncio.get_running_loop().time() + seconds
            self._link.send(
                self._subject, _encode({"batch": more, "expires": int(seconds * 1e9)}), f"{self._inbox}.next"
            )

    def forgotten(self) -> bool:
        """Whether the server has said nothing of what was asked for ahead: who was asked is gone. It is not asked then.

        Of several nodes that may be another one than ours, so that no line breaks.
        """
        lost = self.asked > 0 and asyncio.get_running_loop().time() > self._until + _LATE
        if lost:
            self.asked = 0
        return lost

    async def stop(self) -> None:
        """Have no more come; what was on its way is here then."""
        if self._inbox:
            number, self._inbox, self.asked = self._number, "", 0
            now = self._now
            if now is not None and not now.done():  # its answer would come to nobody, and be waited for
                await asyncio.wait([now], timeout=_ANSWER)
            await self._link.unhear(number)
            if now is not None and not now.done():  # a consumer that is being deleted gives none
                now.set_result(None)

    def _hear(self, subject: bytes, reply: bytes, body: bytes, headers: bytes) -> None:
        if not (status := status_of(headers)):
            if self._now is not None and not self._now.done():  # asked for before what was asked for ahead
                self._left -= 1
            else:
                self.asked = max(0, self.asked - 1)
            self._arrive(item_of(subject, reply, body, headers))
        elif subject.endswith(b".next"):
            self.asked = max(0, self.asked - int(header_of(headers, b"Nats-Pending-Messages") or self.asked))
            self.gone = self.gone or _is_gone(status, headers)
            self.on_end(status == EXPIRED)
        else:
            self._left = 0
            self.gone = self.gone or _is_gone(status, headers)
        if self._left <= 0 and self._now is not None and not self._now.done():
            self._now.set_result(None)


def _is_gone(status: int, headers: bytes) -> bool:
    """Whether nobody can be asked, or one of another kind bears the name."""
    return status == NOBODY or b"Consumer Deleted" in headers or b"push based" in headers


class Pages:
    """A range of a stream, a page at a time."""

    def __init__(self, link: Link, stream: str, subjects: list[str], first: int = 1, **more: Any) -> None:
        """Nothing is asked before `next`."""
        self._link = link
        self._stream = stream
        self._config = _config(subjects, max(1, first), **more)
        self._feed: Feed | None = None
        self._name = ""
        self._page: list[Item] = []
        self._at = max(1, first) - 1
        self._more = more
        self._done = False

    async def open(self) -> int:
        """How many messages there are."""
        made = await self._link.ask(f"CONSUMER.CREATE.{self._stream}", stream_name=self._stream, config=self._config)
        self._name = made["name"]
        self._feed = Feed(self._link, self._stream, self._name, self._page.append)
        count = int(made.get("num_pending", 0))
        self._done = count == 0
        return count

    async def next(self) -> list[Item]:
        """The next page; empty at the end."""
        if self._feed is None:
            await self.open()
        page = await self._turn()
        if not page and self._feed is not None and self._feed.gone and not self._done:
            # The server has forgotten a reader that took its time.
            if "deliver_policy" in self._more:
                raise BrokerUnavailable("nats: what was read is there no more")
            await self._feed.stop()
            self._config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self._at + 1}
            await self.open()
            page = await self._turn()
        if page:
            self._at = page[-1].seq
        self._done = self._done or not page or page[-1].pending == 0
        if self._done:
            await self.close()
        return page

    async def _turn(self) -> list[Item]:
        if not self._done and self._feed is not None:
            await self._feed.now(PAGE)
        page = self._page[:]
        self._page.clear()
        return page

    async def close(self) -> None:
        """Read no more."""
        self._done = True
        if self._name and self._link.error is None:
            name, self._name = self._name, ""
            if self._feed is not None:
                await self._feed.stop()
            self._link.send(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}")


async def read_all(link: Link, stream: str, subjects: list[str], **more: Any) -> list[Item]:
    """All of a range that is not long."""
    pages, found = Pages(link, stream, subjects, **more), []
    while page := await pages.next():
        found += page
    return found


_encode: Final = msgspec.json.Encoder().encode
