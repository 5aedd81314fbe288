"""The fast way in: it takes only what the long way takes, makes the same of it, and leaves everything else to that."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from wowevent import Event
from wowevent.codec import encode as encode_event
from wowevent.codec import from_fields, loads
from wowevent.router import plain
from wowevent.router.wire import Bad, Publish, decode, encode, event_of

EVENT = Event(topic="task.created", source_agent="me", payload={"n": 1, "text": "é\n", "deep": {"a": [1.5, None]}})
FRAME = encode(Publish(event=Raw(encode_event(EVENT))))


def framed(**changes: Any) -> bytes:
    """The frame with fields changed, added, or left out where they are None; encoded as we encode."""
    fields = {**msgspec.json.decode(encode_event(EVENT)), **changes}
    kept = {name: value for name, value in fields.items() if value is not None}
    return encode(Publish(event=kept))


@pytest.mark.parametrize("ref", [None, 7, 1.5, "seven"])
def test_a_frame_that_our_client_writes_is_read_at_once(ref: str | float | None):
    data = encode(Publish(event=Raw(encode_event(EVENT)), ref=ref))
    found = plain.published(data)
    assert found == (EVENT, ref)
    frame = decode(data)
    assert isinstance(frame, Publish)
    assert event_of(frame, "another") == EVENT  # it named its source


def test_the_empty_source_stays_empty_on_either_way():
    data = framed(source_agent="")
    found = plain.published(data)
    assert found is not None
    assert found[0] == from_fields(loads(data)["event"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        FRAME[:-1],
        FRAME + b" ",
        FRAME.replace(b'"n":1', b'"n": 1'),
        FRAME.replace(b'"n":1', b'"n":1,"n":1'),
        FRAME.replace(b'"n":1', b'"n":NaN'),
        FRAME.replace(b'"n":1', b'"n":1e999'),
        FRAME.replace(b'"n":1', b'"n":1e3'),
        FRAME.replace(b'"n":1', b'"n":' + b"9" * 5_000),
        FRAME.replace(b'"n":1', b'"n":"\\ud800"'),
        FRAME.replace(b'"n":1', b'"n":"\xff"'),
        FRAME.replace(b'"n":1', b'"n":"\\u0041"'),
        FRAME.replace(b'"n":1', b'"\\u006e":1'),
        FRAME.replace(b'"n":1', b'"n":' + b"[" * 100_000),
        FRAME.replace(b'"n":1', b'"n":' + b"[" * 40 + b"]" * 40),
        FRAME.replace(b'"priority":5', b'"priority":5,"priority":5'),
        FRAME.replace(b'"type":"publish"', b'"type":"request"'),
        FRAME.replace(b'"type":"publish"', b'"type":"publish","type":"publish"'),
        FRAME.replace(b'"type":"publish"', b'"type":"publish","more":1'),
        FRAME.replace(b'"type":"publish"', b'"type":"publish","ref":true'),
        FRAME.replace(b'"type":"publish"', b'"type":"publish","ref":null'),
        FRAME.replace(b'"v":1', b'"v":2'),
        FRAME.replace(b'"v":1', b'"v":true'),
        framed(topic="no topic"),
        framed(event_type="no*type"),
        framed(source_agent="no name\n"),
        framed(event_id="line\n"),
        framed(event_id=""),
        framed(event_id="x" * 129),
        framed(correlation_id="a\r\nb"),
        framed(priority=0),
        framed(priority=11),
        framed(priority=True),
        framed(timestamp="2026-01-31T12:00:00"),
        framed(timestamp="2026-01-31T12:00:00+02:00"),
        framed(payload=[1]),
        framed(payload="text"),
        framed(payload=None),
        framed(retry_count=1),
        framed(_decoded={"n": 2}),
        framed(_unknown={"n": 2}),
        framed(surprise=1),
        framed(target_agent="somebody"),
        framed(headers={"a": "b"}),
        framed(hops=3),
    ],
)  # fmt: skip
def test_what_is_not_exactly_that_takes_the_long_way(data: bytes):
    assert plain.published(data) is None


def test_each_change_above_changed_something():
    assert plain.published(FRAME) is not None
    assert plain.published(framed()) is not None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.datetimes(min_value=datetime(1990, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))]))  # noqa: DTZ001 - a bound


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "payload": st.dictionaries(st.text(max_size=5), VALUES, max_size=4) | VALUES,
            "event_id": st.text(max_size=12),
            "correlation_id": st.text(max_size=12),
            "topic": st.text("ab.*_- ", max_size=6),
            "event_type": st.text("ab.*_- ", max_size=6),
            "source_agent": st.text(max_size=5),
            "priority": st.integers(-1, 12),
            "timestamp": TIMES,
            "v": st.integers(0, 2),
        },
    ),
    ref=st.none() | st.text(max_size=4) | st.integers(-5, 5),
)
@example(changes={}, ref=1)
def test_what_it_takes_is_what_the_long_way_makes_of_it(changes: dict[str, Any], ref: str | int | None):
    fields = {**msgspec.json.decode(encode_event(EVENT)), **changes}
    data = encode(Publish(event=fields, ref=ref))
    if (found := plain.published(data)) is None:
        return
    long = from_fields(loads(data)["event"])
    assert found == (long, ref)
    assert encode_event(found[0]) == encode_event(long)
    assert not isinstance(decode(data), Bad)
