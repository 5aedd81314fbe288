"""Events as bytes: what the bus wrote, what a stranger sends, and CloudEvents both ways."""

import json
import math
import time
from contextlib import nullcontext, suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wowevent import codec
from wowevent.codec import decode, encode, from_cloudevent, from_fields, loads, parse, to_cloudevent, to_fields
from wowevent.errors import BusError, FormatTooNew, InvalidEvent, StorageDamaged
from wowevent.event import Event, EventMetadata
from wowevent.payload import MAX_DEPTH

FULL = Event(
    event_id="0190a000-0000-7000-8000-000000000001",
    event_type="order.paid",
    topic="shop.orders",
    source_agent="shop",
    source_service="billing",
    target_agent="worker",
    payload={"n": 1, "text": "ü", "none": None},
    timestamp="2026-01-02T12:00:00.5Z",
    priority=8,
    correlation_id="c",
    parent_event_id="p",
    trace_id="t",
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    execution_id="x",
    ttl_seconds=0.5,
    not_before="2026-01-02T13:00:00Z",
    max_retries=0,
    reply_to="_reply.1",
    hops=3,
    replay_of="r",
    headers={"k": "v"},
)
ENVELOPE = {
    "v": 1,
    "event_id": "0190a000-0000-7000-8000-000000000001",
    "event_type": "order.paid",
    "topic": "shop.orders",
    "source_agent": "shop",
    "source_service": "billing",
    "target_agent": "worker",
    "payload": {"n": 1, "text": "ü", "none": None},
    "timestamp": "2026-01-02T12:00:00.500000Z",
    "priority": 8,
    "correlation_id": "c",
    "parent_event_id": "p",
    "trace_id": "t",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "execution_id": "x",
    "ttl_seconds": 0.5,
    "not_before": "2026-01-02T13:00:00Z",
    "max_retries": 0,
    "reply_to": "_reply.1",
    "hops": 3,
    "replay_of": "r",
    "headers": {"k": "v"},
}
SMALL = Event(topic="a")

# ------------------------------------------------------------------------------------------------ events of any kind

names = st.from_regex(r"[A-Za-z0-9_\-.:/@]{1,128}", fullmatch=True)
topics = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True), min_size=1, max_size=4).map(".".join)
header_values = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=50)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
payloads = st.dictionaries(st.text(), json_values, max_size=4)
counts = st.integers(0, 2**31 - 1)
NEEDED: dict[Any, st.SearchStrategy[Any]] = {"topic": topics}
OPTIONAL: dict[Any, st.SearchStrategy[Any]] = {
    "event_type": topics,
    "payload": payloads,
    "source_agent": names.filter(lambda name: name != "/"),  # which says in CloudEvents that there is none
    "source_service": names,
    "target_agent": names,
    "event_id": names,
    "timestamp": st.datetimes(),
    "priority": st.integers(1, 10),
    "correlation_id": names,
    "parent_event_id": names,
    "trace_id": names,
    "traceparent": header_values,
    "execution_id": names,
    "ttl_seconds": st.integers(1, 10**6) | st.floats(0.001, 10**6),
    "not_before": st.datetimes(),
    "max_retries": counts,
    "reply_to": topics,
    "hops": counts,
    "replay_of": names,
    "headers": st.dictionaries(names, header_values, max_size=3),
}
events = st.fixed_dictionaries(NEEDED, optional=OPTIONAL).map(lambda fields: Event(**fields))


@given(events)
def test_an_event_survives_as_bytes_and_as_fields(event: Event):
    assert decode(encode(event)) == event
    assert encode(decode(encode(event))) == encode(event)
    assert parse(encode(event)) == event
    assert parse(encode(event).decode()) == event
    assert from_fields(to_fields(event)) == event


@given(events)
def test_an_event_survives_as_a_cloudevent(event: Event):
    cloud = json.loads(json.dumps(to_cloudevent(event)))
    assert from_cloudevent(cloud) == event
    assert parse(json.dumps(cloud)) == event


# ------------------------------------------------------------------------------------------------ what the bus wrote


def test_the_envelope_is_complete():
    assert json.loads(encode(FULL)) == ENVELOPE
    assert list(to_fields(FULL)) == list(to_fields(SMALL))
    assert to_fields(FULL) == ENVELOPE


def test_what_is_not_said_is_left_out_of_the_bytes_and_shown_in_the_fields():
    stored, shown = json.loads(encode(SMALL)), to_fields(SMALL)
    needed = {
        "v",
        "event_id",
        "event_type",
        "topic",
        "source_agent",
        "timestamp",
        "priority",
        "correlation_id",
        "payload",
    }
    assert stored.keys() == needed
    assert shown.keys() == ENVELOPE.keys()
    assert (shown["hops"], shown["headers"], shown["payload"]) == (0, {}, {})
    assert all(shown[name] is None for name in shown.keys() - needed - {"hops", "headers"})


def test_the_fields_shown_of_one_event_are_not_those_of_another():
    to_fields(SMALL)["headers"]["k"] = "v"
    assert to_fields(SMALL)["headers"] == {}


def test_retry_count_is_never_stored():
    delivered = msgspec.structs.replace(FULL, retry_count=3)
    assert encode(delivered) == encode(FULL)
    assert "retry_count" not in to_fields(delivered)
    assert "retry_count" not in to_cloudevent(delivered)
    assert parse(json.dumps(ENVELOPE | {"retry_count": 3})).retry_count == 0


UNKNOWN = {
    "colour": "red",
    "nested": {"n": [1, {"deep": None}]},
    "zero": 0,
    "unknown": 1,
    "kind": "x",
    "body": [],
    "head": 1,
}


def test_unknown_fields_survive_both_doors_in_their_order():
    written = json.dumps(ENVELOPE | UNKNOWN, ensure_ascii=False, separators=(",", ":")).encode()
    for event in (decode(written), parse(written)):
        assert event.unknown == UNKNOWN
        again = encode(event)
        assert json.loads(again) == ENVELOPE | UNKNOWN
        assert list(json.loads(again))[-len(UNKNOWN) :] == list(UNKNOWN)
        assert encode(decode(again)) == again
        assert to_fields(event) == ENVELOPE | UNKNOWN
        assert msgspec.structs.replace(event, unknown=None) == FULL


def test_an_event_without_unknown_fields_has_none_of_them_however_it_came():
    twice = encode(FULL).replace(b'{"v":1,', b'{"v":2,"v":1,')
    assert decode(twice) == FULL
    for event in (decode(twice), msgspec.structs.replace(FULL, unknown={})):
        assert b"_unknown" not in encode(event)


def test_unknown_fields_and_retries_do_not_disturb_each_other():
    event = msgspec.structs.replace(parse(json.dumps(ENVELOPE | UNKNOWN)), retry_count=2)
    assert json.loads(encode(event)) == ENVELOPE | UNKNOWN


def test_unknown_fields_cannot_smuggle_in_known_ones():
    with pytest.raises(InvalidEvent, match="_unknown"):
        parse('{"topic": "a", "_unknown": {"topic": "_bus.evil"}}')


@pytest.mark.parametrize("door", [decode, parse])
@pytest.mark.parametrize("more", [{}, UNKNOWN], ids=["known fields", "unknown fields"])
def test_a_newer_envelope_is_refused_by_its_number(door, more: dict):
    with pytest.raises(FormatTooNew, match="envelope version 2; this WowEvent knows 1"):
        door(json.dumps(ENVELOPE | more | {"v": 2}).encode())


DAMAGED = {
    "nothing": b"",
    "not JSON": b"\x00\x01",
    "cut off": encode(FULL)[:-10],
    "more behind it": encode(FULL) + b"x",
    "a list": b"[]",
    "no envelope": b"{}",
    "no version": json.dumps({**ENVELOPE, "v": None}).encode(),
    "version 0": json.dumps({**ENVELOPE, "v": 0}).encode(),
    "a version that is text": json.dumps({**ENVELOPE, "v": "1"}).encode(),
    "a field missing": json.dumps({name: value for name, value in ENVELOPE.items() if name != "topic"}).encode(),
    "a field of another type": json.dumps({**ENVELOPE, "hops": "3"}).encode(),
    "bad UTF-8": encode(FULL).replace(b"shop", b"\xff\xfe\xfd\xfc"),
    "bad UTF-8 in an unknown field": json.dumps({**ENVELOPE, "new": "abc"}).encode().replace(b"abc", b"\xff\xfe\xfd"),
    "a payload beside the payload": encode(FULL)[:-1] + b',"_decoded":{"n":2}}',
    "an empty payload beside the payload": encode(FULL)[:-1] + b',"_decoded":{}}',
    "a topic beside the topic": encode(FULL)[:-1] + b',"_unknown":{"topic":"_bus.evil"}}',
    "failures": encode(FULL)[:-1] + b',"retry_count":3}',
    "failures, and an unknown field": encode(FULL)[:-1] + b',"retry_count":3,"new":1}',
    "100,000 levels": json.dumps(ENVELOPE).encode()[:-1] + b',"new":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_bytes_that_are_no_envelope_are_damage_not_an_event(data: bytes):
    with pytest.raises(StorageDamaged, match="not an event"):
        decode(data)


@pytest.mark.parametrize(
    "look", [lambda event: event.payload, to_fields, to_cloudevent], ids=["payload", "fields", "cloud"]
)
@pytest.mark.parametrize("text", [b'"\xff"', b'"\xed\xa0\x80"'])
def test_a_payload_that_cannot_be_read_is_damage_to_whoever_looks_at_it(look, text: bytes):
    event = decode(encode(Event(topic="a", payload={"x": "abc"})).replace(b'"abc"', text))
    assert event.topic == "a"
    with pytest.raises(StorageDamaged, match=f"payload of event {event.event_id}"):
        look(event)


@pytest.mark.parametrize("payload", [b"[1]", b"null", b'"text"', b"1e999"])
def test_a_payload_that_is_no_object_is_damage(payload: bytes):
    event = decode(encode(Event(topic="a", payload={"x": 1})).replace(b'{"x":1}', payload))
    with pytest.raises(StorageDamaged, match="payload of event"):
        assert event.payload


@given(st.binary(max_size=200) | st.integers(0, len(encode(FULL))).map(lambda end: encode(FULL)[:end]))
def test_decoding_anything_raises_nothing_but_our_own(data: bytes):
    for door in (decode, parse):
        with suppress(BusError):
            assert door(data) == FULL


@pytest.mark.parametrize("view", [bytearray, lambda data: memoryview(bytearray(data))], ids=["bytearray", "memoryview"])
def test_an_event_does_not_change_with_the_buffer_it_came_from(view):
    buffer = view(encode(FULL))
    event = decode(buffer)
    buffer[:] = b" " * len(buffer)
    assert event == FULL
    assert event.payload == FULL.payload


# ------------------------------------------------------------------------------------------------ what a stranger sends

PARSED = {
    "our names": '{"topic":"a","payload":{"n":1},"source_agent":"s","target_agent":"t"}',
    "the router's": '{"topic":"a","payload":{"n":1},"source":"s","target":"t"}',
    "the blocking bus's": '{"event_type":"a","payload":{"n":1},"source_agent_id":"s","target_agent":"t"}',
    "type alone": '{"type":"a","payload":{"n":1},"source":"s","target":"t"}',
    "blanks": ' {"topic" : "a" ,\r\n\t"payload" :{"n" :1},"source":"s","target":"t"} ',
    "escapes": r'{"\u0074opic":"\u0061","payload":{"n":1},"source":"s","target":"t"}',
    "nulls": '{"topic":"a","payload":{"n":1},"source":"s","target":"t","trace_id":null,"headers":null,"v":null}',
}


@pytest.mark.parametrize("text", PARSED.values(), ids=PARSED.keys())
def test_either_spelling_is_understood(text: str):
    event = parse(text)
    assert (event.topic, event.payload, event.source_agent, event.target_agent) == ("a", {"n": 1}, "s", "t")
    assert parse(text.encode()).topic == "a"


def test_metadata_is_understood():
    event = parse('{"topic":"a","metadata":{"correlation_id":"c","causation_id":"p","tags":["x"],"headers":{"k":"v"}}}')
    assert event.metadata == EventMetadata(correlation_id="c", causation_id="p", tags=("x",), headers={"k": "v"})


def test_a_payload_of_null_is_an_empty_one():
    assert parse('{"topic":"a","payload":null}').payload == {}


BAD_JSON = {
    "nothing": b"",
    "malformed": b"{topic: a}",
    "cut off": b'{"topic":"a"',
    "more behind it": b'{"topic":"a"}{}',
    "comma at the end": b'{"topic":"a",}',
    "comment": b'{"topic":"a"} // x',
    "single quotes": b"{'topic':'a'}",
    "line break in a text": b'{"topic":"a\n"}',
    "UTF-16": '{"topic":"a"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"topic":"a"}'.encode("utf-16-le"),
    "UTF-32": '{"topic":"a"}'.encode("utf-32"),
    "byte order mark": b'\xef\xbb\xbf{"topic":"a"}',
    "Latin-1": b'{"topic":"a","x":"\xe4"}',
    "overlong": b'{"topic":"a","x":"\xc0\x80"}',
    "lone surrogate": b'{"topic":"a","x":"\xed\xa0\x80"}',
    "lone surrogate, escaped": rb'{"topic":"a","x":"\ud800"}',
    "lone surrogate, escaped, last": rb'{"topic":"a","x":"\udc00 "}',
    "lone surrogate as a key": rb'{"topic":"a","payload":{"\ud800":1}}',
    "NaN": b'{"topic":"a","payload":{"x":NaN}}',
    "Infinity": b'{"topic":"a","payload":{"x":-Infinity}}',
    "1e999": b'{"topic":"a","payload":{"x":1e999}}',
    "5,000 digits": b'{"topic":"a","payload":{"x":' + b"9" * 5000 + b"}}",
    "leading zero": b'{"topic":"a","payload":{"x":01}}',
    "duplicate": b'{"topic":"a","topic":"a"}',
    "duplicate, nested": b'{"topic":"a","payload":{"x":[{"y":1,"y":1}]}}',
    "duplicate, blanks before the colon": b'{"topic":"a","topic" \n:"b"}',
    "duplicate, escaped": rb'{"topic":"a","\u0074opic":"b"}',
    "duplicate, hidden by a quote": rb'{"topic":"a","payload":{"x":1,"x":2,"k":"\u0022:"}}',
    "duplicate, hidden by a colon": rb'{"topic":"a","payload":{"x":1,"x":2,"k":"\"\u003a"}}',
    "duplicate, hidden by a capital": rb'{"topic":"a","payload":{"x":1,"x":2,"k":"\"\u003A"}}',
    "duplicate, hidden by a blank": rb'{"topic":"a","payload":{"x":1,"x":2,"k":"\"\u0020:"}}',
    "duplicate in what is thrown away": b'{"topic":"a","payload":{"x":{"y":1},"x":{"y":1}}}',
    "100,000 levels, open": b'{"topic":"a","payload":' + b"[" * 100_000,
    "100,000 levels": b'{"topic":"a","payload":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "100,000 objects": b'{"x":' * 100_000 + b"1" + b"}" * 100_000,
    "900 levels": b"[" * 900 + b"]" * 900,
}


@pytest.mark.parametrize("data", BAD_JSON.values(), ids=BAD_JSON.keys())
@pytest.mark.parametrize("door", [loads, parse])
def test_json_that_is_not_strict_is_refused_on_one_short_line(door, data: bytes):
    with pytest.raises(InvalidEvent) as caught:
        door(data)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["lone surrogate, escaped", "NaN", "Infinity", "1e999", "duplicate", "100,000 levels"])
def test_pythons_own_decoder_takes_it_or_runs_out_of_stack(name: str):
    with suppress(RecursionError):
        assert json.loads(BAD_JSON[name])["topic"] == "a"


@pytest.mark.parametrize("guarded", [True, False])
def test_without_a_second_look_duplicates_pass(monkeypatch: pytest.MonkeyPatch, guarded: bool):
    if not guarded:
        monkeypatch.setattr(codec, "_refuse_duplicates", lambda *_: None)
    with pytest.raises(InvalidEvent) if guarded else nullcontext():
        loads(BAD_JSON["duplicate"])


@pytest.mark.parametrize("text", ["\ufeff{}", '{"x":"\ud800"}'], ids=["byte order mark", "lone surrogate"])
def test_text_is_judged_as_bytes_are(text: str):
    with pytest.raises(InvalidEvent):
        loads(text)


def twice(pairs: list) -> dict:
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


json_text = st.recursive(
    st.sampled_from(
        ["1", "null", '"a"', r'"\u0022:"', r'"\":"', r'"\" :"', r'"\\"', r'"\\\u003a"', r'"\"\u0020:"', '"\\"\u00e9:"']
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
        | st.lists(
            st.tuples(
                st.sampled_from(['"a"', r'"\u0061"', '"b"', r'"\":"', r'"\u0022:"', '""']),
                st.sampled_from([":", " :", "\n\t: "]),
                inner,
            ),
            max_size=3,
        ).map(lambda items: "{" + ",".join("".join(item) for item in items) + "}")
    ),
    max_leaves=8,
)


@given(json_text)
def test_no_duplicate_key_is_missed_and_none_is_imagined(text: str):
    try:
        expected = json.loads(text, object_pairs_hook=twice)
    except ValueError:
        with pytest.raises(InvalidEvent):
            loads(text)
    else:
        assert loads(text) == expected


@given(json_values)
def test_strict_json_is_read_as_python_reads_it(value: object):
    assert loads(json.dumps(value)) == value
    assert loads(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value


BAD_EVENTS = {
    "list": "[]",
    "text": '"a"',
    "number": "5",
    "nothing in it": "{}",
    "payload: list": '{"topic":"a","payload":[1]}',
    "payload: text": '{"topic":"a","payload":"{}"}',
    "payload: number": '{"topic":"a","payload":5}',
    "topic: number": '{"topic":5}',
    "topic: object": '{"topic":{}}',
    "topic: pattern": '{"topic":"a.*"}',
    "topic: CR LF": r'{"topic":"a\r\nb"}',
    "topic: NUL": r'{"topic":"a\u0000"}',
    "topic: 256 bytes": json.dumps({"topic": "a" * 256}),
    "topic: path": '{"topic":"../../a"}',
    "topic: $": '{"topic":"$SYS"}',
    "source: list": '{"topic":"a","source":["s"]}',
    "target: CR LF": r'{"topic":"a","target":"t\r\n"}',
    "headers: injection": r'{"topic":"a","headers":{"k":"v\r\nx: y"}}',
    "headers: injected name": r'{"topic":"a","headers":{"k\r\nx":"v"}}',
    "headers: list": '{"topic":"a","headers":[]}',
    "headers: number": '{"topic":"a","headers":{"k":1}}',
    "priority: 0": '{"topic":"a","priority":0}',
    "priority: 5.0": '{"topic":"a","priority":5.0}',
    "priority: true": '{"topic":"a","priority":true}',
    "ttl: 0": '{"topic":"a","ttl_seconds":0}',
    "two spellings": '{"topic":"a","source":"x","source_agent":"y"}',
    "version: text": '{"topic":"a","v":"2"}',
    "version: true": '{"topic":"a","v":true}',
    "a field of ours": '{"topic":"a","_unknown":{}}',
}


@pytest.mark.parametrize("text", BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
def test_what_is_no_event_is_refused_on_one_short_line(text: str):
    with pytest.raises(InvalidEvent) as caught:
        parse(text)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def test_a_payload_may_be_32_levels_deep_in_any_frame_around_it():
    assert loads('{"events":[{"payload":{"x":' + nested(MAX_DEPTH - 1) + "}}]}")
    assert parse('{"topic":"a","payload":{"x":' + nested(MAX_DEPTH - 1) + "}}").payload
    with pytest.raises(InvalidEvent, match="deeper than 32"):
        parse('{"topic":"a","payload":{"x":' + nested(MAX_DEPTH) + "}}")
    with pytest.raises(InvalidEvent, match="deeper than 35"):
        loads(nested(MAX_DEPTH + 4))


COSTLY = {
    "many keys, the last twice": "{" + ",".join(f'"{n}":1' for n in range(25_000)) + ',"24999":1}',
    "many keys": '{"topic":"a","payload":{' + ",".join(f'"{n}":1' for n in range(25_000)) + "}}",
    "many escapes": '{"topic":"a","payload":{' + ",".join(rf'"{n}":"\u0022:"' for n in range(15_000)) + "}}",
    "many quotes": '{"topic":"a","payload":{"x":"' + r"\"" * 128_000 + '"}}',
    "many blanks": '{"topic":"a","payload":{"x"' + " " * 256_000 + ":1}}",
    "many quotes and blanks": '{"topic":"a","payload":{"x":"' + (r"\"" + " " * 500) * 500 + '"}}',
    "many brackets": '{"topic":"a","payload":{"x":[' + "[]," * 80_000 + "1]}}",
}


@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY.keys())
def test_no_256_kib_cost_more_than_a_moment(text: str):
    start = time.perf_counter()
    with suppress(InvalidEvent):
        parse(text)
    assert time.perf_counter() - start < 5  # what it guards against takes minutes


# ------------------------------------------------------------------------------------------------ CloudEvents

# The examples of the specification, version 1.0.2: JSON event format, sections 3.1 and 3.2.
SPECIFIED = {
    "specversion": "1.0",
    "type": "com.example.someevent",
    "source": "/mycontext",
    "subject": None,
    "id": "C234-1234-1234",
    "time": "2018-04-05T17:31:00Z",
    "comexampleextension1": "value",
    "comexampleothervalue": 5,
    "datacontenttype": "application/json",
    "data": {"appinfoA": "abc", "appinfoB": 123, "appinfoC": True},
}
SPECIFIED_XML = SPECIFIED | {"datacontenttype": "application/xml", "data": "<much wow='xml'/>"}
SPECIFIED_BINARY = SPECIFIED | {"datacontenttype": "application/vnd.apache.thrift.binary", "data_base64": "AAE="}


def test_the_specifications_example_comes_in_and_goes_out_again():
    event = parse(json.dumps(SPECIFIED))
    assert (event.event_id, event.event_type, event.topic) == ("C234-1234-1234", *["com.example.someevent"] * 2)
    assert (event.source_agent, event.payload) == ("/mycontext", SPECIFIED["data"])
    assert event.timestamp.isoformat() == "2018-04-05T17:31:00+00:00"
    assert event.unknown == {"comexampleextension1": "value", "comexampleothervalue": 5}

    stored = decode(encode(event))
    ours = {"topic": event.topic, "priority": 5, "correlationid": event.event_id}
    assert to_cloudevent(stored) == {name: value for name, value in SPECIFIED.items() if value is not None} | ours


def test_every_field_has_its_attribute():
    assert to_cloudevent(FULL) == {
        "specversion": "1.0",
        "id": FULL.event_id,
        "source": "shop",
        "type": "order.paid",
        "time": "2026-01-02T12:00:00.500000Z",
        "datacontenttype": "application/json",
        "data": FULL.payload,
        "topic": "shop.orders",
        "priority": 8,
        "correlationid": "c",
        "causationid": "p",
        "traceid": "t",
        "traceparent": FULL.traceparent,
        "executionid": "x",
        "targetagent": "worker",
        "sourceservice": "billing",
        "ttlseconds": "0.5",
        "notbefore": "2026-01-02T13:00:00Z",
        "maxretries": 0,
        "replyto": "_reply.1",
        "hops": 3,
        "replayof": "r",
        "weheaders": '{"k": "v"}',
    }


@given(events)
def test_a_cloudevent_is_as_the_specification_wants_it(event: Event):
    for name, value in to_cloudevent(event).items():
        assert name.isascii()
        assert name.isalnum()
        assert name == name.lower()
        assert len(name) <= 20
        assert name == "data" or value is True or isinstance(value, str | int)


MINIMAL = {"specversion": "1.0", "id": "1", "source": "s", "type": "a"}


@pytest.mark.parametrize(
    ("attributes", "name", "value"),
    [
        ({}, "payload", {}),
        ({"data": None}, "payload", {}),
        ({"data": {"n": 1}}, "payload", {"n": 1}),
        ({"data": {"n": 1}, "datacontenttype": "application/json; charset=utf-8"}, "payload", {"n": 1}),
        ({"data": {"n": 1}, "datacontenttype": "application/vnd.acme+json"}, "payload", {"n": 1}),
        ({"data": {"n": 1}, "datacontenttype": None}, "payload", {"n": 1}),
        ({"source": "/"}, "source_agent", ""),
        ({"source": "https://example.com/?q=1#top"}, "source_agent", "https://example.com/-q-1-top"),
        ({"source": "x" * 300}, "source_agent", "x" * 128),
        ({"ttlseconds": 60}, "ttl_seconds", 60),
        ({"ttlseconds": "0.5"}, "ttl_seconds", 0.5),
        ({"weheaders": {"k": "v"}}, "headers", {"k": "v"}),
        ({"weheaders": '{"k":"v"}'}, "headers", {"k": "v"}),
        ({"target": "t"}, "target_agent", None),
        ({"target": "t"}, "unknown", {"target": "t"}),
    ],
    ids=str,
)
def test_an_attribute_is_read(attributes: dict, name: str, value: object):
    assert getattr(from_cloudevent(MINIMAL | attributes), name) == value


@pytest.mark.parametrize(
    "attributes",
    [
        {"specversion": "0.3"},
        {"specversion": None},
        {"id": None},
        {"id": ""},
        {"id": 5},
        {"source": ""},
        {"type": None},
        {"type": "not a topic"},
        {"data": [1]},
        {"data": []},
        {"data": "text"},
        {"data": ""},
        {"data": 0},
        {"data": {"n": 1}, "datacontenttype": "text/plain"},
        {"datacontenttype": 5},
        SPECIFIED_XML,
        SPECIFIED_BINARY,
        {"time": "yesterday"},
        {"time": 5},
        {"ttlseconds": "soon"},
        {"ttlseconds": "nan"},
        {"weheaders": "{"},
        {"weheaders": "[]"},
        {"weheaders": r'{"k":"v\r\n"}'},
        {"payload": {"n": 2}},
        {"headers": {"k": "v"}},
        {"priority": 11},
        {"v": 2},
    ],
    ids=lambda attributes: json.dumps(attributes)[-60:],
)
def test_a_cloudevent_that_cannot_be_carried_is_refused(attributes: dict):
    with pytest.raises(InvalidEvent):
        from_cloudevent(MINIMAL | attributes)


def test_a_cloudevent_without_a_specversion_is_none():
    with pytest.raises(InvalidEvent, match="specversion"):
        from_cloudevent({"id": "1", "source": "s", "type": "a"})


def test_unknown_fields_do_not_replace_the_attributes():
    event = parse(json.dumps(ENVELOPE | {"data": "x", "traceid": "x", "time": "x", "colour": "red"}))
    assert to_cloudevent(event) == to_cloudevent(FULL) | {"colour": "red"}


def test_unknown_fields_mean_nothing_in_a_cloudevent_either():
    more = {"ttlseconds": 5, "targetagent": "t", "notbefore": "2030-01-01", "replyto": "r", "data_base64": "AAE="}
    event = parse(json.dumps({"topic": "a", "colour": "red", **more}))
    assert event.unknown == {"colour": "red", **more}
    cloud = to_cloudevent(event)
    assert cloud["colour"] == "red"
    assert not more.keys() & cloud.keys()
    back = from_cloudevent(cloud)
    assert (back.ttl_seconds, back.target_agent, back.not_before, back.reply_to) == (None, None, None, None)


def test_numbers_beyond_a_double_stay_what_they_are():
    payload = {
        "big": 2**70,
        "small": -(2**63) - 1,
        "fraction": 0.1,
        "tiny": 5e-324,
        "huge": math.nextafter(math.inf, 0),
    }
    assert decode(encode(Event(topic="a", payload=payload))).payload == payload
    assert parse(json.dumps({"topic": "a", "payload": payload})).payload == payload
