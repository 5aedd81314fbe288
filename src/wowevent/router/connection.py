"""One client's socket: whole messages in, bytes out by way of a bounded outbox; close codes and fragments."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport

from wowevent.broker import Position
from wowevent.router.courier import Courier, Seat
from wowevent.router.fanout import Member
from wowevent.router.outbox import Outbox
from wowevent.router.session import Session
from wowevent.router.wire import SLOW, ServerFrame, encode, message
from wowevent.wakeup import Wakeup

_HIGH: Final = 64 * 1024  # bytes that the transport may hold back before the outbox takes over
_PIECE: Final = 64 * 1024  # bytes that the outbox gives back at a time
_AFTERWARDS: Final = 1.0  # seconds for a close frame to be read before the socket is cut


class Connection(WSListener):
    """One client, as sessions, couriers and the fan-out see it."""

    def __init__(
        self,
        session: Session,
        outbox: Outbox,
        *,
        max_message: int,
        opened: Callable[[Connection], None],
        received: Callable[[Connection, bytes], None],
        gone: Callable[[Connection], None],
    ) -> None:
        """`opened(connection)` is called once it can be sent to, `gone(connection)` once at the end.

        `received(connection, text)` gets each whole message.
        """
        self.session = session
        self.members: dict[str, Member] = {}
        self.seats: dict[str, tuple[Courier, Seat]] = {}
        self.waiting: deque[bytes] = deque()
        """Messages that came while an earlier one is being carried out."""
        self.busy: bool = False
        self.storing: int = 0
        """Events of this client on their way to the engine."""
        self.jobs: int = 0
        """Questions of this client that are being answered."""
        self.outstanding: int = 0
        self.reserved: bool = False
        self.idle = Wakeup()
        self.delivered: int = 0
        self.heard_at: float = 0.0
        self.pinged: bool = False
        self.connected: bool = False
        self.goodbye: bool = False
        self.slow: bool = False
        self.outbox = outbox
        self._max_message = max_message
        self._opened = opened
        self._received = received
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._paused = False
        self._reading = True
        self._closing = False
        self._readable = Wakeup()
        self._answers: list[bytes] = []
        self._fragments: list[bytes] = []
        self._last: Position | None = None

    @property
    def batch(self) -> bool:
        """Whether it takes `events` frames."""
        return self.session.batch

    # --- picows ---------------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        self._socket = transport.underlying_transport
        self._socket.set_write_buffer_limits(high=_HIGH)
        self.heard_at = self._loop.time()
        self.connected = True
        self._opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame; raises WSProtocolError, which picows turns into a close frame."""
        self.heard_at = self._loop.time()
        self.pinged = False
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, "reserved bits without an extension")
        kind = frame.msg_type
        if kind == WSMsgType.TEXT and frame.fin and not self._fragments:
            if not self._closing:
                self._received(self, frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self._answer_close(transport, frame)
        elif kind in {WSMsgType.TEXT, WSMsgType.CONTINUATION}:
            self._assemble(frame)
        elif kind == WSMsgType.BINARY:
            raise WSProtocolError(WSCloseCode.UNSUPPORTED_DATA, "send text")

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002 - picows gives it
        """The socket is gone."""
        self.connected = False
        self._closing = True
        self.outbox.clear()
        self._readable.notify()
        self._gone(self)

    def pause_writing(self) -> None:
        """The transport holds back too much: what follows waits in the outbox."""
        self._paused = True

    def resume_writing(self) -> None:
        """The client reads on."""
        self._paused = False
        while len(self.outbox) and not self._paused:
            self._socket.write(self.outbox.take(_PIECE))
        if not self._paused:
            self._readable.notify()

    def _assemble(self, frame: WSFrame) -> None:
        if (frame.msg_type == WSMsgType.CONTINUATION) != bool(self._fragments):
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, "a fragment out of order")
        self._fragments.append(frame.get_payload_as_bytes() or b"")
        if sum(map(len, self._fragments)) + len(self._fragments) > self._max_message:
            raise WSProtocolError(WSCloseCode.MESSAGE_TOO_BIG, f"more than {self._max_message} bytes")
        if frame.fin:
            whole, self._fragments = b"".join(self._fragments), []
            if not self._closing:
                self._received(self, whole)

    def _answer_close(self, transport: WSTransport, frame: WSFrame) -> None:
        self.goodbye = not self._closing or self.goodbye
        if not transport.is_close_frame_sent:
            transport.send_close(frame.get_close_code() if frame.payload_size else WSCloseCode.OK)
        self._closing = True
        transport.disconnect()

    # --- to the client ----------------------------------------------------------------------------------------------

    def send(self, frame: ServerFrame) -> None:
        """Send an answer now."""
        self.push(message(encode(frame)), 0, None)

    def gather(self, frame: ServerFrame) -> None:
        """Send an answer with the next `flush`."""
        self._answers.append(message(encode(frame)))

    def flush(self) -> None:
        """Send the answers that gathered, as one piece."""
        answers, self._answers = self._answers, []
        self.push(b"".join(answers), 0, None)

    def push(self, data: bytes, events: int, position: Position | None) -> None:
        """Send whole messages with so many events, the last at `position`; who has no room for them is cut off."""
        if self._closing or not data:
            return
        if self._paused or len(self.outbox):
            if not self.outbox.put(data, events):
                self.slow = True
                self.close(SLOW, f"you did not read; {self._last} was sent last")
                return
        else:
            self._socket.write(data)
        self.delivered += events
        if position is not None:
            self._last = position

    async def room(self) -> None:
        """Return once it reads what was sent so far, or is gone."""
        while (self._paused or len(self.outbox)) and not self._closing:
            await self._readable.wait()

    def ping(self) -> None:
        """Ask whether it is there."""
        self.pinged = True
        if not self._closing:
            self._transport.send_ping()

    # --- reading and the end -----------------------------------------------------------------------------------------

    def read(self, *, on: bool) -> None:
        """Read on from the socket, or not: who sends faster than the engine stores has to wait."""
        if on is self._reading or not self.connected:
            return
        self._reading = on
        if on:
            self._socket.resume_reading()
        else:
            self._socket.pause_reading()

    def close(self, code: int, reason: str) -> None:
        """Say why, and end; the outbox is dropped, since a client that does not read would keep it for ever."""
        if self._closing:
            return
        self._closing = True
        self.outbox.clear()
        self._readable.notify()
        if not self._transport.is_close_frame_sent:
            self._transport.send_close(code, reason.encode()[:120])  # type: ignore[arg-type]  # codes from 4000 are ours
        self._loop.call_later(_AFTERWARDS, self._transport.underlying_transport.abort)
