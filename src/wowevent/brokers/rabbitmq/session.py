"""What one instance has over one pair of connections: the log's exchanges and queues, what it serves, its beat."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp.commands import Queue

from wowevent.broker import Retention, Subscription, SubscriptionInfo
from wowevent.brokers.rabbitmq import delays
from wowevent.brokers.rabbitmq.control import LIMITS, Control
from wowevent.brokers.rabbitmq.delays import Delays
from wowevent.brokers.rabbitmq.history import Tail, head
from wowevent.brokers.rabbitmq.lanes import QUORUM, SUSPECTS
from wowevent.brokers.rabbitmq.letters import Letters
from wowevent.brokers.rabbitmq.link import Link
from wowevent.brokers.rabbitmq.live import Live
from wowevent.brokers.rabbitmq.names import Binding, Names
from wowevent.brokers.rabbitmq.registry import (
    Declared,
    Emptied,
    Entry,
    Joined,
    Lapsed,
    Made,
    Parted,
    Registry,
    Removed,
    Served,
)
from wowevent.brokers.rabbitmq.serving import Context, Serving
from wowevent.brokers.rabbitmq.stream import ARGUMENTS
from wowevent.brokers.rabbitmq.young import Young
from wowevent.clock import Clock, Timer
from wowevent.ending import end
from wowevent.errors import BrokerError, BrokerUnavailable, Closed, SubscriptionNotFound
from wowevent.log import logger
from wowevent.shared import Shared

BEAT: Final = 5.0
"""Seconds between two signs of life."""
_SEGMENT: Final = 50_000_000  # bytes of a file of the history, of which the oldest is forgotten whole
_SERVED: Final = 0.25  # of the time after which a subscription lapses: so often it is noted that it is served


class Session:
    """See the module. It ends with its connections."""

    def __init__(
        self, link: Link, names: Names, retention: Retention, clock: Clock, settled: OrderedDict[tuple[str, str], None]
    ) -> None:
        """Nothing is asked before `join`."""
        self.link: Link = link
        self.names: Names = names
        self.clock: Clock = clock
        self.instance: str = uuid4().hex[:12]
        """This one's name among those that are there."""
        self.max_age: float | None = retention.max_age
        self.tails: set[Tail] = set()
        """The readers of the log's end."""
        self.control: Control = Control(link, names, self._changed)
        """What all have to know."""
        self.live: Live = Live(link, names, self.instance, clock)
        """Who is there."""
        self.delays: Delays = Delays(link, names, self.control, clock)
        """What is delayed."""
        self.letters: Letters = Letters(link, names, self.control, clock)
        """The dead letters."""
        self.young: Young = Young(link, names, self.control, clock, self._renew)
        """Queues that may not survive the server's death yet."""
        self.servings: dict[str, Serving] = {}
        """What this instance has taken from, by subscription."""
        self.infos: Shared[list[SubscriptionInfo]] = Shared(self._infos)
        """All that are remembered, as of now."""
        self.head: Shared[int] = Shared(lambda: head(link, names))
        """The offset of a marker behind all that was confirmed before."""
        self._retention = retention
        self._settled = settled
        self._noted: dict[str, float] = {}
        self._timer: Timer | None = None
        self._beating: asyncio.Task[None] | None = None
        link.on_end.append(self._ended)

    @property
    def broken(self) -> bool:
        """Whether another one is needed."""
        return self.link.error is not None

    # --- the log --------------------------------------------------------------------------------------------------

    async def join(self, before: Registry | None = None) -> None:
        """Make what is not there, and know what all know. `before` is what was known by a session that broke."""
        ask, names = self.link.ask, self.names
        await ask("queue_declare", names.control, durable=True, arguments={**ARGUMENTS, **LIMITS})
        for exchange in (names.events, names.reserved, names.live):
            await ask("exchange_declare", exchange, exchange_type="topic", durable=True)
        await ask("exchange_declare", names.dead_letters, exchange_type="direct", durable=True)
        await ask("queue_bind", names.control, names.reserved, "_bus.#")
        await ask("queue_declare", names.later, durable=True, arguments=delays.QUEUE)
        lost = bool(await self._missing([names.history]))
        await self.control.start(uuid4().hex[:12], anew=lost)
        self.live.on_event = self._hear
        self.live.on_free = self._wake
        if before is not None and before.origin != self.control.registry.origin:
            await self._remember(before)
        await self._mend()
        await self._keep_history()  # last: an event that reaches no queue is not confirmed until then
        await self.control.append(Joined(self.instance))
        self.young.ask()
        await self.live.start(self.control.registry.instances)
        await self.delays.start()
        self._timer = self.clock.call_later(BEAT, self._begin_beat)

    async def _keep_history(self) -> None:
        """The stream of all events; its limits are those of who makes it."""
        limits: dict[str, Any] = {"x-stream-max-segment-size-bytes": _SEGMENT}
        if self._retention.max_age is not None:
            limits["x-max-age"] = f"{max(1, math.ceil(self._retention.max_age))}s"
        if self._retention.max_bytes is not None:
            limits["x-max-length-bytes"] = self._retention.max_bytes
            limits["x-stream-max-segment-size-bytes"] = max(10_000, min(_SEGMENT, self._retention.max_bytes // 4))
        try:
            async with self.link.apart() as ask:
                await ask("queue_declare", self.names.history, durable=True, arguments={**ARGUMENTS, **limits})
        except BrokerUnavailable as error:
            if not isinstance(error.__cause__, ChannelPreconditionFailed):
                raise
            logger.info("the history keeps the limits that it was made with", queue=self.names.history)
        for exchange in (self.names.events, self.names.reserved):
            await self.link.ask("queue_bind", self.names.history, exchange, "#")

    async def _remember(self, before: Registry) -> None:
        """Somebody deleted the control log: what its subscriptions were is said again."""
        logger.error("the control log was deleted, and is made again", queue=self.names.control)
        for id, known in list(before.known.items()):
            if id not in self.control.registry.known:
                await self.control.append(Declared(id, known.specs[-1][1], known.at))
                for what in sorted(known.made):
                    await self.control.append(Made(id, what))
                if known.lapsed:
                    await self.control.append(Lapsed(id))

    async def _mend(self) -> None:
        """Queues and bindings that somebody deleted are made again, before anything is published."""
        known = self.control.registry.known
        ids = [id for id in known if not known[id].lapsed]
        missing = await self._missing([queue for id in ids for queue in [*self.queues(id), *self.letters.queues(id)]])
        whole = [id for id in ids if not missing.intersection(self.queues(id))]
        specs = [spec for id in whole if (spec := self.control.registry.spec(id)) is not None]
        await self.link.tell([frame for spec in specs for frame in self._routing(spec)])
        for id in ids:
            if missing.intersection(self.queues(id)):
                async with self.link.lock(self.names.lock(f"declare.{id}")):
                    await self._mend_one(id)
            if missing.intersection(self.letters.queues(id)):
                logger.error("dead letters were deleted", subscription=id)
                await self.letters.declare(id)

    async def _mend_one(self, id: str) -> None:
        """What lay in a queue that is gone is lost, and its subscription is told; under its lock, so that once."""
        await self.control.sync()
        spec = self.control.registry.spec(id)
        missing = await self._missing(self.queues(id))
        if spec is None or not missing:
            return
        logger.error("queues of a subscription were deleted, and are made again", subscription=id)
        for queue in missing:
            await self.link.ask("queue_declare", queue, durable=True, arguments=QUORUM)
        await self._make_anew(spec)

    async def _renew(self, id: str, silent: Sequence[str]) -> None:
        """Queues that have no leader any more. What lay in them is lost, and the subscription is told."""
        spec = self.find(id)
        logger.error("queues of a subscription do not answer, and are made anew", subscription=id, queues=silent)
        await self.unroute(spec)

        async def delete(queue: str) -> None:
            async with self.link.apart() as ask:
                await ask("queue_delete", queue)

        await asyncio.gather(*map(delete, silent))
        await self._make_anew(spec)

    async def _make_anew(self, spec: Subscription) -> None:
        await self.route(spec)
        await self.control.append(Emptied(spec.id))
        self.young.made(spec.id)

    async def _missing(self, queues: Sequence[str]) -> set[str]:
        """Those that are not there. Most often none is; else a channel serves until it is refused one."""
        if await self.link.there(queues):
            return set()
        left, missing = list(queues), set[str]()
        while left:
            try:
                async with self.link.apart() as ask:
                    while left:
                        await ask("queue_declare", left[-1], passive=True)
                        left.pop()
            except BrokerUnavailable as error:
                if not isinstance(error.__cause__, ChannelNotFoundEntity):
                    raise
                missing.add(left.pop())
        return missing

    async def route(self, subscription: Subscription, before: Subscription | None = None) -> None:
        """Its queues and bindings; those of the declaration before that it has not go afterwards."""
        await self.link.tell(self._routing(subscription, before))
        if before is not None:
            wanted, old = self.names.bindings(subscription), self.names.bindings(before)
            for queue, new, past in zip(self._lanes(subscription.id), wanted, old, strict=True):
                for exchange, key in sorted(past - new):
                    await self.link.ask("queue_unbind", queue, exchange, key)

    def _routing(self, subscription: Subscription, before: Subscription | None = None) -> list[Any]:
        """What makes its queues, and the bindings that the declaration before had not."""
        queues = self._lanes(subscription.id)
        frames: list[Any] = [Queue.Declare(queue=each, durable=True, arguments=QUORUM, nowait=True) for each in queues]
        old: tuple[set[Binding], set[Binding]] = (set(), set()) if before is None else self.names.bindings(before)
        for queue, new, past in zip(queues, self.names.bindings(subscription), old, strict=True):
            bound = sorted(new - past)
            frames += [Queue.Bind(queue=queue, exchange=at, routing_key=key, nowait=True) for at, key in bound]
        return frames

    def _lanes(self, id: str) -> tuple[str, str]:
        return self.names.plain(id), self.names.urgent(id)

    async def unroute(self, subscription: Subscription) -> None:
        """Nothing more gets to it."""
        for queue, keys in zip(self._lanes(subscription.id), self.names.bindings(subscription), strict=True):
            for exchange, key in sorted(keys):
                await self.link.ask("queue_unbind", queue, exchange, key)

    def queues(self, id: str) -> list[str]:
        """The queues that its ready events lie in."""
        more = [self.names.suspects(id)] if self.control.has(id, SUSPECTS) else []
        return [*self._lanes(id), *more]

    # --- serving --------------------------------------------------------------------------------------------------

    def stands(self, id: str, spec: str) -> bool:
        """Whether to declare it so would change nothing: not even that it is known to be in use."""
        since = self.clock.time() - self._retention.unserved_after * _SERVED
        return self.control.registry.stands(id, spec, since)

    def find(self, id: str) -> Subscription:
        """The declaration of a remembered subscription."""
        spec = self.control.registry.spec(id)
        if spec is None:
            raise SubscriptionNotFound(f"no subscription {id!r} is remembered")
        return spec

    def serving(self, id: str) -> Serving:
        """This instance's part in it."""
        found = self.servings.get(id)
        if found is None:
            context = Context(
                self.link, self.names, self.control, self.letters, self.clock, self._settled, self.max_age
            )
            found = self.servings[id] = Serving(id, context)
        return found

    async def serve(self, id: str) -> None:
        """This instance is a consumer of it, and all know."""
        if id not in self.live.presence.serving:
            self.live.presence.serving.add(id)
            self._noted[id] = self.clock.time()
            await asyncio.gather(self.control.append(Served(id, self.clock.time())), self.live.changed())

    async def lock(self, serving: Serving) -> bool:
        """Whether this instance is the one that may hold leases of an exclusive subscription."""
        if serving.lock is None or serving.lock.is_closed:
            serving.lock = await self.link.locked(self.names.lock(f"one.{serving.id}"))
        return serving.lock is not None

    async def unlock(self, serving: Serving) -> None:
        """Let another one hold leases, once none is open here."""
        if serving.lock is not None and not serving.leases and serving.id not in self.live.presence.serving:
            held, serving.lock = serving.lock, None
            await self.link.unlock(held, self.names.lock(f"one.{serving.id}"))
            await self.live.free(serving.id)

    async def leave(self, ids: Collection[str]) -> None:
        """Be no consumer of these any more."""
        left = [id for id in ids if id in self.live.presence.serving]
        self.live.presence.serving.difference_update(left)
        await asyncio.gather(*(self._let_go(id) for id in ids))
        now = self.clock.time()
        noted = [self.control.append(Served(id, now)) for id in left if id in self.control.registry.known]
        await asyncio.gather(*noted, *([self.live.changed()] if left else []))

    async def _let_go(self, id: str) -> None:
        self._wake(id)
        if id in self.servings:
            await self.servings[id].lanes.stop(self.clock.time())
            await self.unlock(self.servings[id])

    def _changed(self, entry: Entry) -> None:
        """The control log said something."""
        if isinstance(entry, Removed):
            self.live.presence.serving.discard(entry.id)
        id = getattr(entry, "id", None)
        if id in self.servings:
            self.servings[id].lanes.news.notify()

    def _wake(self, id: str) -> None:
        if id in self.servings:
            self.servings[id].lanes.news.notify()

    def _hear(self, message: Any) -> None:
        for tail in list(self.tails):
            tail.hear(message)

    # --- numbers --------------------------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Know all that was said before; what is due here has happened."""
        due = [serving.expiry for serving in self.servings.values() if serving.expiry.due]  # seldom any, of hundreds
        await asyncio.gather(*(expiry.flush() for expiry in due), self.delays.flush())
        await self.hear_all()

    async def hear_all(self) -> None:
        """Know all that was said before."""
        await asyncio.gather(self.control.sync(), self.live.sync())

    async def _infos(self) -> list[SubscriptionInfo]:
        await self.sync()
        infos = [await self.info(id) for id in list(self.control.registry.known)]
        return [info for info in infos if info is not None]

    async def info(self, id: str) -> SubscriptionInfo | None:
        """As of now, once `sync` has returned."""
        spec, known = self.control.registry.spec(id), self.control.registry.known.get(id)
        if spec is None or known is None:
            return None
        try:
            ready = await self.link.count(self.queues(id))
        except BrokerUnavailable as error:
            if not isinstance(error.__cause__, ChannelNotFoundEntity):
                raise
            await self.control.sync()
            if id in self.control.registry.known:
                self.link.fail(BrokerUnavailable(f"rabbitmq: a queue of {id!r} is gone"))
                raise
            return None
        if id in self.servings and not self.servings[id].lanes.lost:
            await self.servings[id].lanes.reach()  # what has left the queues is here, and perhaps not leased yet
            ready += len(self.servings[id].lanes)
        return SubscriptionInfo(
            subscription=spec,
            ready=ready,
            leased=None,
            delayed=self.servings[id].delayed if id in self.servings else None,
            dead=await self.letters.count(id),
            consumers=self.live.presence.consumers(id),
            oldest=None,
            lost=None,
            lapsed=known.lapsed,
        )

    # --- time -----------------------------------------------------------------------------------------------------

    def _begin_beat(self) -> None:
        if not self.broken and (self._beating is None or self._beating.done()):
            self._beating = asyncio.create_task(self._beat(), name="rabbitmq:beat")
        self._timer = self.clock.call_later(BEAT, self._begin_beat)

    async def _beat(self) -> None:
        """Say that we are here, note what is served, let lapse what nobody serves, write down what is known."""
        try:
            await self.live.changed()
            now = self.clock.time()
            for id in list(self.live.presence.serving):
                if now - self._noted.get(id, 0.0) > self._retention.unserved_after * _SERVED:
                    self._noted[id] = now
                    await self.control.append(Served(id, now))
            for id, known in list(self.control.registry.known.items()):
                if not known.lapsed and now - known.at >= self._retention.unserved_after:
                    await self._lapse(id)
            for instance in self.live.silent(self.control.registry.instances):
                await self.control.append(Parted(instance))
            for serving in list(self.servings.values()):
                await self.unlock(serving)
            await self.young.look()
            await self.control.compact()
            await self._watch()
        except (BrokerError, Closed) as error:
            logger.debug("rabbitmq does not answer the beat", error=error)

    async def _lapse(self, id: str) -> None:
        """Nobody has served it for too long."""
        await self.live.sync()
        spec = self.control.registry.spec(id)
        if spec is None or self.live.presence.consumers(id) or not await self.control.append(Lapsed(id)):
            return
        await self.unroute(spec)
        for queue in self.queues(id):
            await self.link.ask("queue_purge", queue)
        logger.error("subscription lapsed, nobody served it", subscription=id)

    async def revive(self, id: str) -> None:
        """It is served again after it had lapsed."""
        await self.route(self.find(id))
        await self.control.append(Served(id, self.clock.time()))

    async def _watch(self) -> None:
        """Whether what all of it hangs on is still there."""
        async with self.link.apart() as ask:
            try:
                await ask("exchange_declare", self.names.events, exchange_type="topic", passive=True, durable=True)
                await ask("queue_declare", self.names.history, passive=True)
            except BrokerUnavailable as error:
                self.link.fail(error)

    # --- the end --------------------------------------------------------------------------------------------------

    def _ended(self) -> None:
        for serving in self.servings.values():
            serving.lanes.news.notify()
        for tail in list(self.tails):
            tail.wake()

    async def close(self) -> None:
        """Leave in good order, as far as the server answers."""
        if self._timer is not None:
            self._timer.cancel()
        await end(self._beating)
        await self.young.close()
        self.delays.close()
        if not self.broken:
            with suppress(BrokerError, Closed, TimeoutError):
                async with asyncio.timeout(5):
                    await self.leave({*self.live.presence.serving, *self.servings})
                    await self.live.leave()
                    await self.control.append(Parted(self.instance))
        for shared in (self.infos, self.head, self.live):
            await shared.close()
        for serving in self.servings.values():
            await serving.close()
        for tail in list(self.tails):
            tail.close()
        await self.link.close()
        await self.control.close()
