"""The server over streamable HTTP, at /mcp: each request is admitted by itself, by its page and by its token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
from wowevent.access.watch import watch
from wowevent.ending import end
from wowevent.errors import BusError, NotPermitted, Unauthenticated
from wowevent.mcp.call import Caller
from wowevent.mcp.server import Server
from wowevent.process.loop import ending
from wowevent.service.access import ANYBODY, admit, asker
from wowevent.service.connection import http_server
from wowevent.service.failures import answer_bus_error, answer_http_error, answer_unknown
from wowevent.settings import Settings

PATH: Final = "/mcp"


def take(host: str, port: int, settings: Settings, keyring: Keyring | None) -> Listening:
    """The socket; NotPermitted for a host that others can reach where nobody is asked for a token."""
    if keyring is None and not is_loopback(host):
        raise NotPermitted(f"{host} can be reached by others: that takes a file of tokens (--tokens, WOWEVENT_TOKENS)")
    scheme = "http" if server_context(settings) is None else "https"
    return listen(scheme, host, port, allow_anonymous=False, authenticated=keyring is not None)


async def serve(server: Server, listening: Listening, settings: Settings, *, keyring: Keyring | None) -> None:
    """Serve until SIGTERM or SIGINT; says where on stdout, once it does."""
    told = ending()
    async with serving(server, listening, settings, keyring=keyring) as url:
        print(f"mcp server: {url}", flush=True)  # noqa: T201 - a command's output, when there is somebody to answer
        await told.wait()


@asynccontextmanager
async def serving(
    server: Server, listening: Listening, settings: Settings, *, keyring: Keyring | None
) -> AsyncIterator[str]:
    """Serve as long as this is entered; gives the URL. `settings.host` is where it listens."""
    manager = StreamableHTTPSessionManager(  # one answer a request: no tool says anything meanwhile, none takes long
        server.protocol, json_response=True, stateless=True, max_request_body_size=settings.max_body
    )
    http = http_server(_app(manager, settings, keyring), server_context(settings))
    async with manager.run():
        answering = asyncio.create_task(http.serve(sockets=[listening.socket]), name="wowevent:mcp:http")
        watching = asyncio.create_task(watch(keyring), name="wowevent:tokens")
        try:
            while not http.started and not answering.done():  # noqa: ASYNC110 - uvicorn has a flag, and no event
                await asyncio.sleep(0.01)
            yield f"{listening.url}{PATH}"
        finally:
            http.should_exit = True
            await asyncio.wait({answering})
            await end(watching)


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


def callers(keyring: Keyring | None) -> Callable[[Request], Caller]:
    """What tells who was admitted with a request; Unauthenticated for nobody, where tokens are asked for."""

    def caller(request: Request) -> Caller:
        if keyring is None:
            return Caller(remote=True)
        identity = asker(request)
        if identity is None:
            raise Unauthenticated("a token is needed", "not admitted")
        return Caller(identity, remote=True, stands=lambda: keyring.stands(identity))

    return caller
