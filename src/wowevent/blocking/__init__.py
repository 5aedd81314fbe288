"""EventBus for code without an event loop: the same log, in blocking calls, from any thread.

    publish, subscribe, ... (any thread) ──> running ──> loop (one thread a bus) ──> line ──> wowevent.EventBus
    wowevent.EventBus ──> consuming, or letters (`dlq.…`) ──> worker (one thread a queue) ──> callback

How it behaves is in `docs/blocking.md`.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self, TypeVar
from weakref import WeakSet

from wowevent.blocking.address import Address, Tuning, address, exchange_of
from wowevent.blocking.consuming import Consuming, Events, Feed
from wowevent.blocking.dead_letters import DeadLetters
from wowevent.blocking.letters import Claims, Letters, claims_of, forget_claims
from wowevent.blocking.line import DEAD, LOOK_SECONDS
from wowevent.blocking.outgoing import outgoing, stamped
from wowevent.blocking.queue import Queue, declared
from wowevent.blocking.running import Running
from wowevent.blocking.schedules import Schedules
from wowevent.blocking.worker import Worker
from wowevent.brokers import open_broker
from wowevent.bus import EventBus as AsyncBus
from wowevent.causation import MOST
from wowevent.conversation import Conversation
from wowevent.delivery import current
from wowevent.errors import (
    BrokerError,
    BusError,
    Closed,
    SubscriptionConflict,
    SubscriptionNotFound,
)
from wowevent.event import Event
from wowevent.holds import Pause
from wowevent.log import logger
from wowevent.pauses import Until
from wowevent.retry import RetryPolicy
from wowevent.roster import AgentInfo
from wowevent.settings import Settings

__all__ = ["EventBus"]

T = TypeVar("T")

RETRY: Final = RetryPolicy(max_retries=3)
"""Three retries after 1, 2 and 4 s; an event's own `max_retries` wins."""
_ORPHANS: Final = {
    "memory": "this bus was in use before os.fork(), and its log is in the parent's memory: make a new bus",
    # Its C code keeps in memory which locks this process has, of which the child inherits the notes, but not the locks.
    "sqlite": "this bus was in use before os.fork(), and what SQLite has open in one process no other may go on with: "
    "start the child afresh (multiprocessing's spawn), or use the bus after the fork only",
}
"""What cannot go on in a forked child, and why."""


class EventBus:
    """Publish and consume in blocking calls, on any engine; safe to use from any number of threads.

    One bus for an application is enough. Nothing is opened before the first call that needs the engine; then one thread
    runs the bus's event loop, and each queue that is consumed has a thread for its callback. These are daemons: a
    program that ends with its bus open ends, and what was not finished comes again. Every wait for the engine has an
    end. After `os.fork()` the child's bus connects anew when it is used, knows what was subscribed, and consumes
    nothing yet; one on memory or SQLite that was in use raises Closed there.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        vhost: str | None = None,
        exchange_type: str = "topic",
        prefetch_count: int | None = None,
        connection_timeout: float | None = None,
        heartbeat: int | None = None,
        namespace: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """`url` opens any engine; `host` to `vhost` name a RabbitMQ server.

        Without either, WOWEVENT_URL wins if it is set, then RABBITMQ_HOST, _PORT, _USER, _PASSWORD and _VHOST;
        `prefetch_count`, `connection_timeout` and `heartbeat` have RABBITMQ_PREFETCH_COUNT, _CONNECTION_TIMEOUT and
        _HEARTBEAT. `prefetch_count` events are held by a queue's consumer, `connection_timeout` seconds are waited for
        an engine that is not reached yet. `retry` is for events that do not say `max_retries` themselves.

        Raises ValueError for settings that cannot be, NotSupported for an unknown engine.
        """
        if exchange_type != "topic":
            raise ValueError(f"exchange_type: {exchange_type!r:.40}: events are routed by topic here, and only so")
        tuning: dict[str, Any] = {
            "prefetch_count": prefetch_count,
            "connection_timeout": connection_timeout,
            "heartbeat": heartbeat,
        }
        self._tuning = Tuning(**{name: value for name, value in tuning.items() if value is not None})
        place = {"host": host, "port": port, "username": username, "password": password, "vhost": vhost}
        self._address: Address = address(url, place, self._tuning.heartbeat)
        settings = Settings()
        self.namespace: str = namespace or settings.namespace
        """Of the engine's keys; others see nothing of it."""
        self._max_payload = settings.max_payload
        self._policy = retry or RETRY
        open_broker(self._address.url, namespace=self.namespace)  # what is wrong is told here; nothing is opened
        self.dead_letters: DeadLetters = DeadLetters(self._ask)
        """What could not be handled: groups, counts, redeliver, discard, resend."""
        self.schedules: Schedules = Schedules(self._ask)
        """What is fired at its moments; see docs/schedules.md."""
        self._queues: dict[str, Queue] = {}
        self._lock = threading.RLock()  # for the tables; held while a thread is started, never while one waits
        self._running: Running | None = None
        self._closed = False
        self._orphan = False

    def __repr__(self) -> str:
        """Where its engine is; never a password."""
        return f"<blocking EventBus {self._address.shown}>"

    # --- life ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Nothing is opened yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self, timeout: float = 10.0) -> None:
        """End it within `timeout` seconds or little more; closing twice is closing once.

        Publishes under way are confirmed, callbacks that run finish, what this bus published to queues that it consumes
        itself is handled once, and what was not started is given back. A callback that closes does not wait: the bus is
        closed when the callback has returned.
        """
        self._close(timeout)

    def _close(self, timeout: float, *, exiting: bool = False) -> None:
        with self._lock:
            self._closed = True
            running = self._running
        _open.discard(self)
        if running is not None:
            with suppress(Closed):  # it was closed before
                running.close(timeout, exiting=exiting)

    def _engine(self) -> Running:
        """What runs; made by the first call that needs it, and anew in a forked child."""
        if self._closed and current() is None:  # a callback may finish its work
            raise Closed("this bus is closed")
        running = self._running
        if running is None:
            if self._orphan:
                raise Closed(_ORPHANS[self._address.engine])
            with self._lock:
                if self._closed:
                    raise Closed("this bus is closed")
                if self._running is None:
                    self._running = Running(self._make, self._tuning.connection_timeout)
                    _open.add(self)
                running = self._running
        running.loop.refuse_itself()
        return running

    def _make(self) -> AsyncBus:
        return AsyncBus(self._address.url, namespace=self.namespace)

    def _call(self, job: Callable[[Running], Coroutine[Any, Any, T]]) -> T:
        running = self._engine()
        return running.call(partial(job, running))

    # --- publish ------------------------------------------------------------------------------------------------

    def publish(self, event: Event, routing_key: str | None = None, persistent: bool = True) -> bool:
        """True once the engine has the event, as durably as it promises; False, with an ERROR line, if it has not.

        It is tried for some 10 s while the engine does not answer. `routing_key` is the topic to route by, with or
        without a band as its last word (`low`, `normal`, `high`, `critical`), which moves the priority into that band;
        the event's type stays. `persistent=False` does not wait for the engine: True says that the event is on its way,
        False that the outbox of 10,000 was full for a second. In a callback, correlation, parent and hops are
        inherited.

        Raises InvalidEvent, InvalidTopic, PayloadTooLarge before anything is sent, Closed, NotPermitted.
        """
        event = outgoing(event, routing_key, self._max_payload)
        running = self._engine()
        if not persistent:
            return running.outbox.put(stamped(event))
        try:
            running.call(lambda: running.line.publish(event))
        except BrokerError as error:
            logger.error("publish failed", event_id=event.event_id, topic=event.topic, error=error)
            return False
        return True

    def request(self, topic: str | Event, payload: Any = None, *, timeout: float = 5.0, **fields: Any) -> Any:
        """Publish a request and return what its handler returns, on this bus or another; the first answer wins.

        Raises NoResponders at once when nobody who is there would get it, RequestFailed when the responder failed for
        the last time, RequestTimeout after `timeout` seconds.
        """
        running = self._engine()

        async def ask() -> Any:
            return await (await running.line.started()).request(topic, payload, timeout=timeout, **fields)

        return running.call(ask, timeout + self._tuning.connection_timeout)

    # --- consume ------------------------------------------------------------------------------------------------

    def subscribe(  # noqa: PLR0917 - the promised signature
        self,
        queue_name: str,
        routing_patterns: Sequence[str] | str = (),
        callback: Callable[..., Any] | None = None,
        auto_ack: bool = False,
        enable_dlq: bool = True,
        message_ttl_ms: int | None = None,
    ) -> None:
        """Make a queue known: from now on it keeps every event whose routing key matches one of its patterns.

        The routing key is `{topic}.{band}`, where `*` is one word and `#` any number. Buses that consume the same queue
        share its events; each queue has a copy. The newest declaration of a queue holds. `start_consuming` then calls
        `callback(event)`; it may take a payload model instead, as on the async bus, and what it returns answers a
        request. If it raises, the event is tried again as the retry policy says, and then becomes a dead letter;
        `enable_dlq=False` drops it instead, with an ERROR line and a count. `auto_ack=True` has no retries: at most
        once. What is older than `message_ttl_ms` when it would be handled is expired: counted, and no dead letter.

        `dlq.{queue}` is a view of that queue's dead letters; patterns and `enable_dlq` mean nothing there. A callback
        that returns discards the letter, one that raises keeps it, to be shown again after a pause. Buses of one
        process share the letters; with several processes, each may be shown a letter that another is working on.

        Raises InvalidEvent for a name and InvalidTopic for a pattern that is none, TypeError for a callback that cannot
        be called, SubscriptionConflict where the queue is being consumed here in another way, BrokerError.
        """
        queue = declared(
            queue_name,
            routing_patterns,
            callback,
            auto_ack=auto_ack,
            dead_letters=enable_dlq,
            ttl=message_ttl_ms,
            policy=self._policy,
            prefetch=self._tuning.prefetch_count,
        )
        running = self._engine()
        with self._lock:
            known = self._queues.get(queue.name)
            if queue.name in running.consuming and known is not None and not known.handled_as(queue):
                raise SubscriptionConflict(
                    f"queue {queue.name!r} is being consumed by this bus with another callback or other settings; "
                    "stop_consuming first"
                )
        if queue.spec is not None:
            spec = queue.spec
            running.call(lambda: running.line.declare(spec))
        with self._lock:
            self._queues[queue.name] = queue

    def start_consuming(self, queue_name: str, blocking: bool = True) -> None:
        """Call the queue's callback with its events, one at a time, in a thread of the queue's own.

        With `blocking` it returns when somebody stops it (`stop_consuming`, `close`, Ctrl-C in the main thread), else
        as soon as the queue is consumed. It goes on by itself when the engine was away. Starting twice is starting
        once. Raises SubscriptionNotFound for a queue that was not subscribed here, or that is deleted meanwhile;
        BrokerError.
        """
        try:
            consuming = self._consume(queue_name)
            if blocking:
                self._wait_for(consuming)
        except KeyboardInterrupt:
            if not blocking:
                raise
            self.stop_consuming(queue_name)

    def _consume(self, name: str) -> Consuming:
        running = self._engine()
        while True:
            with self._lock:
                queue = self._queues.get(name)
                if queue is None:
                    raise SubscriptionNotFound(f"queue {name!r:.140} was not subscribed on this bus")
                known = running.consuming.get(name)
                if known is None:
                    feed = partial(self._feed, running, queue)
                    consuming = Consuming(name, feed, lambda gone: running.consuming.pop(gone.name, None))
                    running.consuming[name] = consuming
            if known is None:
                try:
                    running.call(consuming.begin)
                except Closed:
                    if not consuming.stopping:  # else a callback has closed the bus before this was known to have begun
                        raise
                return consuming
            if not known.stopping:
                return known
            if known.worker.here:
                raise RuntimeError(f"queue {name!r} is being stopped: a callback of it cannot start it again")
            self._wait_for(known)

    def _feed(self, running: Running, queue: Queue, worker: Worker) -> Feed:
        if queue.spec is not None:
            return Events(running.line, queue.spec, queue.callback, queue.options, worker)
        letters = queue.name.removeprefix(DEAD)
        claims = self._claims(queue.name)
        auto_ack = queue.options.auto_ack
        return Letters(running.line, letters, queue.callback, self._policy, worker, claims, auto_ack=auto_ack)

    def _claims(self, name: str) -> Claims:
        private = self._address.url == "memory://"
        return claims_of((self._address.url, self.namespace, id(self) if private else 0), name)

    @staticmethod
    def _wait_for(consuming: Consuming) -> None:
        if consuming.worker.here:
            raise RuntimeError(f"a callback of queue {consuming.name!r} cannot wait for the queue's end")
        consuming.ended.wait()
        if consuming.error is not None:
            raise consuming.error

    def stop_consuming(self, queue_name: str) -> None:
        """End the consuming of a queue, of either form; from any thread, a callback or a signal's handler.

        Returns when a callback that runs has finished (after 10 s it is waited for no longer, and its event comes
        again), and what was not started is given back. In a callback of that queue it does not wait. A queue that is
        not consumed is left alone.
        """
        running = self._running
        if running is not None:
            try:
                running.stop_consuming(queue_name)
            except Closed:  # the bus is closed, and with it the queue
                return

    # --- queues -------------------------------------------------------------------------------------------------

    def get_queue_info(self, queue_name: str) -> dict[str, Any] | None:
        """`queue_name`, `message_count` (what is ready) and `consumer_count` (buses that consume it); None if unknown.

        Of `dlq.{queue}`, the dead letters, and how many buses of this process consume them.
        """
        info = self._call(lambda running: running.line.info(queue_name.removeprefix(DEAD)))
        if info is None:
            return None
        if queue_name.startswith(DEAD):
            messages, consumers = info.dead, self._claims(queue_name).consumers
        else:
            messages, consumers = info.ready, info.consumers
        return {"queue_name": queue_name, "message_count": messages, "consumer_count": consumers}

    def purge_queue(self, queue_name: str) -> int:
        """Drop what is ready in a queue, or all that `dlq.{queue}` shows; how many. 0 for a queue that is unknown."""
        return self._call(lambda running: running.line.purge(queue_name))

    def delete_queue(self, queue_name: str) -> bool:
        """Forget a queue, what waits in it and its dead letters; False if it was unknown.

        Who consumes it ends. Raises ValueError for `dlq.…`, which is part of its queue: `purge_queue` empties it.
        """
        if queue_name.startswith(DEAD):
            raise ValueError(
                f"{queue_name!r} is a part of its queue: purge_queue empties it, and it goes with the queue"
            )
        self._engine()
        self.stop_consuming(queue_name)
        with self._lock:
            self._queues.pop(queue_name, None)
        return self._call(lambda running: running.line.delete(queue_name))

    # --- what goes on ---------------------------------------------------------------------------------------------

    def pause(
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

        `name` is a queue, or an agent with the subscriptions that it has now; the others, and what is raised, are as on
        the async bus.
        """
        what: dict[str, Any] = {"agent": agent, "topic": topic, "correlation_id": correlation_id}
        why: dict[str, Any] = {"until": until, "reason": reason, "by": by}
        return self._ask(lambda bus: bus.pause(name, **what, everything=everything, **why))

    def resume(
        self,
        name: str | None = None,
        *,
        agent: str | None = None,
        topic: str | None = None,
        correlation_id: str | None = None,
        everything: bool = False,
    ) -> Sequence[Pause]:
        """Undo one `pause`; each ends for itself. Returns what was paused, and raises as `pause` does."""
        what: dict[str, Any] = {"agent": agent, "topic": topic, "correlation_id": correlation_id}
        return self._ask(lambda bus: bus.resume(name, **what, everything=everything))

    def pauses(self) -> Sequence[Pause]:
        """What is paused now: scope, name, since, until, reason, by; sorted by scope and name."""
        return self._ask(lambda bus: bus.pauses())

    def agents(self) -> Sequence[AgentInfo]:
        """Everybody who is there, or has a subscription that is remembered, by name; the first call takes 1.5 s."""
        return self._ask(lambda bus: bus.agents())

    def trace(self, id: str, *, limit: int = MOST) -> Conversation:
        """The conversation that an event, or a correlation id, belongs to: who caused what, when, and what failed.

        `limit` bounds its events, and its dead letters. Raises ConversationNotFound, InvalidEvent, ValueError.
        """
        return self._ask(lambda bus: bus.trace(id, limit=limit))

    def _ask(self, job: Callable[[AsyncBus], Coroutine[Any, Any, T]]) -> T:
        async def ask(running: Running) -> T:
            return await job(await running.line.started())

        return self._call(ask)

    # --- health -------------------------------------------------------------------------------------------------

    def health_check(self) -> dict[str, Any]:
        """`status` ("healthy" or "unhealthy"), `connected`, and `details`; within some 3 s, whatever the engine does.

        `details` has `host`, `port`, `exchange`, `engine` and `url`, what the async bus says of itself, and `error`
        where something is wrong.
        """
        details: dict[str, Any] = {
            **self._address.place,
            "exchange": exchange_of(self.namespace),
            "engine": self._address.engine,
            "url": self._address.shown,
        }
        try:
            running = self._engine()
            found = running.call(running.line.health, LOOK_SECONDS)
        except BusError as error:
            return {"status": "unhealthy", "connected": False, "details": {**details, "error": str(error)}}
        return {**found, "details": {**details, **found["details"], "not_sent": running.outbox.dropped}}

    # --- the ends of processes ----------------------------------------------------------------------------------

    def _forked(self) -> None:
        """In a forked child: the loop's thread is the parent's, and so are its connections, which nobody may touch."""
        self._lock = threading.RLock()
        if self._running is not None:
            _parents.append(self._running)
            self._running = None
            self._orphan = self._address.engine in _ORPHANS


_open: WeakSet[EventBus] = WeakSet()
_parents: list[Running] = []  # kept: to collect a connection is to close it, with a word to the server


def _at_exit() -> None:
    """Give back what is held, so that others need not wait for the leases to end; callbacks are not waited for."""
    for bus in list(_open):
        bus._close(0, exiting=True)  # noqa: SLF001 - users have close(); how the interpreter ends is for this hook alone


def _after_fork() -> None:
    forget_claims()
    for bus in list(_open):
        bus._forked()  # noqa: SLF001 - a fork is told by the system, to this hook alone
    _open.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(after_in_child=_after_fork)
