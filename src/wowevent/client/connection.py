"""One WebSocket to a router: frames out, answers to who asked, everything else to who takes it.

dial          welcome, hello            -> Connection
call(frame)   its answer, or the error  -> answered(…), in the same turn
the rest      deliveries, resets, …     -> took(frame)
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import socket
import ssl as tls
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from inspect import isawaitable
from typing import Any, Final

from msgspec import Struct, structs
from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSParsedURL,
    WSProtocolError,
    WSTransport,
    ws_connect,
)

from wowevent.ending import seen
from wowevent.errors import BrokerUnavailable, BusError, NotPermitted, ProtocolError, RateLimited, Unauthenticated
from wowevent.log import logger, websocket_logger
from wowevent.router.wire import (
    FINAL,
    OVER,
    UNKNOWN,
    ClientFrame,
    Error,
    Hello,
    Pong,
    ServerFrame,
    Subscribed,
    Unsubscribed,
    Welcome,
    decode_server,
    encode,
)
from wowevent.router.wire import Answer as Reply
from wowevent.router.wire import Health as Healthy

MAX_FRAME: Final = 10 * 1024 * 1024
"""Bytes of the largest message that a client takes."""
REFUSED: Final = int(WSCloseCode.POLICY_VIOLATION.value)
"""Close code of any WebSocket server: do not come back."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,8192}")

Answer = ServerFrame | BusError
Answered = Callable[[Answer], None]
Took = Callable[[ServerFrame], None]

_ANSWERS: Final = (Hello, Subscribed, Unsubscribed, Reply, Pong, Healthy, Error)


Token = str | Callable[[], str | Awaitable[str]]
"""What is shown to a router, or what finds it anew for each connection."""


class Address(Struct, frozen=True):
    """Where a router is, and what is shown there."""

    url: str
    token: Token | None = None
    ssl: tls.SSLContext | None = None

    @property
    def renews(self) -> bool:
        """Whether a token that has expired is followed by another."""
        return callable(self.token)

    async def credential(self) -> str | None:
        """The token to show now; BrokerUnavailable, without what the reason says, if there is none."""
        if self.token is None or isinstance(self.token, str):
            return self.token
        try:
            found = self.token()
            return check_token(await found if isawaitable(found) else found)
        except Exception as error:
            raise BrokerUnavailable(f"{self.url}: no token was found to show: {type(error).__name__}") from error

    def __repr__(self) -> str:
        """Without the token, wherever it is shown."""
        return f"Address({self.url!r})"


def check_token(token: str) -> str:
    """The token itself; ValueError, which does not show it, for what cannot stand in a header."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise ValueError("token: letters, digits and ._~+/=- are what a token is made of")
    return token


async def dial(
    address: Address, hello: Hello, *, timeout: float, took: Took, gone: Callable[[Connection], None]
) -> Connection:
    """A connection whose router has said welcome and answered `hello`.

    Raises BrokerUnavailable if there is none within `timeout` seconds, NotPermitted if it refuses this client,
    Unauthenticated if it does so for its token. Whatever is raised, nothing is left behind. `gone(connection)` is
    called once, when a connection that was returned ends.
    """
    connection, url = Connection(took, gone), address.url
    try:
        async with asyncio.timeout(timeout):
            await connection.open(address, hello)
    except TimeoutError as error:
        connection.abort()
        raise BrokerUnavailable(f"{url} did not answer within {timeout:g} s") from error
    except WSHandshakeError as error:
        connection.abort()
        raise _not_opened(url, error) from error
    except (OSError, WSError, BrokerUnavailable, ProtocolError) as error:
        connection.abort()
        raise connection.final(url) or BrokerUnavailable(f"{url} cannot be reached: {error}") from error
    except BaseException:
        connection.abort()
        raise
    return connection


def _not_opened(url: str, error: WSHandshakeError) -> BusError:
    response = error.response
    if response is None:
        return BrokerUnavailable(f"{url} is not a WebSocket server: {error}")
    reason = (error.raw_body or b"").decode("utf-8", "replace").strip()[:200] or HTTPStatus(response.status).phrase
    if response.status == HTTPStatus.UNAUTHORIZED:
        return Unauthenticated(f"{url} does not know this client: {reason}")
    if response.status == HTTPStatus.FORBIDDEN:
        return NotPermitted(f"{url} refuses this client: {reason}")
    return BrokerUnavailable(f"{url} does not take this client now: HTTP {int(response.status)}, {reason}")


class Connection(WSListener):
    """What `dial` returns."""

    def __init__(self, took: Took, gone: Callable[[Connection], None]) -> None:
        self.max_frame: int = 0
        """Bytes of the largest message that the router takes."""
        self.close_code: int = 0
        """Why the router ended it; 0 if it did not say."""
        self.close_reason: str = ""
        self.heard: int = 0
        """Frames that came so far."""
        self._took = took
        self._gone = gone
        self._refs = itertools.count(1)
        self._open: dict[str, Answered] = {}
        self._fragments: list[bytes] = []
        self._out: list[bytes] = []  # of this turn
        self._loop = asyncio.get_running_loop()
        self._welcome: asyncio.Future[Welcome] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._socket: socket.socket | None = None
        self._transport: WSTransport | None = None
        self._usable = False

    # --- opening --------------------------------------------------------------------------------------------------

    async def open(self, address: Address, hello: Hello) -> None:
        """For `dial`.

        Not aiofastnet's transports on uvloop: there they never hear of a reset that finds data unread (1.2.0, 0.23.0).
        Nor with TLS, where they log as our fault what a router's certificate is refused for.
        """
        own = address.url.startswith("wss://") or type(asyncio.get_running_loop()).__module__ == "uvloop"
        token = await address.credential()
        transport, _ = await ws_connect(
            lambda: self,
            address.url,
            ssl_context=address.ssl,
            extra_headers=None if token is None else {"Authorization": f"Bearer {token}"},
            websocket_handshake_timeout=None,  # `dial` sees to the time
            max_frame_size=MAX_FRAME,
            max_redirects=0,
            socket_factory=self._reach,
            use_aiofastnet=False if own else None,
            logger_name=websocket_logger(),
        )
        if transport.is_disconnected:
            raise BrokerUnavailable("it hung up during the handshake")
        welcome = await self._welcome
        self.max_frame = welcome.max_frame
        await self.ask(hello)
        self._usable = True

    async def _reach(self, url: WSParsedURL) -> socket.socket:
        """A TCP connection of our own, so that a handshake that is given up can be ended."""
        loop = asyncio.get_running_loop()
        failure = OSError(f"{url.host} has no address")
        for family, kind, protocol, _, address in await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                self._socket = sock
                return sock
        raise failure

    # --- picows ---------------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame; raises WSProtocolError, which picows turns into a close frame."""
        self.heard += 1
        kind = frame.msg_type
        if kind == WSMsgType.TEXT and frame.fin and not self._fragments:
            self._receive(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self._answer_close(transport, frame)
        elif kind in {WSMsgType.TEXT, WSMsgType.CONTINUATION}:
            self._assemble(frame)
        elif kind == WSMsgType.BINARY:
            raise WSProtocolError(WSCloseCode.UNSUPPORTED_DATA, "send text")

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002 - picows gives it
        """The socket is gone: so is what was asked."""
        if self._ended.done():
            return
        self._ended.set_result(None)
        reason = BrokerUnavailable(f"the connection ended{self._why()}")
        if not self._welcome.done():
            self._welcome.set_exception(reason)
            seen(self._welcome)  # whoever waits for it may have gone
        if self._usable:
            self._usable = False
            self._gone(self)
        waiting, self._open = self._open, {}
        for answered in waiting.values():
            answered(reason)

    def pause_writing(self) -> None:
        """What waits here is bounded by the outbox and by the router's credit."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def _assemble(self, frame: WSFrame) -> None:
        if (frame.msg_type == WSMsgType.CONTINUATION) != bool(self._fragments):
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, "a fragment out of order")
        self._fragments.append(frame.get_payload_as_bytes() or b"")
        if sum(map(len, self._fragments)) + len(self._fragments) > MAX_FRAME:  # empty ones have their price too
            raise WSProtocolError(WSCloseCode.MESSAGE_TOO_BIG, f"more than {MAX_FRAME} bytes")
        if frame.fin:
            whole, self._fragments = b"".join(self._fragments), []
            self._receive(whole)

    def _answer_close(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.payload_size:
            code = frame.get_close_code()
            self.close_code = int(code.value if isinstance(code, WSCloseCode) else code)
            self.close_reason = (frame.get_close_message() or b"").decode("utf-8", "replace")
        if not transport.is_close_frame_sent:
            transport.send_close(WSCloseCode.OK)
        transport.disconnect()

    def final(self, url: str) -> NotPermitted | None:
        """What the router's close code says, if that is not to come back."""
        if self.close_code != REFUSED and self.close_code not in FINAL:
            return None
        kind = Unauthenticated if self.close_code in {UNKNOWN, OVER} else NotPermitted
        return kind(f"{url} refuses this client: {self.close_code} {self.close_reason}".strip())

    def _why(self) -> str:
        return f": {self.close_code} {self.close_reason}".rstrip() if self.close_code else ""

    # --- from the router --------------------------------------------------------------------------------------------

    def _receive(self, text: bytes) -> None:
        try:
            frame = decode_server(text)
        except ProtocolError as error:
            logger.error("the router sent what is no frame", error=error)
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, "not a frame") from error
        if frame is None:
            return
        if isinstance(frame, Welcome):
            if not self._welcome.done():
                self._welcome.set_result(frame)
        elif isinstance(frame, _ANSWERS) and frame.ref in self._open:
            self._open.pop(str(frame.ref))(error_of(frame) if isinstance(frame, Error) else frame)
        else:
            self._took(frame)

    # --- to the router ----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send one message, with the others of this turn; into the void if the connection is gone."""
        if self._transport is not None and not self._ended.done():
            if not self._out:
                self._loop.call_soon(self._flush)
            self._out.append(data)

    def _flush(self) -> None:
        """One write for all: it is what costs most of a message."""
        out, self._out = self._out, []
        if self._transport is None or self._ended.done() or self._transport.is_close_frame_sent:
            return
        if len(out) == 1:
            self._transport.send(WSMsgType.TEXT, out[0])
        elif out:
            keys = os.urandom(4 * len(out))
            frames = [masked(data, keys[4 * n : 4 * n + 4]) for n, data in enumerate(out)]
            self._transport.underlying_transport.write(b"".join(frames))

    def call(self, frame: ClientFrame, answered: Answered) -> None:
        """Send a frame; `answered` gets its answer as it comes, BrokerUnavailable if the connection ends before."""
        if self._ended.done():
            answered(BrokerUnavailable(f"the connection ended{self._why()}"))
            return
        ref = f"q{next(self._refs)}"  # an event's ref is a number
        self._open[ref] = answered
        self.send(encode(structs.replace(frame, ref=ref)))

    async def ask(self, frame: ClientFrame) -> Any:
        """Send a frame and return its answer; raises what the router answers. The caller sees to the time."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        self.call(frame, answered)
        answer = await future
        if isinstance(answer, BusError):
            raise answer
        return answer

    # --- the end ----------------------------------------------------------------------------------------------------

    async def ended(self) -> None:
        """Return once the socket is gone."""
        await asyncio.shield(self._ended)
        if self._transport is not None:
            try:
                await self._transport.wait_disconnected()
            except WSError as error:
                logger.warning("the connection ended by a violation of the protocol", error=error)
            except Exception as error:  # noqa: BLE001 - what taking a frame raised; the next connection must come
                logger.error("the connection ended by an internal error", exc_info=error)

    def close(self) -> None:
        """Say goodbye; the router answers and hangs up."""
        if self._transport is not None and not self._transport.is_close_frame_sent and not self._ended.done():
            self._flush()
            self._transport.send_close(WSCloseCode.OK)

    def abort(self) -> None:
        """Hang up, whatever is under way."""
        if self._transport is not None:
            self._transport.underlying_transport.abort()
        elif self._socket is not None and self._socket.fileno() >= 0:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)  # picows has a transport on it, which ends by that
            except OSError as error:
                logger.debug("the socket is gone already", error=error)


def masked(text: bytes, key: bytes) -> bytes:
    """A text as one WebSocket message of a client: FIN and opcode 1, the length in 7, 16 or 64 bits, mask, payload."""
    size = len(text)
    if size < 126:
        head = b"\x81%c" % (0x80 | size)
    elif size < 65_536:
        head = b"\x81\xfe" + size.to_bytes(2)
    else:
        head = b"\x81\xff" + size.to_bytes(8)
    mask = int.from_bytes((key * (size // 4 + 1))[:size])
    return head + key + (int.from_bytes(text) ^ mask).to_bytes(size)


def error_of(frame: Error) -> BusError:
    """The error that an error frame names."""
    error = refusal(frame.error, frame.message)
    if isinstance(error, RateLimited) and frame.retry_after is not None:
        error.retry_after = frame.retry_after
    return error


def refusal(code: str, message: str) -> BusError:
    """The error of a code of the error tree; of a code from a newer one, a BusError."""
    kind = _BY_CODE.get(code)
    return BusError(f"{code}: {message}") if kind is None else kind(message)


def _tree(kind: type[BusError]) -> list[type[BusError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _tree(child))]


_BY_CODE: Final = {kind.code: kind for kind in reversed(_tree(BusError))}
