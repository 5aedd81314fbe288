"""uvicorn and the bus on one loop: listen, start, serve, and on SIGTERM or SIGINT drain.

listen -> start the bus, again and again while its engine is away -> serve
signal -> not ready -> the bus finishes what is under way -> the last answers -> closed

One of several processes on a port first leaves what comes to the others: what it was asked already it still answers.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

import uvicorn
from msgspec import Struct
from starlette.applications import Starlette

from wowevent.access.address import Listening, names_of
from wowevent.access.keyring import Keyring
from wowevent.access.tls import server_context
from wowevent.bus import EventBus
from wowevent.ending import end
from wowevent.errors import BrokerError
from wowevent.log import logger
from wowevent.process.loop import ending
from wowevent.service import create_app, drain, watch
from wowevent.service.connection import LAST_ANSWERS, http_server
from wowevent.settings import Settings

_DRAIN: Final = 10.0  # seconds for replays, for what is beside and for the bus to finish, all together;
_LEAST: Final = 1.0  # but so many for each, however long those before it took
_ARRIVING: Final = 0.2  # seconds for a connection that was taken to be known
_ONCE_MORE: Final = 1.0  # seconds in which who is connected asks once more, and is told that it was the last time
_AT_ONCE: Final = 2.0  # seconds for which the start of the bus is waited for before `started()`
_FIRST: Final = 5.0  # seconds for which one of several is not seen until its bus runs
_BACKOFF: Final = (0.25, 2.0)  # seconds, first and longest pause while the engine is away at start


class Place(Struct, frozen=True):
    """The place of one of several processes that serve on the same ports."""

    number: int
    """From 1."""
    own: Listening
    """Where this one alone is asked how it is."""
    parent: int
    """A file descriptor that can be read once the process that started us is gone: then we end, too."""


class Beside(Protocol):
    """Something else in front of the same bus, such as a router."""

    async def open(self) -> None:
        """Serve; the bus runs by then."""
        ...

    async def stop(self, timeout: float) -> None:
        """Finish what is under way within `timeout` seconds, before the bus ends."""
        ...


async def serve(
    bus: EventBus | None,
    listening: Listening,
    settings: Settings,
    *,
    beside: Beside | None = None,
    started: Callable[[], Awaitable[object]] | None = None,
    place: Place | None = None,
    keyring: Keyring | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; `started()` is called when requests are answered and the bus runs.

    It is not waited for long: an engine that is away does not keep the service from saying so.

    Raises BrokerError for an engine that refuses for good, and OSError for a socket that cannot be listened on; what
    `started` raises ends it, too. An engine that is away only makes the service not ready.
    """
    if bus is not None:
        bus.attendance.front = True
    told = ending(None if place is None else place.parent)
    app = create_app(
        bus,
        body_limit=settings.max_body,
        hosts=names_of(settings.host, settings.hosts),
        origins=settings.origins,
        worker=None if place is None else place.number,
        keyring=keyring,
    )
    server = http_server(app, server_context(settings))
    sockets = [listening.socket] if place is None else [listening.socket, place.own.socket]
    starting = asyncio.create_task(_start(bus, beside), name="wowevent:start")
    first = None if place is None else starting
    serving = asyncio.create_task(_serve_http(server, sockets, first), name="wowevent:http")
    waiting = asyncio.create_task(told.wait(), name="wowevent:signal")
    watching = asyncio.create_task(watch(app), name="wowevent:tokens")
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has a flag, and no event
            await asyncio.sleep(0.01)
        await asyncio.wait({waiting, serving, starting}, timeout=_AT_ONCE, return_when=asyncio.FIRST_COMPLETED)
        if started is not None and not _failed(starting) and not serving.done():
            await started()
        await asyncio.wait({waiting, serving, starting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and not _failed(starting):
            await asyncio.wait({waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
        if place is not None and not serving.done():
            await _leave_to_others(app, server)
    finally:
        try:
            await _drain(app, bus, beside, starting)
        finally:
            server.should_exit = True
            await asyncio.wait({serving})
            await end(waiting, watching)
    for task in (starting, serving):
        if _failed(task):
            task.result()


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


async def _serve_http(server: uvicorn.Server, sockets: list[socket.socket], first: asyncio.Task[None] | None) -> None:
    """Serve until told to end; if something is to be done first, once that is so, or it takes too long.

    At a port that several share, whoever listens is asked: it has to be able to answer.
    """
    if first is not None:
        await asyncio.wait({first}, timeout=_FIRST)
    await server.serve(sockets=sockets)


async def _leave_to_others(app: Starlette, server: uvicorn.Server) -> None:
    """Take no more connections at the shared port, and answer what came by those that are there."""
    server.servers[0].close()
    app.state.leaving = True
    app.state.streams.end()
    began = time.monotonic()
    passed = 0.0
    while passed < _ARRIVING or (server.server_state.connections and passed < LAST_ANSWERS):
        if passed > _ONCE_MORE:
            for connection in list(server.server_state.connections):
                connection.shutdown()  # now if it is idle, else behind its answer
        await asyncio.sleep(0.05)
        passed = time.monotonic() - began


async def _start(bus: EventBus | None, beside: Beside | None) -> None:
    """Start the bus, again and again while its engine is away, then what is beside it."""
    await _start_bus(bus)
    if beside is not None:
        await beside.open()


async def _start_bus(bus: EventBus | None) -> None:
    pause = _BACKOFF[0]
    while bus is not None:
        try:
            return await bus.start()
        except BrokerError as error:
            if not error.retryable:
                raise
            logger.error("the engine does not answer, starting is tried again", error=error, retry_in=pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _BACKOFF[1])
    return None


async def _drain(app: Starlette, bus: EventBus | None, beside: Beside | None, starting: asyncio.Task[None]) -> None:
    """Say that no more should come, then let the bus finish what it has."""
    app.state.draining = True
    logger.info("draining", seconds=_DRAIN)
    until = time.monotonic() + _DRAIN

    def left() -> float:
        return max(_LEAST, until - time.monotonic())

    await end(starting)
    with suppress(TimeoutError):  # an engine that is away keeps a replay from ending
        async with asyncio.timeout(_DRAIN):
            await drain(app)
    if beside is not None:
        await beside.stop(left())
    if bus is not None:
        await bus.stop(timeout=left())
    logger.info("stopped")
