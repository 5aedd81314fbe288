"""The values that cross the broker's protocol: positions as text and in order, and what a default means."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wowevent.broker import (
    Appended,
    Bury,
    Capabilities,
    DeadQuery,
    Filter,
    Position,
    Query,
    Reason,
    Retention,
    Retry,
    Subscription,
    SubscriptionInfo,
)

positions = st.builds(Position, st.text(min_size=1), st.integers(min_value=0))


@given(positions)
def test_a_position_survives_as_text(position: Position):
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    ("position", "text"),
    [(Position("e1", 1), "e1-1"), (Position("0190a000-7000", 12), "0190a000-7000-12")],
    ids=["plain", "an epoch with a dash"],
)
def test_a_position_is_written_epoch_dash_offset(position: Position, text: str):
    assert str(position) == text
    assert Position.parse(text) == position


@pytest.mark.parametrize(
    "text", ["", "5", "-5", "e-", "e", "e-x", "e-1.5", "e-" + "9" * 5000], ids=lambda text: text[:8]
)
def test_other_text_is_no_position(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - int's own words are as good
        Position.parse(text)


@given(st.text(min_size=1), st.lists(st.integers(min_value=1)))
def test_positions_of_one_log_are_ordered_by_offset(epoch: str, offsets: list[int]):
    ordered = sorted(Position(epoch, offset) for offset in offsets)
    assert [position.offset for position in ordered] == sorted(offsets)


def test_the_reasons_are_those_that_the_contract_names():
    assert {reason.name for reason in Reason} == {
        "HANDLER_ERROR",
        "TIMEOUT",
        "VALIDATION_ERROR",
        "SUBSCRIBER_UNAVAILABLE",
        "DESERIALIZATION_ERROR",
        "UNKNOWN",
        "REJECTED",
        "CRASHED",
        "LOOP_DETECTED",
    }
    assert all(reason == reason.name.lower() for reason in Reason)


def test_the_defaults_are_the_documented_ones():
    assert Retention() == Retention(max_age=None, max_bytes=None, max_count=None, unserved_after=7 * 86_400)
    plain = Subscription(id="s", patterns=("#",))
    assert (plain.agent, plain.filter, plain.durable, plain.exclusive, plain.keyed) == ("", None, True, False, False)
    assert (plain.start, plain.lease) == ("new", 30.0)
    assert Filter() == Filter(types=None, priorities=None, sources=None)
    assert (Retry("t").delay, Retry("t").charge) == (0.0, True)
    assert Bury("t", Reason.REJECTED).error is None
    assert Query().patterns == ("#",)
    assert DeadQuery().limit == 100
    assert Appended(None) == Appended(position=None, duplicate=False, matched=())
    assert not SubscriptionInfo(subscription=plain).lapsed


@pytest.mark.parametrize(
    "value",
    [
        Position("e", 1),
        Subscription(id="s", patterns=("#",)),
        Capabilities(name="memory", durable=False, shared=False, promise="gone with the process"),
        Retry("t"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_values_are_immutable_and_can_be_kept_in_sets(value: msgspec.Struct):
    assert len({value, msgspec.structs.replace(value)}) == 1
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], "other")


def test_a_position_covers_what_is_not_behind_it_in_the_same_log():
    """Epochs have no order: what a new log has is behind nothing of the old one."""
    here = Position("b", 5)
    assert [here.covers(Position("b", offset)) for offset in (4, 5, 6)] == [True, True, False]
    assert not here.covers(Position("a", 1))
    assert not here.covers(Position("c", 1))
