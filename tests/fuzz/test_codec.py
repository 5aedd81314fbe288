"""Events as bytes: what anybody may send, what may lie in a log, and CloudEvents both ways."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from tests.fuzz.rounds import Rounds
from tests.fuzz.texts import STRANGE, changed, text_of, torn
from tests.unit.test_codec import ENVELOPE, FULL, UNKNOWN, events
from wowevent.codec import decode, encode, from_cloudevent, from_fields, parse, to_cloudevent, to_fields
from wowevent.errors import BusError, FormatTooNew, StorageDamaged
from wowevent.event import ALIASES, Event
from wowevent.payload import MAX_DEPTH

SAID = {name: value for name, value in ENVELOPE.items() if name not in {"timestamp", "not_before"}}
"""All fields but times, of which the library says itself what it can read."""
WRITTEN = st.sampled_from((encode(FULL), encode(Event(topic="a")), text_of(ENVELOPE | UNKNOWN))) | events.map(encode)
SENT = changed(SAID, ("unheard_of", *SAID))
CLOUD = json.loads(json.dumps(to_cloudevent(FULL)))
CLOUDS = changed(
    CLOUD, ("subject", "datacontenttype", "data_base64", "target", "metadata", "event_id", "retry_count", *CLOUD)
)


# --- the rules, as the contract has them, word by word ---------------------------------------------------------------


def is_name(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 128 and all(is_plain(each, "_-.:/@") for each in value)


def is_plain(character: str, more: str) -> bool:
    return character in more or (character.isascii() and character.isalnum())


def is_topic(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > 200:
        return False
    return all(word and all(is_plain(each, "_-") for each in word) for word in value.split("."))


def is_text(value: Any) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= 4_096
        and all(unicodedata.category(each) not in {"Cc", "Cs"} for each in value)
    )


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def is_priority(value: Any) -> bool:
    if isinstance(value, str):
        return value.casefold() in {"lowest", "low", "normal", "high", "critical", "system"}
    return type(value) is int and 1 <= value <= 10


def is_headers(value: Any) -> bool:
    return isinstance(value, dict) and all(is_name(name) and is_text(text) for name, text in value.items())


def levels(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(levels, inner), default=0)


def is_sayable(value: Any) -> bool:
    """Whether JSON can say it: no half characters."""
    if isinstance(value, str):
        return not any("\ud800" <= each <= "\udfff" for each in value)
    if isinstance(value, dict):
        return all(is_sayable(each) for pair in value.items() for each in pair)
    return not isinstance(value, list) or all(map(is_sayable, value))


RULES: dict[str, Callable[[Any], bool]] = {
    "v": lambda value: type(value) is int and value == 1,
    **dict.fromkeys(("event_id", "correlation_id", "parent_event_id", "trace_id", "execution_id"), is_name),
    **dict.fromkeys(("replay_of", "source_service", "target_agent"), is_name),
    "source_agent": lambda value: value == "" or is_name(value),
    **dict.fromkeys(("topic", "event_type", "reply_to"), is_topic),
    "priority": is_priority,
    "payload": lambda value: isinstance(value, dict) and levels(value) <= MAX_DEPTH,
    "traceparent": is_text,
    "ttl_seconds": lambda value: type(value) in {int, float} and 0 < value < 10**11,
    **dict.fromkeys(("max_retries", "hops"), is_count),
    "headers": is_headers,
}  # fmt: skip


def is_event(fields: Mapping[str, Any]) -> bool:
    """Whether a stranger's fields are an event; of times, aliases and metadata these rules know nothing."""
    given = {name: value for name, value in fields.items() if value is not None and name != "retry_count"}
    others = {name: value for name, value in fields.items() if name not in RULES and name != "retry_count"}
    return (
        (given.get("topic") or given.get("event_type")) is not None
        and all(RULES[name](value) for name, value in given.items() if name in RULES)
        and levels(others) <= MAX_DEPTH
        and not {"_decoded", "_unknown"} & others.keys()
        and is_sayable(dict(fields))
    )


UNKNOWABLE = {"timestamp", "not_before", "metadata", "specversion", *ALIASES}


def check_refused(error: BusError) -> None:
    assert not isinstance(error, StorageDamaged)
    assert error.code in {"invalid_event", "invalid_topic", "format_too_new"}
    assert len(str(error)) < 400
    assert str(error).isprintable()


# --- strangers -------------------------------------------------------------------------------------------------------


def test_a_strangers_fields_are_an_event_exactly_if_the_rules_say_so(fuzz: Rounds):
    def judged(fields: dict[str, Any]) -> None:
        assume(not UNKNOWABLE & fields.keys())
        try:
            event = parse(text_of(fields))
        except BusError as error:
            assert not is_event(fields)
            check_refused(error)
            return
        assert is_event(fields), "it was taken"
        assert event.payload == (fields.get("payload") or {})
        assert from_fields(to_fields(event)) == parse(encode(event)) == decode(encode(event)) == event
        assert (event.unknown or {}) == {n: v for n, v in fields.items() if n not in RULES and n != "retry_count"}

    fuzz.check(judged, short=150, fields=SENT)


def test_the_other_names_of_a_field_say_the_same(fuzz: Rounds):
    def judged(fields: dict[str, Any], alias: str) -> None:
        own = ALIASES[alias]
        assume(not UNKNOWABLE & fields.keys() and own in fields)
        renamed = {alias if name == own else name: value for name, value in fields.items()}
        assert outcome(renamed) == outcome(fields)

    fuzz.check(judged, fields=SENT, alias=st.sampled_from(sorted(ALIASES)))


def outcome(fields: dict[str, Any]) -> tuple[Any, ...] | str:
    """What becomes of it, but for what is made anew each time."""
    try:
        event = parse(text_of(fields))
    except BusError as error:
        return error.code
    made = () if fields.get("event_id") or fields.get("id") else ("event_id", "correlation_id")
    return tuple((n, str(v)) for n, v in to_fields(event).items() if n not in {"timestamp", "not_before", *made})


def test_any_fields_are_an_event_or_refused(fuzz: Rounds):
    def judged(fields: dict[str, Any]) -> None:
        try:
            event = parse(text_of(fields))
        except BusError as error:
            check_refused(error)
            return
        assert decode(encode(event)) == event
        assert encode(decode(encode(event))) == encode(event)
        check_as_cloudevent(event)

    names = (*ALIASES, "metadata", "timestamp", "not_before", "specversion", "_unknown", "_decoded", "data_base64",
             "ttlseconds", "traceid", "weheaders", "subject")  # fmt: skip
    fuzz.check(judged, short=100, fields=changed(ENVELOPE, names))


def test_any_bytes_of_a_stranger_are_an_event_or_refused(fuzz: Rounds):
    def judged(data: bytes) -> None:
        for given in (data, data.decode("utf-8", "replace"), data.decode("latin-1")):
            try:
                event = parse(given)
            except BusError as error:
                check_refused(error)
            else:
                assert decode(encode(event)) == event

    fuzz.check(judged, data=st.binary(max_size=60) | torn(WRITTEN))


# --- the log ---------------------------------------------------------------------------------------------------------


def test_any_bytes_of_a_log_are_an_event_that_stays_the_same_or_damage(fuzz: Rounds):
    def judged(data: bytes) -> None:
        try:
            event = decode(data)
        except (StorageDamaged, FormatTooNew):
            return
        written = encode(event)
        assert encode(decode(written)) == written
        with suppress(StorageDamaged):  # the payload alone is damaged: whoever looks at it is told
            assert isinstance(event.payload, dict)
            to_fields(event)
            to_cloudevent(event)

    fuzz.check(judged, short=150, data=st.binary(max_size=60) | torn(WRITTEN))


# --- CloudEvents -----------------------------------------------------------------------------------------------------


def check_as_cloudevent(event: Event) -> None:
    """It says what the event says, whatever other fields that brings along."""
    cloud = json.loads(json.dumps(to_cloudevent(event)))
    assert cloud["specversion"] == "1.0"
    assert "data_base64" not in cloud
    back = from_cloudevent(cloud)
    own = [name for name in SAID if name not in {"source_agent", "v"}]  # '/' is who does not say his name
    assert {name: getattr(back, name) for name in own} == {name: getattr(event, name) for name in own}
    assert back.timestamp == event.timestamp
    assert back.not_before == event.not_before
    assert back.source_agent in {event.source_agent, ""}


def test_any_cloudevent_is_an_event_or_refused(fuzz: Rounds):
    def judged(cloud: dict[str, Any]) -> None:
        try:
            event = parse(text_of({"specversion": "1.0", **cloud}))
        except BusError as error:
            check_refused(error)
            return
        assert decode(encode(event)) == event
        assert is_name(event.event_id)
        assert is_topic(event.topic)
        check_as_cloudevent(event)

    fuzz.check(judged, short=100, cloud=CLOUDS)


def test_any_event_is_a_cloudevent_whatever_else_it_says(fuzz: Rounds):
    def judged(event: Event, names: dict[str, Any]) -> None:
        more = {name: each for name, each in names.items() if is_sayable([name, each]) and levels(each) < MAX_DEPTH}
        fields = json.loads(json.dumps(to_fields(event)))
        check_as_cloudevent(from_fields({**{n: v for n, v in more.items() if n not in TAKEN}, **fields}))

    fuzz.check(
        judged, event=events, names=st.dictionaries(st.sampled_from(sorted({*CLOUD, "data_base64", "x"})), STRANGE)
    )


TAKEN = {"specversion", *ALIASES, "metadata"}
"""Names that say something of an event here, or make a CloudEvent of it."""
