"""The service: a bus over HTTP. `create_app(bus)` is the ASGI application, `server.serve` runs it beside the bus.

GET  /health, /live, /ready                how it is; always open
GET  /metrics                              numbers: JSON, or for Prometheus its text
POST /events, GET /events                  publish; the history
GET  /events/stream                        what is published, live (Server-Sent Events)
GET  /events/{id}                          one event, and who got it
GET  /overview, /routers, /agents          all processes together; the routers; who is there
GET  /conversations/{id}                   who caused what, and what failed
GET  /topics                               what was published lately, by topic
     /subscriptions, /dead-letters         look, pause, purge, redeliver, forget
     /pauses                               what is paused: an agent, a topic, a conversation, everything
     /storms                               the conversations that went too far
     /redeliveries                         dead letters that are handed out again at a rate
     /replays                              publish a range of the log again
     /schemas                              what payloads are held against
     /schedules                            what is fired at its moments
GET  /openapi.json                         all of this, in full
GET  /, /assets/…                          the pages, which ask for all of this
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Container
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from wowevent.access.keyring import Keyring
from wowevent.access.rates import Rates
from wowevent.access.watch import watch as watch_tokens
from wowevent.bus import EventBus
from wowevent.errors import BusError
from wowevent.service.failures import (
    Refusal,
    answer_bus_error,
    answer_http_error,
    answer_nobody,
    answer_refusal,
    answer_unknown,
)
from wowevent.service.idempotency import Keys
from wowevent.service.jobs import Jobs
from wowevent.service.openapi import DESCRIPTION
from wowevent.service.operation import make_routes
from wowevent.service.pages import ROUTES
from wowevent.service.redeliveries import RedeliveryShown
from wowevent.service.replays import ReplayShown, brief
from wowevent.service.routes import OPERATIONS
from wowevent.service.stream import Streams

BODY_LIMIT: Final = 1024 * 1024
"""Bytes of the largest request body, unless configured."""


def create_app(
    bus: EventBus | None,
    *,
    body_limit: int = BODY_LIMIT,
    hosts: Container[str | None] | None = None,
    origins: Collection[str] = (),
    worker: int | None = None,
    keyring: Keyring | None = None,
) -> Starlette:
    """The ASGI application over a bus that somebody else starts and stops; without a bus it answers health alone.

    `hosts` are the names under which it may be asked for events (None is any), `origins` the web pages that may ask.
    `worker` is the number of one of several processes on a port: /health and /metrics say whose answer it is.
    With a `keyring` whoever asks is asked for a token; `watch(app)` then sees to it that those who began hold on only
    as long as theirs does.
    `app.state.draining = True` makes /ready say no; `drain(app)` also ends what it has under way. While
    `app.state.leaving` every answer is the last one of its connection.
    """
    app = Starlette(
        routes=[*make_routes((*OPERATIONS, DESCRIPTION)), *ROUTES],
        exception_handlers=_HANDLERS,
        middleware=[_shared_with(origins)] if origins else [],
    )
    app.router.redirect_slashes = False  # it would send whoever asks on to whatever Host was asked for
    app.state.bus = bus
    app.state.draining = False
    app.state.leaving = False
    app.state.worker = worker
    app.state.body_limit = body_limit
    app.state.hosts = hosts
    app.state.origins = frozenset(origins)
    app.state.keyring = keyring
    app.state.rates = Rates()
    app.state.keys = Keys()
    app.state.streams = Streams()
    errands = None if bus is None else bus.errands
    app.state.replays = Jobs("replay", "replays", ReplayShown, errands, brief)
    app.state.redeliveries = Jobs("redelivery", "redeliveries", RedeliveryShown, errands)
    return app


async def drain(app: Starlette) -> None:
    """Take nothing more, end the streams, cancel replays and redeliveries; before the bus stops."""
    app.state.draining = True
    app.state.streams.end()
    await asyncio.gather(app.state.replays.close(), app.state.redeliveries.close())


async def watch(app: Starlette) -> None:
    """Read tokens again that changed, and end what those began that hold no more; until cancelled."""
    await watch_tokens(app.state.keyring, app.state.replays.end_fallen, app.state.redeliveries.end_fallen)


def _shared_with(origins: Collection[str]) -> Middleware:
    """A browser asks by this whether a page that may ask may also read what it is answered."""
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=[
            "authorization",
            "content-type",
            "idempotency-key",
            "last-event-id",
            "traceparent",
            "tracestate",
        ],
        expose_headers=["location", "retry-after", "www-authenticate"],
    )


_HANDLERS: Final[dict[Any, Any]] = {
    BusError: answer_bus_error,
    Refusal: answer_refusal,
    ClientDisconnect: answer_nobody,
    HTTPException: answer_http_error,
    Exception: answer_unknown,
}
