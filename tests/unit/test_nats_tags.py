"""What a message of the NATS engine says of itself, and what those say that others published."""

import math

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wowevent.broker import Attempt, Reason
from wowevent.brokers.nats.messages import header_of, status_of
from wowevent.brokers.nats.tags import MOST, copied, expecting, living, published, tag_of
from wowevent.codec import decode
from wowevent.event import Event
from wowevent.tag import ENDED, Tag

EVENT = Event(topic="task.created", event_id="e-1", payload={"n": 1})


def delivered(lines: bytes) -> bytes:
    """The headers of a message that was published with these lines."""
    assert not lines or lines.endswith(b"\r\n")
    return b"NATS/1.0\r\n%b\r\n" % lines


def bearing(text: bytes) -> bytes:
    return delivered(b"Wow: %b\r\n" % text)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
times = st.floats(0, 1e10)
attempts = st.builds(Attempt, number=st.integers(1, 99), time=times, error=texts)
tags = st.builds(
    Tag,
    at=times,
    place=st.integers(0, 2**60),
    failures=st.integers(0, 99),
    crashes=st.integers(0, 99),
    attempts=st.lists(attempts, max_size=3).map(tuple),
    redelivered=st.booleans(),
    due=times,
    target=texts,
    leaving=st.booleans(),
    reason=st.sampled_from(["", *Reason]),
    error=texts,
    traceback=texts,
    buried=times,
)


@given(tags)
def test_what_is_written_is_read(tag: Tag):
    message = copied("wow.x.a.s.n", b"body", tag, "id-1", expecting(7) + living(5))
    assert (message.subject, message.body) == ("wow.x.a.s.n", b"body")
    headers = delivered(message.headers)
    assert tag_of(headers) == tag
    assert headers.count(b"\r\n") == 6  # no text of a tag begins a line of its own
    assert header_of(headers, b"Nats-Msg-Id") == "id-1"
    assert header_of(headers, b"Nats-Expected-Last-Subject-Sequence") == "7"
    assert header_of(headers, b"Nats-TTL") == "5s"


def test_a_copy_without_an_id_may_be_there_twice():
    assert header_of(delivered(copied("s", b"", Tag(at=1.0)).headers), b"Nats-Msg-Id") == ""


@given(times)
def test_what_is_published_bears_its_id_and_when_that_was(at: float):
    message = published("wow.x.n.task.created", EVENT, at)
    headers = delivered(message.headers)
    assert header_of(headers, b"Nats-Msg-Id") == "e-1"
    assert tag_of(headers) == Tag(at=float(f"{at:.6f}"))
    assert decode(message.body) == EVENT


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0, "1s"), (0.4, "1s"), (1.6, "2s"), (15.0, "15s"), (86_400.0, "86400s")]
)
def test_the_server_forgets_after_whole_seconds_and_never_at_once(seconds: float, said: str):
    assert header_of(delivered(living(seconds)), b"Nats-TTL") == said


# ------------------------------------------------------------------------------------------------ what is too long


@settings(max_examples=30)
@example(2_625, 26_250, "\x01")  # many short ones: they go, and what is said of the last stays long enough
@given(st.integers(0, 3_000), st.integers(0, 70_000), st.sampled_from(["x", "é", "\x01", "\U0001f600"]))
def test_whatever_failed_however_often_the_server_takes_it(count: int, length: int, letter: str):
    text = letter * length
    tried = tuple(Attempt(n, 1.0, text[: length // max(1, count)] + "!") for n in range(1, count + 1))
    tag = Tag(at=1.0, place=9, failures=count, attempts=tried, error=text, traceback=f"{text} at its end")
    headers = copied("s", b"", tag, "i" * 100).headers
    assert len(headers) < 2 * MOST
    assert len(headers) < 60_000
    found = tag_of(delivered(headers))
    assert (found.at, found.place, found.failures) == (1.0, 9, count)
    assert found.traceback.endswith("at its end")
    assert tag.error.startswith(found.error)
    assert [each.number for each in found.attempts] == [n + 1 for n in range(count)][count - len(found.attempts) :]
    assert len(found.attempts) >= min(count, 20)


def test_one_long_error_is_cut_and_not_the_others():
    tried = tuple(Attempt(n, 1.0, "x" * (100_000 if n == 2 else 50)) for n in range(1, 4))
    found = tag_of(delivered(copied("s", b"", Tag(at=1.0, attempts=tried)).headers))
    assert [len(each.error) for each in found.attempts][::2] == [50, 50]
    assert len(found.attempts[1].error) > 10_000


# ------------------------------------------------------------------------------------------------ strangers

NO_TAGS = {
    "nothing": b"",
    "no JSON": b"hello",
    "another type": b"[1]",
    "wrong fields": b'{"at":"yesterday"}',
    "no field": b"{}",
    "endless": b'{"at":1e999}',
    "half": b'{"at":1.0',
    "no text": b"\xff\xfe\xff",
    "deep": b'{"at":1.0,"x":' + b"[" * 50_000,
    "attempts": b'{"at":1.0,"attempts":[7]}',
}


@pytest.mark.parametrize("name", NO_TAGS)
def test_what_a_stranger_says_of_a_message_is_nothing(name: str):
    assert tag_of(bearing(NO_TAGS[name])) == Tag(at=0.0)


@pytest.mark.parametrize("at", [b"", b"soon", b"nan", b"inf", b"-inf", b"1e999", b"\xff", b"1_0x"])
def test_a_time_that_is_none_is_no_time(at: bytes):
    found = tag_of(delivered(b"Wow-At: %b\r\n" % at))
    assert found == Tag(at=0.0)
    assert math.isfinite(found.at)


def test_fields_that_a_newer_version_knows_are_passed_over():
    assert tag_of(bearing(msgspec.json.encode({"at": 1.0, "newer": [1], "place": 3}))) == Tag(at=1.0, place=3)


@pytest.mark.parametrize("headers", [b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0 404 No Messages\r\n\r\n"])
def test_a_message_without_headers_says_nothing(headers: bytes):
    assert tag_of(headers) == Tag(at=0.0)
    assert header_of(headers, b"Wow") == ""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"", 0),
        (b"NATS/1.0\r\nA: b\r\n\r\n", 0),
        (b"NATS/1.0 404 No Messages\r\n\r\n", 404),
        (b"NATS/1.0 100 Idle Heartbeat\r\nA: b\r\n\r\n", 100),
        (b"NATS/1.0 503\r\n\r\n", 503),
    ],
)
def test_what_the_server_says_instead_of_a_message(headers: bytes, status: int):
    assert status_of(headers) == status


def test_a_crash_is_an_attempt_like_another():
    tag = Tag(at=1.0).failed(2.0, "once").crashed(3.0, 2)
    found = tag_of(delivered(copied("s", b"", tag).headers))
    assert (found.failures, found.crashes) == (1, 2)
    assert [(each.number, each.error) for each in found.attempts] == [(1, "once"), (2, ENDED), (3, ENDED)]
