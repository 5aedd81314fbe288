"""The messages of one subscription that the server has given this instance: its lanes, and what is answered.

    lane 0  suspects   s         what is delivered alone
    lane 1  urgent     au, u     priority 7 and up: what comes once more, and the log's
    lane 2  plain      an, n     the same of the rest; of an exclusive subscription, all of it

The consumers for what comes once more are made when there is something.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Final

from msgspec import Struct

from wowevent.broker import URGENT_RUN
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.names import SUSPECTS, Names
from wowevent.brokers.nats.registry import Registry
from wowevent.brokers.nats.stream import Feed, Item
from wowevent.brokers.nats.tags import tag_of
from wowevent.tag import Tag
from wowevent.wakeup import Wakeup

LOG: Final = ("u", "n")
AGAIN: Final = ("s", "au", "an")
LANES: Final[tuple[tuple[str, ...], ...]] = (("s",), ("au", "u"), ("an", "n"))
"""The sources of each lane; what comes once more is the older one."""
SOURCES: Final = tuple(source for lane in LANES for source in lane)
_EXPIRES: Final = 5.0  # seconds after which the server is asked again for what will come, if somebody waits for that


class Here(Struct, gc=False):
    """One message that the server has given us."""

    item: Item
    source: str
    tag: Tag
    touched: float
    """When the server last knew that it is ours, by the machine's monotonic clock."""
    judged: bool = False
    """Its tag counts what became of it at those who had it before."""

    @property
    def fresh(self) -> bool:
        """Whether somebody had it before, and nobody has looked into that."""
        return self.item.delivered > 1 and not self.judged

    @property
    def place(self) -> int:
        """Where the event is in the log."""
        return self.item.seq if self.source in LOG else self.tag.place


class Lanes:
    """See the module."""

    def __init__(
        self, id: str, link: Link, names: Names, registry: Registry, mend: Callable[[str], Awaitable[None]]
    ) -> None:
        """Nothing is asked before it is needed. `mend` makes consumers that are not there."""
        self.news: Wakeup = Wakeup()
        """Notified when there may be more."""
        self.here: dict[str, deque[Here]] = {source: deque() for source in SOURCES}
        """What is not leased, by source."""
        self.back: bool = False
        """Something came that was with somebody before."""
        self.consuming: bool = False
        """Messages come without being asked for."""
        self.awaited: int = 0
        """Fetches that wait for what comes."""
        self._id = id
        self._link = link
        self._names = names
        self._registry = registry
        self._mend = mend
        self._feeds: dict[str, Feed] = {}
        self._ahead = 0
        self._run = 0

    def __len__(self) -> int:
        """How many messages are here that are not leased."""
        return sum(map(len, self.here.values()))

    def relink(self, link: Link, mend: Callable[[str], Awaitable[None]]) -> None:
        """A new line: what is here is still ours; what was on its way is not."""
        self._link, self._mend, self._feeds, self.consuming = link, mend, {}, False

    def count(self, lane: int) -> int:
        """How many are here of a lane."""
        return sum(len(self.here[source]) for source in LANES[lane])

    def sources(self) -> list[str]:
        """Those that have a consumer."""
        known, specs = self._registry.known.get(self._id), self._registry.specs(self._id)
        if known is None:
            return []
        urgent = ["u"] if any(not spec.exclusive for spec in specs) else []
        return [*(AGAIN if known.again else ()), *urgent, "n"]

    def _feed(self, source: str) -> Feed:
        found = self._feeds.get(source)
        if found is None:
            stream = self._names.log if source in LOG else self._names.again
            name = self._names.consumer(self._id, source)
            found = self._feeds[source] = Feed(self._link, stream, name, partial(self._arrive, source))
            found.on_end = partial(self._over, found, source)
        return found

    def _arrive(self, source: str, item: Item) -> None:
        here = Here(item, source, tag_of(item.headers), monotonic())
        self.here[source].append(here)
        self.back = self.back or item.delivered > 1
        if self.news.waiting:
            self.news.notify()

    # --- in -------------------------------------------------------------------------------------------------------

    async def fill(self, lane: int, count: int, empty: set[str]) -> None:
        """Have `count` messages of a lane here, if there are so many; sources that have no more join `empty`."""
        for source in LANES[lane]:
            missing = count - self.count(lane)
            if missing <= 0 or source in empty or source not in self.sources():
                continue
            before = len(self.here[source])
            feed = self._feed(source)
            await feed.now(missing)
            if await self._mended(feed):
                await feed.now(missing)
            if len(self.here[source]) - before < missing:
                empty.add(source)

    async def _mended(self, feed: Feed) -> bool:
        """Whether its consumer was not there, and may be now."""
        gone, feed.gone = feed.gone, False
        if gone:
            await self._mend(self._id)
        return gone

    async def consume(self, ahead: int, *, suspects: bool) -> None:
        """Have what comes delivered, up to `ahead` messages of each source, and one suspect, or none."""
        self.consuming, self._ahead = True, ahead
        for source in self.sources():
            feed = self._feed(source)
            await self._mended(feed)
            wanted = int(suspects) if source == SUSPECTS else ahead
            if self.consuming:
                feed.ahead(wanted - len(self.here[source]), _EXPIRES)

    def _over(self, feed: Feed, source: str, expired: bool) -> None:
        """Of what was asked for ahead no more comes.

        Where nothing is here and somebody waits, it is asked for again, and nobody is woken: of 1,000 subscriptions
        that get nothing that is most of the cost. Whoever has something to do may be slow, and asks when it is done.
        """
        if expired and self.awaited and self.consuming and not len(self):
            feed.ahead(min(self._ahead, 1) if source == SUSPECTS else self._ahead, _EXPIRES)
        else:
            self.news.notify()

    def look(self) -> None:
        """Every few seconds: who waits for what the server has forgotten is woken, and asks again."""
        for feed in self._feeds.values():
            if feed.forgotten():
                self.news.notify()

    @property
    def overtaken(self) -> bool:
        """Whether what is here may have to wait for something that the server has, and was not asked for.

        If nothing is here, what is asked for at the same time may come in any order: so the server is asked first.
        """
        if len(self) and not self.here["n"] and not self.here["an"]:
            return False
        return any(not self.here[source] and not self._feed(source).asked for source in self.sources() if source != "n")

    def next(self, *, lanes: bool) -> Here | None:
        """Urgent first, and after every eight of those one other; without `lanes` what is older."""
        urgent, plain = self._first(1), self._first(2)
        if not lanes:
            urgent, plain = None, self._first(1, 2)
        if urgent is not None and (self._run < URGENT_RUN or plain is None):
            self._run = self._run + 1 if self._run < URGENT_RUN else 0
            return self.here[urgent].popleft()
        self._run = 0
        return None if plain is None else self.here[plain].popleft()

    def _first(self, *lanes: int) -> str | None:
        found, least = None, 0
        for lane in lanes:
            for source in LANES[lane]:
                if (queue := self.here[source]) and (found is None or queue[0].place < least):
                    found, least = source, queue[0].place
        return found

    def take_back(self) -> list[Here]:
        """What was with somebody before, and nobody has looked into; it is not here any more."""
        back = [here for queue in self.here.values() for here in queue if here.fresh]
        for source in {here.source for here in back}:
            kept = [here for here in self.here[source] if not here.fresh]
            self.here[source].clear()
            self.here[source].extend(kept)
        return back

    def give_back(self, back: Sequence[Here]) -> None:
        """They are here again, before all others, as they came."""
        for here in reversed(back):
            if here.judged and here.source != SUSPECTS:
                here.judged, here.tag = False, tag_of(here.item.headers)
            self.here[here.source].appendleft(here)
            self.back = self.back or here.fresh

    def suspect(self, back: Sequence[Here]) -> None:
        """They come alone, though they could not be moved to where suspects lie."""
        self.here[SUSPECTS].extend(back)

    def put_back(self, here: Here) -> None:
        """It is here again, before all others."""
        alone = here.judged and here.item.delivered > 1
        self.here[SUSPECTS if alone else here.source].appendleft(here)

    def due(self, limit: int) -> int:
        """How many plain ones stand between so many."""
        return (self._run + limit) // (URGENT_RUN + 1)

    # --- out ------------------------------------------------------------------------------------------------------

    async def ack(self, settled: Sequence[Here]) -> int:
        """Done with these. Returns when the server has taken it in; how many of them its consumers knew."""
        return len(await self._tell(settled, b"+ACK"))

    async def _tell(self, messages: Sequence[Here], word: bytes) -> list[Here]:
        """Those whose consumer has heard it: it hears in order, so that it answers for all that it is told at once."""
        if len({here.source for here in messages}) > 1:
            parts = [[here for here in messages if here.source == source] for source in self.here]
            heard = await asyncio.gather(*(self._tell(part, word) for part in parts if part))
            return [here for part in heard for here in part]
        if not messages:
            return []
        self._link.answer([here.item.reply for here in messages[:-1]], word)
        return [*messages] if await self._link.tell(messages[-1].item.reply.decode(), word) else []

    async def touch(self, leased: Iterable[Here], patience: float) -> None:
        """Tell the server what is ours, before it gives it to somebody else after `patience` seconds."""
        now = monotonic()
        every = [*leased, *(here for lane in self.here.values() for here in lane)]
        for here in await self._tell(
            [here for here in every if patience / 3 < now - here.touched < patience - 1], b"+WPI"
        ):
            here.touched = now  # and not since it was answered: what matters is what the server knows

    def forget(self, source: str) -> None:
        """What a consumer gave that is not there any more is not ours."""
        for lane in {source, SUSPECTS}:
            kept = [here for here in self.here[lane] if here.source != source]
            self.here[lane].clear()
            self.here[lane].extend(kept)

    async def stop(self) -> list[Here]:
        """Have nothing more come; what is here and not leased."""
        self.consuming = False
        for feed in list(self._feeds.values()):
            await feed.stop()
        left = [here for lane in self.here.values() for here in lane]
        for lane in self.here.values():
            lane.clear()
        return left
