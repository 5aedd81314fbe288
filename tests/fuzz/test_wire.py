"""Frames: any bytes from a client, any bytes from a router, and what both ends make of what the other writes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import assume
from hypothesis import strategies as st
from msgspec import Raw

from tests.fuzz.rounds import Rounds
from tests.fuzz.test_codec import check_refused
from tests.fuzz.texts import PLAIN, VALUES, WICKED, changed, text_of, torn
from tests.unit.test_codec import ENVELOPE, events
from tests.unit.test_wire import CLIENT_FRAMES, SERVER_FRAMES, received
from wowevent.codec import encode as encode_event
from wowevent.codec import from_fields, loads
from wowevent.errors import BusError, FormatTooNew, ProtocolError
from wowevent.event import Event
from wowevent.router import plain, wire
from wowevent.router.session import refusal
from wowevent.router.wire import Bad, Publish, Request, decode, decode_server, delivered_event, encode, event_of

SAID: dict[str, dict[str, Any]] = {
    "hello": {"batch": True, "agent": "me", "client": "mine", "token": "s3cr3t"},
    "publish": {"event": {"topic": "task.created", "payload": {"n": 1}}},
    "subscribe": {"subscription": {"topics": ["task.*"], "types": ["t"], "priorities": [1, "high"], "min_priority": 3,
                                   "sources": ["s"], "name": "worker", "subscription": "own", "after": "4f2a-1",
                                   "start": "first", "lease": 30, "max_retries": 5, "credit": 10, "held": ["t"]}},
    "unsubscribe": {"subscription_id": "sub-1"},
    "ack": {"subscription_id": "sub-1", "tokens": ["t"]},
    "nack": {"subscription_id": "sub-1", "tokens": ["t"], "error": "e", "traceback": "t", "retry_after": 1,
             "reject": False, "release": False, "pause": 5},
    "request": {"event": {"topic": "agent.ask", "payload": {}}, "timeout": 5},
    "reply": {"event": {"event_id": "e", "correlation_id": "c", "reply_to": "_reply.1"}, "reply": 1, "error": None},
    "ping": {"echo": [1]},
    "get_health": {},
}  # fmt: skip
NAMES = ("ref", "type", *{name for fields in SAID.values() for name in fields})


@st.composite
def frames(draw: st.DrawFn) -> dict[str, Any]:
    """A frame of a client with some of its fields changed, on either level."""
    kind = draw(st.sampled_from(sorted(SAID)))
    fields = dict(SAID[kind])
    inner = [name for name in fields if isinstance(fields[name], dict)]
    if draw(st.booleans()) and inner:
        fields[inner[0]] = draw(changed(fields[inner[0]], tuple(fields[inner[0]])))
    whole = {"type": kind, "ref": draw(st.none() | st.integers() | PLAIN), **fields}
    return draw(st.just(whole) | changed(whole, NAMES))


@st.composite
def publishes(draw: st.DrawFn) -> bytes:
    """A `publish` as our own client writes it, or almost."""
    event = draw(events | st.just(None).map(lambda _: Event(topic="a.b", source_agent="me")))
    ref = draw(st.none() | st.integers() | PLAIN)
    if draw(st.booleans()):
        return encode(Publish(event=Raw(encode_event(event)), ref=ref))
    fields = draw(changed(msgspec.json.decode(encode_event(event)), tuple(ENVELOPE)))
    try:
        return encode(Publish(event=fields, ref=ref))
    except (UnicodeEncodeError, OverflowError):
        return text_of({"type": "publish", "ref": ref, "event": fields})


CLIENT_BYTES = st.binary(max_size=60) | torn(st.one_of(frames().map(text_of), CLIENT_FRAMES.map(encode), publishes()))


def test_any_bytes_of_a_client_are_a_frame_or_are_told_what_is_wrong(fuzz: Rounds):
    def judged(data: bytes) -> None:
        frame = decode(data)
        if isinstance(frame, Bad):
            assert frame.error.code in {"invalid_event", "protocol_error"}
            answer = decode_server(encode(refusal(frame.error, frame.ref).frame))
            assert isinstance(answer, wire.Error)
            assert answer.ref == frame.ref
            assert len(answer.message) < 600
        elif not (isinstance(frame, Publish) and isinstance(frame.event, Event)):
            again = decode(encode(frame))
            if isinstance(frame, Publish) and isinstance(again, Publish) and isinstance(again.event, Event):
                assert again == Publish(event=event_of(frame, None), ref=frame.ref)  # so written it is read in one go
            else:
                assert again == frame
            assert frame == msgspec.convert(json.loads(data), type(frame)), "a field was read as another"

    fuzz.check(judged, short=200, data=CLIENT_BYTES)


def test_a_ref_comes_back_whatever_is_wrong_with_the_rest(fuzz: Rounds):
    def judged(fields: dict[str, Any], ref: Any) -> None:
        frame = decode(text_of({**fields, "ref": ref}))
        if isinstance(frame, Bad) and frame.error.code == "invalid_event":
            return  # it is no JSON: who knows what the ref is
        assert frame.ref == (ref if isinstance(ref, str | int | float) and not isinstance(ref, bool) else None)

    fuzz.check(judged, fields=frames(), ref=VALUES)


def test_the_event_of_any_frame_is_one_or_is_refused(fuzz: Rounds):
    def judged(data: bytes, agent: str | None) -> None:
        frame = decode(data)
        assume(isinstance(frame, Publish | Request))
        assert isinstance(frame, Publish | Request)
        try:
            event = event_of(frame, agent)
        except BusError as error:
            check_refused(error)
            return
        named = (
            isinstance(frame.event, Event)
            or {"source", "source_agent", "source_agent_id", "specversion"} & frame.event.keys()
        )
        assert named or event.source_agent == (agent or "")
        assert delivered_event(Raw(encode_event(event))) == event

    fuzz.check(judged, data=publishes() | frames().map(text_of), agent=st.sampled_from((None, "me")))


def test_the_fast_way_in_makes_what_the_long_way_makes(fuzz: Rounds):
    def judged(data: bytes) -> None:
        if (found := plain.published(data)) is None:
            return
        event, ref = found
        fields = loads(data)
        long = from_fields(fields["event"])
        assert event == long
        assert encode_event(event) == encode_event(long)
        assert event.payload == long.payload
        assert ref == fields.get("ref")
        assert fields.keys() <= {"type", "ref", "event"}

    fuzz.check(judged, short=100, data=torn(publishes()))


# --- the other end ---------------------------------------------------------------------------------------------------


def test_any_bytes_of_a_router_are_a_frame_or_a_protocol_error(fuzz: Rounds):
    def judged(data: bytes) -> None:
        try:
            frame = decode_server(data)
        except ProtocolError:
            return
        items = frame.events if isinstance(frame, wire.Events) else [frame] if isinstance(frame, wire.Delivered) else []
        for item in items:
            try:
                event = delivered_event(item.event)
            except (ProtocolError, FormatTooNew):
                continue
            assert encode_event(delivered_event(Raw(encode_event(event)))) == encode_event(event)

    fuzz.check(judged, short=80, data=torn(SERVER_FRAMES.map(encode) | events.map(delivery)))


def delivery(event: Event) -> bytes:
    return wire.single(wire.item(encode("sub-1"), wire.shared_part(event, "4f2a-1")))


def test_a_client_reads_every_event_that_a_router_writes(fuzz: Rounds):
    def judged(sent: list[Event], batch: bool, id: str) -> None:
        parts = [wire.item(encode(id), wire.shared_part(event, f"4f2a-{n}")) for n, event in enumerate(sent)]
        texts = list(received(wire.messages(parts, batch=batch)))
        frames = [decode_server(text) for text in texts]
        items: list[Any] = [item for frame in frames for item in getattr(frame, "events", [frame])]
        assert [delivered_event(item.event) for item in items] == sent
        assert [item.position for item in items] == [f"4f2a-{n}" for n in range(len(sent))]
        assert {item.subscription_id for item in items} == {id}
        for text in texts:
            json.loads(text.decode())  # as a page reads it: `target_agent` and `trace_id` are there once

    fuzz.check(judged, sent=st.lists(events, min_size=1, max_size=5), batch=st.booleans(), id=PLAIN)


def test_what_is_wrong_is_told_in_text_that_anybody_can_read(fuzz: Rounds):
    def judged(message: str, ref: Any) -> None:
        frame = refusal(ProtocolError(message), ref).frame
        assert decode_server(encode(frame)) == frame
        encode(frame).decode()

    fuzz.check(judged, message=WICKED | st.text(), ref=st.none() | st.integers() | PLAIN)
