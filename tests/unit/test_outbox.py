"""The outbox: bounded in bytes and events, first in first out, and it knows what it gave back last."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wowevent.broker import Position
from wowevent.router.outbox import Outbox


def test_what_goes_in_comes_out_in_order_and_about_as_much_as_is_asked_for():
    outbox = Outbox(100, 10)
    for piece in (b"aaa", b"bbb", b"ccc"):
        assert outbox.put(piece, 1)
    assert (len(outbox), outbox.bytes, outbox.events) == (3, 9, 3)
    assert outbox.take(4) == b"aaabbb"
    assert (len(outbox), outbox.bytes, outbox.events) == (1, 3, 1)
    assert outbox.take(100) == b"ccc"
    assert outbox.take(100) == b""


@pytest.mark.parametrize(
    ("size", "events", "fits"), [(5, 1, True), (6, 1, False), (5, 2, True), (5, 3, False), (0, 0, True)]
)
def test_a_piece_that_does_not_fit_changes_nothing(size, events, fits):
    outbox = Outbox(10, 5)
    assert outbox.put(b"12345", 3)
    assert outbox.put(b"x" * size, events) is fits
    assert (outbox.bytes, outbox.events) == ((5 + size, 3 + events) if fits else (5, 3))


def test_it_knows_the_last_position_that_was_taken_also_behind_a_piece_without_one():
    outbox = Outbox(100, 10)
    outbox.put(b"a", 1, Position("e", 1))
    outbox.put(b"b", 0)
    outbox.put(b"c", 1, Position("e", 2))
    seen = [outbox.taken]
    for most in (2, 1):
        outbox.take(most)
        seen.append(outbox.taken)
    assert seen == [None, Position("e", 1), Position("e", 2)]


def test_clear_drops_everything():
    outbox = Outbox(10, 5)
    outbox.put(b"12345", 3)
    outbox.clear()
    assert (len(outbox), outbox.bytes, outbox.events, outbox.take(10)) == (0, 0, 0, b"")


class OutboxMachine(RuleBasedStateMachine):
    """Against a list."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(40, 6)
        self.model: list[tuple[bytes, int]] = []

    @rule(piece=st.binary(max_size=20), events=st.integers(0, 3))
    def put(self, piece, events):
        fits = len(piece) + sum(len(p) for p, _ in self.model) <= 40 and events + sum(n for _, n in self.model) <= 6
        assert self.outbox.put(piece, events) is fits
        if fits:
            self.model.append((piece, events))

    @rule(most=st.integers(0, 50))
    def take(self, most):
        expected = b""
        while self.model and len(expected) < most:
            expected += self.model.pop(0)[0]
        assert self.outbox.take(most) == expected

    @rule()
    def clear(self):
        self.outbox.clear()
        self.model.clear()

    @invariant()
    def counts_are_right(self):
        assert len(self.outbox) == len(self.model)
        assert self.outbox.bytes == sum(len(piece) for piece, _ in self.model) <= 40
        assert self.outbox.events == sum(events for _, events in self.model) <= 6


test_any_order_of_calls_keeps_its_counts = OutboxMachine.TestCase
