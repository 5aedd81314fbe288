"""Events: every field, in every spelling; checked, immutable."""

import copy
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wowevent.errors import FormatTooNew, InvalidEvent, InvalidTopic
from wowevent.event import Event, EventMetadata, check_name, utc
from wowevent.event_type import EventType
from wowevent.payload import MAX_DEPTH, check_depth, encode_payload
from wowevent.priority import EventPriority

UUID_TEXT = "0190a000-0000-7000-8000-000000000001"
make: Any = Event  # as it is called by those who have no types, or who do not know better
metadata_of: Any = EventMetadata
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

# ------------------------------------------------------------------------------------------------ fields

FIELDS = {
    "event_id": (UUID_TEXT, UUID_TEXT),
    "event_type": ("task.created", "task.created"),
    "topic": ("task.created", "task.created"),
    "source_agent": ("planner", "planner"),
    "source_service": ("planning", "planning"),
    "target_agent": ("worker", "worker"),
    "payload": ({"n": 1}, {"n": 1}),
    "timestamp": (NOON, NOON),
    "priority": (8, 8),
    "correlation_id": ("c", "c"),
    "parent_event_id": ("p", "p"),
    "trace_id": ("t", "t"),
    "traceparent": ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",) * 2,
    "execution_id": ("x", "x"),
    "ttl_seconds": (0.5, 0.5),
    "not_before": ("2026-01-02T12:00:00", NOON),
    "max_retries": (0, 0),
    "reply_to": ("_reply.1", "_reply.1"),
    "hops": (3, 3),
    "replay_of": ("r", "r"),
    "headers": ({"k": "v"}, {"k": "v"}),
    "retry_count": (2, 2),
    # the ancestors' spellings
    "id": (UUID(UUID_TEXT), UUID_TEXT),
    "source": ("planner", "planner"),
    "source_agent_id": ("planner", "planner"),
    "target": ("worker", "worker"),
    "type": (EventType.TASK_CREATED, "task.created"),
}


@pytest.mark.parametrize(("name", "given_value", "read"), [(n, *v) for n, v in FIELDS.items()], ids=FIELDS.keys())
def test_each_field_is_read_as_it_was_given(name: str, given_value: object, read: object):
    event = make(**{"topic": "task.created"} | {name: given_value})
    assert getattr(event, name) == read


def test_what_is_not_given_has_its_default():
    before = datetime.now(UTC)
    event = Event(topic="task.created")
    assert before <= event.timestamp <= datetime.now(UTC)
    assert UUID(event.event_id).version == 7
    assert event.correlation_id == event.event_id
    assert (event.v, event.event_type, event.source_agent, event.payload) == (1, "task.created", "", {})
    assert (event.priority, event.hops, event.headers, event.retry_count) == (5, 0, {}, 0)
    others: tuple[str, ...] = (
        "source_service",
        "target_agent",
        "parent_event_id",
        "trace_id",
        "traceparent",
        "execution_id",
    )
    others += ("ttl_seconds", "not_before", "max_retries", "reply_to", "replay_of", "unknown")
    assert all(getattr(event, name) is None for name in others)


@pytest.mark.parametrize("name", [*FIELDS, "metadata"])
def test_none_is_not_given(name: str):
    event = make(**{"topic": "a", "event_type": "b"} | {name: None})
    assert event.topic in ("a", "b")


@pytest.mark.parametrize(
    ("fields", "topic", "kind"),
    [
        ({"topic": "a"}, "a", "a"),
        ({"event_type": "b"}, "b", "b"),
        ({"type": "b"}, "b", "b"),
        ({"topic": "a", "event_type": "b"}, "a", "b"),
        ({"event_type": EventType.TASK_FAILED}, "task.failed", "task.failed"),
    ],
    ids=str,
)
def test_topic_and_type_default_to_each_other(fields: dict, topic: str, kind: str):
    event = make(**fields)
    assert (event.topic, event.event_type, event.kind) == (topic, kind, kind)
    assert type(event.topic) is type(event.kind) is str


def test_one_of_topic_and_type_is_needed():
    with pytest.raises(InvalidEvent, match="needs a topic or an event_type"):
        Event(payload={})


@pytest.mark.parametrize(
    "fields",
    [{"id": "a", "event_id": "b"}, {"source": "a", "source_agent_id": "b"}, {"event_type": "a", "type": "b"}],
    ids=str,
)
def test_two_spellings_of_one_field_must_agree(fields: dict):
    with pytest.raises(InvalidEvent, match="given twice"):
        make(topic="a", **fields)
    make(topic="a", **dict.fromkeys(fields, "same"))


def test_a_name_that_no_dialect_knows_is_refused():
    with pytest.raises(InvalidEvent, match="no field 'colour'"):
        make(topic="a", colour="red")
    for internal in ("kind", "body", "head", "_unknown"):
        with pytest.raises(InvalidEvent, match="no field"):
            make(topic="a", **{internal: "x"})


def test_fields_are_given_by_name():
    with pytest.raises(TypeError):
        make("task.created")


def deep(levels: int) -> list:
    nested: list = []
    for _ in range(levels - 1):
        nested = [nested]
    return nested


BAD_NAME = [
    "",
    "a b",
    "a\r\nb",
    "a\0",
    "*",
    "$x",
    "x" * 129,
    "ä",
    "\ud800",
    5,
    b"a",
    ["a"],
    {},
    True,
    math.nan,
    deep(100_000),
]
BAD_TEXT = ["a\r\nSet-Cookie: b", "a\0", "\x7f", "\x85", "\ud800", "x" * 4097, 5, None, b"a", ["a"]]
BAD_COUNT = [-1, 1.0, True, "1", 2**31, 10**5000, math.nan, [], "٣"]
BAD_TIME = [
    "",
    "now",
    "2026-13-01",
    0,
    1e999,
    [],
    "\ud800",
    "9999-12-31T23:59:59-01:00",
    datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
]
BAD = {
    "topic": [
        "",
        "a..b",
        "../a",
        "a\r\nb",
        "a\0",
        "a.*",
        "$SYS",
        "a" * 256,
        5,
        ["a"],
        {},
        b"a",
        deep(100_000),
        10**5000,
    ],
    "event_type": ["", "a b", 5, ["a"]],
    "reply_to": ["", "a.*", "a\nb", 5, ["a"]],
    "source_agent": [bad for bad in BAD_NAME if bad != ""],
    "source_service": BAD_NAME,
    "target_agent": BAD_NAME,
    "event_id": BAD_NAME,
    "correlation_id": BAD_NAME,
    "parent_event_id": BAD_NAME,
    "trace_id": BAD_NAME,
    "execution_id": BAD_NAME,
    "replay_of": BAD_NAME,
    "traceparent": [bad for bad in BAD_TEXT if bad is not None],
    "priority": [0, 11, -1, 5.0, True, "", "urgent", "5", math.nan, 10**5000, [5], {}],
    "max_retries": BAD_COUNT,
    "hops": BAD_COUNT,
    "retry_count": BAD_COUNT,
    "ttl_seconds": [0, -1, math.nan, math.inf, 1e12, True, "60", 10**5000, []],
    "timestamp": BAD_TIME,
    "not_before": BAD_TIME,
    "headers": [
        5,
        "a",
        [("a", "b")],
        *({bad: "v"} for bad in ("", "a b", "a\r\nb", 5)),
        *({"k": bad} for bad in BAD_TEXT),
    ],
    "v": [0, -1, "1", 1.5, True, 10**5000, []],
    "unknown": [5, [], {"topic": "_bus.x"}, {"_unknown": {"topic": "_bus.x"}}, {"payload": {}}, {"v": 2}],
    "metadata": [5, "x", {"tags": 5}, {"headers": {"a": 5}}, {"correlation_id": 5}],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{number}")
        for name, values in BAD.items()
        for number, value in enumerate(values)
        if value is not None
    ],
)
def test_what_cannot_stand_in_a_field_is_refused_on_one_short_line(name: str, value: object):
    with pytest.raises(InvalidEvent) as caught:
        make(**{"event_type": "a"} | {name: value})
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_a_bad_topic_is_an_invalid_topic():
    with pytest.raises(InvalidTopic):
        Event(topic="task*")


def test_a_newer_envelope_version_is_refused_by_its_number():
    with pytest.raises(FormatTooNew, match="version 2"):
        make(topic="a", v=2)
    assert make(topic="a", v=1).v == 1


class Names(str, Enum):  # noqa: UP042 - as users write them
    MADE = "thing.made"
    HIGH = "high"


class Text(str):  # noqa: SLOT000 - as libraries write them
    pass


def test_a_member_of_an_enumeration_stands_for_its_value():
    event = Event(event_type=Names.MADE, source_agent=Names.HIGH, priority=Names.HIGH, trace_id=Names.HIGH)
    assert (event.topic, event.source_agent, event.priority, event.trace_id) == ("thing.made", "high", 7, "high")


def test_subclasses_of_text_become_plain_text():
    event = Event(
        topic=Text("a"),
        source=Text("s"),
        correlation_id=Text("c"),
        traceparent=Text("p"),
        headers={Text("k"): Text("v")},
    )
    values = [
        event.topic,
        event.source,
        event.correlation_id,
        event.traceparent,
        *event.headers,
        *event.headers.values(),
    ]
    assert {type(value) for value in values} == {str}


@pytest.mark.parametrize("name", [" ", "a/b:c@d.e-f_1", "x" * 128, "../../x", "agent"])
def test_names_are_128_letters_digits_and_some_signs(name: str):
    if name == " ":
        with pytest.raises(InvalidEvent):
            check_name(name)
    else:
        assert check_name(name) == name


# ------------------------------------------------------------------------------------------------ times


@pytest.mark.parametrize(
    ("given_value", "read"),
    [
        (datetime(2026, 1, 2, 12), NOON),  # noqa: DTZ001 - naive means UTC
        (datetime(2026, 1, 2, 14, tzinfo=timezone(timedelta(hours=2))), NOON),
        ("2026-01-02T12:00:00", NOON),
        ("2026-01-02T12:00:00Z", NOON),
        ("2026-01-02T14:00:00+02:00", NOON),
        ("2026-01-02", NOON.replace(hour=0)),
    ],
    ids=["naive", "aware", "text", "text with Z", "text with an offset", "date"],
)
def test_times_are_aware_utc_and_naive_means_utc(given_value: datetime | str, read: datetime):
    event = Event(topic="a", timestamp=given_value)
    assert event.timestamp == utc(given_value) == read
    assert event.timestamp.tzinfo is UTC


def test_a_subclass_of_datetime_becomes_a_plain_one():
    class Moment(datetime):
        pass

    assert type(utc(Moment(2026, 1, 2, 12))) is datetime
    assert utc(Moment(2026, 1, 2, 12)) == NOON


# ------------------------------------------------------------------------------------------------ metadata

METADATA = EventMetadata(
    correlation_id="c",
    causation_id="p",
    trace_id="t",
    span_id="s",
    user_id="u",
    session_id="e",
    tags=("x", "y"),
    headers={"k": "v"},
)


@pytest.mark.parametrize(
    "metadata",
    [METADATA, msgspec.structs.asdict(METADATA), msgspec.structs.asdict(METADATA) | {"tags": ["x", "y"]}],
    ids=["EventMetadata", "dict", "dict as JSON has it"],
)
def test_metadata_is_a_view_of_the_tracking_part(metadata: EventMetadata):
    event = Event(topic="a", metadata=metadata)
    assert (event.correlation_id, event.parent_event_id, event.trace_id) == ("c", "p", "t")
    assert event.headers == {"k": "v", "span_id": "s", "user_id": "u", "session_id": "e", "tags": "x,y"}
    assert event.metadata == METADATA


def test_metadata_of_an_event_without_any():
    event = Event(topic="a", metadata=EventMetadata())
    assert event.metadata == EventMetadata(correlation_id=event.event_id)
    assert event.headers == {}


def test_what_is_given_by_its_own_name_wins_over_metadata():
    event = Event(topic="a", metadata=METADATA, trace_id="mine", headers={"k": "mine", "span_id": "mine"})
    assert (event.trace_id, event.correlation_id) == ("mine", "c")
    assert event.headers["k"] == event.headers["span_id"] == "mine"
    assert event.headers["user_id"] == "u"


@pytest.mark.parametrize(
    "metadata",
    [
        metadata_of(correlation_id=5),
        metadata_of(span_id=5),
        EventMetadata(user_id="a\r\nb"),
        EventMetadata(tags=("a,b",)),
        EventMetadata(tags=("",)),
        metadata_of(tags=("a", 5)),
        metadata_of(headers=None),
        metadata_of(headers={"k": 5}),
    ],
    ids=repr,
)
def test_metadata_with_wrong_values_is_refused(metadata: EventMetadata):
    with pytest.raises(InvalidEvent):
        Event(topic="a", metadata=metadata)


# ------------------------------------------------------------------------------------------------ payloads


class Order(pydantic.BaseModel):
    n: int
    when: datetime | None = None


class OrderStruct(msgspec.Struct):
    n: int
    when: datetime | None = None


@dataclass
class OrderData:
    n: int
    when: datetime | None = None


@pytest.mark.parametrize("model", [Order, OrderStruct, OrderData])
@pytest.mark.parametrize("when", [None, NOON], ids=["null", "time"])
def test_a_payload_may_be_a_model(model: type, when: datetime | None):
    expected = {"n": 1, "when": when and "2026-01-02T12:00:00Z"}
    assert Event(topic="a", payload=model(n=1, when=when)).payload == expected
    assert Event(topic="a", payload={"order": model(n=1, when=when)}).payload == {"order": expected}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_any_json_object_is_a_payload_and_comes_back_equal(payload: dict):
    assert Event(topic="a", payload=payload).payload == payload


@pytest.mark.parametrize(
    ("payload", "read"),
    [
        (None, {}),
        ({}, {}),
        (MappingProxyType({"n": 1}), None),
        (
            {"t": (1, 2), "e": EventPriority.HIGH, "k": EventType.TASK_CREATED},
            {"t": [1, 2], "e": 7, "k": "task.created"},
        ),
        ({"id": UUID(UUID_TEXT), "at": NOON}, {"id": UUID_TEXT, "at": "2026-01-02T12:00:00Z"}),
        ({"nul": "\0", "null": "null", "none": None}, {"nul": "\0", "null": "null", "none": None}),
        ({1: "a"}, {"1": "a"}),
    ],
    ids=["none", "empty", "another mapping", "enumerations", "ids and times", "null", "numbers as keys"],
)
def test_payloads_as_json_says_them(payload: object, read: dict | None):
    if read is None:
        with pytest.raises(InvalidEvent, match="JSON has no mappingproxy"):
            Event(topic="a", payload=payload)
    else:
        assert Event(topic="a", payload=payload).payload == read


class Measured(pydantic.BaseModel):
    x: float


def nan() -> Iterator[object]:
    for number in (math.nan, math.inf, -math.inf):
        yield from ({"x": number}, {"x": [1, (number,)]}, {"x": {"y": {number}}}, {"order": (Measured(x=number),)})


class MeasuredAsConstants(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")
    x: float


@pytest.mark.parametrize("payload", [*nan(), Measured(x=math.nan), MeasuredAsConstants(x=math.inf)], ids=repr)
def test_json_has_no_nan_and_no_infinity(payload: object):
    with pytest.raises(InvalidEvent, match="JSON has no"):
        Event(topic="a", payload=payload)


LOOP: dict = {}
LOOP["loop"] = LOOP

BAD_PAYLOADS = {
    "list": [1],
    "text": "{}",
    "number": 5,
    "true": True,
    "bytes": b"{}",
    "object": object(),
    "function": {"f": len},
    "a model's class": Order,
    "lone surrogate": {"x": "\ud800"},
    "lone surrogate as a key": {"\ud800": 1},
    "5,000 digits": {"x": 10**5000},
    "100,000 levels": {"x": deep(100_000)},
    "itself": LOOP,
}


@pytest.mark.parametrize("payload", BAD_PAYLOADS.values(), ids=BAD_PAYLOADS.keys())
def test_what_is_not_a_json_object_is_no_payload(payload: object):
    with pytest.raises(InvalidEvent, match="payload"):
        Event(topic="a", payload=payload)


@pytest.mark.parametrize("value", [deep(MAX_DEPTH), {"a": [{}] * 1000}, 5, []], ids=["deep", "wide", "number", "empty"])
def test_what_is_nested_as_deep_as_is_allowed(value: object):
    check_depth(value)


def test_one_level_more_is_too_deep():
    for value in (deep(MAX_DEPTH + 1), {"a": deep(MAX_DEPTH)}):
        with pytest.raises(InvalidEvent, match="deeper than 32"):
            check_depth(value)


def test_the_payload_itself_is_the_first_level():
    assert encode_payload({"x": deep(MAX_DEPTH - 1)}).count(b"[") == MAX_DEPTH - 1
    with pytest.raises(InvalidEvent, match="deeper than 32"):
        encode_payload({"x": deep(MAX_DEPTH)})
    assert encode_payload({"x": [[]] * 100})  # brackets alone are not depth


# ------------------------------------------------------------------------------------------------ immutability


def test_changing_what_was_given_changes_nothing():
    payload: dict[str, Any] = {"list": [1]}
    headers, tags = {"k": "v"}, ["x"]
    event = Event(topic="a", payload=payload, headers=headers, metadata=metadata_of(tags=tags))
    payload["list"].append(2)
    payload["new"] = headers["new"] = "x"
    tags.append("y")
    assert event.payload == {"list": [1]}
    assert event.headers == {"k": "v", "tags": "x"}


def test_changing_what_was_read_changes_nothing_that_is_stored_or_copied():
    event = Event(topic="a", payload={"n": 1}, headers={"k": "v"})
    event.payload["n"] = 2
    event.headers["k"] = event.metadata.headers["k"] = "changed"
    assert event.headers == {"k": "v"}
    assert msgspec.json.decode(msgspec.json.encode(event))["payload"] == {"n": 1}
    assert copy.copy(event).payload == {"n": 1}


@pytest.mark.parametrize("name", [*FIELDS, "metadata", "body", "kind", "new_attribute"])
def test_no_attribute_can_be_set(name: str):
    with pytest.raises(AttributeError):
        setattr(Event(topic="a"), name, "x")


def test_the_payload_is_decoded_once():
    event = Event(topic="a", payload={"n": 1})
    assert event.payload is event.payload


def test_events_are_told_apart_by_their_ids():
    one, two = Event(topic="a"), Event(topic="a")
    assert one != two
    assert len({one, two, copy.copy(one)}) == 2


def pickled(event: Event) -> Event:
    return pickle.loads(pickle.dumps(event))  # noqa: S301 - our own bytes


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_is_equal_with_what_a_delivery_added(copied):
    event = make(topic="a", payload={"n": 1}, headers={"k": "v"}, retry_count=2, unknown={"new": [1]}, hops=1)
    again = copied(event)
    assert again == event
    assert (again.payload, again.retry_count, again.unknown) == ({"n": 1}, 2, {"new": [1]})


def test_what_is_shown_of_an_event_is_not_its_payload():
    event = Event(
        topic="a", event_id="e", source_agent="s", payload={"password": "secret"}, headers={"token": "secret"}
    )
    assert repr(event) == "Event('a', event_id='e', source_agent='s')"
    assert dict(event.__rich_repr__()) == {"topic": "a", "event_id": "e", "source_agent": "s"}


def test_an_event_equals_events_alone_whether_looked_at_or_not():
    event = Event(topic="a", payload={"n": 1})
    twin = copy.copy(event)
    assert twin.payload == {"n": 1}
    assert event == twin
    assert not event != twin  # noqa: SIM202 - both operators are asked
    assert event != Event(topic="a", payload={"n": 1})
    assert event != event.event_id
    assert not event == event.event_id  # noqa: SIM201 - both operators are asked
