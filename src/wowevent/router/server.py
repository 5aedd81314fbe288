"""EventRouter: the bus for anything that speaks WebSocket.

socket -> wire.decode -> session.step -> an effect -> intake | fanout | courier | bus
answers and deliveries -> the client's outbox -> socket
"""

from __future__ import annotations

import asyncio
import ssl as tls
import statistics
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Self

from picows import WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener, ws_create_server

from wowevent.access.address import Listening, check_page, listen, names_of
from wowevent.access.audit import audit
from wowevent.access.keyring import Keyring
from wowevent.access.rights import Identity
from wowevent.attendance import Guests
from wowevent.bus import EventBus
from wowevent.clock import SystemClock
from wowevent.ending import end
from wowevent.errors import Closed, NotPermitted, NotSupported, Unauthenticated
from wowevent.id import new_id
from wowevent.log import logger, websocket_logger
from wowevent.pulse import Connected, RouterPulse
from wowevent.router.connection import Connection
from wowevent.router.desk import Desk
from wowevent.router.door import Door, Turned, reason_of
from wowevent.router.outbox import Outbox
from wowevent.router.session import Session
from wowevent.router.wire import MARGIN, SILENT
from wowevent.wakeup import Wakeup

OUTBOX: Final = 1024 * 1024
"""Bytes that wait for one client at most."""

_GOING_AWAY: Final = 1001
_HANDSHAKE: Final = 10.0  # seconds for a client to say that it wants WebSocket
_READ_BUFFER: Final = 2048  # bytes a client; it grows with what comes
_LAST_WORDS: Final = 2.0  # seconds for the close frames to go out
_DRAIN: Final = 10.0


class EventRouter:
    """A WebSocket server in front of a bus.

    `EventRouter()` runs on memory; `url="sqlite:///…"` on an embedded log; `bus=` in front of one that is there, which
    it neither starts nor stops. `await start()` runs until `stop()`; `async with` serves while its body runs.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 9090,
        max_queue_size: int = 10_000,
        max_clients: int = 1_000,
        use_multi_queue: bool = False,
        *,
        url: str | None = None,
        bus: EventBus | None = None,
        listening: Listening | None = None,
        namespace: str | None = None,
        transport: str | None = None,
        redis_url: str | None = None,
        max_outbox: int = OUTBOX,
        ping_interval: float = 25.0,
        allow_anonymous: bool = False,
        origins: Collection[str] = (),
        hosts: Collection[str] = (),
        keyring: Keyring | None = None,
        ssl: tls.SSLContext | None = None,
        worker: int | None = None,
    ) -> None:
        """`max_queue_size` is the most events that wait for one client, `max_outbox` the most bytes.

        `use_multi_queue` has no meaning here: urgent events overtake in any case. `transport="redis"` takes
        `redis_url`. Port 0 is any that is free; `url` says which; `listening` is a socket that is there already. A
        client is pinged when it was silent for `ping_interval` seconds. `allow_anonymous` lets others than this machine
        in; `origins` are web pages that may connect, `hosts` names under which it may be asked beside this machine's.
        With a `keyring` every client needs a token, and may do what that grants; with `ssl` it is wss://. `worker` is
        the number of one of several routers on a port; its health says it.
        """
        if bus is not None and (url is not None or namespace is not None or transport is not None):
            raise ValueError("a bus has its own url and namespace")
        if max_queue_size < 1 or max_clients < 1 or max_outbox < 1 or ping_interval <= 0:
            raise ValueError("max_queue_size, max_clients, max_outbox and ping_interval are above 0")
        self.host: str = host
        self.max_clients: int = max_clients
        self._port = port
        self._own_bus = bus is None
        self._bus = bus or EventBus(_engine(url, transport, redis_url), namespace=namespace)
        self._max_queue_size = max_queue_size
        self._max_outbox = max_outbox
        self._ping_interval = ping_interval
        self._allow_anonymous = allow_anonymous
        self._origins = frozenset(origins)
        self._hosts = names_of(host, hosts)
        self._ssl = ssl
        self._door = Door(keyring, max_clients)
        self._multi_queue = use_multi_queue
        self._worker = {} if worker is None else {"worker": worker}
        self._clock = SystemClock()
        self._connections: set[Connection] = set()
        self._watches: list[asyncio.Task[None]] = []
        self._given = listening
        self._listening: Listening | None = None
        self._server: asyncio.Server | None = None
        self._ended: asyncio.Event | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._draining = False
        self._left = Wakeup()
        self._slow = 0
        self._delivered = 0
        self._began = self._since = 0.0

    # --- life ---------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it is, once it serves: `ws://localhost:9090`."""
        if self._listening is None:
            raise Closed("the router does not serve yet")
        return self._listening.url

    @property
    def port(self) -> int:
        """The port that it serves, or will."""
        return self._port

    async def start(self) -> None:
        """Serve until `stop` is called, or this call is cancelled."""
        await self.open()
        try:
            if self._ended is not None:
                await self._ended.wait()
        finally:
            await self.stop()

    async def open(self) -> None:
        """Serve; returns when clients can connect. A router that cannot is stopped.

        Raises NotPermitted for a host that others reach, unless there is a keyring or `allow_anonymous`; OSError for a
        port that is taken; BrokerError if the engine refuses.
        """
        if self._server is not None or self._stopping is not None:
            raise Closed("a router is opened once")
        listening = self._given
        if listening is None:
            listening = listen(
                "ws" if self._ssl is None else "wss",
                self.host,
                self._port,
                allow_anonymous=self._allow_anonymous,
                authenticated=self._door.guarded,
            )
        self._ended = asyncio.Event()
        try:
            await self._serve(listening)
        except BaseException:
            if self._server is None:
                listening.socket.close()
            await self.stop()
            raise
        self._listening = listening
        self._port = listening.socket.getsockname()[1]
        self._began = time.monotonic()
        if self._multi_queue:
            logger.info("use_multi_queue has no meaning here: urgent events overtake in any case")
        logger.info("router serves", url=listening.url)

    async def _serve(self, listening: Listening) -> None:
        if self._own_bus:
            await self._bus.start()
        await self._bus.feed.start()
        self._server = await ws_create_server(
            self._accept,
            sock=listening.socket,
            backlog=2048,
            start_serving=False,  # whoever comes finds a desk, and who is cancelled here has a server to close
            websocket_handshake_timeout=_HANDSHAKE,
            enable_auto_pong=False,
            max_frame_size=self._max_message,
            read_buffer_init_size=_READ_BUFFER,
            # On uvloop aiofastnet's transports never hear of a reset that finds data unread (1.2.0, uvloop 0.23.0).
            # With TLS they take each stranger's handshake that fails for a fault of ours, with a traceback in the log.
            use_aiofastnet=False if self._ssl or type(asyncio.get_running_loop()).__module__ == "uvloop" else None,
            logger_name=websocket_logger(),
            ssl=self._ssl,
            ssl_handshake_timeout=None if self._ssl is None else _HANDSHAKE,
        )
        self._desk = Desk(self._bus, self._clock, self._door, self.health)
        self._bus.attendance.front = True
        self._bus.attendance.guests.append(self._guests)
        self._since = time.time()
        self._bus.pulses.routers.append(self)
        self._watches = [asyncio.create_task(self._watching(), name="wowevent:router:watch")]
        if self._door.guarded:
            self._watches.append(asyncio.create_task(self._door.watch(), name="wowevent:router:door"))
        await self._server.start_serving()

    async def stop(self, timeout: float = _DRAIN) -> None:
        """Take nothing more, finish what is under way within `timeout` seconds, say goodbye; stopping twice is once."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(timeout), name="wowevent:router:stop")
        await asyncio.shield(self._stopping)

    async def __aenter__(self) -> Self:
        """Serve."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    async def _stop(self, timeout: float) -> None:
        try:
            if self._server is not None:
                await self._drain(timeout)
        finally:
            await end(*self._watches)
            if self._own_bus:
                await self._bus.stop(timeout)
            if self._ended is not None:
                self._ended.set()

    async def _drain(self, timeout: float) -> None:
        """No new clients and no new events; what clients hold they may finish."""
        self._draining = True
        if self._server is not None:
            self._server.close()
        await self._desk.drain(timeout)
        for connection in list(self._connections):
            connection.close(_GOING_AWAY, "the router is going away")
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                while self._connections:
                    await self._left.wait()
        for connection in list(self._connections):
            connection.abort()
        self._bus.attendance.guests.remove(self._guests)
        self._bus.pulses.routers.remove(self)
        await self._desk.close()
        logger.info("router stopped", clients=len(self._connections))

    # --- clients ------------------------------------------------------------------------------------------------

    @property
    def _max_message(self) -> int:
        return self._bus.max_payload + MARGIN

    def _accept(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        """One handshake: a connection, or why not."""
        if "upgrade" in {token.strip().lower() for token in request.headers.get("Connection", "").split(",")}:
            request.headers["Connection"] = "Upgrade"  # picows knows no lists, and Firefox sends one
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        try:
            check_page(host, origin, hosts=self._hosts, origins=self._origins)
        except NotPermitted as error:
            audit("connect", None, outcome="refused", reason=str(error))
            return _refused(HTTPStatus.FORBIDDEN, str(error))
        if self._draining:
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "the router is going away")
        try:
            who = self._door.ask(request)
        except NotPermitted as error:
            audit("connect", None, outcome="refused", reason=reason_of(error))
            bad = isinstance(error, Unauthenticated)
            return _refused(HTTPStatus.UNAUTHORIZED if bad else HTTPStatus.FORBIDDEN, str(error))
        if isinstance(who, Turned):
            audit("connect", None, outcome="refused", reason=who.reason)
            return _refused(who.status, who.reason)
        return Connection(
            Session(new_id(), self._bus.max_payload, guarded=self._door.guarded),
            Outbox(self._max_outbox, self._max_queue_size),
            max_message=self._max_message,
            opened=partial(self._opened, identity=who),
            received=self._desk.received,
            gone=self._gone,
        )

    def _opened(self, connection: Connection, identity: Identity | None) -> None:
        self._connections.add(connection)
        self._door.enter(connection, identity)
        self._bus.attendance.change()
        connection.send(connection.session.welcome(datetime.now(UTC).isoformat().replace("+00:00", "Z")))

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._door.leave(connection)
        self._left.notify()
        self._slow += connection.slow
        self._delivered += connection.delivered
        self._desk.gone(connection)
        self._bus.attendance.change()

    def _guests(self) -> Guests:
        """Who is here by way of this router."""
        return self._desk.guests(agent for each in self._connections if (agent := each.session.agent) is not None)

    async def _watching(self) -> None:
        """Ping who is silent, and cut off who does not answer."""
        period = self._ping_interval / 4
        while True:
            await asyncio.sleep(period)
            now = asyncio.get_running_loop().time()
            for connection in list(self._connections):
                silent = now - connection.heard_at
                if not connection.reading:
                    continue
                if silent > 2 * self._ping_interval and connection.pinged:
                    connection.close(SILENT, "you did not answer pings")
                elif silent > self._ping_interval and not connection.pinged:
                    connection.ping()

    # --- health -------------------------------------------------------------------------------------------------

    def pulse(self) -> RouterPulse:
        """What it says of itself to whoever looks at all routers."""
        return RouterPulse(
            clients=len(self._connections),
            named=len(self._desk.couriers),
            events_processed=self._desk.intake.stored,
            since=self._since,
        )

    def connected(self) -> Sequence[Connected]:
        """Its clients, in the order in which they came."""
        return [
            Connected(
                name=each.session.agent,
                address=each.peer,
                since=each.since,
                subscriptions=len(each.members) + len(each.seats),
                outbox_bytes=each.outbox.bytes,
            )
            for each in sorted(self._connections, key=_since)
        ]

    async def health(self) -> dict[str, Any]:
        """How the router is: `status`, counts since it serves, what waits now; durations in seconds."""
        engine = await self._bus.health()
        connections, desk = self._connections, self._desk
        return {
            "status": "draining" if self._draining else engine["status"],
            "uptime": time.monotonic() - self._began,
            "clients": len(connections),
            "max_clients": self.max_clients,
            "subscriptions": len(desk.fanout) + sum(len(courier.seats) for courier in desk.couriers.values()),
            "events_processed": desk.intake.stored,
            "events_delivered": self._delivered + sum(connection.delivered for connection in connections),
            "events_refused": desk.intake.refused,
            "events_failed": sum(courier.counts.failed for courier in desk.couriers.values()),
            "queue_depth": len(desk.intake) + sum(connection.outbox.events for connection in connections),
            "slow_clients": self._slow + sum(connection.slow for connection in connections),
            "latency": _percentiles(desk.intake.seconds),
            "engine": engine,
            **self._worker,
        }


def _since(connection: Connection) -> float:
    return connection.since


def _engine(url: str | None, transport: str | None, redis_url: str | None) -> str:
    """The engine's URL from what the constructor was given."""
    if transport not in {None, "memory", "redis"}:
        raise NotSupported(f"transport {transport!r:.40}: memory or redis, or give a url")
    if transport == "redis" or redis_url is not None:
        if url is not None:
            raise ValueError("url and redis_url exclude each other")
        return redis_url or "redis://localhost:6379"
    return url or "memory://"


def _refused(status: HTTPStatus, reason: str) -> WSUpgradeResponseWithListener:
    body = reason.encode("utf-8", "backslashreplace") + b"\n"
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, body, headers), None)


def _percentiles(seconds: Collection[float]) -> dict[str, float]:
    """Of how long publishing took, from an event's arrival to its confirmation."""
    if len(seconds) < 2:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}
