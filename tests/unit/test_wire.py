"""Frames: what a stranger's bytes are read as, what the router writes, and that both ends agree on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from wowevent.broker import Attempt, Lease, Position
from wowevent.codec import encode as encode_event
from wowevent.errors import FormatTooNew, InvalidEvent, ProtocolError
from wowevent.event import Event
from wowevent.router import wire
from wowevent.router.wire import Bad, Publish, Request, decode, decode_server, delivered_event, encode, event_of

TEXT = st.text(max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
REF = st.none() | TEXT | WHOLE | NUMBER
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
LEVELS = st.lists(WHOLE | TEXT, max_size=3).map(tuple)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


WANTED = st.builds(
    wire.Wanted,
    topics=TEXTS | TEXT,
    types=maybe(TEXTS),
    priorities=maybe(LEVELS),
    min_priority=maybe(WHOLE | TEXT),
    sources=maybe(TEXTS),
    name=maybe(TEXT),
    subscription=maybe(TEXT),
    after=maybe(TEXT),
    start=maybe(TEXT),
    lease=maybe(NUMBER),
    max_retries=maybe(WHOLE),
    credit=maybe(WHOLE),
    held=TEXTS,
)
CLIENT_FRAMES = st.one_of(
    st.builds(wire.Hello, ref=REF, batch=st.booleans(), agent=maybe(TEXT), client=maybe(TEXT)),
    st.builds(wire.Publish, ref=REF, event=JSON),
    st.builds(wire.Subscribe, ref=REF, subscription=WANTED),
    st.builds(wire.Unsubscribe, ref=REF, subscription_id=TEXT),
    st.builds(wire.Ack, ref=REF, subscription_id=TEXT, tokens=TEXTS),
    st.builds(
        wire.Nack,
        ref=REF,
        subscription_id=TEXT,
        tokens=TEXTS,
        error=TEXT,
        traceback=TEXT,
        retry_after=maybe(NUMBER),
        pause=maybe(NUMBER),
        reject=st.booleans(),
        release=st.booleans(),
    ),
    st.builds(wire.Request, ref=REF, event=JSON, timeout=NUMBER),
    st.builds(
        wire.Reply,
        ref=REF,
        event=st.builds(wire.Asked, event_id=TEXT, correlation_id=TEXT, reply_to=TEXT),
        reply=JSON,
        error=maybe(TEXT),
    ),
    st.builds(wire.Ping, ref=REF, echo=JSON),
    st.builds(wire.GetHealth, ref=REF),
)

RAW = st.builds(lambda value: Raw(encode(value)), JSON)
ITEM = {
    "subscription_id": TEXT,
    "event": RAW,
    "position": maybe(TEXT),
    "token": maybe(TEXT),
    "attempt": WHOLE,
    "redelivered": st.booleans(),
}
SERVER_FRAMES = st.one_of(
    st.builds(wire.Welcome, client_id=TEXT, server_time=TEXT, protocol=WHOLE, max_frame=WHOLE),
    st.builds(wire.Hello, ref=REF, batch=st.booleans(), agent=maybe(TEXT)),
    st.builds(
        wire.Published,
        ref=REF,
        event_id=TEXT,
        status=st.sampled_from(("queued", "dropped")),
        position=maybe(TEXT),
        duplicate=st.booleans(),
        reason=maybe(TEXT),
        message=maybe(TEXT),
        retryable=st.booleans(),
    ),
    st.builds(
        wire.Subscribed,
        ref=REF,
        subscription_id=TEXT,
        topics=TEXTS,
        recovered=st.booleans(),
        position=TEXT,
        lost=maybe(WHOLE),
    ),
    st.builds(wire.Unsubscribed, ref=REF, subscription_id=TEXT),
    st.builds(wire.Delivered, ref=REF, **ITEM),
    st.builds(wire.Events, events=st.lists(st.builds(wire.Item, **ITEM), max_size=3).map(tuple)),
    st.builds(wire.Reset, subscription_id=TEXT, lost=maybe(WHOLE)),
    st.builds(wire.Settled, ref=REF, subscription_id=TEXT, settled=WHOLE, stale=WHOLE),
    st.builds(wire.Answer, ref=REF, event_id=TEXT, reply=JSON),
    st.builds(wire.Pong, ref=REF, echo=JSON, timestamp=NUMBER),
    st.builds(wire.Health, ref=REF, health=st.dictionaries(TEXT, JSON, max_size=3)),
    st.builds(wire.Error, ref=REF, error=TEXT, message=TEXT),
)

NAMES = st.from_regex(r"[A-Za-z0-9_\-.:/@]{1,20}", fullmatch=True)
EVENTS = st.builds(
    lambda size, payload, **fields: Event(payload=payload | {"large": "é" * size}, **fields),
    size=st.sampled_from((0, 50, 70, 40_000)),
    topic=st.sampled_from(("task.created", "a", "x-y.z_1")),
    event_type=st.sampled_from(("task.created", "order.paid")),
    payload=st.dictionaries(TEXT, JSON, max_size=3),
    source_agent=NAMES,
    target_agent=maybe(NAMES),
    trace_id=maybe(NAMES),
    priority=st.integers(1, 10),
    ttl_seconds=maybe(st.floats(0.1, 1e6)),
    headers=maybe(st.dictionaries(st.sampled_from(("a", "b")), st.just("c"))),
)
POSITIONS = st.builds(Position, epoch=st.sampled_from(("4f2a", "00000000")), offset=st.integers(1, 2**62))


def received(data: bytes) -> Iterator[bytes]:
    """The texts of a server's WebSocket messages, read as RFC 6455 draws them."""
    while data:
        assert data[0] == 0x81, "a whole text message"
        size, start = data[1], 2  # without the mask bit: a server does not mask
        if size == 126:
            size, start = int.from_bytes(data[2:4]), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10]), 10
        yield data[start : start + size]
        data = data[start + size :]


# --- round trips ----------------------------------------------------------------------------------------------------


@given(CLIENT_FRAMES)
def test_what_a_client_encodes_is_what_the_router_decodes(frame):
    assert decode(encode(frame)) == frame


@given(SERVER_FRAMES)
def test_what_the_router_encodes_is_what_a_client_decodes(frame):
    assert decode_server(encode(frame)) == frame


@given(st.lists(st.tuples(EVENTS, maybe(POSITIONS)), min_size=1, max_size=6), st.booleans())
def test_deliveries_decode_to_the_events_and_positions_that_went_in(pairs, batch):
    shared = [wire.shared_part(event, None if at is None else str(at)) for event, at in pairs]
    data = wire.messages([wire.item(encode("sub-1"), part) for part in shared], batch=batch)
    frames = [decode_server(text) for text in received(data)]
    items: list[Any] = []
    for frame in frames:
        assert isinstance(frame, wire.Events if batch else wire.Delivered)
        items += frame.events if isinstance(frame, wire.Events) else [frame]
    assert [item.subscription_id for item in items] == ["sub-1"] * len(pairs)
    assert [item.position for item in items] == [None if at is None else str(at) for _, at in pairs]
    assert [delivered_event(item.event) for item in items] == [event for event, _ in pairs]


@given(EVENTS, maybe(POSITIONS), st.tuples(st.integers(0, 3), st.integers(0, 3)), st.booleans(), TEXT)
def test_a_lease_decodes_to_event_token_and_attempt(event, at, counts, redelivered, token):
    failures, crashes = counts
    attempts = tuple(Attempt(n + 1, 0.0, "no") for n in range(failures))
    lease = Lease(
        event=event,
        token=token,
        position=at,
        failures=failures,
        crashes=crashes,
        attempts=attempts,
        redelivered=redelivered,
    )
    frame = decode_server(wire.single(wire.leased_item(encode("sub-2"), lease)))
    assert isinstance(frame, wire.Delivered)
    assert (frame.subscription_id, frame.token, frame.redelivered) == ("sub-2", token, redelivered)
    assert frame.attempt == failures + crashes + 1
    assert frame.position == (None if at is None else str(at))
    assert delivered_event(frame.event) == event


@pytest.mark.parametrize(
    "fields", [{}, {"target_agent": "b"}, {"trace_id": "t"}, {"target_agent": "b", "trace_id": "t"}]
)
def test_an_event_comes_out_with_target_and_trace_also_where_they_are_null(fields):
    event = Event(topic="a", source_agent="s", **fields)
    shown = json.loads(b"{%b}" % wire.shared_part(event, "4f2a-1"))
    assert shown["position"] == "4f2a-1"
    assert {"target_agent": None, "trace_id": None, **fields}.items() <= shown["event"].items()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_a_message_says_its_length_as_the_protocol_wants(size):
    text = b"x" * size
    framed = wire.message(text)
    assert list(received(framed)) == ([text] if framed else [])
    assert len(framed) == size + (2 if size < 126 else 4 if size < 65_536 else 10)


def test_a_batch_is_split_into_frames_of_a_turn_and_order_stays():
    parts = [b'"subscription_id":"s","event":%d,"text":"%b"' % (n, b"x" * 50_000) for n in range(10)]
    frames = [json.loads(text) for text in received(wire.messages(parts, batch=True))]
    assert 1 < len(frames) < 10
    assert [item["event"] for frame in frames for item in frame["events"]] == list(range(10))


# --- what a stranger sends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "invalid_event"),
        (b"{", "invalid_event"),
        (b"\xff\xfe{", "invalid_event"),
        ('{"type":"ping"}'.encode("utf-16"), "invalid_event"),
        (b'{"type":"ping","echo":NaN}', "invalid_event"),
        (b'{"type":"ping","echo":1e999}', "invalid_event"),
        (b'{"type":"ping","echo":1%b}' % (b"0" * 5000), "invalid_event"),
        (b'{"type":"ping","echo":"\\ud800"}', "invalid_event"),
        (b'{"type":"ping","type":"hello"}', "invalid_event"),
        (b'{"type":"ping","echo":"\x00"}', "invalid_event"),
        (b'{"type":"ping","echo":%b}' % (b"[" * 100_000), "invalid_event"),
        (b'{"type":"ping","echo":%b1%b}' % (b"[" * 500, b"]" * 500), "invalid_event"),
        (b"[]", "protocol_error"),
        (b"null", "protocol_error"),
        (b'"ping"', "protocol_error"),
        (b"{}", "protocol_error"),
        (b'{"type":null}', "protocol_error"),
        (b'{"type":["ping"]}', "protocol_error"),
        (b'{"type":{"a":1}}', "protocol_error"),
        (b'{"type":"welcome"}', "protocol_error"),
        (b'{"type":"ping","ref":true}', "protocol_error"),
        (b'{"type":"ping","ref":[1]}', "protocol_error"),
        (b'{"type":"ping","ref":{}}', "protocol_error"),
        (b'{"type":"publish"}', "protocol_error"),
        (b'{"type":"hello","batch":1}', "protocol_error"),
        (b'{"type":"ack","subscription_id":"sub-1","tokens":"t"}', "protocol_error"),
        (b'{"type":"subscribe","subscription":{"lease":"long"}}', "protocol_error"),
    ],
)
def test_what_is_no_frame_is_told_apart(data, code):
    found = decode(data)
    assert isinstance(found, Bad)
    assert found.error.code == code
    assert str(found.error)


@pytest.mark.parametrize("ref", ["a", "", 0, 7, -1.5, 10**30])
def test_a_frame_that_cannot_be_read_is_answered_with_its_ref(ref):
    for text in ({"type": "no", "ref": ref}, {"type": "publish", "ref": ref}, {"ref": ref}):
        found = decode(json.dumps(text).encode())
        assert isinstance(found, Bad)
        assert found.ref == ref


@pytest.mark.parametrize(("wanted", "named"), [({}, False), ({"name": "a"}, True), ({"subscription": "s"}, True)])
def test_a_subscription_is_named_by_its_agent_or_by_itself(wanted, named):
    assert wire.Wanted(**wanted).named is named


def test_unknown_fields_are_ignored():
    assert decode(b'{"type":"get_health","since":{"a":[1]},"ref":1}') == wire.GetHealth(ref=1)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_frame_or_bad(data):
    assert decode(data) is not None


@pytest.mark.parametrize(
    ("fields", "agent", "source"),
    [
        ({"topic": "a"}, "me", "me"),
        ({"topic": "a", "source_agent": "you"}, "me", "you"),
        ({"topic": "a", "source": "you"}, "me", "you"),
        ({"topic": "a", "source_agent_id": "you"}, "me", "you"),
        ({"specversion": "1.0", "id": "1", "type": "a", "source": "you"}, "me", "you"),
        ({"topic": "a", "source_agent": "you"}, None, "you"),
    ],
)
def test_an_event_is_from_its_source_and_else_from_the_agent(fields, agent, source):
    assert event_of(Publish(event=fields), agent).source_agent == source


def test_an_event_that_was_read_already_is_taken_as_it_is():
    event = Event(topic="a", source_agent="you")
    assert event_of(Publish(event=event), "me") is event


@pytest.mark.parametrize("event", [None, [], "task.created", 1, {"payload": {}}, {"topic": "a b"}])
def test_what_is_no_event_is_said(event):
    for frame in (Publish(event=event), Request(event=event)):
        with pytest.raises(InvalidEvent):
            event_of(frame, "me")


# --- what a client reads --------------------------------------------------------------------------------------------


def test_a_frame_of_a_newer_protocol_is_none():
    assert decode_server(b'{"type":"invented","what":1}') is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"type":1}',
        b'{"type":"pong","timestamp":"now"}',
        b'{"type":"error"}',
        b"[" * 100_000,
        b'{"type":"pong","timestamp":1,"echo":"\xff"}',
    ],
)
def test_what_no_router_sends_is_a_protocol_error(data):
    with pytest.raises(ProtocolError):
        decode_server(data)


def test_an_event_of_a_newer_version_is_told_apart_from_a_broken_one():
    event = encode_event(Event(topic="a", source_agent="s"))
    with pytest.raises(FormatTooNew):
        delivered_event(Raw(event.replace(b'"v":1', b'"v":2')))
    with pytest.raises(ProtocolError):
        delivered_event(Raw(b'{"v":1}'))
