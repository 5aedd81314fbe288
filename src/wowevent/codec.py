"""Event <-> bytes, and CloudEvents in and out; the only place that knows an encoding.

Two doors. `encode`/`decode` are for what the bus itself wrote: fast, and they keep fields that a newer minor version added.
`parse` is for what a stranger sends: strict JSON (no NaN, no duplicate keys, no lone surrogates, UTF-8 only, bounded depth),
either spelling of the fields, everything checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, structs

from wowevent.errors import FormatTooNew, InvalidEvent, StorageDamaged
from wowevent.event import MAX_DEPTH, VERSION, Event, check_depth, utc

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Event)
_FIELDS: Final = frozenset(field.encode_name for field in structs.fields(Event))
_KEY: Final = re.compile(rb'"[ \t\r\n]*:')
_ESCAPED: Final = re.compile(rb"\\u00(?:22|3[aA]|5[cC]|09|0[aAdD]|20)")


def encode(event: Event) -> bytes:
    """The event as envelope v1 JSON. What a delivery adds (`retry_count`) is not part of it."""
    if event.retry_count or event.unknown:
        return _encode_rare(event)
    return _encoder.encode(event)


def _encode_rare(event: Event) -> bytes:
    """`encode` for an event that was delivered before, or that carries fields we do not know."""
    unknown = event.unknown or {}
    known = _encoder.encode(structs.replace(event, retry_count=0, unknown=None))
    return known if not unknown else known[:-1] + b"," + _encoder.encode(unknown)[1:]


def decode(data: bytes | memoryview) -> Event:
    """The event of envelope bytes that the bus wrote.

    Raises FormatTooNew for a newer envelope version, StorageDamaged for bytes that are no envelope.
    """
    try:
        event = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_rare(data)
    if event.v != VERSION:
        raise FormatTooNew(f"this event is envelope version {event.v}; this WowEvent knows {VERSION}")
    return event


def _decode_rare(data: bytes | memoryview) -> Event:
    """`decode` for an event with fields that we do not know: they are kept, and go out again in `encode`."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, Raw])
        if (version := msgspec.json.decode(fields.get("v", b"0"))) != VERSION:
            raise FormatTooNew(f"this event is envelope version {version!r:.20}; this WowEvent knows {VERSION}")
        unknown = {name: msgspec.json.decode(fields.pop(name)) for name in fields.keys() - _FIELDS}
        event = _decoder.decode(_encoder.encode(fields))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StorageDamaged(f"these bytes are not an event: {error}") from error
    return structs.replace(event, unknown=unknown)


def loads(data: bytes | str) -> Any:
    """Strict JSON from outside; InvalidEvent says what is wrong with it."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    try:
        value = msgspec.json.decode(raw)
        _refuse_duplicates(raw, value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not JSON as it must be: {error}") from error
    check_depth(value, MAX_DEPTH + 3)  # a batch of envelopes around a payload of the allowed depth
    return value


def _refuse_duplicates(raw: bytes, value: object) -> None:
    """ValueError if an object in `raw` names a key twice; the decoder would keep the last and say nothing.

    A lost key is a colon behind a quote that is not written again. Counting them costs a tenth of a second decoder, which
    is asked only where the counts differ or where an escape could hide a quote, a colon or a blank.
    """
    again = _encoder.encode(value)
    if not _ESCAPED.search(raw) and len(_KEY.findall(raw)) == len(_KEY.findall(again)):
        return

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r:.80} stands twice in one object")
        return found

    json.loads(raw, object_pairs_hook=once)


def parse(data: bytes | str) -> Event:
    """One event from a stranger's JSON, in either spelling of the fields; InvalidEvent says what is wrong."""
    return from_fields(loads(data))


def from_fields(fields: object) -> Event:
    """One event from decoded JSON: our envelope, the ancestors' spellings, or a CloudEvent (it has `specversion`)."""
    if not isinstance(fields, dict):
        raise InvalidEvent(f"an event is a JSON object, not {type(fields).__name__}")
    if "specversion" in fields:
        return from_cloudevent(fields)
    given = dict(fields)
    version = given.pop("v", VERSION)
    if version != VERSION:
        raise FormatTooNew(f"this event is envelope version {version!r:.20}; this WowEvent knows {VERSION}")
    if not isinstance(given.get("payload", {}), dict):
        raise InvalidEvent(f"payload: a JSON object is needed, not {type(given['payload']).__name__}")
    given.pop("retry_count", None)
    unknown = {name: given.pop(name) for name in given.keys() - _ACCEPTED}
    return Event(**given, **({"unknown": unknown} if unknown else {}))


_ACCEPTED: Final = _FIELDS - {"_unknown", "v"} | {
    "id",
    "source",
    "source_agent_id",
    "target",
    "type",
    "metadata",
}


def to_fields(event: Event) -> dict[str, Any]:
    """The event as plain JSON values, complete: what an HTTP answer or a frame shows of it."""
    fields: dict[str, Any] = dict.fromkeys(_SHOWN)
    fields.update(msgspec.json.decode(encode(event)))
    return fields


_SHOWN: Final = tuple(
    name for name in (f.encode_name for f in structs.fields(Event)) if name not in {"_unknown", "retry_count"}
)

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
_CE_SOURCE: Final = re.compile(r"[^A-Za-z0-9_\-.:/@]")


def to_cloudevent(event: Event) -> dict[str, Any]:
    """The event as a CloudEvents 1.0 object (structured JSON mode)."""
    cloud: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": event.source_agent or "/",
        "type": event.kind,
        "time": event.timestamp.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": event.payload,
    }
    fields = msgspec.json.decode(encode(event))
    for attribute, name in _CE_EXTENSIONS.items():
        if (value := fields.get(name)) not in (None, {}):
            cloud[attribute] = json.dumps(value) if name == "headers" else value
    return cloud | (event.unknown or {})


def from_cloudevent(cloud: Mapping[str, Any]) -> Event:
    """The event of a CloudEvents 1.0 object; `data` must be a JSON object. Unknown attributes are kept."""
    given = dict(cloud)
    if given.pop("specversion") != "1.0":
        raise InvalidEvent("CloudEvents: specversion 1.0 is understood, and no other")
    missing = [name for name in ("id", "source", "type") if not isinstance(given.get(name), str) or not given[name]]
    if missing:
        raise InvalidEvent(f"CloudEvents: {', '.join(missing)} must be there and be text")
    if given.pop("datacontenttype", "application/json") != "application/json" or "data_base64" in given:
        raise InvalidEvent("CloudEvents: data must be application/json")
    fields: dict[str, Any] = {
        "event_id": given.pop("id"),
        # A source is a URI reference there and a name here: what a name cannot hold becomes '-'.
        "source_agent": None if given["source"] == "/" else _CE_SOURCE.sub("-", given["source"])[:128],
        "event_type": given.pop("type"),
        "payload": given.pop("data", None) or {},
    }
    del given["source"]
    if (time := given.pop("time", None)) is not None:
        fields["timestamp"] = utc(time, "time")
    for attribute, name in _CE_EXTENSIONS.items():
        if attribute in given:
            fields[name] = given.pop(attribute)
    if isinstance(fields.get("headers"), str):
        fields["headers"] = loads(fields["headers"])
    return from_fields({**fields, **given})
