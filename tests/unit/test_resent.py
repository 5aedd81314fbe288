"""A corrected event: what it keeps, for whom it is, and that its id comes from the letter."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from wowevent import Event, InvalidEvent
from wowevent.broker import Filter, Subscription
from wowevent.codec import decode, encode
from wowevent.event import _TEXT as TEXT
from wowevent.id import made_at
from wowevent.resent import RESENT, Resent, corrected, corrected_id, resent_of
from wowevent.routing import Routes, matches

NOW = datetime(2030, 1, 2, tzinfo=UTC)
OLD = Event(
    topic="order.placed", event_type="placed", payload={"sum": "12"}, event_id="old", correlation_id="order-7",
    source_agent="shop", priority=8, parent_event_id="cart", trace_id="t", ttl_seconds=60, reply_to="_reply.x",
    timestamp="2030-01-01T00:00:00Z", not_before="2030-01-01T00:00:01Z", headers={"schema_version": "1.0.0"}, hops=3,
)  # fmt: skip
MARK = Resent("new", "billing~order.*", "17", "ops", "the sum was text")


def test_it_keeps_what_a_handler_looks_at_and_happens_now() -> None:
    new = corrected(OLD, {"sum": 12}, MARK, NOW)
    assert (new.event_id, new.payload, new.timestamp, new.replay_of) == ("new", {"sum": 12}, NOW, "old")
    assert (new.not_before, new.reply_to) == (None, None)
    for name in ("topic", "kind", "correlation_id", "source_agent", "priority", "parent_event_id", "trace_id",
                 "ttl_seconds", "hops"):  # fmt: skip
        assert getattr(new, name) == getattr(OLD, name)
    assert new.headers["schema_version"] == "1.0.0"
    assert OLD.payload == {"sum": "12"}
    assert decode(encode(new)) == new


def test_its_header_says_for_whom_why_and_by_whom() -> None:
    new = corrected(OLD, {}, MARK, NOW)
    assert resent_of(new) == MARK
    assert TEXT.fullmatch(new.headers[RESENT])
    again = corrected(new, {}, Resent("newer", "billing~order.*", "18"), NOW)
    assert resent_of(again) == Resent("newer", "billing~order.*", "18")


@pytest.mark.parametrize("payload", [["a"], "text", {"n": float("nan")}], ids=str)
def test_what_is_no_payload_is_refused(payload: object) -> None:
    with pytest.raises(InvalidEvent):
        corrected(OLD, payload, MARK, NOW)


@pytest.mark.parametrize(
    "text", ["", "{}", "[", "[" * 4000, '{"event": 1, "to": "s", "letter": "17"}', '{"event": "new", "to": "s"}']
)
def test_a_header_that_says_nothing_is_none(text: str) -> None:
    assert resent_of(Event(topic="a.b", event_id="new", headers={RESENT: text})) is None


def test_the_header_of_another_event_says_nothing() -> None:
    """A handler that hands headers on hands no audience on."""
    passed_on = Event(topic="order.billed", headers=corrected(OLD, {}, MARK, NOW).headers)
    assert resent_of(passed_on) is None
    assert matches(Subscription(id="anybody", patterns=("order.*",)), passed_on)


@pytest.mark.parametrize("wish", [None, Filter(types=frozenset({"placed"}))])
@pytest.mark.parametrize("keyed", [False, True])
def test_only_its_subscription_matches(wish: Filter | None, keyed: bool) -> None:
    new, routes = corrected(OLD, {}, MARK, NOW), Routes()
    specs = [Subscription(id=id, patterns=("#",), filter=wish, keyed=keyed) for id in ("a", "billing~order.*", "z")]
    for spec in specs:
        routes.add(spec)
    assert set(routes.match(OLD)) == {"a", "billing~order.*", "z"}
    assert routes.match(new) == ("billing~order.*",)
    assert [matches(spec, new) for spec in specs] == [False, True, False]


def test_its_id_is_always_the_same_and_says_since_when_it_can_be_there() -> None:
    id = corrected_id("17", "billing", "old", 1_893_456_000.25)
    assert id == corrected_id("17", "billing", "old", 1_893_456_000.25)
    others = [("18", "billing", "old"), ("17", "shop", "old"), ("17", "billing", "older")]
    assert len({id, *(corrected_id(*other, 1_893_456_000.25) for other in others)}) == 4
    assert made_at(id) == 1_893_456_000.25
    assert made_at(corrected_id("17", "billing", "old", 0)) == 0
