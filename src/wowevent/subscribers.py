"""The subscribers of one bus: made, served, waited for, ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msgspec import structs

from wowevent.breaker import Breaker
from wowevent.broker import Broker, Subscription
from wowevent.clock import Clock
from wowevent.consumer import Consumer, Options
from wowevent.ending import end
from wowevent.errors import BrokerError, Closed, SubscriptionConflict
from wowevent.event import Event
from wowevent.handler import Handler, Middleware, adapt
from wowevent.life import Life
from wowevent.live import Feed
from wowevent.log import logger
from wowevent.metrics import EventMetrics
from wowevent.pauses import Pauses
from wowevent.routing import Routes
from wowevent.subscription import Handle
from wowevent.tally import Tally
from wowevent.tracing import tracer
from wowevent.trail import Trail
from wowevent.valve import Valve

_PATIENCE = 10.0  # seconds that what one of them is handling has, when it is cancelled


class Subscribers:
    """Those that a bus serves by handlers."""

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        *,
        life: Life,
        feed: Feed,
        pauses: Pauses,
        metrics: EventMetrics,
        trail: Trail,
        consumer: Callable[..., Consumer],
        changed: Callable[[], None],
    ) -> None:
        """`consumer` is Consumer, with what is the same for all of a bus; `changed()` is told who came and went."""
        self.served: dict[str, Handle] = {}
        """By id."""
        self._broker = broker
        self._clock = clock
        self._life = life
        self._feed = feed
        self._pauses = pauses
        self._metrics = metrics
        self._trail = trail
        self._consumer = consumer
        self._changed = changed
        self._claimed: set[str] = set()  # ids being subscribed
        self._own = Routes()  # theirs, to know what `drain` waits for
        self._middleware: list[Middleware] = []
        self._decorated: list[Callable[[], Coroutine[Any, Any, object]]] = []
        self._jobs: set[asyncio.Task[object]] = set()

    # --- made ---------------------------------------------------------------------------------------------------

    def use(self, middleware: Middleware) -> None:
        """Wrap every handler that comes from now on; the first used is the outermost."""
        self._middleware.append(middleware)

    def later(self, subscribe: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Call `subscribe()` when the bus starts; at once, if it has."""
        if self._life.state == "new":
            self._decorated.append(subscribe)
        else:
            job = asyncio.get_running_loop().create_task(subscribe())
            self._jobs.add(job)
            job.add_done_callback(self._job_done)

    async def serve(self, spec: Subscription, handler: Callable[..., Any], options: Options) -> Handle:
        """See `EventBus.serve`."""
        if self._life.over:
            raise Closed("this bus is stopped")
        if (known := self.served.get(spec.id)) is not None and known.handler == handler and known.spec == spec:
            return known
        if known is not None or spec.id in self._claimed:
            raise SubscriptionConflict(
                f"{spec.id!r} is served by this bus already; cancel that one first, or give this one a "
                "subscription= of its own"
            )
        self._claimed.add(spec.id)  # from here on others are refused, also while the engine answers
        try:
            return await self._make(spec, handler, options)
        finally:
            self._claimed.discard(spec.id)

    async def _make(self, spec: Subscription, handler: Callable[..., Any], options: Options) -> Handle:
        call = self._wrapped(handler, spec, batch=options.batch is not None)
        if spec.durable:
            before = await self._broker.info(spec.id)
            await self._broker.declare(spec)
            if before is not None and before.subscription != structs.replace(spec, start=before.subscription.start):
                logger.info("subscription has new settings", subscription=spec.id, patterns=",".join(spec.patterns))
        valve = await self._valve(spec, options)
        tally = Tally(spec, self._metrics.meter(spec.id, spec.agent), valve, self._trail)
        consumer = self._consumer(
            spec.id,
            tally.valve,
            call,
            options,
            observe=tally.observe,
            noted=tally.note,
            info=self._broker.info if spec.durable else None,
        )
        tally.counts = consumer.counts
        tally.valve.told, tally.valve.decline = consumer.heed, consumer.decline
        consumer.heed(tally.valve.paused)
        handle = self.served[spec.id] = Handle(spec, handler, consumer, tally, lambda: self.cancel(spec.id))
        self._own.add(spec)
        if self._life.state == "running":
            await self._begin(handle)
        return handle

    def _wrapped(self, handler: Callable[..., Any], spec: Subscription, *, batch: bool) -> Handler:
        call = adapt(handler, batch=batch)
        for middleware in reversed(self._middleware):
            call = middleware(call)
        if (spans := tracer()) is not None:
            call = spans.traced(call, spec.id, batch=batch)
        return call

    async def _valve(self, spec: Subscription, options: Options) -> Valve:
        """Where its events come from: the engine, or the reader of the log's end."""
        if not spec.durable:
            return self._pauses.valve(spec, await self._feed.open(spec))
        return self._pauses.valve(spec, self._broker, Breaker(options.breaker) if options.breaker else None)

    def _job_done(self, job: asyncio.Task[object]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            logger.error("subscription failed", exc_info=error)

    # --- served -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve those that came before the bus ran."""
        decorated, self._decorated = self._decorated, []
        for subscribe in decorated:
            await subscribe()
        for handle in list(self.served.values()):
            await self._begin(handle)

    async def _begin(self, handle: Handle) -> None:
        if handle.active:
            return
        if not handle.spec.durable:
            await self._broker.declare(handle.spec)
        await handle.consumer.start()
        self._changed()

    def specs(self) -> Sequence[Subscription]:
        """What is served now."""
        return [handle.spec for handle in self.served.values() if handle.active]

    # --- waited for ---------------------------------------------------------------------------------------------

    def expect(self, events: Sequence[Event]) -> list[tuple[Consumer, str]]:
        """Tell them what comes to them, and return whom; a delayed event is not waited for."""
        expecting = []
        match, served, holds = self._own.match, self.served, self._pauses.holds
        for event in events:
            if event.not_before is not None and event.not_before.timestamp() > self._clock.time():
                continue
            for id in match(event):
                consumer = served[id].consumer
                if consumer.expect(event.event_id, held=holds.active and holds.holding(event) is not None):
                    expecting.append((consumer, event.event_id))
        return expecting

    async def drain(self, *, retries: bool) -> None:
        """A handler may publish what the next one handles, so look again until a round finds nothing.

        Without `retries` nobody waits for a subscription that is paused: who stops does not know for how long.
        """
        while True:
            waited_for = [handle for handle in self.served.values() if retries or handle.state != "paused"]
            consumers = [handle.consumer for handle in waited_for]
            await asyncio.gather(*(consumer.drained(retries=retries) for consumer in consumers))
            if not any(consumer.outstanding(retries=retries) for consumer in consumers):
                return

    # --- ended --------------------------------------------------------------------------------------------------

    async def cancel(self, id: str) -> None:
        """Serve that one no longer."""
        if (handle := self.served.get(id)) is not None:
            await self._end(handle, _PATIENCE)

    async def end(self, timeout: float) -> None:
        """Serve none of them any longer; what is being handled has so many seconds."""
        await asyncio.gather(*(self._end(handle, timeout) for handle in list(self.served.values())))

    async def close(self) -> None:
        """Make no more."""
        await end(*self._jobs)

    async def _end(self, handle: Handle, timeout: float) -> None:
        self._own.remove(handle.spec.id)
        try:
            await handle.consumer.stop(timeout)
        finally:
            handle.tally.close()
            self.served.pop(handle.spec.id, None)
            self._changed()
        if not handle.spec.durable:
            self._feed.forget(handle.spec.id)
            try:
                await self._broker.remove(handle.spec.id)
            except (BrokerError, Closed) as error:
                logger.info("presence could not be taken back, it will end by itself", error=error)
