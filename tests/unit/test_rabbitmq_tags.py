"""What a message of the RabbitMQ engine says of itself, and what those say that others published."""

from typing import Any

import msgspec
import pytest
from aiormq.abc import DeliveredMessage
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from wowevent.broker import Attempt, Reason
from wowevent.brokers.rabbitmq.tags import (
    HEADER,
    name_of,
    number_of,
    of_copy,
    properties,
    returns_of,
    route_of,
    tag_of,
    topic_of,
)
from wowevent.event import Event
from wowevent.tag import ENDED, Tag

EVENT = Event(topic="task.created", event_id="e-1")


def message(properties: Basic.Properties, delivery: Any = None, body: bytes = b"") -> DeliveredMessage:
    return DeliveredMessage(
        delivery=delivery or Basic.Deliver("c", 7, exchange="agent_events", routing_key="task.created.normal"),
        header=ContentHeader(body_size=len(body), properties=properties),
        body=body,
        channel=None,  # type: ignore[arg-type]  # nothing is answered here
    )


def over_the_wire(properties: Basic.Properties) -> Basic.Properties:
    """As the other side reads them."""
    found = ContentHeader()
    found.unmarshal(ContentHeader(body_size=0, properties=properties).marshal())
    return found.properties


def bearing(header: Any) -> DeliveredMessage:
    return message(Basic.Properties(headers={HEADER: header}))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
times = st.floats(0, 1e10)
attempts = st.builds(Attempt, number=st.integers(1, 99), time=times, error=texts)
tags = st.builds(
    Tag,
    at=times,
    seen=st.integers(-1, 2**60),
    copy=texts,
    failures=st.integers(0, 99),
    crashes=st.integers(0, 99),
    attempts=st.lists(attempts, max_size=3).map(tuple),
    redelivered=st.booleans(),
    due=times,
    target=texts,
    letter=texts,
    reason=st.sampled_from(["", *Reason]),
    error=texts,
    traceback=texts,
    buried=times,
)


@given(tags)
def test_what_is_written_is_read(tag: Tag):
    assert tag_of(message(over_the_wire(properties(EVENT, tag)))) == tag


def test_a_message_is_kept_on_disk_and_bears_the_id_of_its_event():
    found = over_the_wire(properties(EVENT, Tag(at=1.0)))
    assert (found.delivery_mode, found.message_id, found.content_type) == (2, "e-1", "application/json")
    assert found == over_the_wire(of_copy("e-1", Tag(at=1.0)))
    assert found.headers == {HEADER: '{"at":1.0}'}


def test_half_a_character_in_an_error_does_not_keep_a_message_from_leaving():
    tag = Tag(at=1.0).failed(2.0, "\ud800")
    assert tag_of(message(over_the_wire(properties(EVENT, tag)))) == tag
    assert (tag.failures, tag.attempts[0].error) == (1, "\\ud800")


FOREIGN = {
    "nothing": None,
    "no JSON": "hello",
    "no object": "[]",
    "not ours": '{"other":1}',
    "another kind of time": '{"at":"yesterday"}',
    "another kind of count": '{"at":1,"failures":"many"}',
    "another kind of attempt": '{"at":1,"attempts":[1]}',
    "a number": 5,
    "true": True,
    "a list": ["at"],
    "a table": {"at": 1},
    "bytes": b"\xff\xfe",
    "half a character": '{"at":1,"copy":"\\ud800"}',
    "empty": "",
    "deep": '{"at":1,"x":' + "[" * 100_000,
}


@pytest.mark.parametrize("header", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_header_that_is_not_ours_says_nothing(header: object):
    assert tag_of(bearing(header)) == Tag(at=0.0)


@pytest.mark.parametrize("headers", [None, {}, {"other": "x"}])
def test_a_message_without_our_header_says_nothing(headers: dict | None):
    found = message(Basic.Properties(headers=headers))
    assert tag_of(found) == Tag(at=0.0)
    assert returns_of(found) == 0


def test_a_message_without_an_id_is_named_by_what_it_says():
    one, same, other = (message(Basic.Properties(), body=body) for body in (b"1", b"1", b"2"))
    assert name_of(one, tag_of(one)) == name_of(same, tag_of(same)) != name_of(other, tag_of(other))


def test_our_header_as_bytes_and_from_a_newer_version_is_read():
    assert tag_of(bearing(b'{"at":1.5,"failures":2}')) == Tag(at=1.5, failures=2)
    assert tag_of(bearing('{"at":1.5,"newer":[1]}')) == Tag(at=1.5)


COUNTS = {
    "counted": ({"x-delivery-count": 3}, False, 3),
    "counted, and said to be back": ({"x-delivery-count": 3}, True, 3),
    "not counted, and said to be back": ({}, True, 1),
    "never back": ({}, False, 0),
    "no count at all": ({"x-delivery-count": "many"}, True, 1),
}


@pytest.mark.parametrize(("headers", "redelivered", "expected"), COUNTS.values(), ids=COUNTS.keys())
def test_how_often_it_came_back(headers: dict, redelivered: bool, expected: int):
    delivery = Basic.Deliver("c", 1, redelivered=redelivered)
    assert returns_of(message(Basic.Properties(headers=headers), delivery)) == expected


def test_failures_and_crashes_are_counted_apart_and_numbered_together():
    tag = Tag(at=1.0, copy="c").failed(2.0, "no").crashed(3.0, 2).failed(4.0, "again no")
    assert (tag.failures, tag.crashes, tag.at, tag.copy) == (2, 2, 1.0, "c")
    assert tag.attempts == (
        Attempt(1, 2.0, "no"),
        Attempt(2, 3.0, ENDED),
        Attempt(3, 3.0, ENDED),
        Attempt(4, 4.0, "again no"),
    )


def test_where_a_message_came_by():
    delivered = message(Basic.Properties(message_id="e-1"))
    assert (route_of(delivered), topic_of(delivered)) == (("agent_events", "task.created.normal"), "task.created")
    assert number_of(delivered) == 7
    assert name_of(delivered, Tag(at=0.0, copy="c")) == "e-1/c"
    asked = message(Basic.Properties(), Basic.GetOk(8, exchange="", routing_key="worker"))
    assert (route_of(asked), topic_of(asked), number_of(asked)) == (("", "worker"), "", 8)
    nothing = message(Basic.Properties(), Basic.GetEmpty())
    assert (route_of(nothing), topic_of(nothing), number_of(nothing)) == (("", ""), "", 0)


def test_a_tag_is_short_where_there_is_nothing_to_say():
    assert msgspec.json.encode(Tag(at=1.0, seen=5)) == b'{"at":1.0,"seen":5}'
