"""The parts of the client that do no I/O: backoff, outbox, inbox, what is said of tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from wowevent import Event, OutboxFull, Position
from wowevent.broker import Lease
from wowevent.client.backoff import Backoff
from wowevent.client.connection import masked
from wowevent.client.inbox import Inbox, Seen
from wowevent.client.outbox import Outbox
from wowevent.client.settling import Settling
from wowevent.router.wire import Ack, Nack


def event(n: int = 0, **fields: object) -> Event:
    return Event(topic="a.b", payload={"n": n}, **fields)  # type: ignore[arg-type]


# --- backoff ------------------------------------------------------------------------------------------------------


def test_waits_grow_by_the_factor_up_to_the_maximum():
    backoff = Backoff(1.0, 4.0, 1.5)
    assert [backoff.pause(1.0) for _ in range(6)] == [1.0, 1.5, 2.25, 3.375, 4.0, 4.0]


def test_each_wait_is_the_part_that_chance_says():
    backoff = Backoff(2.0, 30.0, 2.0)
    assert [backoff.pause(0.5), backoff.pause(0.0), backoff.pause(0.25)] == [1.0, 0.0, 2.0]


def test_a_connection_that_held_ends_the_growth_and_one_that_broke_at_once_does_not():
    backoff = Backoff(1.0, 30.0, 2.0)
    assert [backoff.pause(1.0), backoff.pause(1.0)] == [1.0, 2.0]
    backoff.lasted(0.9)
    assert backoff.pause(1.0) == 4.0
    backoff.lasted(1.0)
    assert backoff.pause(1.0) == 1.0


# --- messages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5, 125, 126, 65_535, 65_536, 200_003])
def test_a_masked_message_is_read_by_another_implementation(size: int):
    text = bytes(n % 251 for n in range(size))
    reader = StreamReader()
    reader.feed_data(masked(text, b"\x01\xfe\x80\x7f"))
    parsing = Frame.parse(reader.read_exact, mask=True)
    with pytest.raises(StopIteration) as parsed:
        next(parsing)
    assert parsed.value.value == Frame(Opcode.TEXT, text, fin=True)


# --- outbox -------------------------------------------------------------------------------------------------------


def test_entries_leave_in_any_order_and_stay_in_theirs():
    outbox = Outbox(10, 10_000)
    entries = [outbox.write(event(n)) for n in range(3)]
    for entry in entries:
        outbox.put(entry)
    assert list(outbox) == entries
    assert outbox.get(entries[1].ref) is entries[1]
    outbox.drop(entries[1])
    outbox.drop(entries[1])
    assert (list(outbox), outbox.get(entries[1].ref)) == ([entries[0], entries[2]], None)
    outbox.drop(entries[0])
    outbox.drop(entries[2])
    assert (len(outbox), outbox.bytes) == (0, 0)


def test_full_by_count_or_by_bytes_takes_nothing():
    outbox = Outbox(1, 10_000)
    outbox.put(outbox.write(event()))
    with pytest.raises(OutboxFull, match="1 events"):
        outbox.put(outbox.write(event()))
    assert len(outbox) == 1
    small = Outbox(10, 100)
    with pytest.raises(OutboxFull, match="100 bytes"):
        small.put(small.write(event()))
    assert (len(small), small.bytes) == (0, 0)


# --- inbox --------------------------------------------------------------------------------------------------------


def lease(n: int, **fields: object) -> Lease:
    return Lease(event=event(n, **fields), token="", position=Position("e", n))


def test_full_by_count_or_by_bytes_and_half_empty_again():
    for inbox in (Inbox(capacity=4), Inbox(max_bytes=4 * len(lease(0).event.body))):
        found = []
        for n in range(4):
            inbox.put(lease(n))
            found.append(inbox.full)
        assert found == [False, False, False, True]
        found = []
        for _ in range(2):
            inbox.pop()
            found.append(inbox.half_empty)
        assert found == [False, True]
        inbox.clear()
        assert (len(inbox), inbox.bytes, inbox.pop()) == (0, 0, None)


def test_urgent_first():
    inbox = Inbox()
    for n, priority in enumerate((5, 1, 9, 5, 10)):
        inbox.put(lease(n, priority=priority))
    order = []
    while (each := inbox.pop()) is not None:
        order.append(each.event.payload["n"])
    assert order == [4, 2, 0, 3, 1]


def test_what_was_seen_is_remembered_only_while_several_share_it_and_no_longer_than_said():
    seen = Seen(remembered=2)
    seen.subscriptions = 1
    assert [seen.add("a"), seen.add("a")] == [True, True]
    seen.subscriptions = 2
    assert [seen.add("a"), seen.add("a"), seen.add("b"), seen.add("c"), seen.add("a")] == [
        True,
        False,
        True,
        True,
        True,
    ]
    seen.leave()
    assert seen.add("a")


# --- settling -----------------------------------------------------------------------------------------------------

FAILED = Nack(subscription_id="", tokens=(), error="boom")


def test_acknowledgements_go_together_and_the_others_each_alone():
    settling = Settling()
    for n in range(4):
        assert settling.take(f"e{n}", f"t{n}")
    settling.settle("e0", None)
    settling.settle("e1", FAILED)
    settling.settle("e3", None)
    assert list(settling.held) == ["t2", "t0", "t1", "t3"]
    assert list(settling.frames("s")) == [
        Ack(subscription_id="s", tokens=("t0", "t3")),
        Nack(subscription_id="s", tokens=("t1",), error="boom"),
    ]
    assert list(settling.frames("s")) == []
    assert list(settling.held) == ["t2", "t0", "t1", "t3"]
    settling.confirm(2)
    assert list(settling.held) == ["t2", "t3"]


def test_what_is_not_confirmed_when_the_connection_breaks_is_said_again():
    settling = Settling()
    for n in range(3):
        settling.take(f"e{n}", f"t{n}")
    settling.settle("e0", None)
    list(settling.frames("s"))
    settling.settle("e1", None)
    settling.lose()
    assert list(settling.frames("other")) == [Ack(subscription_id="other", tokens=("t0", "t1"))]


def test_an_event_in_hand_that_comes_under_a_new_token_is_settled_under_that():
    settling = Settling()
    assert settling.take("e", "old")
    assert not settling.take("e", "new")
    settling.settle("e", FAILED)
    assert [frame.tokens for frame in settling.frames("s")] == [("new",)]


def test_an_event_that_was_handled_is_acknowledged_again_until_that_is_confirmed_and_then_it_is_another():
    settling = Settling()
    settling.take("e", "old")
    settling.settle("e", None)
    list(settling.frames("s"))
    assert not settling.take("e", "new")
    assert [frame.tokens for frame in settling.frames("s")] == [("new",)]
    settling.confirm(2)
    assert settling.take("e", "newer")


def test_an_event_that_failed_is_handled_when_it_comes_again():
    settling = Settling()
    settling.take("e", "old")
    settling.settle("e", FAILED)
    list(settling.frames("s"))
    assert settling.take("e", "new")


@given(st.lists(st.sampled_from(["take", "settle", "say", "confirm", "lose"]), max_size=60))
def test_no_token_is_forgotten_before_it_was_said_on_a_connection_that_was_confirmed(steps: list[str]):
    settling = Settling()
    count = 0
    in_hand: list[str] = []
    open_tokens: set[str] = set()
    said: list[str] = []  # on this connection, not confirmed
    for step in steps:
        if step == "take":
            count += 1
            settling.take(f"e{count}", f"t{count}")
            in_hand.append(f"e{count}")
            open_tokens.add(f"t{count}")
        elif step == "settle" and in_hand:
            settling.settle(in_hand.pop(0), None)
        elif step == "say":
            said += [token for frame in settling.frames("s") for token in frame.tokens]
        elif step == "confirm":
            assert settling.sent == len(said)
            settling.confirm(len(said))
            open_tokens -= set(said)
            said = []
        elif step == "lose":
            settling.lose()
            said = []
        assert set(settling.held) == open_tokens
