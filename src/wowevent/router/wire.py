"""Frames as tagged unions, encode and decode; no I/O. What they mean is in `docs/websocket.md`.

    bytes -> decode -> Hello | Publish | Subscribe | …          what a client sends
    Welcome | Published | Subscribed | … -> encode -> bytes     what the router sends

The router decodes strictly, since anybody may write to it; a client decodes what the router wrote.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from wowevent.broker import Lease
from wowevent.codec import decode as decode_event
from wowevent.codec import encode as encode_event
from wowevent.codec import from_fields, loads
from wowevent.errors import BusError, FormatTooNew, ProtocolError, shown
from wowevent.event import Event
from wowevent.router import plain

PROTOCOL: Final = 1
MARGIN: Final = 64 * 1024
"""A frame may be so many bytes larger than the largest payload."""
MAX_SUBSCRIPTIONS: Final = 128
"""Subscriptions of one client."""

SLOW: Final = 4000
"""Close code: the client did not read."""
SILENT: Final = 4001
"""Close code: the client did not answer pings."""
LATER: Final = 1013
"""Close code: there are too many, come later."""
UNKNOWN: Final = 4501
"""Close code: no token came in time, or one that is not good."""
OVER: Final = 4502
"""Close code: the token has expired, or was revoked."""
FINAL: Final = range(4500, 5000)
"""Close codes that say: do not come back as you are."""

Ref = str | int | float | None


class _Frame(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What all frames share; `ref` is the client's, and comes back in the answer."""

    ref: Ref = None


# --- client -> server ---------------------------------------------------------------------------------------------


class Hello(_Frame, frozen=True, kw_only=True, tag="hello", omit_defaults=False):
    """Who the client is, and whether it takes `events` frames; its answer has the same shape, without a token."""

    batch: bool = False
    agent: str | None = None
    client: str | None = None
    token: str | UnsetType | None = UNSET
    """For who could not say it at the handshake."""

    def __repr__(self) -> str:
        """Without the token, wherever it is shown."""
        return f"Hello(batch={self.batch!r}, agent={self.agent!r}, client={self.client!r})"


class Publish(_Frame, frozen=True, kw_only=True, tag="publish"):
    """One event to store."""

    event: Any


class Wanted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `subscription` of a subscribe frame; with `name` or `subscription` it is remembered."""

    topics: tuple[str, ...] | str = ("*",)
    types: tuple[str, ...] | None = None
    priorities: tuple[int | str, ...] | None = None
    min_priority: int | str | None = None
    sources: tuple[str, ...] | None = None
    name: str | None = None
    subscription: str | None = None
    after: str | None = None
    start: str | None = None
    lease: float | None = None
    max_retries: int | None = None
    credit: int | None = None
    held: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether it is remembered."""
        return self.name is not None or self.subscription is not None


class Subscribe(_Frame, frozen=True, kw_only=True, tag="subscribe"):
    """A wish for events."""

    subscription: Wanted


class Unsubscribe(_Frame, frozen=True, kw_only=True, tag="unsubscribe"):
    """The end of one; what the bus remembers stays."""

    subscription_id: str


class Ack(_Frame, frozen=True, kw_only=True, tag="ack"):
    """Events that were handled."""

    subscription_id: str
    tokens: tuple[str, ...]


class Nack(_Frame, frozen=True, kw_only=True, tag="nack"):
    """Events that were not: failed (`error`), for later (`retry_after`), never (`reject`), or given back.

    `pause` gives them back, and asks that nothing of the subscription comes for so many seconds; `error` says why.
    """

    subscription_id: str
    tokens: tuple[str, ...]
    error: str = ""
    traceback: str = ""
    retry_after: float | None = None
    reject: bool = False
    release: bool = False
    pause: float | None = None


class Request(_Frame, frozen=True, kw_only=True, tag="request"):
    """An event that waits for an answer, `timeout` seconds at most."""

    event: Any
    timeout: float = 5.0


class Asked(Struct, frozen=True, kw_only=True):
    """What an answer needs of the request: the fields that its event came with."""

    event_id: str
    correlation_id: str
    reply_to: str


class Reply(_Frame, frozen=True, kw_only=True, tag="reply"):
    """The answer to a request that came as an event."""

    event: Asked
    reply: Any = None
    error: str | None = None


class Ping(_Frame, frozen=True, kw_only=True, tag="ping"):
    """Are you there?"""

    echo: Any = None


class GetHealth(_Frame, frozen=True, kw_only=True, tag="get_health"):
    """How are you?"""


ClientFrame = Hello | Publish | Subscribe | Unsubscribe | Ack | Nack | Request | Reply | Ping | GetHealth


_KINDS: Final[dict[str, Any]] = {str(kind.__struct_config__.tag): kind for kind in get_args(ClientFrame)}
"""By name, since a conversion to the union looks at every member each time."""


class Bad(Struct, frozen=True):
    """What could not be read, with the `ref` to answer to where there was one."""

    error: BusError
    ref: Ref = None


# --- server -> client ---------------------------------------------------------------------------------------------


class Welcome(_Frame, frozen=True, kw_only=True, tag="welcome"):
    """The first frame of all."""

    client_id: str
    server_time: str
    protocol: int
    max_frame: int


class Published(_Frame, frozen=True, kw_only=True, tag="published"):
    """What became of a publish."""

    event_id: str
    status: Literal["queued", "dropped"]
    position: str | None = None
    duplicate: bool = False
    reason: str | None = None
    message: str | None = None
    retryable: bool = False


class Subscribed(_Frame, frozen=True, kw_only=True, tag="subscribed"):
    """A subscription is served; `position` is where the log ended then."""

    subscription_id: str
    topics: tuple[str, ...]
    recovered: bool
    position: str
    lost: int | None = None


class Unsubscribed(_Frame, frozen=True, kw_only=True, tag="unsubscribed"):
    """It is served no longer."""

    subscription_id: str


class Delivered(_Frame, frozen=True, kw_only=True, tag="event"):
    """One event; `token` only where it must be acknowledged, `attempt` from the second on."""

    subscription_id: str
    event: Raw
    position: str | None = None
    token: str | None = None
    attempt: int = 1
    redelivered: bool = False


class Item(Struct, frozen=True, kw_only=True, gc=False):
    """One event of an `events` frame."""

    subscription_id: str
    event: Raw
    position: str | None = None
    token: str | None = None
    attempt: int = 1
    redelivered: bool = False


class Events(_Frame, frozen=True, kw_only=True, tag="events"):
    """What gathered in one turn."""

    events: tuple[Item, ...]


class Reset(_Frame, frozen=True, kw_only=True, tag="reset"):
    """A gap: `lost` events are missing here, where the number is known."""

    subscription_id: str
    lost: int | None = None


class Settled(_Frame, frozen=True, kw_only=True, tag="settled"):
    """How many of the tokens were settled, and how many came too late."""

    subscription_id: str
    settled: int
    stale: int


class Answer(_Frame, frozen=True, kw_only=True, tag="reply"):
    """The answer to a request."""

    event_id: str
    reply: Any = None


class Pong(_Frame, frozen=True, kw_only=True, tag="pong", omit_defaults=False):
    """Here; `timestamp` is Unix seconds."""

    echo: Any = None
    timestamp: float


class Health(_Frame, frozen=True, kw_only=True, tag="health"):
    """How the router is."""

    health: dict[str, Any]


class Error(_Frame, frozen=True, kw_only=True, tag="error"):
    """A frame was not carried out; `error` is a code of the error tree, `retry_after` seconds where it is known."""

    error: str
    message: str
    retry_after: float | None = None


ServerFrame = (
    Welcome | Hello | Published | Subscribed | Unsubscribed | Delivered | Events | Reset | Settled
    | Answer | Pong | Health | Error
)  # fmt: skip


# --- bytes --------------------------------------------------------------------------------------------------------

_encoder: Final = msgspec.json.Encoder()
_server_frames: Final = msgspec.json.Decoder(ServerFrame)
encode: Final = _encoder.encode
"""Any frame as JSON."""


def decode(data: bytes) -> ClientFrame | Bad:
    """What a client sent; `Bad` for what is no frame. Events are checked by `event_of`."""
    written = plain.published(data)
    return _decode(data) if written is None else Publish(event=written[0], ref=written[1])


def _decode(data: bytes) -> ClientFrame | Bad:
    """`decode` the long way, which says what is wrong."""
    try:
        fields = loads(data)
    except BusError as error:
        return Bad(error)
    if not isinstance(fields, dict):
        return Bad(ProtocolError(f"a frame is a JSON object, not {type(fields).__name__}"))
    ref, name = fields.get("ref"), fields.get("type")
    if isinstance(ref, dict | list | bool):
        return Bad(ProtocolError(f"ref: {shown(ref)} is neither text nor a number"))
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        return Bad(ProtocolError(f"unknown type {shown(name)}; known are {', '.join(_KINDS)}"), ref)
    try:
        frame: ClientFrame = msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        return Bad(ProtocolError(f"not a {name} frame: {error}"), ref)
    return frame


def event_of(frame: Publish | Request, agent: str | None) -> Event:
    """The event of a frame, from `agent` where it names no source; InvalidEvent says what is wrong with it."""
    fields = frame.event
    if isinstance(fields, Event):  # it was read and checked in one go
        return fields
    if agent is not None and isinstance(fields, dict) and not _SOURCES & fields.keys():
        fields = {**fields, "source_agent": agent}
    return from_fields(fields)


_SOURCES: Final = frozenset({"source_agent", "source", "source_agent_id", "specversion"})


def decode_server(data: bytes) -> ServerFrame | None:
    """What a router sent; None for a frame of a newer protocol, ProtocolError for what is no frame."""
    try:
        frame: ServerFrame = _server_frames.decode(data)
    except msgspec.ValidationError as error:
        if "Invalid value" in str(error) and "$.type" in str(error):
            return None
        raise ProtocolError(f"not a frame: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    return frame


def delivered_event(raw: Raw) -> Event:
    """The event of a delivery; FormatTooNew for a newer envelope."""
    try:
        return decode_event(bytes(raw))
    except FormatTooNew:
        raise
    except BusError as error:
        raise ProtocolError(f"a delivery holds no event: {error}") from error


# --- deliveries: an event is encoded once, however many clients get it ------------------------------------------------


def shared_part(event: Event, position: str | None) -> bytes:
    """What all deliveries of an event have in common: `"event":{…},"position":"…"`."""
    envelope = encode_event(event)
    if event.target_agent is None:
        envelope = envelope[:-1] + (_BOTH if event.trace_id is None else _NO_TARGET)
    elif event.trace_id is None:
        envelope = envelope[:-1] + _NO_TRACE
    if position is None:
        return b'"event":' + envelope
    return b'"event":%b,"position":"%b"' % (envelope, position.encode())


_BOTH: Final = b',"target_agent":null,"trace_id":null}'
_NO_TARGET: Final = b',"target_agent":null}'
_NO_TRACE: Final = b',"trace_id":null}'


def item(subscription_id: bytes, shared: bytes) -> bytes:
    """One delivery without its braces; `subscription_id` is JSON already, as `encode` makes it."""
    return b'"subscription_id":%b,%b' % (subscription_id, shared)


def leased_item(subscription_id: bytes, lease: Lease) -> bytes:
    """One delivery that must be acknowledged, without its braces."""
    event = lease.event
    shared = shared_part(event, None if lease.position is None else str(lease.position))
    more = b""
    if lease.failures or lease.crashes:
        more = b',"attempt":%d' % (lease.failures + lease.crashes + 1)
    if lease.redelivered:
        more += b',"redelivered":true'
    return b'"subscription_id":%b,%b,"token":%b%b' % (subscription_id, shared, encode(lease.token), more)


def single(delivery: bytes) -> bytes:
    """An `event` frame of one delivery."""
    return b'{"type":"event",%b}' % delivery


def together(deliveries: list[bytes]) -> bytes:
    """An `events` frame of several."""
    return b'{"type":"events","events":[{%b}]}' % b"},{".join(deliveries)


def message(text: bytes) -> bytes:
    """A text as one WebSocket message of a server: FIN and opcode 1, the length in 7, 16 or 64 bits, no mask."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 65_536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), text)


_TURN: Final = 128 * 1024  # bytes of deliveries in one `events` frame, more or less


def messages(deliveries: list[bytes], *, batch: bool) -> bytes:
    """Deliveries as WebSocket messages: one each, or for clients that say so as few as may be."""
    if not batch:
        return b"".join([message(single(delivery)) for delivery in deliveries])
    if len(deliveries) == 1 or sum(map(len, deliveries)) <= _TURN:
        return message(together(deliveries))
    half = len(deliveries) // 2
    return messages(deliveries[:half], batch=True) + messages(deliveries[half:], batch=True)
