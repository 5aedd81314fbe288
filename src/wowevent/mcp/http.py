"""The server over streamable HTTP, at /mcp: each request is admitted by itself, by its page and by its token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from wowevent.access.address import Listening, is_loopback, listen, names_of
from wowevent.access.keyring import Keyring
from wowevent.access.rates import Rates
from wowevent.access.tls import server_context
from wowevent.errors import BusError, NotPermitted, Unauthenticated
from wowevent.log import logger
from wowevent.mcp.call import Caller
from wowevent.mcp.line import Line
from wowevent.mcp.server import Server
from wowevent.mcp.tool import Tool
from wowevent.service.access import ANYBODY, admit, asker
from wowevent.service.failures import answer_bus_error, answer_http_error, answer_unknown
from wowevent.service.loop import ending
from wowevent.service.server import http_server
from wowevent.settings import Settings

PATH: Final = "/mcp"

_LOOK: Final = 0.5  # seconds between two looks at the tokens


def take(host: str, port: int, settings: Settings, keyring: Keyring | None) -> Listening:
    """The socket; NotPermitted for a host that others can reach where nobody is asked for a token."""
    if keyring is None and not is_loopback(host):
        raise NotPermitted(f"{host} can be reached by others: that takes a file of tokens (--tokens, WOWEVENT_TOKENS)")
    scheme = "http" if server_context(settings) is None else "https"
    return listen(scheme, host, port, allow_anonymous=False, authenticated=keyring is not None)


async def serve(
    tools: Iterable[Tool],
    line: Line,
    listening: Listening,
    settings: Settings,
    *,
    allow_changes: bool,
    keyring: Keyring | None,
    started: Callable[[str], object],
) -> None:
    """Serve until SIGTERM or SIGINT; `started(url)` is called once it does. `settings.host` is where it listens."""
    told = ending()
    server = Server(tools, line, allow_changes=allow_changes, caller=lambda request: _caller(request, keyring))
    manager = StreamableHTTPSessionManager(server.protocol, stateless=True, max_request_body_size=settings.max_body)
    http = http_server(_app(manager, settings, keyring), server_context(settings))
    async with manager.run():
        serving = asyncio.create_task(http.serve(sockets=[listening.socket]), name="wowevent:mcp:http")
        waiting = asyncio.create_task(told.wait(), name="wowevent:signal")
        watching = asyncio.create_task(_watch(keyring), name="wowevent:tokens")
        try:
            while not http.started and not serving.done():  # noqa: ASYNC110 - uvicorn has a flag, and no event
                await asyncio.sleep(0.01)
            started(f"{listening.url}{PATH}")
            await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            watching.cancel()
            http.should_exit = True
            await line.close()
            await asyncio.gather(serving, waiting, watching, return_exceptions=True)


def _app(manager: StreamableHTTPSessionManager, settings: Settings, keyring: Keyring | None) -> Starlette:
    handlers: dict[Any, Any] = {
        BusError: answer_bus_error,
        HTTPException: answer_http_error,
        Exception: answer_unknown,
    }
    app = Starlette(routes=[Route(PATH, _Door(manager))], exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.state.hosts = names_of(settings.host, settings.hosts)
    app.state.origins = frozenset(settings.origins)
    app.state.keyring = keyring
    app.state.rates = Rates()
    app.state.leaving = False
    return app


class _Door:
    """An ASGI application that lets in who is admitted; the SDK's own checks know neither our tokens nor our names."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        request.state.action = f"{request.method} {PATH}"
        admit(request, ANYBODY)
        await self._manager.asgi_app(scope, receive, send)


def _caller(request: Request, keyring: Keyring | None) -> Caller:
    """Who was admitted with this request; Unauthenticated for nobody, where tokens are asked for."""
    if keyring is None:
        return Caller(remote=True)
    identity = asker(request)
    if identity is None:
        raise Unauthenticated("a token is needed", "not admitted")
    return Caller(identity, remote=True, stands=lambda: keyring.stands(identity))


async def _watch(keyring: Keyring | None) -> None:
    """Read tokens again that changed, until cancelled."""
    while keyring is not None:
        try:
            keyring.refresh()
        except Exception as error:  # noqa: BLE001 - whatever happens, the next look must come
            logger.error("tokens could not be looked at", exc_info=error)
        await asyncio.sleep(_LOOK)
