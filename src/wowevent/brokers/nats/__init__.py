"""The NATS JetStream engine: one stream of all events, which consumers read by filters, and four small ones beside it.

    __init__    NatsBroker                           names       streams, subjects, filters
    driver      nats-py, as we use it                messages    what goes over a line
    link        the line: confirms, questions        tags        what a message says of itself
    session     what an instance has joined          stream      following one, reading a range, asking a consumer
    declaring   a subscription begins, or changes    consumers   what the server has of it
    serving     one subscription: lease and settle   lanes       what the server has given us of it
    successors  what becomes of a message            delays      what is delayed
    control, registry   what all instances know      locks       what only one may do
    letters     dead letters                         janitor     the log's limits
    history     reading the log                      storage     streams that store nothing any more
    counting    how much there is of each            faults      the errors
    doctor      a look from outside

The server matches and keeps cursors; who failed how often travels with a copy. `names` draws what lies where.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Any, Final
from uuid import uuid4

from msgspec import structs

from wowevent.broker import (
    LIVE,
    Appended,
    Capabilities,
    DeadLetter,
    DeadQuery,
    Discard,
    Examination,
    Iteration,
    Lease,
    Ping,
    Position,
    Present,
    Query,
    Redeliver,
    Retention,
    Settlement,
    Subscription,
    SubscriptionInfo,
)
from wowevent.brokers.nats import doctor
from wowevent.brokers.nats.declaring import remember
from wowevent.brokers.nats.faults import refusal
from wowevent.brokers.nats.history import Items, Past, Tail, epoch_of, facts
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.messages import Message
from wowevent.brokers.nats.names import Names
from wowevent.brokers.nats.registry import Known, Registry, Spec
from wowevent.brokers.nats.serving import Serving
from wowevent.brokers.nats.session import Session
from wowevent.brokers.nats.tags import published
from wowevent.clock import Clock, SystemClock
from wowevent.codec import encode
from wowevent.entrance import Entrance
from wowevent.errors import BrokerUnavailable, Closed, PositionLost, StorageFull, SubscriptionNotFound
from wowevent.event import Event, check_name
from wowevent.presence import Presence
from wowevent.reading import Reading, of_facts, once

__all__ = ["NatsBroker"]

_LONGEST_WAIT: Final = 86_400.0
_LOCK_WAIT: Final = 1.0  # seconds after which a waiting fetch looks again whether the lock is free
_ROUNDS: Final = 8  # publishes that may be under way
_PROMISE: Final = (
    "At least once: file storage, confirmed before a publish returns; nothing is lost by a kill. A power failure may "
    "take what the server had not synced yet: nothing with `sync_interval: always`, up to two minutes with its default."
)


class NatsBroker:
    """One instance of the NATS engine; see `Broker` for what each call promises.

    Nothing is connected before the first call. All calls come from one event loop. Leases and delays go by the clock of
    the instance that has them.
    """

    def __init__(
        self,
        servers: Sequence[str],
        options: dict[str, Any] | None = None,
        *,
        namespace: str = "default",
        retention: Retention | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`servers` are `nats://host:port`.

        Of `options`: user, password, token, creds and nkey (files), name, tls (a dict of the files ca, cert, key),
        replicas (of the streams that are made).
        """
        self.capabilities: Capabilities = Capabilities(
            name="nats",
            durable=True,
            shared=True,
            promise=_PROMISE,
            exact=False,
            lasting_leases=False,
            matches=False,
            rounds=_ROUNDS,
        )
        self._servers = servers
        self._options = dict(options or {})
        self._replicas = int(self._options.pop("replicas", 1))
        self._names = Names(check_name(namespace))
        self._retention = retention or Retention()
        self._clock = clock or SystemClock()
        self._registry = Registry()
        self._presence = Presence(uuid4().hex[:12], self._clock)
        self._servings: dict[str, Serving] = {}
        self._entrance: Entrance[Session] = Entrance(self._join, self._leave)
        self._served: set[str] = set()

    # --- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Join the log now, rather than with the first call. BrokerUnavailable, NotPermitted."""
        await self._entrance.enter()

    async def _join(self, before: Session | None) -> Session:
        if before is not None:
            await before.close(goodbye=False)
        link = await Link.dial(self._servers, self._options)
        session = Session(
            link,
            self._names,
            registry=self._registry,
            presence=self._presence,
            retention=self._retention,
            clock=self._clock,
            servings=self._servings,
            replicas=self._replicas,
        )
        try:
            await session.join()
        except BaseException:
            await session.close(goodbye=False)
            raise
        return session

    async def close(self) -> None:
        """See Broker."""
        await self._entrance.close()

    async def _leave(self, session: Session | None) -> None:
        if session is not None:
            await session.close(goodbye=True)
        for serving in list(self._servings.values()):
            await serving.close()

    # --- publish --------------------------------------------------------------------------------------------------

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        """See Broker."""
        session = await self._entrance.enter()
        now, epoch = self._clock.time(), epoch_of(self._registry)
        results: list[Appended | None] = []
        messages: list[Message] = []
        matches: list[tuple[str, ...]] = []
        for event in events:
            matched = self._registry.routes.match(event) + self._presence.routes.match(event)
            due = event.not_before.timestamp() if event.not_before is not None else 0.0
            if due > now:
                kept = await session.delays.hold(event, due)
                results.append(Appended(None, matched=matched) if kept else Appended(None, duplicate=True))
            elif event.topic.startswith(LIVE):
                session.link.send(self._names.live(event.topic), encode(event))
                results.append(Appended(None, matched=matched))
            else:
                messages.append(session.link.fitting(published(self._names.event(event), event, now)))
                matches.append(matched)
                results.append(None)
        confirms = iter(zip(await session.link.publish(messages), matches, strict=True))
        for number, result in enumerate(results):
            if result is not None:
                continue
            confirm, matched = next(confirms)
            if confirm.error is not None:
                raise refusal(confirm.error)
            place = Position(epoch, confirm.seq)
            results[number] = Appended(place, duplicate=True) if confirm.duplicate else Appended(place, matched=matched)
        return [result for result in results if result is not None]

    async def cancel(self, event_id: str) -> bool:
        """See Broker."""
        return await (await self._entrance.enter()).delays.cancel(event_id)

    # --- subscriptions --------------------------------------------------------------------------------------------

    async def declare(self, subscription: Subscription) -> SubscriptionInfo:
        """See Broker. PositionLost for a start at a position that the log does not go on from."""
        session = await self._entrance.enter()
        id = subscription.id
        if not subscription.durable:
            self._presence.reading[id] = structs.replace(subscription, start="new")
            await session.control.say()
            return SubscriptionInfo(subscription=subscription, consumers=1)
        await remember(session, subscription)
        found = await session.info(id)
        if found is None:
            raise SubscriptionNotFound(f"{id!r} was removed while it was declared")
        return found

    async def detach(self, id: str) -> None:
        """See Broker."""
        self._served.discard(id)
        await (await self._entrance.enter()).leave([id])

    async def remove(self, id: str) -> None:
        """See Broker."""
        session = await self._entrance.enter()
        if self._presence.reading.pop(id, None) is not None:
            await session.control.say()
            return
        await session.control.sync()
        if id not in self._registry.known:
            return
        await session.leave([id])
        await session.control.note(id, removed=True)
        serving = self._servings.pop(id, None)
        if serving is not None:
            await serving.lanes.stop()
            await serving.close()
        await session.consumers.unmake(id)
        await session.purge(self._names.dead, f"{self._names.letters(id)}.>")
        await session.purge(self._names.later, f"{self._names.retries(id)}.>")

    async def subscriptions(self) -> Sequence[SubscriptionInfo]:
        """See Broker."""
        session = await self._entrance.enter()
        infos = await session.infos()
        return infos + [SubscriptionInfo(subscription=each, consumers=1) for each in self._presence.present()]

    async def presence(self, *, fresh: bool = True) -> Sequence[Present]:
        """See Broker."""
        session = await self._entrance.enter()
        if fresh:
            await session.control.sync()
        return self._presence.all(self._registry.routes)

    async def info(self, id: str) -> SubscriptionInfo | None:
        """See Broker."""
        session = await self._entrance.enter()
        await session.sync()
        live = next((each for each in self._presence.present() if each.id == id), None)
        return SubscriptionInfo(subscription=live, consumers=1) if live is not None else await session.info(id)

    async def purge(self, id: str) -> int:
        """See Broker."""
        session = await self._entrance.enter()
        await session.sync()
        session.find(id)
        return await session.serving(id).purge()

    # --- fetch and settle -----------------------------------------------------------------------------------------

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        """See Broker."""
        self._served.add(id)
        session = await self._entrance.enter()
        until = self._clock.monotonic() + min(wait, _LONGEST_WAIT)
        if self._registry.spec(id) is None:
            await session.control.sync()
        waited = False
        while True:
            if self._entrance.closed:
                raise Closed("this broker is closed")
            if session.broken:
                raise BrokerUnavailable("nats: the connection was lost")
            spec = session.find(id)
            if id not in self._served:  # detached while this call was under way
                await session.leave([id])
                return []
            await self._serve(session, id, tells=limit > 0)
            left = until - self._clock.monotonic()
            try:
                leases = await self._take(session, spec, limit, waits=left > 0, waited=waited)
            except BrokerUnavailable:
                if self._entrance.closed:
                    raise Closed("this broker is closed") from None
                session.find(id)  # that it was removed is the better answer
                raise
            if leases or limit == 0 or left <= 0:
                return leases
            await self._wait(session, spec, left)
            waited = True

    async def _serve(self, session: Session, id: str, *, tells: bool) -> None:
        """This instance is a consumer of it. PositionLost, once, where it lapsed or the log's limits took something."""
        await session.serve(id)
        known = self._registry.known.get(id)
        if known is None or not tells or not (known.lapsed or known.untold):
            return
        told = 0
        head = (await session.ends())[1]

        def change(known: Known | None) -> Known | None:
            nonlocal told
            if known is None or not (known.lapsed or known.untold):
                told = -1
                return None
            told = known.lost
            if not known.lapsed:
                return structs.replace(known, lost=0, untold=False)
            specs = (Spec(head, known.specs[-1].text),)
            return structs.replace(known, lost=0, untold=False, lapsed=False, begins=head + 1, specs=specs)

        try:
            await session.consumers.change(id, change)
        except StorageFull:
            if known.lapsed:
                raise
            return  # it is told when that can be noted, and once
        if told >= 0:
            raise PositionLost(
                f"{id}: unread events are gone, by the log's limits or unserved for too long", told or None
            )

    async def _take(
        self, session: Session, spec: Subscription, limit: int, *, waits: bool, waited: bool
    ) -> list[Lease]:
        """What can be leased. Who `waited` and waits no more has what came: what had not is asked for the next time."""
        serving = session.serving(spec.id)
        if limit == 0 or (spec.exclusive and not await session.lock(spec.id)):
            return []
        # The first time the server is asked, too: what a consumer begins with is the best that there is.
        asking = not serving.lanes.consuming or serving.lanes.overtaken if waits else not waited
        if asking and not waits:
            await session.sync()
        leases = await serving.take(limit, spec.lease, asking=asking, lanes=not spec.exclusive)
        if waits and spec.id in self._served:
            await serving.consume(limit - len(leases))
        if spec.id not in self._served:  # detached meanwhile: what is delivered ahead would stay here
            await serving.stop()
        return leases

    async def _wait(self, session: Session, spec: Subscription, seconds: float) -> None:
        serving = session.serving(spec.id)
        if spec.exclusive and not session.holds(spec.id):
            seconds = min(seconds, _LOCK_WAIT)
        elif serving.takeable:
            return
        if spec.id not in self._served or session.broken:
            return
        lanes = serving.lanes
        timer = self._clock.call_later(seconds, lanes.news.notify)
        lanes.awaited += not spec.exclusive  # whose lock may go to another one meanwhile
        try:
            await lanes.news.wait()
        finally:
            lanes.awaited -= not spec.exclusive
            timer.cancel()

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        """See Broker."""
        session = await self._entrance.enter()
        if self._registry.spec(id) is None:
            await session.control.sync()
        session.find(id)
        count = await session.serving(id).settle(settlements)
        await session.unlock(id)
        return count

    async def dead(self, query: DeadQuery) -> Sequence[DeadLetter]:
        """See Broker."""
        session = await self._entrance.enter()
        await session.control.sync()
        return await session.letters.find(query)

    async def letters(self, query: DeadQuery) -> AsyncGenerator[Sequence[DeadLetter]]:
        """See Broker."""
        session = await self._entrance.enter()
        await session.control.sync()
        async with aclosing(session.letters.all(query)) as pages:
            async for page in pages:
                yield page

    async def resolve(self, letters: Sequence[Redeliver | Discard]) -> int:
        """See Broker."""
        session = await self._entrance.enter()
        await session.control.sync()
        return await session.letters.resolve(letters)

    # --- reading --------------------------------------------------------------------------------------------------

    def read(self, query: Query, *, after: Position | None = None, follow: bool = False) -> Iteration:
        """See Broker."""
        if follow:
            return self._follow(query, after)
        if of_facts(query):
            return Reading(once(partial(self._facts, query, after)), query.limit)
        past = Past(query, after)

        async def turn() -> Items | None:
            return await past.next(await self._entrance.enter())

        return Reading(turn, query.limit, lambda: self._end(past.close()))

    async def _facts(self, query: Query, after: Position | None) -> Items:
        return await facts(await self._entrance.enter(), query, after)

    def _follow(self, query: Query, after: Position | None) -> Reading:
        tail: Tail | None = None

        async def turn() -> Items | None:
            nonlocal tail
            if tail is None:
                tail = Tail(query, after, await self._entrance.enter())
            found = await tail.next()
            if found is None and not self._entrance.closed:
                raise BrokerUnavailable("nats: the connection was lost")
            return found

        def end() -> None:
            if tail is not None:
                tail.close()
                self._end(tail.end())

        return Reading(turn, query.limit, end)

    def _end(self, work: Any) -> None:
        """Let it end beside what is done now."""
        if self._entrance.session is not None and not self._entrance.session.broken and not self._entrance.closed:
            self._entrance.session.begin(work)
        else:
            work.close()

    async def ping(self) -> Ping:
        """See Broker."""
        session = await self._entrance.enter()
        began = asyncio.get_running_loop().time()
        await session.sync()
        # The server reads on where it stores nothing any more.
        (_, last), _ = await asyncio.gather(session.ends(), session.storage.look())
        return Ping(asyncio.get_running_loop().time() - began, Position(epoch_of(self._registry), last))

    def examine(self) -> AbstractAsyncContextManager[Examination]:
        """See Broker."""
        return doctor.examine(self._servers, self._options, self._names)
