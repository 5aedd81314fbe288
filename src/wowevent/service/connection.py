"""uvicorn with connections of ours: bounded in what a stranger may send, and ended as we want it."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import nullcontext
from typing import Final

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wowevent.access.audit import audit
from wowevent.service.borrowed import ABORT

LAST_ANSWERS: Final = 3.0
"""Seconds for HTTP once the bus has ended; with what comes before that, and the router's last words, below 20."""

_BESIDE: Final = 64 * 1024  # bytes of one request that are no body: its first line and headers, chunk sizes, trailers
_FRAMING: Final = 16  # bytes of these that each byte of a body pays for: it may come in the smallest chunks
_SLOWEST: Final = 10.0  # seconds for a request to come, up to its body


class Connection(HttpToolsProtocol):
    """uvicorn's, which also ends as we want it, and bounds what a stranger may send before anybody knows who asks.

    The application is told how to end it at once: closing waits for a client to read.
    """

    _beside = 0
    """Bytes of the request that comes that are no body, more or less."""
    _late: asyncio.TimerHandle | None = None
    """Cuts it off where no request is under way and none comes; uvicorn waits for ever for the rest of one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """See HttpToolsProtocol."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """See HttpToolsProtocol."""
        self._expect(on=False)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See HttpToolsProtocol, which keeps headers without end."""
        self._beside += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if self._beside > _BESIDE and idle:
            self.send_400_response(f"A request has {_BESIDE} bytes beside its body at most.")
        elif self._beside > _BESIDE:
            self.transport.abort()
        elif idle:
            self._expect()

    def send_400_response(self, msg: str) -> None:
        """See HttpToolsProtocol, which has a line for each: of strangers they would push all else out of the log."""
        peer = self.client[0] if self.client else None
        audit("request", None, outcome="refused", code="bad_request", reason=msg, peer=peer)
        super().send_400_response(msg)

    def _expect(self, *, on: bool = True) -> None:
        if on and self._late is None:
            self._late = self.loop.call_later(_SLOWEST, self.transport.abort)
        elif not on and self._late is not None:
            self._late.cancel()
            self._late = None

    def on_body(self, body: bytes) -> None:
        """See HttpToolsProtocol."""
        self._beside = max(0, self._beside - (1 + _FRAMING) * len(body))
        super().on_body(body)

    def on_message_begin(self) -> None:
        """See HttpToolsProtocol."""
        super().on_message_begin()
        self._beside = 0
        self.scope["extensions"] = {ABORT: self.transport.abort}  # type: ignore[dict-item]  # not of ASGI itself

    def on_headers_complete(self) -> None:
        """See HttpToolsProtocol; once it is to leave, an answer says that no more are given here."""
        self._expect(on=False)
        super().on_headers_complete()
        if self.config.app.state.leaving and self.cycle is not None:  # type: ignore[union-attr]  # ours, a Starlette
            self.cycle.keep_alive = False


def http_server(app: Starlette, tls: ssl.SSLContext | None = None) -> uvicorn.Server:
    """A server that is told by `should_exit`, and by no signal, to end; with `tls` it speaks https."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(LAST_ANSWERS),
    )
    config.load()
    config.ssl = tls  # the one that the router has, too; uvicorn would make its own from files
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # ours: the bus drains first
    return server
