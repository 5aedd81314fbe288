"""The SQLite engine: one file that processes share; what they ask for together is one durable commit.

    __init__       SqliteBroker; session: its open log as the loop sees it, calls become jobs and answers futures
    writer, jobs   the one thread that writes, and what it is asked
    store          what each step of a transaction works with; its steps are log (append), entries (fetch), settling,
                   subscriptions, backfill, dead, retention
    reader         pages of the log and of its facts, on a connection of their own
    registry       who wants what and who is here, cached;   wake: telling other processes
    schema         the file itself;   opening: what a process may open;   doctor: a look from outside
    backup, check, restore, draft   a log as one file, whether it is sound, and back again

Nothing is polled but for a look once a second by what waits, in case a wake-up got lost.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from msgspec import structs

from wowevent.broker import Capabilities, Ping, Position, Retention
from wowevent.brokers.sqlite import dead, doctor, entries, log, reader, settling, subscriptions
from wowevent.brokers.sqlite.jobs import Fetch, GiveUp, Publish
from wowevent.brokers.sqlite.reader import Place
from wowevent.brokers.sqlite.session import Session
from wowevent.clock import SystemClock
from wowevent.ending import seen
from wowevent.errors import Closed
from wowevent.reading import Reading, of_facts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from wowevent.broker import (
        Appended,
        DeadLetter,
        DeadQuery,
        Discard,
        Examination,
        Iteration,
        Lease,
        Present,
        Query,
        Redeliver,
        Settlement,
        Stored,
        Subscription,
        SubscriptionInfo,
    )
    from wowevent.brokers.sqlite.store import Store
    from wowevent.clock import Clock
    from wowevent.errors import BusError
    from wowevent.event import Event

__all__ = ["SqliteBroker"]

T = TypeVar("T")
P = ParamSpec("P")

_LONGEST_WAIT: Final = 86_400.0
_PROMISES: Final = {
    "full": "What was confirmed survives the process and a power loss: every commit is on disk before it is confirmed.",
    "normal": "What was confirmed survives the process; a power loss may take the last moments before it.",
    "off": "What was confirmed survives the process; a power loss may take much of it, or damage the log.",
}


class SqliteBroker:
    """One instance of the SQLite engine; see `Broker` for what each call promises.

    Nothing is opened before the first call. All calls come from one event loop.
    """

    def __init__(
        self, path: str, *, synchronous: str = "full", retention: Retention | None = None, clock: Clock | None = None
    ) -> None:
        """`path` names the file, made at need. `synchronous` is full, normal or off, see `capabilities.promise`."""
        if synchronous not in _PROMISES:
            raise ValueError(f"synchronous={synchronous!r}: full, normal or off")
        if not path or "\0" in path:
            raise ValueError(f"{path!r} is not the path of a file")
        self.capabilities: Capabilities = Capabilities(
            name="sqlite", durable=True, shared=True, promise=_PROMISES[synchronous]
        )
        self._path = str(Path(path).absolute())
        self._synchronous = synchronous
        self._retention = retention or Retention()
        self._clock = clock or SystemClock()
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = False
        self._session: Session | None = None

    async def open(self) -> None:
        """Open the log now, rather than with the first call. FormatTooNew, StorageDamaged, BrokerUnavailable.

        NotSupported in a forked child whose parent has the log open.
        """
        await self._enter()

    async def _enter(self) -> Session:
        """Every call starts here."""
        if self._closed:
            raise Closed("this broker is closed")
        if self._session is None:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._open())
                self._opening.add_done_callback(seen)
            await asyncio.shield(self._opening)
            return await self._enter()
        self._session.check_loop()
        return self._session

    async def _open(self) -> None:
        session = Session(self._clock)
        await session.start(self._path, self._synchronous, self._retention)
        self._session = session

    async def _write(self, step: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Carry out a step within a transaction."""
        return await (await self._enter()).write(lambda store: step(store, *args, **kwargs))

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        """See Broker."""
        session = await self._enter()
        if not events:
            return []
        job = Publish(session.future(), events)
        session.put(job)
        appended: list[Appended] = await job.future
        return appended

    async def cancel(self, event_id: str) -> bool:
        """See Broker."""
        return await self._write(log.cancel, event_id)

    async def declare(self, subscription: Subscription) -> SubscriptionInfo:
        """See Broker. PositionLost for a start at a position that the log does not go on from."""
        return await self._write(subscriptions.declare, subscription)

    async def detach(self, id: str) -> None:
        """See Broker."""
        session = await self._enter()  # a fetch that is on its way must find it detached, and not serve it again
        await session.write(lambda store: subscriptions.detach(store, id), after_fetches=True)

    async def remove(self, id: str) -> None:
        """See Broker."""
        await self._write(subscriptions.remove, id)

    async def subscriptions(self) -> Sequence[SubscriptionInfo]:
        """See Broker."""
        session = await self._enter()
        await session.catch_up()
        return await session.ask(subscriptions.infos, self._clock.time())

    async def presence(self, *, fresh: bool = True) -> Sequence[Present]:  # noqa: ARG002 - it always is
        """See Broker."""
        session = await self._enter()
        await session.catch_up()
        return await session.ask(subscriptions.present)

    async def info(self, id: str) -> SubscriptionInfo | None:
        """See Broker."""
        session = await self._enter()
        await session.catch_up()
        found = await session.ask(subscriptions.infos, self._clock.time(), id)
        return found[0] if found else None

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        """See Broker."""
        session = await self._enter()
        job = Fetch(session.future(), id, limit, waits=wait > 0)
        timer = None
        if wait > 0:
            timer = self._clock.call_later(min(wait, _LONGEST_WAIT), partial(session.put, GiveUp(job)))
        session.put(job)
        try:
            leases: list[Lease] = await job.future
            return leases
        except asyncio.CancelledError:
            session.abandon(job)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        """See Broker."""
        session = await self._enter()
        return await session.write(lambda store: settling.settle(store, id, settlements), len(settlements))

    async def dead(self, query: DeadQuery) -> Sequence[DeadLetter]:
        """See Broker."""
        return await (await self._enter()).ask(dead.found, query)

    async def letters(self, query: DeadQuery) -> AsyncGenerator[Sequence[DeadLetter]]:
        """See Broker."""
        behind, query = 0, structs.replace(query, limit=dead.PAGE)
        while page := await (await self._enter()).ask(dead.found, query, behind):
            behind = int(page[-1].id)
            yield page

    async def resolve(self, letters: Sequence[Redeliver | Discard]) -> int:
        """See Broker."""
        return await self._write(dead.resolve, letters)

    def read(self, query: Query, *, after: Position | None = None, follow: bool = False) -> Iteration:
        """See Broker. Behind a PositionLost or StorageDamaged the iteration can be gone on with."""
        place = Place(after, since=self._clock.time())
        if not follow and of_facts(query):
            return Reading(partial(self._facts, query, place), query.limit)
        return Reading(partial(self._page, query, place, follow=follow), query.limit)

    async def _page(self, query: Query, place: Place, *, follow: bool) -> Sequence[Stored | BusError] | None:
        """The next page that has something; None when there will be none."""
        try:
            session = await self._enter()
            if follow:
                await session.follow()
            elif place.upto is None:
                newest = await session.ask(reader.newest)
                place.upto = newest if query.upto is None else min(newest, query.upto.offset)
            while True:
                growth = session.growth
                page = await session.ask(reader.page, query, place, follow=follow)
                if page.items:
                    return page.items
                if page.at_end and not follow:
                    return None
                if page.at_end:
                    await session.grown_since(growth)
        except Closed:
            if follow:
                return None
            raise

    async def _facts(self, query: Query, place: Place) -> Sequence[Stored | BusError] | None:
        """The next page of facts that has something; None at the end."""
        session = await self._enter()
        while True:
            page = await session.ask(reader.facts, query, place)
            if page.items or page.at_end:
                return page.items or None

    async def purge(self, id: str) -> int:
        """See Broker."""
        count, upto = 0, None
        while True:
            dropped, upto, more = await self._write(entries.purge, id, upto)
            count += dropped
            if not more:
                return count

    async def ping(self) -> Ping:
        """See Broker."""
        session = await self._enter()
        started = self._clock.monotonic()
        newest, _, _ = await session.write(log.head)
        return Ping(self._clock.monotonic() - started, Position(session.epoch, newest))

    def examine(self) -> AbstractAsyncContextManager[Examination]:
        """See Broker."""
        return doctor.examine(Path(self._path), self._synchronous)

    async def close(self) -> None:
        """See Broker. What was asked for before is carried out."""
        if self._closing is None:
            self._closed = True
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self._session is not None:
            await self._session.end()
