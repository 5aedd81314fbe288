"""One process that serves the bus: alone, or as one of several workers, on sockets that it was given."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from wowevent.access.address import Listening, listen
from wowevent.access.keyring import Keyring
from wowevent.access.tls import server_context
from wowevent.bus import EventBus
from wowevent.cli.exits import CommandError
from wowevent.cli.front import Front, let_go_of_stderr, promise_of
from wowevent.cli.pidfile import Record
from wowevent.cli.workers import refuse_unshared
from wowevent.router import EventRouter
from wowevent.schema import SchemaRegistry
from wowevent.service.server import Place
from wowevent.service.server import serve as serve_http
from wowevent.settings import Settings


class Alone:
    """What one process serves, and where; its ports are taken as soon as it is made."""

    def __init__(self, settings: Settings, options: dict[str, Any], log: Path) -> None:
        self._settings = settings
        self._keyring = Keyring.of(settings)
        self._http = self._listen(*at(settings, "http"))
        self._websocket = self._listen(*at(settings, "ws")) if settings.event_bus_enabled else None
        websocket = None if self._websocket is None else self._websocket.url
        self._front = Front(settings, options, log, http=self._http.url, websocket=websocket)

    def _listen(self, scheme: str, port: int) -> Listening:
        allowed = self._settings.allow_anonymous
        return listen(
            scheme, self._settings.host, port, allow_anonymous=allowed, authenticated=self._keyring is not None
        )

    async def run(self, register: Callable[[Record], None] | None, *, detached: bool) -> None:
        """Serve; once it does, say so on stdout and in the record, and with `detached` let go of stderr."""
        bus, router = _assembled(self._settings, self._websocket, None, self._keyring)

        async def started() -> None:
            self._front.show(await promise_of(bus))
            if register is not None:
                register(self._front.record())
            if detached:
                let_go_of_stderr()

        await serve_http(bus, self._http, self._settings, beside=router, started=started, keyring=self._keyring)


class Inherited(Struct, frozen=True):
    """A socket of the process that started us; it listens already if another worker serves there still."""

    fd: int
    url: str

    def take(self) -> Listening:
        """The socket."""
        return Listening(socket.socket(fileno=self.fd), self.url)


class Post(Struct, frozen=True):
    """What one worker is given."""

    number: int
    parent: int
    """See Place."""
    own: Inherited
    http: Inherited
    websocket: Inherited | None
    guarded: bool
    """Whether those before it ask for tokens."""


class Told(Struct, frozen=True):
    """What a worker says on stdout once it serves."""

    engine: str
    namespace: str
    promise: str


async def work(post: Post, settings: Settings) -> None:
    """Serve as one of several.

    Raises CommandError for an engine whose log they could not share, and for less protection than the others have.
    """
    keyring = Keyring.of(settings)
    _check_protection(post, settings, keyring)
    websocket = None if post.websocket is None else post.websocket.take()
    bus, router = _assembled(settings, websocket, post.number, keyring)
    if bus is not None:
        refuse_unshared(bus)

    async def started() -> None:
        told = Told(settings.shown_url(), settings.namespace, await promise_of(bus))
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        sys.stdout.buffer.flush()

    place = Place(post.number, post.own.take(), post.parent)
    await serve_http(bus, post.http.take(), settings, beside=router, started=started, place=place, keyring=keyring)


def _check_protection(post: Post, settings: Settings, keyring: Keyring | None) -> None:
    """CommandError for a worker that would let anybody in, or speak plainly, since the configuration has changed.

    Its sockets were made, and allowed, by what that said when the service was started.
    """
    if post.guarded and keyring is None:
        raise CommandError("config", "the configuration names no tokens any more: stop and start the service for that")
    if at(settings, "http")[0] != post.http.url.partition(":")[0]:
        raise CommandError("config", "the configuration has changed its mind about TLS: stop and start the service")


def at(settings: Settings, protocol: Literal["http", "ws"]) -> tuple[str, int]:
    """The scheme and the port of a protocol; ValueError for TLS that is configured wrongly."""
    secured = "s" if server_context(settings) else ""
    return f"{protocol}{secured}", settings.http_port if protocol == "http" else settings.port


def _assembled(
    settings: Settings, websocket: Listening | None, worker: int | None, keyring: Keyring | None
) -> tuple[EventBus | None, EventRouter | None]:
    """The bus and the router in front of it; neither where the bus is switched off."""
    if websocket is None:
        return None, None
    bus = open_bus(settings)
    router = EventRouter(
        settings.host,
        listening=websocket,
        bus=bus,
        origins=settings.origins,
        hosts=settings.hosts,
        keyring=keyring,
        ssl=server_context(settings),
        worker=worker,
    )
    return bus, router


def open_bus(settings: Settings) -> EventBus:
    """The bus of a service; nothing is opened yet."""
    given: Any = {"namespace": settings.namespace, "max_payload": settings.max_payload}
    return EventBus(settings.engine_url(), **given, registry=SchemaRegistry())
