"""Event <-> bytes, and CloudEvents in and out; the only place that knows an encoding.

Two doors. `encode`/`decode` are for what the bus itself wrote: fast, and they keep fields that a newer minor version
added. `parse` is for what a stranger sends: strict JSON (no NaN, no duplicate keys, no lone surrogates, UTF-8 only,
bounded depth), either spelling of the fields, everything checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct, structs

from wowevent.errors import BusError, InvalidEvent, StorageDamaged, shown
from wowevent.event import ALIASES, LOCAL, VERSION, Event, damaged, too_new
from wowevent.payload import MAX_DEPTH, check_depth

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Event)
_FIELDS: Final = frozenset(Event.__struct_encode_fields__)
_ESCAPED: Final = re.compile(rb"\\u003[aA]")


def encode(event: Event) -> bytes:
    """The event as envelope v1 JSON. What a delivery adds (`retry_count`) is not part of it."""
    if event.retry_count or event.unknown is not None or event.decoded is not None:
        return _encode_rare(event)
    return _encoder.encode(event)


def _encode_rare(event: Event) -> bytes:
    """`encode` for an event that was delivered or looked at before, or that carries fields we do not know."""
    unknown = event.unknown or {}
    known = _encoder.encode(structs.replace(event, retry_count=0, unknown=None, decoded=None))
    return known if not unknown else known[:-1] + b"," + _encoder.encode(unknown)[1:]


def decode(data: bytes | bytearray | memoryview) -> Event:
    """The event of envelope bytes that the bus wrote.

    Raises FormatTooNew for a newer envelope version, StorageDamaged for bytes that are no envelope.
    """
    if not isinstance(data, bytes):
        data = bytes(data)  # the payload stays a part of it, and must not change with a buffer
    try:
        event = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_rare(data)
    if event.decoded is not None or event.unknown is not None or event.retry_count:
        return _decode_rare(data)  # which says what is wrong: no envelope has these
    return event


class _Versioned(Struct):
    v: Annotated[int, Meta(ge=VERSION)]


def _decode_rare(data: bytes) -> Event:
    """`decode` for an event with fields that we do not know: they are kept, and go out again in `encode`."""
    try:
        if (version := msgspec.json.decode(data, type=_Versioned).v) > VERSION:
            raise too_new(version)
        fields = msgspec.json.decode(data, type=dict[str, Raw])
        unknown = {name: msgspec.json.decode(value) for name, value in fields.items() if name not in _FIELDS}
        known = {name: value for name, value in fields.items() if name in _FIELDS}
        if local := LOCAL & known.keys():  # a payload beside the stored one, say
            raise StorageDamaged(f"these bytes are not an event: no envelope has {', '.join(sorted(local))}")
        return structs.replace(_decoder.decode(_encoder.encode(known)), unknown=unknown or None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StorageDamaged(f"these bytes are not an event: {error}") from error


def loads(data: bytes | str) -> Any:
    """Strict JSON from outside; InvalidEvent says what is wrong with it."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    try:
        value = msgspec.json.decode(raw)
        _refuse_duplicates(raw, value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not JSON as it must be: {error}") from error
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:  # else it cannot be too deep
        check_depth(value, MAX_DEPTH + 3)  # a batch of envelopes around a payload of the allowed depth
    return value


def _refuse_duplicates(raw: bytes, value: object) -> None:
    """ValueError if an object in `raw` names a key twice; the decoder would keep the last and say nothing.

    A lost key is a colon that is not written again. Counting them costs a tenth of a second decoder, which is asked
    only where the counts differ or where an escape could hide a colon.
    """
    if raw.count(b":") == _encoder.encode(value).count(b":") and (b"\\u" not in raw or not _ESCAPED.search(raw)):
        return

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, item in pairs:
            if name in found:
                raise ValueError(f"the key {shown(name)} stands twice in one object")
            found[name] = item
        return found

    json.loads(raw, object_pairs_hook=once)


def parse(data: bytes | str) -> Event:
    """One event from a stranger's JSON, in either spelling of the fields.

    InvalidEvent says what is wrong with it; FormatTooNew is raised for a newer envelope version.
    """
    return from_fields(loads(data))


def from_fields(fields: object) -> Event:
    """One event from decoded JSON: our envelope, the ancestors' spellings, or a CloudEvent (it has `specversion`)."""
    if not isinstance(fields, dict):
        raise InvalidEvent(f"an event is a JSON object, not {type(fields).__name__}")
    if "specversion" in fields:
        return from_cloudevent(fields)
    given = dict(fields)
    given.pop("retry_count", None)
    if not _ACCEPTED.issuperset(fields):
        given["unknown"] = {name: given.pop(name) for name in fields if name not in _ACCEPTED}
    return Event(**given)


_ACCEPTED: Final = _FIELDS - LOCAL | ALIASES.keys() | {"retry_count", "metadata"}


def to_fields(event: Event) -> dict[str, Any]:
    """The event as plain JSON values, complete: what an HTTP answer or a frame shows of it."""
    return {**dict.fromkeys(_SHOWN), "hops": 0, "headers": {}, **_plain(event)}


def _plain(event: Event) -> dict[str, Any]:
    """The fields as the envelope has them; StorageDamaged for a payload that is not what was written."""
    try:
        plain: dict[str, Any] = msgspec.json.decode(encode(event))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise damaged(event.event_id, error) from error
    return plain


_SHOWN: Final = tuple(name for name in Event.__struct_encode_fields__ if name not in LOCAL)

# CloudEvents 1.0, JSON event format (structured mode). Attribute names are lower-case letters and digits, 20 at most by
# recommendation, so our longer fields travel as extension attributes without their underscores.
_CE_EXTENSIONS: Final[Mapping[str, str]] = {
    "topic": "topic",
    "priority": "priority",
    "correlationid": "correlation_id",
    "causationid": "parent_event_id",
    "traceid": "trace_id",
    "traceparent": "traceparent",
    "executionid": "execution_id",
    "targetagent": "target_agent",
    "sourceservice": "source_service",
    "ttlseconds": "ttl_seconds",
    "notbefore": "not_before",
    "maxretries": "max_retries",
    "replyto": "reply_to",
    "hops": "hops",
    "replayof": "replay_of",
    "weheaders": "headers",
}
_CE_OWN: Final = frozenset({"data_base64", *_CE_EXTENSIONS})
"""Names that say something of a CloudEvent: an unknown field of that name would be read as what it is not."""
_CE_SOURCE: Final = re.compile(r"[^A-Za-z0-9_\-.:/@]")
_CE_JSON: Final = re.compile(r"[^/;]+/(?:[^/;]+\+)?json *(?:;.*)?", re.IGNORECASE)


def to_cloudevent(event: Event) -> dict[str, Any]:
    """The event as a CloudEvents 1.0 object (structured JSON mode)."""
    fields = _plain(event)
    cloud: dict[str, Any] = {
        "specversion": "1.0",
        "id": fields["event_id"],
        "source": fields["source_agent"] or "/",
        "type": fields["event_type"],
        "time": fields["timestamp"],
        "datacontenttype": "application/json",
        "data": fields["payload"],
    }
    cloud |= {attribute: fields[name] for attribute, name in _CE_EXTENSIONS.items() if name in fields}
    if (ttl := event.ttl_seconds) is not None:  # there are whole numbers and text there, and no fractions
        cloud["ttlseconds"] = int(ttl) if ttl.is_integer() else str(ttl)
    if "weheaders" in cloud:
        cloud["weheaders"] = json.dumps(cloud["weheaders"])
    return {name: value for name, value in (event.unknown or {}).items() if name not in _CE_OWN} | cloud


def from_cloudevent(cloud: Mapping[str, Any]) -> Event:
    """The event of a CloudEvents 1.0 object; `data` must be a JSON object. Unknown attributes are kept."""
    given = {name: value for name, value in cloud.items() if value is not None}  # null is absent, by the specification
    if given.pop("specversion", None) != "1.0":
        raise InvalidEvent("CloudEvents: specversion 1.0 is understood, and no other")
    missing = [name for name in ("id", "source", "type") if not isinstance(given.get(name), str) or not given[name]]
    if missing:
        raise InvalidEvent(f"CloudEvents: {', '.join(missing)} must be there and be text")
    if "data_base64" in given or not _CE_JSON.fullmatch(str(given.pop("datacontenttype", "application/json"))):
        raise InvalidEvent("CloudEvents: data must be application/json")
    source = given.pop("source")
    fields: dict[str, Any] = {
        "event_id": given.pop("id"),
        # A source is a URI reference there and a name here: what a name cannot hold becomes '-'.
        "source_agent": None if source == "/" else _CE_SOURCE.sub("-", source)[:128],
        "event_type": given.pop("type"),
        "timestamp": given.pop("time", None),
        "payload": given.pop("data", None),
    }
    fields |= {name: given.pop(attribute) for attribute, name in _CE_EXTENSIONS.items() if attribute in given}
    if isinstance(headers := fields.get("headers"), str):
        fields["headers"] = loads(headers)
    if isinstance(ttl := fields.get("ttl_seconds"), str):
        with suppress(ValueError):  # what is no number is refused by its own name
            fields["ttl_seconds"] = float(ttl)
    if given:
        fields["unknown"] = given
    return Event(**fields)


# --- the form as a JSON schema, and pydantic ------------------------------------------------------------------------


def json_schema(mode: Literal["validation", "serialization"]) -> dict[str, Any]:
    """The JSON schema of an event as `from_fields` takes it (validation), or as `to_fields` gives it, complete."""
    if mode == "serialization":
        return {
            "type": "object",
            "description": "An event, complete (envelope v1); fields that are not known here are kept as they came.",
            "properties": deepcopy(_GIVEN),
            "required": list(_GIVEN),
        }
    return {
        "type": "object",
        "description": "An event as it is sent: a topic or an event_type is enough. Unknown fields are kept.",
        "properties": deepcopy({name: _nullable(shape) for name, shape in {**_GIVEN, **_TAKEN}.items()}),
        "anyOf": [{"required": [name]} for name in ("topic", "event_type", "type")],
    }


def _nullable(shape: Mapping[str, Any]) -> dict[str, Any]:
    types = shape.get("type", [])
    if "const" in shape or "null" in types:
        return dict(shape)
    return {**shape, "type": [types, "null"] if isinstance(types, str) else [*types, "null"]}


_TEXT: Final[Mapping[str, Any]] = {"type": "string"}
_NAME: Final[Mapping[str, Any]] = {"type": "string", "maxLength": 128}
_TIME: Final[Mapping[str, Any]] = {"type": "string", "format": "date-time"}
_COUNT: Final[Mapping[str, Any]] = {"type": "integer", "minimum": 0}
_GIVEN: Final[dict[str, Mapping[str, Any]]] = {
    "v": {"const": VERSION},
    "event_id": _NAME,
    "event_type": {**_TEXT, "description": "What happened."},
    "topic": {**_TEXT, "description": "Where it is routed."},
    "source_agent": _NAME,
    "timestamp": _TIME,
    "priority": {"type": "integer", "minimum": 1, "maximum": 10},
    "correlation_id": _NAME,
    "payload": {"type": "object"},
    "source_service": _nullable(_NAME),
    "target_agent": _nullable(_NAME),
    "parent_event_id": _nullable(_NAME),
    "trace_id": _nullable(_NAME),
    "traceparent": _nullable(_TEXT),
    "execution_id": _nullable(_NAME),
    "ttl_seconds": _nullable({"type": "number", "exclusiveMinimum": 0}),
    "not_before": _nullable(_TIME),
    "max_retries": _nullable(_COUNT),
    "reply_to": _nullable(_TEXT),
    "hops": _COUNT,
    "replay_of": _nullable(_NAME),
    "headers": {"type": "object", "additionalProperties": {"type": "string"}},
}
_NAIVE: Final[Mapping[str, Any]] = {**_TEXT, "description": "ISO 8601; naive is UTC."}
_TAKEN: Final[dict[str, Mapping[str, Any]]] = {
    "priority": {
        "type": ["integer", "string"],
        "minimum": 1,
        "maximum": 10,
        "description": "1 to 10, or a name such as `high`.",
    },
    "timestamp": _NAIVE,
    "not_before": _NAIVE,
    "metadata": {"type": "object"},
    **{alias: {**_TEXT, "description": f"Another name of {own}."} for alias, own in ALIASES.items()},
}
"""What is taken beside, or looser than, what is given."""


def _core_schema(_event: type[Event], _source: Any, _handler: Any) -> Any:
    """How pydantic makes an event, as `from_fields` does or of the event it is, and writes it, as `to_fields` does."""
    from pydantic_core import PydanticCustomError, core_schema  # noqa: PLC0415 - who asks has it; others need not wait

    def made(value: object) -> Event:
        if isinstance(value, Event):
            return value
        try:
            return from_fields(value)
        except BusError as error:
            raise PydanticCustomError(error.code, "{message}", {"message": str(error)}) from error

    # With a reference, models that hold events share one description of them.
    written = core_schema.plain_serializer_function_ser_schema(to_fields)
    return core_schema.no_info_plain_validator_function(made, ref="wowevent.Event", serialization=written)


def _shown(_event: type[Event], _schema: Any, handler: Any) -> dict[str, Any]:
    """What pydantic, and FastAPI in /openapi.json, say of such a field."""
    return {"title": "Event", **json_schema(handler.mode)}


# The event lies below us and knows nothing of its form; `import wowevent` brings the two together.
for _name, _hook in (("__get_pydantic_core_schema__", _core_schema), ("__get_pydantic_json_schema__", _shown)):
    setattr(Event, _name, classmethod(_hook))
