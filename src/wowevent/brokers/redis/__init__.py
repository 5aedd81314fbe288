"""The Redis engine: one log a namespace, all of it in one slot; every step is one script that the server runs whole.

    __init__       RedisBroker
    dial, line     reaching the server; the one connection that calls share
    session        what an instance has joined: epoch, registry, wake-ups, beat
    appending      publishing;   past: what a new subscription wants of before;   dead: dead letters
    reader         pages, facts and the growing end of the log;   entries: those of a subscription, read
    registry       who wants what, cached
    server         what the server's settings promise;   doctor: a look from outside;   faults: the errors
    script, scripts/   the scripts, and the keys that they work on

Redis cannot be asked for less than what a script does at once, so what would be long (the past, the limits) is done in
pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final

from msgspec import structs

from wowevent.broker import (
    Ack,
    Appended,
    Bury,
    Capabilities,
    DeadLetter,
    DeadQuery,
    Discard,
    Examination,
    Extend,
    Iteration,
    Lease,
    Ping,
    Position,
    Present,
    Query,
    Reason,
    Redeliver,
    Retention,
    Settlement,
    Stored,
    Subscription,
    SubscriptionInfo,
)
from wowevent.brokers.redis import appending, dead, doctor, past
from wowevent.brokers.redis.dial import Dial, dial_client, dial_url
from wowevent.brokers.redis.entries import info_of, json_of, lease_of, offset_of
from wowevent.brokers.redis.faults import Refused
from wowevent.brokers.redis.reader import Facts, Pages, Tail, next_of
from wowevent.brokers.redis.registry import text_of
from wowevent.brokers.redis.server import promise_of
from wowevent.brokers.redis.session import Session
from wowevent.clock import Clock, SystemClock
from wowevent.entrance import Entrance
from wowevent.errors import BrokerError, BusError, Closed, PositionLost, SubscriptionNotFound
from wowevent.event import Event, check_name
from wowevent.reading import Reading, of_facts

__all__ = ["RedisBroker"]

_LONGEST_WAIT: Final = 86_400.0
_PAGE: Final = 100  # subscriptions that one question asks of


class RedisBroker:
    """One instance of the Redis engine; see `Broker` for what each call promises.

    Nothing is connected before the first call. All calls come from one event loop. Leases and delays go by the server's
    clock, unless another clock is given.
    """

    def __init__(
        self,
        server: Any,
        *,
        namespace: str = "default",
        strict: bool = False,
        retention: Retention | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`server` is a URL (see `dial`), or a `redis.asyncio` client, which stays the caller's.

        `strict` refuses a server whose settings may forget what was confirmed, rather than to warn.
        """
        self.capabilities: Capabilities = Capabilities(
            name="redis", durable=True, shared=True, promise="Known once the server's settings are read."
        )
        self._key = f"wowevent:{{{check_name(namespace)}}}"
        self._dial: Dial = dial_url(server, self._key) if isinstance(server, str) else dial_client(server, self._key)
        self._strict = strict
        self._retention = retention or Retention()
        self._clock = clock or SystemClock()
        self._entrance: Entrance[Session] = Entrance(self._join, self._leave)
        self._tails: set[Tail] = set()
        self._ends: set[asyncio.Task[None]] = set()

    # --- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Join the log now, rather than with the first call. BrokerUnavailable, NotPermitted, NotSupported."""
        await self._entrance.enter()

    async def _join(self, _before: Session | None) -> Session:
        session = Session(self._dial, self._key, self._retention, self._clock)
        try:
            promise = await promise_of(session.line, strict=self._strict)
            await session.join(partial(appending.release, session))
        except BaseException:
            await session.line.close()
            raise
        self.capabilities = structs.replace(self.capabilities, promise=promise)
        return session

    async def close(self) -> None:
        """See Broker."""
        await self._entrance.close()

    async def _leave(self, session: Session | None) -> None:
        await asyncio.gather(*(tail.close() for tail in list(self._tails)), *self._ends)
        if session is not None:
            await session.close()

    # --- publish ------------------------------------------------------------------------------------------------

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        """See Broker."""
        return await appending.publish(await self._entrance.enter(), events)

    async def cancel(self, event_id: str) -> bool:
        """See Broker."""
        return bool(await (await self._entrance.enter()).call("cancel", event_id))

    # --- subscriptions ------------------------------------------------------------------------------------------

    async def declare(self, subscription: Subscription) -> SubscriptionInfo:
        """See Broker. PositionLost for a start at a position that the log does not go on from."""
        session = await self._entrance.enter()
        first, since = _start(subscription, session.epoch)
        instance = "" if subscription.durable else session.instance
        try:
            await session.call("declare", subscription.id, text_of(subscription), instance, first, since)
        except Refused as refused:
            raise _lost(refused, "that position is not one that the log goes on from") from refused
        session.declared[subscription.id] = structs.replace(subscription, start="new")
        await session.fold()
        if not subscription.durable:
            return SubscriptionInfo(subscription=subscription, consumers=1)
        found = await self.info(subscription.id)
        if found is None:
            raise SubscriptionNotFound(f"{subscription.id!r} was removed while it was declared")
        return found

    async def detach(self, id: str) -> None:
        """See Broker."""
        session = await self._entrance.enter()
        session.serving.discard(id)
        session.declared.pop(id, None)
        num = session.registry.nums.get(id)
        if num is not None:
            session.wake(num)
            await session.call("detach", session.instance, 0, num)

    async def remove(self, id: str) -> None:
        """See Broker."""
        session = await self._entrance.enter()
        session.declared.pop(id, None)
        num = await session.call("remove", id)
        await session.fold()
        session.serving.discard(id)
        if num is not None:
            session.wake(num.decode())

    async def subscriptions(self) -> Sequence[SubscriptionInfo]:
        """See Broker."""
        session = await self._entrance.enter()
        await session.fold()
        found = session.registry.routes.all()
        live = [SubscriptionInfo(subscription=each, consumers=1) for each in found if not each.durable]
        return await self._infos(session, [each for each in found if each.durable]) + live

    async def presence(self, *, fresh: bool = True) -> Sequence[Present]:  # noqa: ARG002 - it always is
        """See Broker."""
        session = await self._entrance.enter()
        await session.fold()
        known = session.registry.routes.all()
        wanted = [each for each in known if each.durable]
        nums = [session.registry.nums[each.id] for each in wanted]
        found: list[Present] = []
        for first in range(0, len(nums), _PAGE):
            counts = await session.call("present", *nums[first : first + _PAGE])
            pairs = zip(wanted[first : first + _PAGE], counts, strict=True)
            found += [Present(each, count) for each, count in pairs if count is not None]
        return found + [Present(each, 1) for each in known if not each.durable]

    async def info(self, id: str) -> SubscriptionInfo | None:
        """See Broker."""
        session = await self._entrance.enter()
        await session.fold()
        subscription = session.registry.routes.get(id)
        if subscription is None:
            return None
        if not subscription.durable:
            return SubscriptionInfo(subscription=subscription, consumers=1)
        return next(iter(await self._infos(session, [subscription])), None)

    async def _infos(self, session: Session, wanted: Sequence[Subscription]) -> list[SubscriptionInfo]:
        infos: list[SubscriptionInfo] = []
        nums = [session.registry.nums[each.id] for each in wanted]
        for first in range(0, len(nums), _PAGE):
            answer = await session.call("info", *nums[first : first + _PAGE])
            for subscription, facts in zip(wanted[first : first + _PAGE], answer, strict=True):
                if facts[0] is not None:
                    unseen = 0 if facts[9] is None else await past.count(session, subscription, facts[9:])
                    infos.append(info_of(subscription, facts, unseen, self._clock.time()))
        return infos

    async def purge(self, id: str) -> int:
        """See Broker."""
        session = await self._entrance.enter()
        num, subscription = await session.find(id)
        for info in await self._infos(session, [subscription]):
            unseen = info.ready - int(await session.call("purge", num))
            return info.ready if unseen >= 0 else info.ready - unseen
        raise SubscriptionNotFound(f"no subscription {id!r} is remembered")

    # --- fetch and settle ---------------------------------------------------------------------------------------

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        """See Broker."""
        session = await self._entrance.enter()
        until = self._clock.monotonic() + min(wait, _LONGEST_WAIT)
        joined = False
        while True:
            num, subscription = await session.find(id)
            if joined and id not in session.serving:  # detached while this call was waiting
                return []
            left = until - self._clock.monotonic()
            news = session.waiter(num) if left > 0 and limit > 0 else None
            try:
                leases, due = await self._take(session, num, subscription, limit, waits=news is not None)
                joined = True
                if due is None and not leases:  # it has come to more of its past
                    continue
                if leases or news is None:
                    return leases
                await self._wait(news, left if due is None or due < 0 else min(left, due / 1000))
            finally:
                if news is not None:
                    session.leave_waiting(num, news)

    async def _wait(self, news: asyncio.Future[None], seconds: float) -> None:
        def over() -> None:
            if not news.done():
                news.set_result(None)

        timer = self._clock.call_later(seconds, over)
        try:
            await news
        finally:
            timer.cancel()
        if self._entrance.closed:
            raise Closed("this broker is closed")

    async def _take(
        self, session: Session, num: str, subscription: Subscription, limit: int, *, waits: bool
    ) -> tuple[list[Lease], float | None]:
        """What can be leased now, and in how many milliseconds there may be more: None at once, negative never."""
        id, prefix, epoch = subscription.id, session.next_prefix(), session.epoch
        joins, lost = id not in session.serving, session.lost.pop(id, [])
        session.serving.add(id)
        lease = f"{subscription.lease * 1000:.3f}"
        switches = (int(joins), int(subscription.exclusive), int(waits))
        try:
            entries, due, behind = await session.call(
                "fetch", num, session.instance, prefix, limit, lease, *switches, *lost
            )
        except Refused as refused:
            if refused.word == "GONE":
                session.serving.discard(id)
                await session.fold()
                raise SubscriptionNotFound(f"no subscription {id!r} is remembered") from refused
            raise _lost(refused, f"{id}: unread events were dropped by the log's limits") from refused
        except asyncio.CancelledError:
            self._give_back(session, num, [*lost, prefix])
            if joins:
                session.serving.discard(id)  # it may not have got there
            raise
        except BrokerError:  # the answer may be on its way, or not: the next fetch says so
            session.lost[id] = [*session.lost.get(id, []), *lost, prefix]
            if joins:
                session.serving.discard(id)
            raise
        leases = await self._leases(id, prefix, entries, epoch)
        if behind is not None and not leases:  # with some in hand, nothing may fail that they would be lost with
            await past.take_in(session, num, subscription, behind)
            return leases, None
        return leases, float(due)

    def _give_back(self, session: Session, num: str, prefixes: list[str]) -> None:
        """What a fetch leased that nobody waits for any more."""
        try:
            session.ask("fetch", num, session.instance, "", 0, 0, 0, 0, 0, *prefixes)
        except Closed:
            return

    async def _leases(self, id: str, prefix: str, entries: Sequence[bytes], epoch: str) -> list[Lease]:
        """The leases of entries; one that cannot be read becomes a dead letter."""
        leases: list[Lease] = []
        for raw in entries:
            try:
                leases.append(lease_of(raw, prefix, epoch))
            except BusError as error:
                bury = Bury(f"{prefix}.{offset_of(raw)}", Reason.DESERIALIZATION_ERROR, str(error))
                await self.settle(id, [bury])
        return leases

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        """See Broker."""
        session = await self._entrance.enter()
        num, subscription = await session.find(id)
        acks: dict[str, list[bytes]] = {}
        others: list[Any] = []
        for each in settlements:
            if isinstance(each, Ack):
                acks.setdefault(each.token.rpartition(".")[0], []).append(_token(each.token))
            elif isinstance(each, Bury):
                error = "" if each.error is None else json_of(each.error)
                others += ("b", each.token, each.reason.value, error, each.traceback.encode(errors="replace"))
            elif isinstance(each, Extend):
                error = "" if each.error is None else json_of(each.error)
                others += ("x", each.token, f"{each.seconds * 1000:.3f}", error, "")
            else:
                error = json_of(each.error) if each.charge else ""
                others += ("r", each.token, f"{each.delay * 1000:.3f}", error, "")
        named = [part for fetch, tokens in acks.items() for part in (_token(fetch), len(tokens), *tokens)]
        try:
            return int(await session.call("settle", num, int(subscription.exclusive), len(acks), *named, *others))
        except Refused as refused:
            await session.fold()
            raise SubscriptionNotFound(f"no subscription {id!r} is remembered") from refused

    # --- dead letters -------------------------------------------------------------------------------------------

    async def dead(self, query: DeadQuery) -> Sequence[DeadLetter]:
        """See Broker."""
        return await dead.found(await self._entrance.enter(), query)

    async def letters(self, query: DeadQuery) -> AsyncGenerator[Sequence[DeadLetter]]:
        """See Broker."""
        async with aclosing(dead.every(await self._entrance.enter(), query)) as pages:
            async for page in pages:
                yield page

    async def resolve(self, letters: Sequence[Redeliver | Discard]) -> int:
        """See Broker."""
        return await dead.resolve(await self._entrance.enter(), letters)

    # --- read ---------------------------------------------------------------------------------------------------

    def read(self, query: Query, *, after: Position | None = None, follow: bool = False) -> Iteration:
        """See Broker. Behind a PositionLost or an unreadable event the iteration can be gone on with."""
        if not follow:
            pages = Facts(query, after) if of_facts(query) else Pages(query, after)
            return Reading(partial(self._next_page, pages), query.limit)
        # Where the live path is now, is asked at once: what is sent after this call must be seen.
        session = None if self._entrance.closed else self._entrance.session
        tails = [] if session is None else [Tail(query, after, session, self._dial)]
        self._tails.update(tails)
        return Reading(partial(self._next_news, query, after, tails), query.limit, partial(self._end, tails))

    async def _next_page(self, pages: Pages | Facts) -> Sequence[Stored | BusError] | None:
        return await pages.next(await self._entrance.enter())

    async def _next_news(
        self, query: Query, after: Position | None, tails: list[Tail]
    ) -> Sequence[Stored | BusError] | None:
        if not tails:
            if self._entrance.closed:
                return None
            tails.append(Tail(query, after, await self._entrance.enter(), self._dial))
            self._tails.add(tails[0])
        return await next_of(tails[0])

    def _end(self, tails: list[Tail]) -> None:
        for tail in tails:
            if tail in self._tails:
                self._tails.discard(tail)
                end = asyncio.create_task(tail.close())
                self._ends.add(end)
                end.add_done_callback(self._ends.discard)

    async def ping(self) -> Ping:
        """See Broker."""
        session = await self._entrance.enter()
        started = self._clock.monotonic()
        head = await session.head()
        return Ping(self._clock.monotonic() - started, head)

    @asynccontextmanager
    async def examine(self) -> AsyncIterator[Examination]:
        """See Broker."""
        async with doctor.examine(self._dial, self._key) as (examination, promise):
            self.capabilities = structs.replace(self.capabilities, promise=promise)
            yield examination


def _start(subscription: Subscription, epoch: str) -> tuple[Any, str]:
    """The first position that a new one gets, or "new" or "first"; and since when, in milliseconds."""
    start = subscription.start
    if isinstance(start, Position):
        if start.epoch != epoch:
            raise PositionLost("that position is of another log")
        return start.offset + 1, ""
    if isinstance(start, datetime):
        return "first", f"{start.timestamp() * 1000:.3f}"
    return start, ""


def _lost(refused: Refused, text: str) -> PositionLost:
    lost = None if refused.number < 0 else refused.number
    return PositionLost(f"{text} ({'their number is not known' if lost is None else lost})", lost)


def _token(token: str) -> bytes:
    return token.encode(errors="replace")
