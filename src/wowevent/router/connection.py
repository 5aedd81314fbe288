"""One client's socket: whole messages in, bytes out by way of a bounded outbox; close codes and fragments."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from wowevent.broker import Position
from wowevent.event import Event
from wowevent.router.courier import Courier, Seat
from wowevent.router.fanout import Member
from wowevent.router.outbox import Outbox
from wowevent.router.session import Session
from wowevent.router.wire import SLOW, ServerFrame, encode, message
from wowevent.wakeup import Wakeup

_HIGH: Final = 64 * 1024  # bytes that the transport may hold back before the outbox takes over
_PIECE: Final = 64 * 1024  # bytes that the outbox gives back at a time
_FRAGMENT: Final = 64  # bytes that an empty fragment counts, so that nobody sends them without end
_NEVER_SENT: Final = {1004, 1005, 1006}  # close codes that have no place on the wire
_AFTERWARDS: Final = 1.0  # seconds for a close frame to be read before the socket is cut
_AFTERWARDS_SLOW: Final = 10.0  # for one that did not read, so that it learns why


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
        self.carried: int = 0
        """Messages of this client that were carried out in this turn of the loop."""
        self.storing: int = 0
        """Events of this client on their way to the engine."""
        self.jobs: int = 0
        """Questions of this client that are being answered."""
        self.asking: set[asyncio.Task[None]] = set()
        """Requests of this client that are not answered yet."""
        self.outstanding: int = 0
        self.reserved: bool = False
        self.idle: Wakeup = Wakeup()
        self.delivered: int = 0
        self.since: float = 0.0
        """When it connected, Unix seconds."""
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
        self._assembled = 0  # bytes of the fragments, with what Python needs for each
        self._pong: bytes | None = None  # the answer to the last ping, kept while nothing is read
        self._last: Position | None = None

    @property
    def batch(self) -> bool:
        """Whether it takes `events` frames."""
        return self.session.batch

    @property
    def congested(self) -> bool:
        """Whether it has not read yet what was sent, or is on its way out and will not."""
        return self._paused or self._closing or len(self.outbox) > 0

    @property
    def leaving(self) -> bool:
        """Whether it is on its way out."""
        return self._closing

    @property
    def peer(self) -> str:
        """Its address."""
        name = self._socket.get_extra_info("peername")
        return str(name[0]) if name else "unknown"

    @property
    def owner(self) -> str | None:
        """Whose it is, by its token."""
        identity = self.session.identity
        return None if identity is None else identity.name

    def hears(self, event: Event) -> bool:
        """Whether it may get this event."""
        return self.session.hears(event)

    def asked(self, request: Event) -> None:
        """A request is brought to it; where clients are known, whoever got one may answer it."""
        if self.session.identity is not None and request.reply_to is not None:
            self.session.account.note(request.event_id, request.reply_to)

    def release(self) -> None:
        """The suspect that was here is settled: all its subscriptions go on."""
        self.reserved = False
        self.idle.notify()
        for courier, _ in self.seats.values():
            courier.wake()

    # --- picows ---------------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        self._socket = transport.underlying_transport
        self._socket.set_write_buffer_limits(high=_HIGH)
        self.heard_at = self._loop.time()
        self.since = time.time()
        self.connected = True
        self._opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame; what is not as it must be ends the connection."""
        self.heard_at = self._loop.time()
        self.pinged = False
        kind = frame.msg_type
        if not self._closing and (frame.rsv1 or frame.rsv2 or frame.rsv3):
            self.close(WSCloseCode.PROTOCOL_ERROR.value, "reserved bits without an extension")
        elif kind == WSMsgType.CLOSE:
            self._answer_close(transport, frame)
        elif self._closing:
            return
        elif kind == WSMsgType.TEXT and frame.fin and not self._fragments:
            self._received(self, frame.get_payload_as_bytes())
        elif kind in {WSMsgType.TEXT, WSMsgType.CONTINUATION}:
            self._assemble(frame)
        elif kind == WSMsgType.BINARY:
            self.close(WSCloseCode.UNSUPPORTED_DATA.value, "send text")
        elif kind == WSMsgType.PING:
            self._answer_ping(frame.get_payload_as_bytes() or b"")

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
            self._last = self.outbox.taken or self._last
        if self._paused or self._closing:
            return
        self._readable.notify()
        for courier, _ in self.seats.values():
            courier.wake()
        if self._pong is not None:
            self._transport.send_pong(self._pong)
            self._pong = None

    def _assemble(self, frame: WSFrame) -> None:
        if (frame.msg_type == WSMsgType.CONTINUATION) != bool(self._fragments):
            self.close(WSCloseCode.PROTOCOL_ERROR.value, "a fragment out of order")
            return
        self._fragments.append(frame.get_payload_as_bytes() or b"")
        self._assembled += len(self._fragments[-1]) + _FRAGMENT
        if self._assembled > self._max_message:
            self.close(WSCloseCode.MESSAGE_TOO_BIG.value, f"more than {self._max_message} bytes")
        elif frame.fin:
            whole, self._fragments, self._assembled = b"".join(self._fragments), [], 0
            self._received(self, whole)

    def _answer_ping(self, said: bytes) -> None:
        """Only the last ping is answered if nobody reads, so that pings without end fill nothing."""
        if self.congested:
            self._pong = said
        else:
            self._transport.send_pong(said)

    def _answer_close(self, transport: WSTransport, frame: WSFrame) -> None:
        code = frame.get_close_code() if frame.payload_size else WSCloseCode.OK
        sound = _is_sound(int(code))  # type: ignore[call-overload]  # an int, to those who look
        self.goodbye = self.goodbye or (sound and not self._closing)
        if not transport.is_close_frame_sent:
            transport.send_close(code if sound else WSCloseCode.PROTOCOL_ERROR)
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
        if self._closing or not data or self._transport.is_close_frame_sent:  # picows closes by itself, too
            return
        if not self._paused and not len(self.outbox):
            self._socket.write(data)
            self._last = position or self._last
        elif not self.outbox.put(data, events, position):
            self.slow = True
            self.close(SLOW, f"you did not read; {self._last} was sent last", _AFTERWARDS_SLOW)
            return
        self.delivered += events

    async def room(self) -> None:
        """Return once it reads what was sent so far, or is gone."""
        while self.congested and not self._closing:
            await self._readable.wait()

    def ping(self) -> None:
        """Ask whether it is there."""
        self.pinged = True
        if not self._closing:
            self._transport.send_ping()

    # --- reading and the end -----------------------------------------------------------------------------------------

    @property
    def reading(self) -> bool:
        """Whether what it says is read."""
        return self._reading

    def read(self, *, on: bool) -> None:
        """Read on from the socket, or not: who sends faster than the engine stores has to wait."""
        if on is self._reading or not self.connected:
            return
        self._reading = on
        if on:
            self.heard_at = self._loop.time()  # what it said meanwhile was not read
            self._socket.resume_reading()
        else:
            self._socket.pause_reading()

    def fail(self) -> None:
        """A fault of ours, which the log tells: the client may come back."""
        self.close(WSCloseCode.INTERNAL_ERROR.value, "an internal error; it is in the router's log")

    def close(self, code: int, reason: str, afterwards: float = _AFTERWARDS) -> None:
        """Say why, and end; the outbox is dropped, since a client that does not read would keep it for ever."""
        if self._closing:
            return
        self._closing = True
        self.outbox.clear()
        self._readable.notify()
        if not self._transport.is_close_frame_sent:
            self._transport.send_close(code, reason.encode()[:120])  # type: ignore[arg-type]  # codes from 4000 are ours
        self._loop.call_later(afterwards, self.abort)

    def abort(self) -> None:
        """End without another word."""
        self._transport.underlying_transport.abort()


def _is_sound(code: int) -> bool:
    """Whether a close code has a place on the wire; picows lets some pass that have none."""
    return (1000 <= code <= 1014 and code not in _NEVER_SENT) or 3000 <= code < 5000
