"""EventRouterClient: a router's events and requests for code with an event loop.

    publish ──> outgoing (outbox) ──> link ──> router
    router ──> link ──> roster (subscription, inbox) ──> workers ──> handler ──> settling ──> link ──> router

What the frames mean is in `docs/websocket.md`.
"""

from __future__ import annotations

import asyncio
import os
import ssl as tls
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from wowevent.access.address import carries_token, is_loopback
from wowevent.access.tls import client_context
from wowevent.client.connection import Address, Connection, Token, check_token
from wowevent.client.link import Hooks, Link, Pace
from wowevent.client.outbox import Outbox
from wowevent.client.outgoing import Outgoing
from wowevent.client.roster import Member, Roster
from wowevent.client.subscription import Counters, Start, wanted
from wowevent.clock import Clock, SystemClock
from wowevent.errors import BrokerUnavailable, Closed, InvalidEvent, SubscriptionNotFound
from wowevent.event import Event, check_name, checked
from wowevent.id import new_id
from wowevent.log import logger
from wowevent.router.wire import (
    Delivered,
    Error,
    Events,
    GetHealth,
    Hello,
    Published,
    Reset,
    ServerFrame,
    Unsubscribed,
)
from wowevent.wakeup import Wakeup

__all__ = ["Counters", "EventRouterClient"]

OUTBOX_EVENTS: Final = 10_000
OUTBOX_BYTES: Final = 16 * 1024 * 1024
TOKEN: Final = "WOWEVENT_TOKEN"  # noqa: S105 - a name, and no token
"""Where the environment says the token, for who gives none."""
CA: Final = "WOWEVENT_CA"
"""And the file of authorities that a router's certificate may come from."""

F = TypeVar("F", bound=Callable[..., Any])


class EventRouterClient:
    """One agent's connection to a router; it survives the connection's breaks.

    When the connection breaks it is made again: after a random part of `reconnect_interval` seconds, which grows by
    `reconnect_decay` with each attempt up to `max_reconnect_interval`, and is what it was once a connection has held.
    Close codes 1008 and 4500 to 4999, HTTP 401 and 403 end that: the router does not know this token, or any more, or
    does not want this client. What is published meanwhile waits in an outbox of
    `max_outbox` events and `max_outbox_bytes`; it is sent in its order, before anything newer. Subscriptions go on
    where they were. With `auto_reconnect=False` everything ends with the connection.

    A ping goes out each `heartbeat_interval` seconds; a router that does not answer one within `timeout` is taken to be
    gone. No wait for the router is longer than `timeout`.

    Handlers run beside the receive loop: one at a time for each subscription unless it says otherwise, urgent events
    first, the others of a level in order. They may do everything that a client can do. At most once for an anonymous
    subscription; at least once for a named one. An event of a named subscription that comes again while it is handled,
    or after that while its acknowledgement may not have arrived, is not handled again.
    """

    def __init__(  # noqa: PLR0917 - the promised signature
        self,
        url: str = "ws://localhost:9090",
        auto_reconnect: bool = True,
        reconnect_interval: float = 1.0,
        max_reconnect_interval: float = 30.0,
        reconnect_decay: float = 1.5,
        heartbeat_interval: float = 30.0,
        timeout: float = 10.0,
        *,
        agent: str | None = None,
        token: Token | None = None,
        ssl: tls.SSLContext | None = None,
        ca: str | os.PathLike[str] | None = None,
        max_outbox: int = OUTBOX_EVENTS,
        max_outbox_bytes: int = OUTBOX_BYTES,
        clock: Clock | None = None,
    ) -> None:
        """`agent` is the source of what is published without one, and gets what is targeted to it.

        `token` says who this is, where the router asks for that: WOWEVENT_TOKEN unless it is given ("" for none); its
        agent is the token's then. A function of no arguments, sync or async, is asked for it at each connection: where
        tokens are short, the next one is there when one has expired.

        For wss:// the certificate is checked against the system's authorities, those in the file `ca` (WOWEVENT_CA), or
        as `ssl` says.
        """
        _check_url(url)
        if ssl is not None and ca is not None:
            raise ValueError("ssl and ca exclude each other: a context has its own authorities")
        if min(reconnect_interval, max_reconnect_interval, heartbeat_interval, timeout) <= 0 or reconnect_decay < 1:
            raise ValueError("intervals and timeout are seconds above 0, reconnect_decay is 1 or more")
        if max_outbox < 1 or max_outbox_bytes < 1:
            raise ValueError("max_outbox and max_outbox_bytes are above 0")
        self.url: str = url
        self.agent: str | None = None if agent is None else checked(check_name, agent)
        self.counters: Counters = Counters()
        """What happened since this client was made."""
        self._timeout = timeout
        self._jobs: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        clock = SystemClock() if clock is None else clock
        pace = Pace(
            auto_reconnect=auto_reconnect,
            reconnect_interval=reconnect_interval,
            max_reconnect_interval=max_reconnect_interval,
            reconnect_decay=reconnect_decay,
            heartbeat_interval=heartbeat_interval,
            timeout=timeout,
        )
        hooks = Hooks(opened=self._opened, lost=self._lost, restored=lambda: self._roster.restored, took=self._took)
        hello = Hello(batch=True, agent=self.agent, client=new_id())
        self._link = Link(_address(url, token, ssl, ca), hello, pace, clock=clock, hooks=hooks)
        self._outgoing = Outgoing(
            self._link,
            Outbox(max_outbox, max_outbox_bytes),
            pace,
            agent=self.agent,
            clock=clock,
            counters=self.counters,
        )
        self._roster = Roster(
            self._link, retry=reconnect_interval, clock=clock, counters=self.counters, reply=self._outgoing.reply
        )

    # --- life -------------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link.connection is not None

    @property
    def closed(self) -> bool:
        """Neither connected nor about to be: before `connect`, after `disconnect`, when the router wants us no more."""
        return not self._link.running

    async def connect(self) -> None:
        """Be connected, with the subscriptions there are; to connect twice is to connect once.

        Raises BrokerUnavailable for a router that is not there, does not answer within `timeout` or is none;
        NotPermitted for one that refuses us. Then nothing is left running.
        """
        if self._closing is not None:
            if self._in_handler:
                raise Closed("this client is disconnecting")
            await asyncio.shield(self._closing)
        self._roster.resume()
        await self._link.connect()

    async def disconnect(self) -> None:
        """Say goodbye. Disconnecting twice is disconnecting once; `connect` may follow.

        Within `timeout` seconds publishes are confirmed, if there is a connection, and running handlers end; those that
        do not are cancelled. What named subscriptions hold is given back. Events that were not confirmed stay for the
        next `connect`; anonymous subscriptions begin anew with it, and streams are over.

        In a handler it returns at once: the rest happens when the handler has returned. A further `disconnect()`
        outside waits for that.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="wowevent:client:close")
            self._closing.add_done_callback(self._is_closed)
        if not self._in_handler:
            await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        """Connect."""
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self.disconnect()

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout
        try:
            await asyncio.gather(*[workers.finish(self._timeout) for workers in self._roster.workers])
            async with asyncio.timeout_at(until):
                await self._outgoing.drained()
        except TimeoutError:
            logger.warning("disconnecting without confirmation of what was published", url=self.url)
        await self._link.close()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self._roster.reset()
        self._outgoing.forget()

    def _is_closed(self, task: asyncio.Task[None]) -> None:
        self._closing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("disconnecting failed", url=self.url, exc_info=error)

    @property
    def _in_handler(self) -> bool:
        return any(workers.busy_here for workers in self._roster.workers)

    # --- publishing -------------------------------------------------------------------------------------------------

    async def publish(
        self,
        topic: str | Event,
        payload: Any = None,
        priority: int | str | None = None,
        type: str | None = None,
        target: str | None = None,
        **fields: Any,
    ) -> str:
        """Publish an event, made of these and other fields of it or given as one; returns its id.

        Returns once the router has stored it. While it is away, or if it does not confirm within `timeout`, the event
        waits in the outbox, and is stored once however often it is sent. In a handler, correlation, parent and hops are
        inherited. Raises InvalidEvent, and OutboxFull, before anything is taken; else what the router refuses it with.
        """
        named = {"priority": priority, "type": type, "target": target}
        event = self._outgoing.stamped(_event(topic, payload, named | fields))
        if not self._link.running or (self._closing is not None and not self._in_handler):
            raise self._link.absent() if self._closing is None else Closed("this client is disconnecting")
        await self._outgoing.publish(event)
        return event.event_id

    async def request(self, topic: str | Event, payload: Any = None, timeout: float = 5.0, **fields: Any) -> Any:
        """Publish an event and return what its handler returned; `timeout` in seconds.

        Raises NoResponders, RequestFailed, RequestTimeout; BrokerUnavailable if the connection breaks meanwhile.
        """
        if not 0 < timeout <= 3600:
            raise ValueError(f"timeout: {timeout!r:.40} is not a number of seconds above 0, 3600 at most")
        event = self._outgoing.stamped(_event(topic, payload, fields))
        return await self._outgoing.request(event, timeout)

    # --- subscribing ------------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        topics: str | Sequence[str] | None = None,
        types: Iterable[str] | None = None,
        priorities: Iterable[int | str] | None = None,
        callback: Callable[..., Any] | None = None,
        *,
        min_priority: int | str | None = None,
        sources: Iterable[str] | None = None,
        name: str | None = None,
        subscription: str | None = None,
        start: Start = "new",
        lease: float | None = None,
        max_retries: int | None = None,
        credit: int | None = None,
        concurrency: int = 1,
    ) -> str:
        """Call `callback` with every event that matches; returns an id for `unsubscribe`, good in all connections.

        With a `name` (the agent) or a `subscription` (an identity) it is remembered: it catches up after downtime, what
        raises is tried again and buried at last, and all that use the name share the work. Without, it is live; a
        callback with several such subscriptions gets an event once (of the last 20,000). `start`: "new", and for a
        named one "first" or a time; or a position. `credit`: how many events may wait here unacknowledged.

        Before `connect` and while the router is away it is noted, and asked for with the next connection. Else raises
        what the router refuses it with; BrokerUnavailable if it does not answer within `timeout`.
        """
        want = wanted(
            topics,
            types=types,
            priorities=priorities,
            min_priority=min_priority,
            sources=sources,
            name=name,
            subscription=subscription,
            start=start,
            lease=lease,
            max_retries=max_retries,
            credit=credit,
        )
        if callback is None:
            raise TypeError("subscribe needs a callback; stream() is for a loop over events")
        member = self._roster.listen(want, callback, concurrency)
        await self._served(member)
        return member.subscription.id

    def on(self, pattern: str | Sequence[str], name: str | None = None, **settings: Any) -> Callable[[F], F]:
        """`subscribe` as a decorator, at any time; what is published behind it is seen by it.

        If the router refuses it, that is logged as an ERROR.
        """
        concurrency = settings.pop("concurrency", 1)
        want = wanted(pattern, name=name, **settings)

        def decorate(handler: F) -> F:
            self._roster.listen(want, handler, concurrency)
            return handler

        return decorate

    async def unsubscribe(self, sub_id: str) -> None:
        """End a subscription; returns when the router has. What the bus remembers of a named one stays.

        A running handler of a named one is waited for, and its event acknowledged before. Called in that handler, it
        returns at once, and the rest happens when the handler has returned. SubscriptionNotFound for an unknown id.
        """
        member = self._roster.get(sub_id)
        if member is None:
            raise SubscriptionNotFound(f"this client has no subscription {sub_id!r:.80}")
        leave = self._roster.leave(member, self._timeout)
        workers = member.workers
        if member.subscription.settling is not None and workers is not None and workers.busy_here:
            member.subscription.over = workers.stopped = True
            self._later(leave)
        else:
            await leave

    async def stream(
        self, patterns: str | Sequence[str], *, name: str | None = None, **settings: Any
    ) -> AsyncGenerator[Event, None]:
        """The events that match, for `async for`; subscribed from the first step on, as `subscribe` does.

        Of a named one, an event is acknowledged when the next is asked for. The one on which the loop is left, by break
        or by an exception, is given back as it was. Leaving the loop unsubscribes; `contextlib.aclosing` makes that
        certain at its end. `disconnect` ends the loop.
        """
        if not self._link.running:
            raise self._link.absent()
        news = Wakeup()
        member = self._roster.pull(wanted(patterns, name=name, **settings), news.notify)
        subscription = member.subscription
        try:
            await self._served(member)
            while True:
                lease = subscription.inbox.pop()
                if lease is not None:
                    yield lease.event
                    subscription.settle(lease, None)
                    self._roster.progress(member)
                elif subscription.over:
                    return
                elif self._link.ended is not None:
                    raise self._link.ended
                else:
                    await news.wait()
        finally:
            if not subscription.over:
                await self._roster.leave(member, self._timeout)

    async def _served(self, member: Member) -> None:
        """Return once the router serves it, or cannot be asked now; else it is forgotten, and the reason raised."""
        if member.subscription.state != "asked":
            return
        answered = member.subscription.answered = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout):
                await answered
        except TimeoutError as error:
            self._roster.drop(member)
            raise BrokerUnavailable(f"{self.url} did not answer a subscribe within {self._timeout:g} s") from error
        except BaseException:
            self._roster.drop(member)
            raise
        finally:
            member.subscription.answered = None

    # --- asking -----------------------------------------------------------------------------------------------------

    async def get_health(self) -> dict[str, Any]:
        """How the router is; BrokerUnavailable if it does not say within `timeout`."""
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._link.ready()
                health: dict[str, Any] = (await connection.ask(GetHealth())).health
        except TimeoutError as error:
            raise BrokerUnavailable(f"{self.url} did not answer within {self._timeout:g} s") from error
        return health

    # --- the link ---------------------------------------------------------------------------------------------------

    def _opened(self, connection: Connection) -> None:
        """First the subscriptions, so that they see what follows."""
        self.counters.reconnects = self._link.reconnects
        self._roster.opened(connection)
        self._outgoing.opened(connection)

    def _lost(self) -> None:
        self._roster.lost()
        self._outgoing.lost()

    def _took(self, frame: ServerFrame) -> None:
        """What nobody asked for by a question of his own."""
        match frame:
            case Events():
                for item in frame.events:
                    self._roster.take(item)
            case Delivered():
                self._roster.take(frame)
            case Published() | Error():
                self._outgoing.answer(frame)
            case Reset():
                self._roster.lose(frame)
            case Unsubscribed():
                self._roster.removed(frame)
            case _:
                logger.debug("the router answers what nobody waits for any more")

    def _later(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job, name="wowevent:client:leave")
        self._jobs.add(task)
        task.add_done_callback(self._job_done)

    def _job_done(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("unsubscribing failed", url=self.url, error=error)


def _check_url(url: str) -> None:
    """ValueError for what is no router's, and, without showing it, for one that carries a secret."""
    if not url.startswith(("ws://", "wss://")):
        raise ValueError(
            f"{url.partition('?')[0]!r:.200} is not the url of a router: ws://host:port or wss://host:port"
        )
    if urlsplit(url).username is not None or carries_token(url):
        raise ValueError("a url is logged, and no place for a secret: say token=, or WOWEVENT_TOKEN")


def _address(url: str, token: Token | None, ssl: tls.SSLContext | None, ca: str | os.PathLike[str] | None) -> Address:
    """Where to go, and with what. ValueError for what cannot be a token, or a file without authorities in it."""
    token = os.environ.get(TOKEN) if token is None else token
    if not callable(token):
        token = check_token(token) if token else None
    if url.startswith("wss://"):
        if ssl is None and (given := ca or os.environ.get(CA)):
            ssl = client_context(Path(given))
        return Address(url, token, ssl)
    if token is not None and not _is_here(urlsplit(url).hostname or ""):
        logger.warning("the token goes where others can read it, unless the network is private: use wss://", url=url)
    return Address(url, token)


def _is_here(host: str) -> bool:
    return is_loopback(host) or host in {"0.0.0.0", "::"}  # noqa: S104 - asked at, it is this machine


def _event(topic: str | Event, payload: Any, fields: dict[str, Any]) -> Event:
    """The event of `publish`; InvalidEvent says what is wrong with it."""
    given = {name: value for name, value in fields.items() if value is not None}
    if not isinstance(topic, Event):
        return Event(topic=topic, payload=payload, **given)
    if payload is not None or given:
        raise InvalidEvent(f"an event has its own payload, {', '.join(given) or 'and all else'}")
    return topic
