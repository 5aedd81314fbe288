"""The event: its fields, what may stand in each, and the names that other dialects have for them.

An event is immutable. Its payload is encoded when the event is made, so that what was given cannot change behind its
back, and decoded when somebody looks at it: an engine or a router that only passes it on never pays for that.

A field, its check and its spellings stand in one file, since none of them changes without the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import copy
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Raw, Struct, structs

from wowevent.errors import FormatTooNew, InvalidEvent, StorageDamaged, shown
from wowevent.event_type import EventType
from wowevent.id import new_id
from wowevent.payload import encode_payload
from wowevent.priority import EventPriority, band, priority_level
from wowevent.topic import check_topic

VERSION: Final = 1

_NORMAL: Final = EventPriority.NORMAL.value
_NAME = re.compile(r"[A-Za-z0-9_\-.:/@]{1,128}")
_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,4096}")  # neither control characters nor half characters


@lru_cache(maxsize=8192)
def check_name(name: str) -> str:
    """The name itself as a plain `str`, if it is one of an agent, source or queue; InvalidEvent otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidEvent(f"{shown(name)} is not a name: 1 to 128 letters, digits and _ - . : / @")
    return str.__str__(name)


class EventMetadata(Struct, frozen=True, kw_only=True):
    """The tracking part of an event, for those who think in it: `Event(metadata=...)`, `event.metadata`."""

    correlation_id: str | None = None
    causation_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    tags: tuple[str, ...] = ()
    headers: dict[str, str] = msgspec.field(default_factory=dict)


class _EventMeta(msgspec.StructMeta):
    """Lets `Event(...)` take the ancestors' spellings and check what it is given.

    A decoder makes events without passing here: what lies in the log was checked when it went in.
    """

    if not TYPE_CHECKING:  # pragma: no branch

        def __call__(cls, **given):  # noqa: ANN003, ANN204, N805 - the signature is Event.__init__'s
            if not _FIELDS.issuperset(given):
                given = _one_dialect(given)
            return super().__call__(**_checked(**given))


class Event(
    Struct,
    metaclass=_EventMeta,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    gc=False,  # what it holds is JSON, which has no cycles; a collection over a full log costs a fifth of the speed
    rename={"body": "payload", "decoded": "_decoded", "head": "headers", "kind": "event_type", "unknown": "_unknown"},
):
    """One thing that happened, as every engine and every face of the bus carries it (envelope v1).

    `topic` (where it is routed) and `event_type` (what happened) default to each other. The other dialects' spellings
    `id`, `source`, `source_agent_id`, `target`, `type` and `metadata` are accepted and read as attributes.

    It can be a field of a pydantic model; a FastAPI route takes it as `Annotated[Event, Body()]` and gives it by its
    return type. (How pydantic makes and writes one is the codec's to say, which lies above and hangs it on the class.)
    """

    v: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    """The version of the envelope."""
    event_id: str
    """Its own, in the order of time when it was made here; stored once."""
    kind: str
    topic: str
    """Where it is routed: words joined by dots, 200 bytes at most."""
    source_agent: str
    """Who published it; "" if nobody said."""
    timestamp: datetime
    """When it happened, UTC."""
    priority: int
    """1 to 10; 7 and more overtakes a backlog."""
    correlation_id: str
    """Of the conversation: the parent's, else its own id."""
    body: Raw
    source_service: str | None = None
    """The service in which the source runs."""
    target_agent: str | None = None
    """The one agent that gets it; None: whoever subscribed."""
    parent_event_id: str | None = None
    """The event that caused it."""
    trace_id: str | None = None
    """Of a trace, in whatever form the tracer gives it."""
    traceparent: str | None = None
    """W3C trace context."""
    execution_id: str | None = None
    """Of the run that it belongs to."""
    ttl_seconds: float | None = None
    """Seconds from `timestamp` after which it is not handled any more, but counted as expired; None: never."""
    not_before: datetime | None = None
    """When it leaves, if it was delayed."""
    max_retries: int | None = None
    """Its own number of retries; None: the policy's of each subscription."""
    reply_to: str | None = None
    """Where the answer goes, if it is a request."""
    hops: int = 0
    """How many events caused it, each by the one before."""
    replay_of: str | None = None
    """The id of the event that it repeats, if it was replayed into a topic."""
    head: dict[str, str] = {}  # msgspec copies an empty default for each event
    retry_count: int = 0
    """In a handler: the failures so far. Not stored."""
    unknown: dict[str, Any] | None = None
    decoded: dict[str, Any] | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            topic: str | None = None,
            event_type: str | None = None,
            payload: Mapping[str, Any] | object | None = None,
            source_agent: str | None = None,
            source_service: str | None = None,
            target_agent: str | None = None,
            event_id: str | UUID | None = None,
            timestamp: datetime | str | None = None,
            priority: int | str = 5,
            correlation_id: str | UUID | None = None,
            parent_event_id: str | UUID | None = None,
            trace_id: str | UUID | None = None,
            traceparent: str | None = None,
            execution_id: str | UUID | None = None,
            ttl_seconds: float | None = None,
            not_before: datetime | str | None = None,
            max_retries: int | None = None,
            reply_to: str | None = None,
            hops: int = 0,
            replay_of: str | None = None,
            headers: Mapping[str, str] | None = None,
            retry_count: int = 0,
            id: str | UUID | None = None,
            source: str | None = None,
            source_agent_id: str | None = None,
            target: str | None = None,
            type: str | None = None,
            metadata: EventMetadata | None = None,
        ) -> None:
            """Make an event; raises InvalidEvent (or InvalidTopic) before anything is stored."""

    @property
    def payload(self) -> dict[str, Any]:
        """The payload, a JSON object; decoded at first sight and this event's own copy.

        StorageDamaged for one that is not what was written: nobody looked into it before.
        """
        found = self.decoded
        if found is None:
            try:
                found = _decode_payload(self.body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise damaged(self.event_id, error) from error
            structs.force_setattr(self, "decoded", found)
        return found

    @property
    def headers(self) -> dict[str, str]:
        """The headers, names to text; a copy."""
        return dict(self.head)

    @property
    def event_type(self) -> EventType:
        """What happened."""
        return EventType(self.kind)

    @property
    def type(self) -> EventType:
        """`event_type`, in the router's spelling."""
        return EventType(self.kind)

    @property
    def id(self) -> str:
        """`event_id`, in the router's spelling."""
        return self.event_id

    @property
    def source(self) -> str:
        """`source_agent`, in the router's spelling."""
        return self.source_agent

    @property
    def source_agent_id(self) -> str:
        """`source_agent`, in the blocking bus's spelling."""
        return self.source_agent

    @property
    def target(self) -> str | None:
        """`target_agent`, in the router's spelling."""
        return self.target_agent

    @property
    def metadata(self) -> EventMetadata:
        """The tracking part."""
        headers = self.headers
        known = {name: headers.pop(name, None) for name in ("span_id", "user_id", "session_id")}
        tags = headers.pop("tags", "")
        return EventMetadata(
            correlation_id=self.correlation_id,
            causation_id=self.parent_event_id,
            trace_id=self.trace_id,
            tags=tuple(tags.split(",")) if tags else (),
            headers=headers,
            **known,
        )

    @property
    def routing_key(self) -> str:
        """`{topic}.{band}`, what AMQP-style patterns match."""
        return f"{self.topic}.{band(self.priority)}"

    def __repr__(self) -> str:
        """Which event this is; never its payload, which does not belong into logs."""
        return f"Event({self.topic!r}, event_id={self.event_id!r}, source_agent={self.source_agent!r})"

    def __eq__(self, other: object) -> bool:
        """The same fields; whether somebody has looked at the payload makes no difference."""
        if not isinstance(other, Event):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _COMPARED)

    def __hash__(self) -> int:
        """Events are told apart by their id."""
        return hash(self.event_id)

    def __copy__(self) -> Event:
        """The same event with a payload of its own: what its holder does to that, nobody else sees."""
        twin: Event = super().__copy__()  # type: ignore[misc]  # every Struct has one
        if twin.decoded is not None:
            structs.force_setattr(twin, "decoded", None)
        return twin

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What `repr` shows, for rich."""
        return [("topic", self.topic), ("event_id", self.event_id), ("source_agent", self.source_agent)]

    def __reduce__(self) -> tuple[Callable[[bytes], Event], tuple[bytes]]:
        """Pickled as it is encoded, with what a delivery added."""
        return _unpickled, (msgspec.json.encode(copy(self)),)


_decode_payload: Final = msgspec.json.Decoder(dict[str, Any]).decode


def damaged(event_id: str, error: Exception) -> StorageDamaged:
    """The error for an event whose payload is no JSON object."""
    return StorageDamaged(f"the payload of event {event_id} is not what was written: {error}")


def _unpickled(data: bytes) -> Event:
    return msgspec.json.decode(data, type=Event)


_ENCODED: Final = frozenset(Event.__struct_encode_fields__)
LOCAL: Final = frozenset({"retry_count", "_decoded", "_unknown"})
"""Encoded names that are no part of the envelope."""
_FIELDS: Final = _ENCODED - {"_decoded", "_unknown"} | {"unknown"}
_COMPARED: Final = tuple(name for name in Event.__struct_fields__ if name != "decoded")
ALIASES: Final = {
    "id": "event_id",
    "source": "source_agent",
    "source_agent_id": "source_agent",
    "target": "target_agent",
    "type": "event_type",
}
"""The other dialects' names of our fields."""


def _one_dialect(given: dict[str, Any]) -> dict[str, Any]:
    """The same fields under our own names; InvalidEvent for a name nobody knows or two that disagree."""
    fields: dict[str, Any] = {}
    for name, value in given.items():
        own = ALIASES.get(name, name)
        if own not in _FIELDS and own != "metadata":
            raise InvalidEvent(f"an event has no field {shown(name)}")
        if value is None:
            continue
        if own in fields and fields[own] != value:
            raise InvalidEvent(f"{own} is given twice, as {name} too, and they say different things")
        fields[own] = value
    metadata = fields.pop("metadata", None)
    return fields if metadata is None else _with_metadata(fields, metadata)


def _with_metadata(fields: dict[str, Any], metadata: EventMetadata | Mapping[str, Any]) -> dict[str, Any]:
    """The fields and what a metadata object adds to them; what is given by its own name wins."""
    try:
        meta = msgspec.convert(metadata, EventMetadata, from_attributes=True)
    except msgspec.ValidationError as error:
        raise InvalidEvent(f"metadata: {error}") from error
    headers = _headers("metadata", meta.headers)
    for name in ("span_id", "user_id", "session_id"):
        if (value := getattr(meta, name)) is not None:
            headers[name] = value
    if meta.tags:
        headers["tags"] = _joined(meta.tags)
    ours = {"correlation_id": meta.correlation_id, "parent_event_id": meta.causation_id, "trace_id": meta.trace_id}
    return {**ours, **fields, "headers": headers | _headers("headers", fields.get("headers", {}))}


def _joined(tags: tuple[str, ...]) -> str:
    if all(isinstance(tag, str) and tag and "," not in tag for tag in tags):
        return ",".join(tags)
    raise InvalidEvent(f"metadata: {shown(tags)} are not tags: texts without a comma")


def _checked(
    *,
    event_type: object = None,
    topic: object = None,
    payload: object = None,
    source_agent: object = None,
    priority: object = None,
    **others: Any,
) -> dict[str, Any]:
    """What the struct is made of: every field checked, defaults filled in; None is not given."""
    fields = _optional(others) if others else {}
    if topic is None:
        if event_type is None:
            raise InvalidEvent("an event needs a topic or an event_type")
        topic = event_type
    fields["topic"] = topic = checked(check_topic, topic)
    fields["kind"] = topic if event_type is None else checked(check_topic, event_type)
    fields["source_agent"] = "" if source_agent is None or source_agent == "" else checked(check_name, source_agent)
    fields["body"] = Raw(encode_payload(payload))
    fields["priority"] = _NORMAL if priority is None else checked(priority_level, priority)
    fields["v"] = VERSION
    if "event_id" not in fields:
        fields["event_id"] = new_id()
    if "timestamp" not in fields:
        fields["timestamp"] = datetime.now(UTC)
    if "correlation_id" not in fields:
        fields["correlation_id"] = fields["event_id"]
    return fields


T = TypeVar("T")


def checked(check: Callable[[Any], T], value: object) -> T:
    """`check(value)`, where a value that cannot even be looked up (a list, a dict) is InvalidEvent too."""
    try:
        return check(value)
    except TypeError as error:
        raise InvalidEvent(f"{shown(value)} cannot stand here: {error}") from error


def _optional(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that most events leave out, checked."""
    fields = {name: _CHECKS[name](name, value) for name, value in given.items() if value is not None}
    if "headers" in fields:
        fields["head"] = fields.pop("headers")
    return fields


def check_id(name: str, value: object) -> str:
    """The id itself as text, if it is one; InvalidEvent otherwise, which says of what field."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return str.__str__(value)
    if isinstance(value, UUID):
        return str(value)
    raise InvalidEvent(f"{name}: {shown(value)} is not an id: a UUID, or 1 to 128 letters, digits and _ - . : / @")


def _named(name: str, value: object) -> str:
    try:
        return checked(check_name, value)
    except InvalidEvent as error:
        raise InvalidEvent(f"{name}: {error}") from error


def _topic(_name: str, value: object) -> str:
    return checked(check_topic, value)


def too_new(version: int) -> FormatTooNew:
    """The error for an event of a later envelope version."""
    return FormatTooNew(f"this event is envelope version {version}; this WowEvent knows {VERSION}")


def _version(_name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < VERSION or value >= 2**63:
        raise InvalidEvent(f"v: {shown(value)} is not an envelope version")
    if value > VERSION:
        raise too_new(value)
    return value


def _unknown(_name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidEvent("unknown: not an object of fields")
    if ours := _ENCODED & value.keys():  # they would be written beside ours, and read instead of them
        raise InvalidEvent(f"{', '.join(sorted(ours))}: not a field that can be kept beside our own")
    try:
        plain: dict[str, Any] = msgspec.json.decode(encode_payload(value))
    except InvalidEvent as error:
        raise InvalidEvent(f"a field that is not known here: {error}") from error
    return plain


def utc(value: datetime | str, name: str = "time") -> datetime:
    """An aware UTC time from a datetime or ISO 8601 text; naive means UTC. InvalidEvent otherwise."""
    try:
        given = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        time = datetime.combine(given, given.timetz())  # the encoder knows no subclasses
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidEvent(f"{name}: {shown(value)} is not a time: a datetime or ISO 8601 text") from error


def _time(name: str, value: Any) -> datetime:
    return utc(value, name)


def _count(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
        return value
    raise InvalidEvent(f"{name}: {shown(value)} is not a whole number from 0 on")


def _seconds(name: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**11:
        return float(value)  # as it is decoded: an event is the same bytes however often it is encoded
    raise InvalidEvent(f"{name}: {shown(value)} is not a number of seconds above 0")


def _headers(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, (dict, Mapping)):  # a dict is found at once, other mappings by a search
        raise InvalidEvent(f"{name}: {shown(value)} is not a mapping of names to text")
    return {_named(name, key): _text(name, text) for key, text in value.items()}


def _text(name: str, value: object) -> str:
    if isinstance(value, str) and _TEXT.fullmatch(value):
        return str.__str__(value)
    raise InvalidEvent(f"{name}: {shown(value)} is not text of 4,096 characters at most without control characters")


_CHECKS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    **dict.fromkeys(
        ("event_id", "correlation_id", "parent_event_id", "trace_id", "execution_id", "replay_of"), check_id
    ),
    **dict.fromkeys(("source_service", "target_agent"), _named),
    **dict.fromkeys(("timestamp", "not_before"), _time),
    **dict.fromkeys(("max_retries", "hops", "retry_count"), _count),
    "ttl_seconds": _seconds,
    "reply_to": _topic,
    "traceparent": _text,
    "headers": _headers,
    "v": _version,
    "unknown": _unknown,
}
