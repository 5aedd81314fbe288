"""EventBus: where the parts meet.

An event's way: `publish` stamps and checks it -> `batch` -> the broker appends and routes it -> a `consumer` leases it,
calls the handler, and settles what `retry` decides.

It is long because it is the one class that users know: its signatures and what they promise. What a method does beyond
a few lines is in a part that the constructor makes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, Self, cast

from msgspec import structs

from wowevent.attendance import Attendance, Guests
from wowevent.batch import Batch
from wowevent.breaker import BreakerPolicy
from wowevent.broker import (
    Appended,
    Broker,
    Capabilities,
    Iteration,
    Position,
    Retention,
    Subscription,
    SubscriptionInfo,
)
from wowevent.brokers import RedisClient, open_broker, open_client
from wowevent.causation import MOST
from wowevent.census import Census
from wowevent.choice import Choice
from wowevent.clock import Clock, SystemClock
from wowevent.consumer import Consumer, Options
from wowevent.conversation import Conversation
from wowevent.dead_letter import DeadLetters
from wowevent.directory import Directory
from wowevent.errands import Errands
from wowevent.errors import (
    BrokerError,
    BrokerUnavailable,
    BusError,
    NoResponders,
    NotSupported,
    RequestTimeout,
)
from wowevent.event import Event, check_name
from wowevent.gate import Gate
from wowevent.handler import Middleware, adapt
from wowevent.health import look
from wowevent.history import History
from wowevent.holds import Holds, Pause
from wowevent.inventory import Inventory
from wowevent.life import Life
from wowevent.limit import TimeLimit
from wowevent.live import Feed
from wowevent.log import logger
from wowevent.metrics import EventMetrics
from wowevent.pauses import Pauses, Until
from wowevent.postmark import Postmark
from wowevent.pulses import Pulses
from wowevent.receipt import Receipt, Receipts
from wowevent.replay import Progress, ReplayConfig, ReplayControl, build_query
from wowevent.request import Requests
from wowevent.retry import RetryPolicy
from wowevent.roster import AgentInfo, whose
from wowevent.schedules import Schedules
from wowevent.schema import EventSchema, EventValidator, SchemaRegistry
from wowevent.settings import Settings, masked
from wowevent.shared_schemas import SharedSchemas
from wowevent.storm import StormPolicy
from wowevent.storms import Storms
from wowevent.subscribers import Subscribers
from wowevent.subscription import Handle, Wish, declaration, options
from wowevent.tally import Tally
from wowevent.tellings import Tellings
from wowevent.tracing import Tracer, tracer
from wowevent.trail import Delivered
from wowevent.trails import Trails

_PATIENCE: Final = 10.0  # seconds for which a publish is tried while the engine does not answer
_LEAST: Final = 0.5  # of which the last try has this at least


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
        given = {"namespace": self.namespace, "retention": retention, "clock": self._clock}
        self._broker: Broker = _engine(url, settings, given)
        self._own_broker: bool = self._broker is not url
        self._url = _shown(url, settings, self._broker)
        self._inventory = Inventory(self._broker)
        self.dead_letters: DeadLetters = DeadLetters(
            self._broker, self._clock, self._inventory.ids, model=self._model, send=self._send
        )
        self._patience = TimeLimit(_PATIENCE)
        self._batch: Batch[Event, Appended] = Batch(
            self._append, rounds=self._broker.capabilities.rounds, hopeless=(BrokerUnavailable,)
        )
        self.registry: SchemaRegistry | None = registry
        """What events are held against, shared with every process that attaches one; None: nothing is."""
        self.metrics: EventMetrics = EventMetrics(clock=self._clock.monotonic)
        """What this bus published and delivered."""
        self._life = Life()
        self._directory = Directory(self._broker)
        self._pauses = Pauses(self._directory, self._clock)
        self._feed = Feed(self._broker, self._clock, self._pauses.holds)
        self._requests = Requests(self._broker, self._batch.call, self._clock)
        self._census = Census(self._broker)
        self.tellings: Tellings = Tellings(self._census, self._batch.call)
        """Tells senders what nobody takes and what died, for who builds on the bus, as the router does."""
        self.attendance: Attendance = Attendance(self._broker, self._directory, self._clock, self._present)
        """Says that this process is there, for who builds on the bus."""
        process = self.attendance.process
        self._pulses = Pulses(self._broker, self._directory, self._clock, process, self.metrics)
        self._errands = Errands(self._pulses, self._directory, self._clock, process)
        self._trails = Trails(self._broker, self._directory, self._clock, process)
        self.storms: Storms = Storms(self._directory, self._clock, _storm_policy(storms, settings))
        """The conversations that went too far and are parked."""
        check = None if registry is None else EventValidator(registry, strict=strict_schemas).validate_event
        self._stamp = Postmark(self.name, self._max_payload, self._clock, check=check, count=self.storms.count).stamp
        self._subscribers = self._served_here(check)
        served = self._subscribers.served
        self._receipts = Receipts(self._census, self.attendance, self.tellings, served, self._clock)
        self._history = History(self._broker, self._clock)
        self._schemas = None if registry is None else SharedSchemas(registry, self._directory)
        self.schedules: Schedules = Schedules(
            self._directory, self._clock, model=self._model, send=self._send, cancel=self._broker.cancel
        )
        """Events that are fired at their moments, once among all processes."""
        self._tracer: Tracer | None = None

    def _served_here(self, check: Callable[[Event], object] | None) -> Subscribers:
        consumer = partial(
            Consumer,
            clock=self._clock,
            gate=Gate(),
            reply=self._requests.answer,
            check=check,
            buried=self.tellings.buried,
            holds=self._pauses.holds,
            guard=self.storms.guard,
        )
        return Subscribers(
            self._broker,
            self._clock,
            life=self._life,
            feed=self._feed,
            pauses=self._pauses,
            metrics=self.metrics,
            trail=self._trails.trail,
            consumer=consumer,
            changed=self.attendance.change,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What the engine declares of itself."""
        return self._broker.capabilities

    @property
    def url(self) -> str:
        """Where its log is, as it may be shown; of a client or a broker that was given, the engine's name alone."""
        return self._url

    @property
    def broker(self) -> Broker:
        """The engine, for who builds on the bus, as the router does."""
        return self._broker

    @property
    def feed(self) -> Feed:
        """The reader of the log's end that all live subscriptions of this bus share."""
        return self._feed

    @property
    def pulses(self) -> Pulses:
        """How much all processes publish and deliver, for who looks on."""
        return self._pulses

    @property
    def errands(self) -> Errands:
        """What goes on in the background of all processes, for who begins such jobs, as the service does."""
        return self._errands

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
        if not self._life.begins():
            return
        await self._broker.ping()
        await self._directory.start()
        if self._schemas is not None:
            await self._schemas.start()
        self._tracer = tracer()
        self._life.state = "running"
        self.schedules.start()
        self.attendance.start()
        self._pulses.start()
        await self._subscribers.start()

    async def stop(self, timeout: float = 10.0) -> None:
        """Take no new publishes, finish what is under way within `timeout` seconds, close; stopping twice is once.

        What this bus published that goes to its own subscriptions is handled once; running handlers finish or are
        cancelled, and what was not finished is given back.
        """
        await self._life.end(partial(self._shut, timeout))

    async def _shut(self, timeout: float) -> None:
        until = self._clock.monotonic() + timeout
        with suppress(asyncio.CancelledError):
            if self._life.state == "running":
                self._life.state = "draining"
                try:
                    async with asyncio.timeout(timeout):
                        await self._subscribers.drain(retries=False)
                except TimeoutError:
                    logger.warning("stop did not wait for every delivery", timeout=timeout)
                except BusError as error:
                    logger.warning("stop did not wait for every delivery, the engine does not say", error=error)
            left = max(0.1, until - self._clock.monotonic())
            await self._subscribers.end(left)
            left = max(_LEAST, until - self._clock.monotonic())
            await self.tellings.flush(left)
            await asyncio.gather(self.attendance.leave(left), self._pulses.leave(left))
        self._life.state = "stopped"
        await self.schedules.close()
        await self._subscribers.end(0)
        await self.tellings.close()
        await self.attendance.close()
        await self._errands.close()
        await self._pulses.close()
        await self._trails.close()
        await self._census.close()
        await self._feed.close()
        await self._requests.close()
        if self._schemas is not None:
            await self._schemas.close()
        await self._pauses.close()
        await self.storms.close()
        await self._directory.close()
        await self._subscribers.close()
        self._patience.close()
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
            await self._subscribers.drain(retries=True)

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
        return await self._publish([self._stamp(event) for event in events], require_match=require_match)

    async def cancel(self, event_id: str) -> bool:
        """Drop a delayed event that has not left yet; False if it has, or was never there."""
        return await self._broker.cancel(event_id)

    def _publish(self, events: Sequence[Event], *, require_match: bool) -> Awaitable[Sequence[Receipt]]:
        """What is to be awaited: most often `_send` itself, without a coroutine around it."""
        self._life.check()
        if require_match or self._tracer is not None:
            return self._send_checked(events, require_match=require_match)
        return self._send(events)

    def _model(self, event: Event) -> Event:
        """What a publish would store now: for what is published later by others."""
        self._life.check()
        return self._stamp(event)

    async def _send_checked(self, events: Sequence[Event], *, require_match: bool) -> Sequence[Receipt]:
        if require_match:
            await self._inventory.require_match(events)
        if self._tracer is None:
            return await self._send(events)
        with self._tracer.published(events) as stamped:
            return await self._send(stamped)

    async def _send(self, events: Sequence[Event]) -> Sequence[Receipt]:
        expecting = self._subscribers.expect(events)
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
        if not self._census.ready and any([result.matched for result in results]):  # noqa: C419 - quicker so
            await self._receipts.prepare(results)
        return self._receipts.make(events, results)

    def _count_published(self, events: Sequence[Event], results: Sequence[Appended]) -> None:
        if len(events) == 1:
            if not results[0].duplicate:
                self.metrics.published(events[0].kind)
            return
        new = [event.kind for event, result in zip(events, results, strict=True) if not result.duplicate]
        for kind, count in Counter(new).items():
            self.metrics.published(kind, count)

    async def _append(self, events: Sequence[Event]) -> Sequence[Appended]:
        """The engine's publish, tried again while it does not answer: ids make that safe."""
        try:
            return await self._patience.keep(self._try(events))
        except TimeoutError:
            raise BrokerUnavailable(f"the engine did not take it within {_PATIENCE:.0f} s") from None

    async def _try(self, events: Sequence[Event]) -> Sequence[Appended]:
        until, pause = self._clock.monotonic() + _PATIENCE - _LEAST, 0.05
        while True:
            try:
                return await self._broker.publish(events)
            except BrokerUnavailable as error:
                if self._clock.monotonic() + pause > until:
                    raise
                logger.warning("publish is tried again", error=error, retry_in=pause)
            await self._clock.sleep(pause)
            pause = min(2 * pause, 1.0)

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

            self._subscribers.later(subscribe)
            return handler

        return decorate

    def use(self, middleware: Middleware) -> None:
        """Wrap every handler subscribed from now on; the first used is the outermost."""
        self._subscribers.use(middleware)

    async def serve(self, spec: Subscription, handler: Callable[..., Any], options: Options) -> Handle:
        """`subscribe` with the declaration and the options themselves: for who builds on the bus, as `blocking` does.

        Raises Closed, SubscriptionConflict, BrokerError, and TypeError for a handler whose parameters cannot be filled.
        """
        return await self._subscribers.serve(spec, handler, options)

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
    ) -> Iteration:
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
    ) -> Iteration:
        """`history` that goes on: the log's events behind `after`, then each as it is published, until the bus stops.

        Read at the caller's pace: nothing is kept for it. The filters are those of `subscribe`; an event with a target
        is seen too. Raises PositionLost where events behind `after` are gone; who asks again without `after` goes on
        behind the gap.
        """
        wish = Wish(types=types, priorities=priorities, min_priority=min_priority, sources=sources)
        spec = declaration("#" if pattern is None else pattern, None, wish)
        return self._history.follow(spec, after)

    async def trace(self, id: str, *, limit: int = MOST) -> Conversation:
        """The conversation that an event, or a correlation id, belongs to: who caused what, when, and what failed.

        What is still delayed is not in it. `limit` bounds its events, and its dead letters. Raises
        ConversationNotFound, InvalidEvent for what is no id, ValueError for a limit below 1.
        """
        return await self._history.trace(id, limit)

    async def deliveries(self, event_id: str) -> Sequence[Delivered]:
        """Who got an event, when, and how that ended: what the processes that are there remember, the oldest first.

        Each remembers its last 10,000 deliveries. Other processes have a second and a half to answer, which this takes
        where there can be some. Raises InvalidEvent for what is no id, BrokerError, Closed.
        """
        self._life.check()
        return await self._trails.of(event_id)

    async def replay(
        self, handler: Callable[..., Any], config: ReplayConfig | None = None, *, control: ReplayControl | None = None
    ) -> int:
        """Call `handler` with the original events of a range, marked as replayed in the delivery; returns how many.

        No cursor moves, and nothing is retried: what the handler raises ends the replay. `control` pauses and cancels
        it.
        """
        return await self._history.replay(adapt(handler), config, control)

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
        return await self._history.replay_into(
            topic,
            config,
            self.publish_many if to is None else to.publish_many,
            there=None if to is None else to.broker,
            source_agent=source_agent,
            control=control,
            progress=progress,
        )

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
        self._life.check()
        return self._schemas

    # --- what the engine knows ----------------------------------------------------------------------------------

    async def subscriptions(self) -> Sequence[SubscriptionInfo]:
        """All that the engine remembers, and the live ones that are there now."""
        return await self._broker.subscriptions()

    async def info(self, name: str) -> SubscriptionInfo | None:
        """The numbers of a subscription; those of an agent's several are summed. None if it is unknown."""
        return await self._inventory.info(name)

    async def agents(self) -> Sequence[AgentInfo]:
        """Everybody who is there, or has a subscription that is remembered, by name.

        The first call takes a second and a half, in which all who are there answer; the others are answered at once.
        An agent is `online` while a process that stands for it was heard of in the last 7.5 s, `suspect` up to 15 s,
        then, or once it said goodbye, `offline`. Raises Closed, BrokerError.
        """
        self._life.check()
        return await self.attendance.agents()

    def _present(self) -> Guests:
        """Whom this bus stands for, and what it serves."""
        specs = self._subscribers.specs()
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
        chosen = Choice(name=name, agent=agent, topic=topic, correlation_id=correlation_id, everything=everything)
        scope, names = await chosen.names(self._inventory)
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
        chosen = Choice(name=name, agent=agent, topic=topic, correlation_id=correlation_id, everything=everything)
        scope, names = await chosen.names(self._inventory)
        return await self._pauses.resume(scope, names)

    async def pauses(self) -> Sequence[Pause]:
        """What is paused now: scope, name, since, until, reason, by; sorted by scope and name."""
        return await self._pauses.all()

    def paused(self, id: str, agent: str | None = None) -> bool:
        """Whether a subscription is paused, as far as this bus knows by now: by itself, with its agent, or with all.

        The agent of one that this bus does not serve has to be said.
        """
        served = self._subscribers.served.get(id)
        known = "" if served is None else served.spec.agent
        return self._pauses.paused(id, known if agent is None else agent)

    def tally(self, spec: Subscription) -> Tally:
        """For who serves a remembered subscription otherwise than by a handler.

        It has the source, which heeds pauses, and is to be told what became of the events.
        """
        valve = self._pauses.valve(spec, self._broker)
        return Tally(spec, self.metrics.meter(spec.id, spec.agent), valve, self._trails.trail)

    async def remove(self, name: str) -> None:
        """Forget a subscription, or an agent's, with its backlog and dead letters."""
        ids = await self._inventory.ids(name)
        for id in ids:
            await self._subscribers.cancel(id)
            await self._broker.remove(id)
        if ids:
            await self._pauses.resume("subscription", ids)

    async def purge(self, name: str) -> int:
        """Drop what is ready for a subscription, or an agent's; returns how many."""
        return await self._inventory.purge(name)

    async def health(self) -> dict[str, Any]:
        """`status`, the engine's name with `connected` or `unreachable`, `event_bus`, and `details`."""
        found = await look(self._broker, self._life.said, self._subscribers.served)
        found["details"]["namespace"] = self.namespace
        found["details"]["pauses"] = [structs.asdict(pause) for pause in self._pauses.holds.all()]
        return found


def _engine(url: str | Broker | RedisClient | None, settings: Settings, given: dict[str, Any]) -> Broker:
    """What was named, opened; one that is open already as it is."""
    if url is None and settings.url is None:
        logger.info("embedded log", url=settings.engine_url())
    if url is None or isinstance(url, str):
        return open_broker(url or settings.engine_url(), **given)
    return cast("Broker", url) if hasattr(url, "settle") else open_client(url, **given)


def _shown(url: object, settings: Settings, broker: Broker) -> str:
    """Without a password, nor what may be one among the parameters."""
    if url is not None and not isinstance(url, str):
        return f"{broker.capabilities.name}://"
    return masked(url or settings.engine_url()).partition("?")[0]


def _storm_policy(given: StormPolicy | bool | None, settings: Settings) -> StormPolicy | None:
    """What was given, else what the environment says; None for nothing."""
    if isinstance(given, StormPolicy):
        return given
    if given is False:
        return None
    return StormPolicy(max_hops=settings.max_hops, max_visits=settings.max_visits, max_events=settings.max_events)
