"""The service: a bus over HTTP. `create_app(bus)` is the ASGI application, `server.serve` runs it beside the bus.

GET  /health   is everything well? always open
GET  /ready    may traffic come? always open
POST /events   publish
GET  /events   the history
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from wowevent.bus import EventBus
from wowevent.errors import BusError
from wowevent.service.events import history, publish
from wowevent.service.failures import answer_bus_error, answer_http_error, answer_nobody, answer_unknown
from wowevent.service.health import health, ready

BODY_LIMIT: Final = 1024 * 1024
"""Bytes of the largest request body, unless configured."""


def create_app(
    bus: EventBus | None,
    *,
    body_limit: int = BODY_LIMIT,
    hosts: Collection[str] | None = None,
    origins: Collection[str] = (),
) -> Starlette:
    """The ASGI application over a bus that somebody else starts and stops; without a bus it answers health alone.

    `hosts` are the names under which it may be asked for events (None is any), `origins` the web pages that may ask.
    `app.state.draining = True` makes /ready say no.
    """
    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/ready", ready),
            Route("/events", history, methods=["GET"]),
            Route("/events", publish, methods=["POST"]),
        ],
        exception_handlers=_HANDLERS,
    )
    app.state.bus = bus
    app.state.draining = False
    app.state.body_limit = body_limit
    app.state.hosts = None if hosts is None else frozenset(hosts)
    app.state.origins = frozenset(origins)
    return app


_HANDLERS: Final[dict[Any, Any]] = {
    BusError: answer_bus_error,
    ClientDisconnect: answer_nobody,
    404: answer_http_error,
    405: answer_http_error,
    415: answer_http_error,
    Exception: answer_unknown,
}
