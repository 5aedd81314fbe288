"""The RabbitMQ engine: quorum queues that the server routes to, a stream of all events, a stream of what all must know.

    __init__    RabbitMQBroker                       names     exchanges, queues, bindings
    link        connections, locks                   outlet    publishing, confirmed
    tags        what a message says of itself
    session     what an instance has joined          stream    following one;   history   reading the log
    serving     one subscription: lease and settle   control, registry   the control log and its fold
    delays      what is delayed                      live      who is there, replies
    letters     dead letters                         faults    the errors;   strangers   what others publish
    doctor      a look from outside

What AMQP cannot do is declared: a confirm bears no position, an id is looked for where it is consumed, and a lease ends
with the connection of who holds it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from math import inf
from typing import Final

from msgspec import structs

from wowevent.broker import (
    KNOWN_IDS,
    KNOWN_SECONDS,
    LIVE,
    Ack,
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
from wowevent.brokers.rabbitmq import doctor
from wowevent.brokers.rabbitmq.history import Items, Pages, Tail, facts
from wowevent.brokers.rabbitmq.link import SILENCE, Link, nodes_of, unrouted
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.outlet import Message
from wowevent.brokers.rabbitmq.past import copy_past
from wowevent.brokers.rabbitmq.registry import Declared, Registry, Removed, Returned, Told
from wowevent.brokers.rabbitmq.session import Session
from wowevent.brokers.rabbitmq.tags import properties
from wowevent.clock import Clock, SystemClock
from wowevent.codec import encode
from wowevent.entrance import Entrance
from wowevent.errors import BrokerUnavailable, Closed, PositionLost, SubscriptionNotFound
from wowevent.event import Event, check_name
from wowevent.reading import Reading, of_facts, once
from wowevent.routing import spec_of
from wowevent.tag import Tag

__all__ = ["RabbitMQBroker"]

_LONGEST_WAIT: Final = 86_400.0
_ASKING: Final = 0.1  # seconds for which a fetch that can wait asks for one message after the other
_LOCK_WAIT: Final = 1.0  # seconds after which a waiting fetch looks again whether the lock is free
_ROUNDS: Final = 8  # publishes that may be under way: the server confirms each when it is synced
_PROMISE: Final = (
    "At least once: quorum queues, confirmed and synced before a publish returns; nothing is lost by a kill or a power "
    "failure. The history is a stream, whose last moments a power failure may take."
)


class RabbitMQBroker:
    """One instance of the RabbitMQ engine; see `Broker` for what each call promises.

    Nothing is connected before the first call. All calls come from one event loop. Leases and delays go by the clock of
    the instance that has them.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "default",
        retention: Retention | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`url` is `amqp://user:password@host:port/vhost` or `amqps://…`, with `heartbeat=` in seconds if wished."""
        self.capabilities: Capabilities = Capabilities(
            name="rabbitmq",
            durable=True,
            shared=True,
            promise=_PROMISE,
            positions=False,
            dedup=False,
            exact=False,
            lasting_leases=False,
            matches=False,
            rounds=_ROUNDS,
            bounds_unread=False,
        )
        self._url = url
        self._names = Names(check_name(namespace))
        self._retention = retention or Retention()
        self._clock = clock or SystemClock()
        self._entrance: Entrance[Session] = Entrance(self._join, self._leave)
        self._live: dict[str, Subscription] = {}
        self._served: set[str] = set()
        self._settled: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._ids: OrderedDict[str, float] = OrderedDict()
        self._storing: dict[str, asyncio.Future[None]] = {}
        self._orphans: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._known: Registry | None = None
        self._back: dict[str, list[str]] = {}

    # --- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Join the log now, rather than with the first call. BrokerUnavailable, NotPermitted."""
        await self._entrance.enter()

    async def _join(self, before: Session | None) -> Session:
        if before is not None:
            self._known = before.control.registry
            self._remember(before)
            await before.close()
        nodes, loop = nodes_of(self._url), asyncio.get_running_loop()
        began = loop.time()
        while True:
            link = await Link.dial(nodes)
            session = Session(link, self._names, self._retention, self._clock, self._settled)
            session.live.presence.reading.update(self._live)
            try:
                await session.join(self._known)
                if nodes:  # there are others, should this one not have the history
                    await session.head()
                await self._note_back(session)
            except BaseException as error:
                await session.close()
                late = loop.time() - began > SILENCE / 2
                if late or not nodes or not isinstance(error, BrokerUnavailable):
                    raise  # else it may have no replica of a stream, without which nobody reads there: others have
            else:
                return session

    def _remember(self, session: Session) -> None:
        """What was leased when the connection broke: should its handler succeed, it is not done again here."""
        for id, serving in session.servings.items():
            self._back.setdefault(id, []).extend(serving.given_up())
            for token, held in serving.leases.items():
                self._orphans[token] = held.names
        while len(self._orphans) > KNOWN_IDS:
            self._orphans.popitem(last=False)

    async def _note_back(self, session: Session) -> None:
        """What the server took back with the connection is charged to no event: this instance lives."""
        while self._back:
            id, names = next(iter(self._back.items()))
            if names:
                await session.control.append(Returned(id, tuple(names)))
            del self._back[id]

    async def close(self) -> None:
        """See Broker."""
        await self._entrance.close()

    async def _leave(self, session: Session | None) -> None:
        if session is not None:
            await session.close()

    # --- publish --------------------------------------------------------------------------------------------------

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        """See Broker."""
        session = await self._entrance.enter()
        while under_way := {self._storing[event.event_id] for event in events if event.event_id in self._storing}:
            await asyncio.wait(under_way)  # whether they will have been stored, nobody knows yet
        ids = {event.event_id for event in events}
        stored = asyncio.get_running_loop().create_future()
        self._storing.update(dict.fromkeys(ids, stored))
        try:
            return await self._publish(session, events)
        finally:
            for id in ids:
                del self._storing[id]
            stored.set_result(None)

    async def _publish(self, session: Session, events: Sequence[Event]) -> Sequence[Appended]:
        """No other call is at these ids meanwhile."""
        now, registry = self._clock.time(), session.control.registry
        results: list[Appended] = []
        messages: list[Message] = []
        fresh: dict[str, None] = {}
        for event in events:
            if event.event_id in self._ids or event.event_id in fresh:
                results.append(Appended(None, duplicate=True))
                continue
            matched = registry.routes.match(event) + session.live.presence.routes.match(event)
            due = event.not_before.timestamp() if event.not_before is not None else 0.0
            if due > now:
                kept = await session.delays.hold(event, Tag(at=now, due=due))
                results.append(Appended(None, matched=matched) if kept else Appended(None, duplicate=True))
                continue
            if due and registry.delayed(event.event_id):  # it is held, or was, by whomever: it leaves by itself
                results.append(Appended(None, duplicate=True))
                continue
            live = event.topic.startswith(LIVE)
            if not live:
                fresh[event.event_id] = None
            exchange = self._names.live if live else self._names.exchange(event.topic)
            key = event.topic if live else event.routing_key
            props = properties(event, Tag(at=now, seen=registry.offset))
            messages.append(
                Message(exchange, key, props, encode(event), mandatory=not live, stream="" if live else "history")
            )
            results.append(Appended(None, matched=matched))
        if messages:
            try:
                await session.link.publish(messages)
            except BrokerUnavailable as error:
                if unrouted(error):  # not even the history is bound: the next call makes what is missing again
                    session.link.fail(error)
                raise
        self._note(fresh)
        return results

    def _note(self, ids: Iterable[str]) -> None:
        """These are stored. Of what others store, nothing is known here."""
        now = self._clock.time()
        self._ids.update((id, now) for id in ids)
        while len(self._ids) > KNOWN_IDS:
            id = next(iter(self._ids))
            if now - self._ids[id] <= KNOWN_SECONDS:
                break
            del self._ids[id]

    async def cancel(self, event_id: str) -> bool:
        """See Broker."""
        return await (await self._entrance.enter()).delays.cancel(event_id)

    # --- subscriptions --------------------------------------------------------------------------------------------

    async def declare(self, subscription: Subscription) -> SubscriptionInfo:
        """See Broker. PositionLost for a start at a position that the log does not go on from."""
        session = await self._entrance.enter()
        if not subscription.durable:
            self._live[subscription.id] = session.live.presence.reading[subscription.id] = structs.replace(
                subscription, start="new"
            )
            await session.live.changed()
            return SubscriptionInfo(subscription=subscription, consumers=1)
        id, spec = subscription.id, spec_of(subscription)
        await session.sync()
        if not session.stands(id, spec):  # else there is nothing to change: so come those whose router went away
            async with session.link.lock(self._names.lock(f"declare.{id}")):
                await session.control.sync()
                before = session.control.registry.spec(id)
                if before is None:
                    await self._begin(session, subscription)
                elif not session.control.registry.known[id].lapsed:
                    await session.route(subscription, before)
                await session.control.append(Declared(id, spec, self._clock.time()))
                if before is None:
                    session.young.made(id)
            await session.live.sync()
        found = await session.info(id)
        if found is None:
            raise SubscriptionNotFound(f"{id!r} was removed while it was declared")
        return found

    async def _begin(self, session: Session, subscription: Subscription) -> None:
        """A new one, with as much of the past as it wants."""
        if isinstance(subscription.start, Position):
            await _check(session, subscription.start)
        if subscription.start == "new":
            await session.route(subscription)
            return
        await copy_past(session, subscription)

    async def detach(self, id: str) -> None:
        """See Broker."""
        self._served.discard(id)
        await (await self._entrance.enter()).leave([id])

    async def remove(self, id: str) -> None:
        """See Broker."""
        session = await self._entrance.enter()
        if self._live.pop(id, None) is not None:
            session.live.presence.reading.pop(id, None)
            await session.live.changed()
            return
        await session.control.sync()
        spec = session.control.registry.spec(id)
        if spec is None:
            return
        await session.leave([id])
        queues = [*session.queues(id), self._names.dead(id)]
        await session.control.append(Removed(id))
        serving = session.servings.pop(id, None)
        if serving is not None:
            await serving.close()
        await session.unroute(spec)  # a queue that goes while an event is on its way into it breaks who publishes
        for queue in queues:
            await session.link.ask("queue_delete", queue)

    async def subscriptions(self) -> Sequence[SubscriptionInfo]:
        """See Broker."""
        session = await self._entrance.enter()
        infos = await session.infos()
        return infos + [SubscriptionInfo(subscription=each, consumers=1) for each in session.live.presence.present()]

    async def presence(self, *, fresh: bool = True) -> Sequence[Present]:
        """See Broker."""
        session = await self._entrance.enter()
        await (session.hear_all() if fresh else session.live.met())
        return session.live.presence.all(session.control.registry.routes)

    async def info(self, id: str) -> SubscriptionInfo | None:
        """See Broker."""
        session = await self._entrance.enter()
        await session.sync()
        live = next((each for each in session.live.presence.present() if each.id == id), None)
        return SubscriptionInfo(subscription=live, consumers=1) if live is not None else await session.info(id)

    async def purge(self, id: str) -> int:
        """See Broker."""
        session = await self._entrance.enter()
        await session.sync()
        session.find(id)
        count = await session.serving(id).lanes.purge()
        for queue in session.queues(id):
            count += int((await session.link.ask("queue_purge", queue)).message_count or 0)
        return count

    # --- fetch and settle -----------------------------------------------------------------------------------------

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        """See Broker."""
        self._served.add(id)
        session = await self._entrance.enter()
        until = self._clock.monotonic() + min(wait, _LONGEST_WAIT)
        if session.control.registry.spec(id) is None:
            await session.control.sync()
        while True:
            if self._entrance.closed:
                raise Closed("this broker is closed")
            if session.broken:
                raise BrokerUnavailable("rabbitmq: the connection was lost")
            spec = session.find(id)
            if id not in self._served:  # detached while this call was under way
                await session.leave([id])
                return []
            await self._serve(session, id)
            left = until - self._clock.monotonic()
            try:
                leases = await self._take(session, spec, limit, waits=left > 0)
            except BrokerUnavailable:
                if self._entrance.closed:
                    raise Closed("this broker is closed") from None
                session.find(id)  # that it was removed is the better answer
                raise
            if leases or limit == 0 or left <= 0:
                return leases
            await self._wait(session, spec, left)

    async def _serve(self, session: Session, id: str) -> None:
        """This instance is a consumer of it. PositionLost, once, where it lapsed or its queue was deleted."""
        lapsed = session.control.registry.known[id].lapsed
        await session.serve(id)
        if lapsed:
            await session.revive(id)
            raise PositionLost(f"{id}: nobody served it for too long, and its backlog was dropped")
        known = session.control.registry.known.get(id)
        if known is not None and known.emptied and await session.control.append(Told(id)):
            raise PositionLost(f"{id}: a queue of it was deleted, with whatever lay in it")

    async def _take(self, session: Session, spec: Subscription, limit: int, *, waits: bool) -> list[Lease]:
        serving = session.serving(spec.id)
        if limit == 0 or (spec.exclusive and not await session.lock(serving)):
            return []
        ahead = len(serving.leases) + limit
        if not waits:
            await session.sync()
        # The first time the queues are asked, too: what a consumer begins with is the best that there is.
        first = 0.0 if serving.lanes.consuming else _ASKING
        leases = await serving.take(limit, spec.lease, asking=first if waits else inf)
        if waits and spec.id in self._served:
            await serving.lanes.consume(ahead)
        if spec.id not in self._served:  # detached meanwhile: what is delivered ahead would stay here
            await serving.lanes.stop(self._clock.time())
        return leases

    async def _wait(self, session: Session, spec: Subscription, seconds: float) -> None:
        serving = session.serving(spec.id)
        if spec.exclusive and serving.lock is None:
            seconds = min(seconds, _LOCK_WAIT)
        elif serving.takeable:
            return
        if spec.id not in self._served or session.broken:
            return
        timer = self._clock.call_later(seconds, serving.lanes.news.notify)
        try:
            await serving.lanes.news.wait()
        finally:
            timer.cancel()

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        """See Broker."""
        session = await self._entrance.enter()
        if session.control.registry.spec(id) is None:
            await session.control.sync()
        session.find(id)
        for order in settlements:
            if self._orphans and isinstance(order, Ack) and order.token in self._orphans:
                self._settled.update(((id, name), None) for name in self._orphans.pop(order.token))
        serving = session.serving(id)
        count = await serving.settle(settlements)
        if serving.lock is not None:
            await session.unlock(serving)
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
        async with aclosing(session.letters.all(query)) as parts:
            async for part in parts:
                yield part

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
        pages = Pages(query, after)

        async def turn() -> Items | None:
            return await pages.next(await self._entrance.enter())

        return Reading(turn, query.limit, pages.close)

    async def _facts(self, query: Query, after: Position | None) -> Items:
        session = await self._entrance.enter()
        await session.control.sync()
        return facts(query, after, session)

    def _follow(self, query: Query, after: Position | None) -> Reading:
        tail: Tail | None = None

        async def turn() -> Items | None:
            nonlocal tail
            if tail is None:
                tail = Tail(query, after, await self._entrance.enter())
            found = await tail.next()
            if found is None and not self._entrance.closed:
                raise BrokerUnavailable("rabbitmq: the connection was lost")
            return found

        def end() -> None:
            if tail is not None:
                tail.close()

        return Reading(turn, query.limit, end)

    async def ping(self) -> Ping:
        """See Broker."""
        session = await self._entrance.enter()
        began = asyncio.get_running_loop().time()
        await session.sync()
        offset = await session.head()
        return Ping(asyncio.get_running_loop().time() - began, Position(session.control.registry.epoch, offset + 1))

    def examine(self) -> AbstractAsyncContextManager[Examination]:
        """See Broker."""
        return doctor.examine(self._url, self._names)


async def _check(session: Session, start: Position) -> None:
    """Whether the log goes on from a position."""
    if start.epoch != session.control.registry.epoch or start.offset > await session.head() + 1:
        raise PositionLost("that position is not one that the log goes on from")
