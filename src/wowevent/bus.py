"""EventBus: where the parts meet.

An event's way: `publish` stamps and checks it -> `batch` -> the broker appends and routes it -> a `consumer` leases it,
calls the handler, and settles what `retry` decides.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self, cast

from msgspec import Struct, structs

from wowevent.attendance import Attendance, Guests
from wowevent.batch import Batch
from wowevent.breaker import Breaker, BreakerPolicy
from wowevent.broker import (
    Appended,
    Broker,
    Capabilities,
    Position,
    Query,
    Retention,
    Stored,
    Subscription,
    SubscriptionInfo,
)
from wowevent.brokers import RedisClient, open_broker, open_client
from wowevent.causation import MOST, find
from wowevent.census import Census
from wowevent.clock import Clock, SystemClock
from wowevent.consumer import Consumer, Options
from wowevent.conversation import Conversation, conversation
from wowevent.dead_letter import DeadLetters
from wowevent.delivery import current, followed, following
from wowevent.directory import Directory
from wowevent.errors import (
    BrokerError,
    BrokerUnavailable,
    BusError,
    Closed,
    InvalidEvent,
    InvalidTopic,
    NoResponders,
    NotSupported,
    PayloadTooLarge,
    RequestTimeout,
    SubscriptionConflict,
    SubscriptionNotFound,
    Unroutable,
)
from wowevent.event import Event, check_id, check_name, utc
from wowevent.gate import Gate
from wowevent.handler import Handler, Middleware, adapt
from wowevent.health import look
from wowevent.holds import EVERYTHING, Holds, Pause, Scope
from wowevent.live import Feed
from wowevent.log import logger
from wowevent.metrics import EventMetrics
from wowevent.pauses import Pauses, Until
from wowevent.replay import (
    Progress,
    ReplayConfig,
    ReplayControl,
    build_query,
    check_destination,
    check_elsewhere,
    replay,
    replay_into,
    upto,
)
from wowevent.request import Requests
from wowevent.retry import RetryPolicy
from wowevent.roster import AgentInfo, whose
from wowevent.routing import Routes, fits
from wowevent.schedules import Schedules
from wowevent.schema import EventSchema, EventValidator, SchemaRegistry
from wowevent.settings import Settings
from wowevent.shared_schemas import SharedSchemas
from wowevent.storm import StormPolicy
from wowevent.storms import Storms
from wowevent.subscription import Handle, Wish, declaration, options
from wowevent.tally import Tally
from wowevent.tellings import Tellings
from wowevent.topic import check_pattern, is_reserved
from wowevent.tracing import Tracer, tracer
from wowevent.valve import Valve

_PATIENCE: Final = 10.0  # seconds for which a publish is tried while the engine does not answer
_LEAST: Final = 0.5  # of which a try has this at least
_NONE: Final[tuple[str, ...]] = ()


class Receipt(Struct, frozen=True, gc=False):
    """What `publish` says: the engine has the event, as durably as it promises."""

    event_id: str
    position: Position | None
    """Where it lies in the log; None for a delayed event."""
    duplicate: bool
    """An event of that id was there already; nothing was added."""
    matched: int
    """How many known subscriptions it goes to."""
    unserved: tuple[str, ...] = ()
    """The ids of those of them that nobody serves now, as far as this bus knows: it asks the engine every 5 s
    while it publishes, and of those named here each second; of a killed process the engine knows 15 s later."""

    def __bool__(self) -> bool:
        """Always true: what is not stored raises."""
        return True


class EventBus:
    """Publish, subscribe and request on any engine.

    `EventBus()` takes WOWEVENT_URL, else opens an embedded log in the user's data directory;
    `EventBus("sqlite:///events.db")` takes a URL, `EventBus(redis_client)` a live `redis.asyncio` client; a client or a
    broker that is open already is taken as it is, and not closed.
    """

    def __init__(
        self,
        url: str | Broker | RedisClient | None = None,
        *,
        namespace: str | None = None,
        name: str | None = None,
        retention: Retention | None = None,
        max_payload: int | None = None,
        registry: SchemaRegistry | None = None,
        strict_schemas: bool = False,
        storms: StormPolicy | bool | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`name` stands as the source of events that have none. Nothing is opened before `start` or the first call.

        With a `registry`, events are validated when they are published and before they are handled; `strict_schemas`
        refuses those whose type has no schema. `storms` is how far what handlers publish may go, WOWEVENT_MAX_HOPS,
        _MAX_VISITS and _MAX_EVENTS unless it is given; False lets everything go on for ever.
        """
        settings = Settings()
        self.namespace: str = namespace or settings.namespace
        self.name: str = check_name(name) if name else ""
        self._clock = clock or SystemClock()
        self._max_payload = max_payload or settings.max_payload
        if url is None and settings.url is None:
            logger.info("embedded log", url=settings.engine_url())
        given: dict[str, Any] = {"namespace": self.namespace, "retention": retention, "clock": self._clock}
        if url is None or isinstance(url, str):
            self._broker: Broker = open_broker(url or settings.engine_url(), **given)
        elif hasattr(url, "settle"):
            self._broker = cast("Broker", url)
        else:
            self._broker = open_client(url, **given)
        self._own_broker: bool = self._broker is not url
        self.dead_letters: DeadLetters = DeadLetters(
            self._broker, self._clock, self._ids_of, model=self._model, send=self._send
        )
        self._batch: Batch[Event, Appended] = Batch(
            self._append, rounds=self._broker.capabilities.rounds, hopeless=(BrokerUnavailable,)
        )
        self.registry: SchemaRegistry | None = registry
        """What events are held against, shared with every process that attaches one; None: nothing is."""
        self.metrics: EventMetrics = EventMetrics(clock=self._clock.monotonic)
        """What this bus published and delivered."""
        self._validator = None if registry is None else EventValidator(registry, strict=strict_schemas)
        self._gate = Gate()
        self._directory = Directory(self._broker)
        self._pauses = Pauses(self._directory, self._clock)
        self._feed = Feed(self._broker, self._clock, self._pauses.holds)
        self._served: dict[str, Handle] = {}
        self._claimed: set[str] = set()  # ids being subscribed
        self._own = Routes()  # the subscriptions of this bus, to know what `join` waits for
        self._middleware: list[Middleware] = []
        self._requests = Requests(self._broker, self._batch.call, self._clock)
        self._census = Census(self._broker)
        self.tellings: Tellings = Tellings(self._census, self._batch.call)
        """Tells senders what nobody takes and what died, for who builds on the bus, as the router does."""
        self.attendance: Attendance = Attendance(self._broker, self._directory, self._clock, self._present)
        """Says that this process is there, for who builds on the bus."""
        self.storms: Storms = Storms(self._directory, self._clock, _storm_policy(storms, settings))
        """The conversations that went too far and are parked."""
        self._schemas = None if registry is None else SharedSchemas(registry, self._directory)
        self.schedules: Schedules = Schedules(
            self._directory, self._clock, model=self._model, send=self._send, cancel=self._broker.cancel
        )
        """Events that are fired at their moments, once among all processes."""
        self._tracer: Tracer | None = None
        self._jobs: set[asyncio.Task[Any]] = set()
        self._decorated: list[Callable[[], Any]] = []
        self._shutting: asyncio.Task[None] | None = None
        self._state: Literal["new", "running", "draining", "stopped"] = "new"

    @property
    def capabilities(self) -> Capabilities:
        """What the engine declares of itself."""
        return self._broker.capabilities

    @property
    def broker(self) -> Broker:
        """The engine, for who builds on the bus, as the router does."""
        return self._broker

    @property
    def feed(self) -> Feed:
        """The reader of the log's end that all live subscriptions of this bus share."""
        return self._feed

    @property
    def holds(self) -> Holds:
        """Which events are paused, as far as this bus knows by now: for who hands them out otherwise."""
        return self._pauses.holds

    @property
    def max_payload(self) -> int:
        """Bytes of the largest payload that is published."""
        return self._max_payload

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve the subscriptions, those made before included. Starting twice is starting once."""
        if self._state == "running":
            return
        if self._state != "new":
            raise Closed("this bus was stopped; make a new one")
        await self._broker.ping()
        await self._directory.start()
        if self._schemas is not None:
            await self._schemas.start()
        self._tracer = tracer()
        self._state = "running"
        self.schedules.start()
        self.attendance.start()
        decorated, self._decorated = self._decorated, []
        for subscribe in decorated:
            await subscribe()
        for served in list(self._served.values()):
            await self._serve(served)

    async def stop(self, timeout: float = 10.0) -> None:
        """Take no new publishes, finish what is under way within `timeout` seconds, close; stopping twice is once.

        What this bus published that goes to its own subscriptions is handled once; running handlers finish or are
        cancelled, and what was not finished is given back.
        """
        if self._shutting is None:
            self._shutting = asyncio.create_task(self._shut(timeout), name="wowevent:stop")
        try:
            await asyncio.shield(self._shutting)
        except asyncio.CancelledError:  # whoever stops has no more time: wait for nothing, but leave nothing behind
            self._shutting.cancel()
            await asyncio.gather(self._shutting, return_exceptions=True)
            raise

    async def _shut(self, timeout: float) -> None:
        until = self._clock.monotonic() + timeout
        with suppress(asyncio.CancelledError):
            if self._state == "running":
                self._state = "draining"
                try:
                    async with asyncio.timeout(timeout):
                        await self._drain(retries=False)
                except TimeoutError:
                    logger.warning("stop did not wait for every delivery", timeout=timeout)
                except BusError as error:
                    logger.warning("stop did not wait for every delivery, the engine does not say", error=error)
            left = max(0.1, until - self._clock.monotonic())
            await asyncio.gather(*(self._end(handle, left) for handle in list(self._served.values())))
            left = max(_LEAST, until - self._clock.monotonic())
            await self.tellings.flush(left)
            await self.attendance.leave(left)
        self._state = "stopped"
        await self.schedules.close()
        await asyncio.gather(*(self._end(handle, 0) for handle in list(self._served.values())))
        await self.tellings.close()
        await self.attendance.close()
        await self._census.close()
        await self._feed.close()
        await self._requests.close()
        if self._schemas is not None:
            await self._schemas.close()
        await self._pauses.close()
        await self.storms.close()
        await self._directory.close()
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        if self._own_broker:
            await self._broker.close()

    async def __aenter__(self) -> Self:
        """Start; a bus that cannot is closed."""
        try:
            await self.start()
        except BaseException:
            await self.stop(timeout=0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    async def join(self, timeout: float | None = None) -> None:
        """Wait until what this bus published and its own subscriptions get is settled for good, retries included.

        Raises TimeoutError after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            await self._drain(retries=True)

    async def _drain(self, *, retries: bool) -> None:
        """A handler may publish what the next one handles, so look again until a round finds nothing.

        Without `retries` nobody waits for a subscription that is paused: who stops does not know for how long.
        """
        while True:
            waited_for = [handle for handle in self._served.values() if retries or handle.state != "paused"]
            consumers = [handle.consumer for handle in waited_for]
            await asyncio.gather(*(consumer.drained(retries=retries) for consumer in consumers))
            if not any(consumer.outstanding(retries=retries) for consumer in consumers):
                return

    # --- publish ------------------------------------------------------------------------------------------------

    async def publish(
        self,
        event: Event,
        *,
        delay: float | timedelta | None = None,
        at: datetime | str | None = None,
        require_match: bool = False,
    ) -> Receipt:
        """Hand an event to the engine; returns once it has it durably, whether or not anybody listens.

        `delay` (seconds) or `at` sends it later. In a handler, correlation, parent, hops and lineage are inherited.
        Raises InvalidEvent before anything is stored, Unroutable with `require_match`, BrokerError when the engine
        refuses.
        """
        return (await self._publish((self._stamp(event, delay, at),), require_match=require_match))[0]

    async def publish_many(self, events: Iterable[Event], *, require_match: bool = False) -> Sequence[Receipt]:
        """`publish` for several, in their order, in as few round trips as the engine allows."""
        return await self._publish([self._stamp(event, None, None) for event in events], require_match=require_match)

    async def cancel(self, event_id: str) -> bool:
        """Drop a delayed event that has not left yet; False if it has, or was never there."""
        return await self._broker.cancel(event_id)

    def _stamp(self, event: Event, delay: float | timedelta | None, at: datetime | str | None) -> Event:
        """The event as it will be stored; InvalidEvent if it cannot be."""
        if not isinstance(event, Event):
            raise InvalidEvent(f"publish takes an Event, not {type(event).__name__}")
        if is_reserved(event.topic):
            raise InvalidTopic(f"{event.topic!r}: topics whose first word starts with '_' are the bus's own")
        if len(memoryview(event.body)) > self._max_payload:
            raise PayloadTooLarge(f"payload of {len(memoryview(event.body))} bytes; {self._max_payload} is the most")
        if self._validator is not None:
            self._validator.validate_event(event)
        delivery = followed()
        plain = delivery is None and delay is None and at is None and not event.hops
        if plain and (event.source_agent or not self.name):
            return event
        changes: dict[str, Any] = {}
        if not event.source_agent and self.name:
            changes["source_agent"] = self.name
        if delay is not None or at is not None:
            changes["not_before"] = self._moment(delay, at)
        if delivery is not None:
            changes |= following(event, delivery)
        stamped = structs.replace(event, **changes) if changes else event
        if stamped.hops:
            self.storms.count(stamped, stamped.source_agent if delivery is None else delivery.subscription)
        return stamped

    def _moment(self, delay: float | timedelta | None, at: datetime | str | None) -> datetime:
        if at is not None:
            return utc(at, "at")
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 10**10:
            raise InvalidEvent(f"delay: {delay!r:.40} is not a number of seconds")
        return datetime.fromtimestamp(self._clock.time() + seconds, UTC)

    def _publish(self, events: Sequence[Event], *, require_match: bool) -> Awaitable[Sequence[Receipt]]:
        """What is to be awaited: most often `_send` itself, without a coroutine around it."""
        self._check_open()
        if require_match or self._tracer is not None:
            return self._send_checked(events, require_match=require_match)
        return self._send(events)

    def _check_open(self) -> None:
        if self._state != "running" and not (self._state == "draining" and current() is not None):
            raise Closed(f"this bus is {'not started' if self._state == 'new' else 'stopped'}")

    def _model(self, event: Event) -> Event:
        """What a publish would store now: for what is published later by others."""
        self._check_open()
        return self._stamp(event, None, None)

    async def _send_checked(self, events: Sequence[Event], *, require_match: bool) -> Sequence[Receipt]:
        if require_match:
            await self._require_match(events)
        if self._tracer is None:
            return await self._send(events)
        with self._tracer.published(events) as stamped:
            return await self._send(stamped)

    async def _send(self, events: Sequence[Event]) -> Sequence[Receipt]:
        expecting = self._expect(events)
        try:
            results = await self._batch.call(events)
        except BaseException as error:
            if isinstance(error, BrokerError):
                self.metrics.refused(error.code, len(events))
            for consumer, event_id in expecting:
                consumer.unexpect(event_id)
            raise
        if expecting and any(result.duplicate for result in results):
            stored = {event.event_id for event, result in zip(events, results, strict=True) if not result.duplicate}
            for consumer, event_id in expecting:
                if event_id not in stored:  # it was, or will be, handled as the one that came first
                    consumer.unexpect(event_id)
        self._count_published(events, results)
        if self.attendance.front:
            self.attendance.heard(events)
        if not self._census.ready and any([result.matched for result in results]):  # noqa: C419 - quicker so
            await self._census.keep()
        return self._receipts(events, results)

    def _receipts(self, events: Sequence[Event], results: Sequence[Appended]) -> Sequence[Receipt]:
        """What became of each, with what the last look at the engine says of who is served."""
        census, topics = self._census, self.attendance.topics
        census.asked, served = True, census.served
        receipts = []
        for event, result in zip(events, results, strict=True):
            matched, unserved = result.matched, _NONE
            if event.source_agent and event.topic not in topics.get(event.source_agent, ()):
                self.attendance.learn(event)
            if not matched:
                if event.target_agent is not None:
                    self._unmatched(event, result)
            elif served is not None and not served.issuperset(matched):
                unserved = tuple(id for id in census.unserved(matched) if id not in self._served)
            receipts.append(Receipt(event.event_id, result.position, result.duplicate, len(matched), unserved))
        return receipts

    def _unmatched(self, event: Event, result: Appended) -> None:
        """An event with a target that goes to nobody; of a delayed one that is not known before it leaves."""
        due = event.not_before is None or event.not_before.timestamp() <= self._clock.time()
        if due and not result.duplicate and event.replay_of is None:
            self.tellings.unmatched(event)

    def _count_published(self, events: Sequence[Event], results: Sequence[Appended]) -> None:
        if len(events) == 1:
            if not results[0].duplicate:
                self.metrics.published(events[0].kind)
            return
        new = [event.kind for event, result in zip(events, results, strict=True) if not result.duplicate]
        for kind, count in Counter(new).items():
            self.metrics.published(kind, count)

    def _expect(self, events: Sequence[Event]) -> list[tuple[Consumer, str]]:
        """Tell our own subscriptions what comes to them; a delayed event is not waited for."""
        expecting = []
        match, served, holds = self._own.match, self._served, self._pauses.holds
        for event in events:
            if event.not_before is not None and event.not_before.timestamp() > self._clock.time():
                continue
            for id in match(event):
                consumer = served[id].consumer
                if consumer.expect(event.event_id, held=holds.active and holds.holding(event) is not None):
                    expecting.append((consumer, event.event_id))
        return expecting

    async def _append(self, events: Sequence[Event]) -> Sequence[Appended]:
        """The engine's publish, tried again while it does not answer: ids make that safe."""
        until, pause = self._clock.monotonic() + _PATIENCE, 0.05
        while True:
            try:
                async with asyncio.timeout(max(_LEAST, until - self._clock.monotonic())):
                    return await self._broker.publish(events)
            except BrokerUnavailable as error:
                if self._clock.monotonic() + pause > until:
                    raise
                logger.warning("publish is tried again", error=error, retry_in=pause)
            except TimeoutError:
                raise BrokerUnavailable(f"the engine did not take it within {_PATIENCE:.0f} s") from None
            await self._clock.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _require_match(self, events: Sequence[Event]) -> None:
        routes = Routes()
        for info in await self._broker.subscriptions():
            routes.add(info.subscription)
        for event in events:
            if not routes.match(event):
                raise Unroutable(f"no subscription is known to match {event.topic!r}")

    # --- subscribe ----------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        pattern: str | Sequence[str],
        handler: Callable[..., Any],
        subscriber_agent: str | None = None,
        *,
        subscription: str | None = None,
        durable: bool | None = None,
        start: Literal["new", "first"] | datetime | Position = "new",
        types: Iterable[str] | None = None,
        priorities: Iterable[int | str] | None = None,
        min_priority: int | str | None = None,
        sources: Iterable[str] | None = None,
        retry: RetryPolicy | None = None,
        concurrency: int = 1,
        order_by: str | Callable[[Event], Any] | None = None,
        rate: str | float | None = None,
        timeout: float | None = None,
        lease: float = 30.0,
        auto_ack: bool = False,
        batch: int | None = None,
        breaker: BreakerPolicy | bool | None = None,
    ) -> Handle:
        """Call `handler` with every event that matches.

        With a name (`subscriber_agent` or `subscription`) it is remembered: it catches up after downtime, is retried
        and dead-lettered, and members of one identity share the work. Without one it is live: what is published while
        it is there. `start` is where a new one begins; `types`, `priorities` (each level widened to its band),
        `min_priority` and `sources` filter; `retry` defaults to five retries after 1, 2, 4, 8, 16 s. `concurrency`
        handlers run at a time; `order_by` (a field of the event, or a function) keeps the order of each key; `rate` is
        "50/s", "10/min"; `timeout` (seconds) ends a handler; `lease` (seconds) is how long an event stays with a
        process that died; `auto_ack` acknowledges before handling; `batch` hands lists of up to that many events to the
        handler. `breaker` spares a handler that fails a fifth of its events: first they come slowly, then not at all
        for a while; False switches that off.

        Raises InvalidTopic, SubscriptionConflict, and ValueError or TypeError for settings that make no sense.
        """
        wish = Wish(
            subscription=subscription,
            durable=durable,
            start=start,
            types=types,
            priorities=priorities,
            min_priority=min_priority,
            sources=sources,
            retry=retry,
            concurrency=concurrency,
            order_by=order_by,
            rate=rate,
            timeout=timeout,
            lease=lease,
            auto_ack=auto_ack,
            batch=batch,
            breaker=breaker,
        )
        spec = declaration(pattern, subscriber_agent, wish)
        return await self.serve(spec, handler, options(wish, durable=spec.durable))

    def on(self, pattern: str | Sequence[str], name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """`subscribe` as a decorator, before or after `start`; `name` is the agent."""

        def decorate(handler: Any) -> Any:
            adapt(handler, batch=settings.get("batch") is not None)  # a wrong signature is told where it stands

            async def subscribe() -> None:
                await self.subscribe(pattern, handler, name, **settings)

            if self._state == "new":
                self._decorated.append(subscribe)
            else:
                job = asyncio.get_running_loop().create_task(subscribe())
                self._jobs.add(job)
                job.add_done_callback(self._job_done)
            return handler

        return decorate

    def use(self, middleware: Middleware) -> None:
        """Wrap every handler subscribed from now on; the first used is the outermost."""
        self._middleware.append(middleware)

    async def serve(self, spec: Subscription, handler: Callable[..., Any], options: Options) -> Handle:
        """`subscribe` with the declaration and the options themselves: for who builds on the bus, as `blocking` does.

        Raises Closed, SubscriptionConflict, BrokerError, and TypeError for a handler whose parameters cannot be filled.
        """
        if self._state in {"draining", "stopped"}:
            raise Closed("this bus is stopped")
        if (known := self._served.get(spec.id)) is not None and known.handler == handler and known.spec == spec:
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
        call = adapt(handler, batch=options.batch is not None)
        for middleware in reversed(self._middleware):
            call = middleware(call)
        if (spans := tracer()) is not None:
            call = spans.traced(call, spec.id, batch=options.batch is not None)
        if spec.durable:
            before = await self._broker.info(spec.id)
            await self._broker.declare(spec)
            if before is not None and before.subscription != structs.replace(spec, start=before.subscription.start):
                logger.info("subscription has new settings", subscription=spec.id, patterns=",".join(spec.patterns))
        tally = Tally(self.metrics.meter(spec.id, spec.agent), await self._valve(spec, options))
        consumer = self._consumer(spec, call, options, tally)
        handle = self._served[spec.id] = Handle(spec, handler, consumer, tally, lambda: self._cancel(spec.id))
        self._own.add(spec)
        if self._state == "running":
            await self._serve(handle)
        return handle

    async def _valve(self, spec: Subscription, options: Options) -> Valve:
        """Where its events come from: the engine, or the reader of the log's end."""
        if not spec.durable:
            return self._pauses.valve(spec, await self._feed.open(spec))
        return self._pauses.valve(spec, self._broker, Breaker(options.breaker) if options.breaker else None)

    def _consumer(self, spec: Subscription, call: Handler, options: Options, tally: Tally) -> Consumer:
        consumer = Consumer(
            spec.id,
            tally.valve,
            call,
            options,
            clock=self._clock,
            gate=self._gate,
            reply=self._requests.answer,
            observe=tally.observe,
            check=None if self._validator is None else self._validator.validate_event,
            info=self._broker.info if spec.durable else None,
            buried=self.tellings.buried,
            holds=self._pauses.holds,
            guard=self.storms.guard,
        )
        tally.counts = consumer.counts
        tally.valve.told = consumer.heed
        consumer.heed(tally.valve.paused)
        return consumer

    async def _serve(self, served: Handle) -> None:
        if served.active:
            return
        if not served.spec.durable:
            await self._broker.declare(served.spec)
        await served.consumer.start()
        self.attendance.change()

    async def _cancel(self, id: str) -> None:
        served = self._served.get(id)
        if served is not None:
            await self._end(served, 10.0)

    async def _end(self, served: Handle, timeout: float) -> None:
        self._own.remove(served.spec.id)
        try:
            await served.consumer.stop(timeout)
        finally:
            served.tally.close()
            self._served.pop(served.spec.id, None)
            self.attendance.change()
        if not served.spec.durable:
            self._feed.forget(served.spec.id)
            try:
                await self._broker.remove(served.spec.id)
            except (BrokerError, Closed) as error:
                logger.info("presence could not be taken back, it will end by itself", error=error)

    def _job_done(self, job: asyncio.Task[Any]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            logger.error("subscription failed", exc_info=error)

    # --- request and reply --------------------------------------------------------------------------------------

    async def request(self, topic: str | Event, payload: Any = None, *, timeout: float = 5.0, **fields: Any) -> Any:
        """Publish a request and return what its handler returns; the first answer wins.

        `fields` are other fields of the event. Raises NoResponders at once when nobody who is there would get it,
        RequestFailed when the responder failed for the last time, RequestTimeout after `timeout` seconds.
        """
        event = topic if isinstance(topic, Event) else Event(topic=topic, payload=payload, **fields)
        event = structs.replace(event, reply_to=self._requests.topic, ttl_seconds=timeout)
        if not await self._requests.has_responder(event):
            raise NoResponders(f"nobody who is there answers {event.topic!r}")
        try:
            async with asyncio.timeout(timeout):
                return await self._requests.ask(event, self.publish)
        except TimeoutError:
            raise RequestTimeout(f"no reply to {event.topic!r} within {timeout} s") from None

    async def answer(self, request: Event, value: Any, error: str | None = None) -> None:
        """Answer a request that was handled elsewhere: with a value, or with the error that it ended in."""
        await self._requests.answer(request, value, error)

    # --- history and replay -------------------------------------------------------------------------------------

    def history(  # noqa: PLR0917 - as promised
        self,
        pattern: str | Sequence[str] | None = None,
        start_time: datetime | str | None = None,
        end_time: datetime | str | None = None,
        correlation_id: str | None = None,
        after: Position | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Stored]:
        """The log's events in their order, with `.event .position .stored_at`. Raises PositionLost behind a gap."""
        query = build_query(pattern, start_time, end_time, correlation_id=correlation_id, limit=limit)
        return self._broker.read(query, after=after)

    def follow(
        self,
        pattern: str | Sequence[str] | None = None,
        *,
        after: Position | None = None,
        types: Iterable[str] | None = None,
        priorities: Iterable[int | str] | None = None,
        min_priority: int | str | None = None,
        sources: Iterable[str] | None = None,
    ) -> AsyncIterator[Stored]:
        """`history` that goes on: the log's events behind `after`, then each as it is published, until the bus stops.

        Read at the caller's pace: nothing is kept for it. The filters are those of `subscribe`; an event with a target
        is seen too. Raises PositionLost where events behind `after` are gone; who asks again without `after` goes on
        behind the gap.
        """
        wish = Wish(types=types, priorities=priorities, min_priority=min_priority, sources=sources)
        spec = declaration("#" if pattern is None else pattern, None, wish)
        return _wanted(self._broker.read(Query(patterns=spec.patterns), after=after, follow=True), spec)

    async def trace(self, id: str, *, limit: int = MOST) -> Conversation:
        """The conversation that an event, or a correlation id, belongs to: who caused what, when, and what failed.

        What is still delayed is not in it. `limit` bounds its events, and its dead letters. Raises
        ConversationNotFound, InvalidEvent for what is no id, ValueError for a limit below 1.
        """
        if limit < 1:
            raise ValueError("limit: 1 or more")
        return conversation(await find(self._broker, id, limit, self._clock.time()))

    async def replay(
        self, handler: Callable[..., Any], config: ReplayConfig | None = None, *, control: ReplayControl | None = None
    ) -> int:
        """Call `handler` with the original events of a range, marked as replayed in the delivery; returns how many.

        No cursor moves, and nothing is retried: what the handler raises ends the replay. `control` pauses and cancels
        it.
        """
        config = config or ReplayConfig(speed_multiplier=0)
        return await replay(await self._range(config), adapt(handler), config.speed_multiplier, self._clock, control)

    async def replay_into(
        self,
        topic: str | None = None,
        config: ReplayConfig | None = None,
        *,
        to: EventBus | None = None,
        source_agent: str | None = None,
        control: ReplayControl | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Publish a range of the log again, as new events with `replay_of`, into `topic`; returns how many.

        They keep their type, payload and correlation, and happen now. It ends where the log ended when it began. `to`
        is another bus to publish them on, of another namespace or engine, where they may also keep their topics: None.
        `source_agent` is whose they are from then on; without one, who published them first.
        `control` pauses and cancels it, `progress(count, position)` is told after each step, and a cancellation is
        heeded between steps. Raises InvalidTopic, InvalidEvent, and what `history` and `publish` raise.
        """
        config = config or ReplayConfig(speed_multiplier=0)
        if topic is not None:
            check_destination(topic)
        else:
            there = None if to is None else (await to.broker.ping()).head
            check_elsewhere(config, (await self._broker.ping()).head, there)
        return await replay_into(
            topic,
            await self._range(config),
            self.publish_many if to is None else to.publish_many,
            speed=config.speed_multiplier,
            clock=self._clock,
            source_agent=source_agent,
            control=control,
            progress=progress,
        )

    async def _range(self, config: ReplayConfig) -> AsyncIterator[Stored]:
        """The events of a replay: none of what it causes itself is among them."""
        query = config.query()
        return upto(self._broker.read(query), (await self._broker.ping()).head)

    # --- schemas ------------------------------------------------------------------------------------------------

    async def register_schema(self, schema: EventSchema) -> None:
        """Register a schema for every process that attaches a registry; returns when the engine has it.

        Raises SchemaConflict, NotSupported without a registry, Closed before `start`: until then the registry itself
        is the place.
        """
        await self._shared_schemas().register(schema)

    async def remove_schema(self, event_type: str, version: str) -> None:
        """Remove one version of a schema for every process; SchemaNotFound, and as `register_schema`."""
        await self._shared_schemas().remove(event_type, version)

    def _shared_schemas(self) -> SharedSchemas:
        if self._schemas is None:
            raise NotSupported("this bus has no registry: EventBus(url, registry=SchemaRegistry())")
        if self._state != "running":
            raise Closed(f"this bus is {'not started' if self._state == 'new' else 'stopped'}")
        return self._schemas

    # --- what the engine knows ----------------------------------------------------------------------------------

    async def subscriptions(self) -> Sequence[SubscriptionInfo]:
        """All that the engine remembers, and the live ones that are there now."""
        return await self._broker.subscriptions()

    async def info(self, name: str) -> SubscriptionInfo | None:
        """The numbers of a subscription; those of an agent's several are summed. None if it is unknown."""
        infos = [info for id in await self._ids_of(name) if (info := await self._broker.info(id)) is not None]
        if len(infos) <= 1:
            return infos[0] if infos else None
        ages = [info.oldest for info in infos if info.oldest is not None]
        sums = {key: sum(getattr(i, key) or 0 for i in infos) for key in ("ready", "leased", "delayed", "dead", "lost")}
        return structs.replace(
            infos[0],
            **sums,
            consumers=max(info.consumers for info in infos),
            oldest=max(ages, default=None),
            lapsed=any(info.lapsed for info in infos),
        )

    async def agents(self) -> Sequence[AgentInfo]:
        """Everybody who is there, or has a subscription that is remembered, by name.

        The first call takes a second and a half, in which all who are there answer; the others are answered at once.
        An agent is `online` while a process that stands for it was heard of in the last 7.5 s, `suspect` up to 15 s,
        then, or once it said goodbye, `offline`. Raises Closed, BrokerError.
        """
        self._check_open()
        return await self.attendance.agents()

    def _present(self) -> Guests:
        """Whom this bus stands for, and what it serves."""
        specs = [handle.spec for handle in self._served.values() if handle.active]
        return Guests(agents=[self.name, *map(whose, specs)], serves=[spec.id for spec in specs])

    async def pause(
        self,
        name: str | None = None,
        *,
        agent: str | None = None,
        topic: str | None = None,
        correlation_id: str | None = None,
        everything: bool = False,
        until: Until = None,
        reason: str = "",
        by: str | None = None,
    ) -> Sequence[Pause]:
        """Hand out nothing of one of these, in any process, until `resume` or `until`; nothing remembered is lost.

        `name` is a subscription, or an agent: the subscriptions that it has now. `agent` are all of an agent's, those
        made later too; `topic` the events whose topic matches that pattern, whoever they are for; `correlation_id`
        those of one conversation; `everything` is all. `until` is a time, or seconds from now; `reason` and `by` are
        shown.

        Other processes heed it within a second; what is being handled is finished. What comes for a live subscription
        meanwhile is dropped, and counted as lost. Raises InvalidEvent; by name SubscriptionNotFound, and
        SubscriptionConflict for a live one.
        """
        scope, names = await self._chosen(name, agent, topic, correlation_id, everything=everything)
        return await self._pauses.pause(scope, names, until=until, reason=reason, by=self.name if by is None else by)

    async def resume(
        self,
        name: str | None = None,
        *,
        agent: str | None = None,
        topic: str | None = None,
        correlation_id: str | None = None,
        everything: bool = False,
    ) -> Sequence[Pause]:
        """Undo one `pause`; each ends for itself. Returns what was paused, and raises as `pause` does.

        Single events that were held by their topic or conversation come within 30 s, the others at once.
        """
        scope, names = await self._chosen(name, agent, topic, correlation_id, everything=everything)
        return await self._pauses.resume(scope, names)

    async def pauses(self) -> Sequence[Pause]:
        """What is paused now: scope, name, since, until, reason, by; sorted by scope and name."""
        return await self._pauses.all()

    def paused(self, id: str, agent: str | None = None) -> bool:
        """Whether a subscription is paused, as far as this bus knows by now: by itself, with its agent, or with all.

        The agent of one that this bus does not serve has to be said.
        """
        served = self._served.get(id)
        known = "" if served is None else served.spec.agent
        return self._pauses.paused(id, known if agent is None else agent)

    async def _chosen(
        self, name: str | None, agent: str | None, topic: str | None, correlation_id: str | None, *, everything: bool
    ) -> tuple[Scope, Sequence[str]]:
        """What is to be paused or resumed: exactly one thing has to be named."""
        if [name, agent, topic, correlation_id, everything or None].count(None) != 4:
            raise InvalidEvent("pause exactly one: a name, an agent, a topic, a correlation_id, or everything")
        if name is not None:
            return "subscription", await self._remembered(name)
        if agent is not None:
            return "agent", [check_name(agent)]
        if topic is not None:
            return "topic", [check_pattern(topic)]
        if correlation_id is not None:
            return "conversation", [check_id("correlation_id", correlation_id)]
        return "everything", [EVERYTHING]

    def tally(self, spec: Subscription) -> Tally:
        """For who serves a remembered subscription otherwise than by a handler.

        It has the source, which heeds pauses, and is to be told what became of the events.
        """
        return Tally(self.metrics.meter(spec.id, spec.agent), self._pauses.valve(spec, self._broker))

    async def remove(self, name: str) -> None:
        """Forget a subscription, or an agent's, with its backlog and dead letters."""
        ids = await self._ids_of(name)
        for id in ids:
            await self._cancel(id)
            await self._broker.remove(id)
        if ids:
            await self._directory.refresh()
            await self._pauses.resume("subscription", ids)

    async def purge(self, name: str) -> int:
        """Drop what is ready for a subscription, or an agent's; returns how many."""
        ids = await self._ids_of(name)
        if not ids:
            raise SubscriptionNotFound(f"no subscription or agent {name!r} is remembered")
        return sum([await self._broker.purge(id) for id in ids])

    async def _ids_of(self, name: str) -> Sequence[str]:
        """An id is itself; an agent's name stands for all of its subscriptions."""
        known = [info.subscription for info in await self._broker.subscriptions()]
        return [spec.id for spec in known if spec.id == name] or [spec.id for spec in known if spec.agent == name]

    async def _remembered(self, name: str) -> Sequence[str]:
        """The ids of a name, of those that events wait for; with what is paused known as it is now."""
        found = [info.subscription for info in await self._broker.subscriptions()]
        specs = [spec for spec in found if spec.id == name] or [spec for spec in found if spec.agent == name]
        ids = [spec.id for spec in specs if spec.durable]
        if not specs:
            raise SubscriptionNotFound(f"no subscription or agent {name!r} is remembered")
        if not ids:
            raise SubscriptionConflict(f"{name!r} is live: nothing waits for it")
        await self._directory.refresh()
        return ids

    async def health(self) -> dict[str, Any]:
        """`status`, the engine's name with `connected` or `unreachable`, `event_bus`, and `details`."""
        state = {"running": "running", "new": "not started"}.get(self._state, "stopped")
        found = await look(self._broker, state, self._served)
        found["details"]["namespace"] = self.namespace
        found["details"]["pauses"] = [structs.asdict(pause) for pause in self._pauses.holds.all()]
        return found


def _storm_policy(given: StormPolicy | bool | None, settings: Settings) -> StormPolicy | None:
    """What was given, else what the environment says; None for nothing."""
    if isinstance(given, StormPolicy):
        return given
    if given is False:
        return None
    return StormPolicy(max_hops=settings.max_hops, max_visits=settings.max_visits, max_events=settings.max_events)


async def _wanted(log: AsyncIterator[Stored], spec: Subscription) -> AsyncIterator[Stored]:
    """Those that the filter lets through, whoever they are meant for."""
    async with aclosing(log):  # type: ignore[type-var]  # an async generator, whatever the protocol promises
        async for stored in log:
            if fits(spec.filter, stored.event):
                yield stored
