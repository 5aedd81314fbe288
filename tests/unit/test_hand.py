"""What a consumer holds: ten levels and two lanes, or one chain a key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wowevent import Event
from wowevent.broker import Lease, Position
from wowevent.hand import Chains, Lanes


def lease(n: int, priority: int = 5, key: str = "k") -> Lease:
    event = Event(topic="a", priority=priority, correlation_id=key, payload={"n": n})
    return Lease(event=event, token=str(n), position=Position("e", n))


def popped(hand: Lanes | Chains) -> list[int]:
    found = []
    while (each := hand.pop()) is not None:
        found.append(int(each.token))
    return found


# --- lanes --------------------------------------------------------------------------------------------------------


def test_an_empty_hand():
    for hand in (Lanes(), Chains(lambda event: event.correlation_id)):
        assert (len(hand), hand.pop(), hand.clear()) == (0, None, [])


def test_urgent_first_one_other_after_eight_first_in_first_out_within_a_level():
    lanes = Lanes()
    for n in range(3):
        lanes.push(lease(n, priority=n + 1))
    for n in range(10, 30):
        lanes.push(lease(n, priority=9 if n % 2 else 7))
    order = popped(lanes)
    nines, sevens = list(range(11, 30, 2)), list(range(10, 30, 2))
    urgent = nines + sevens
    assert order == [*urgent[:8], 2, *urgent[8:16], 1, *urgent[16:], 0]


@given(st.lists(st.integers(1, 10)))
def test_everything_comes_out_once_and_nobody_waits_for_more_than_eight_urgent_ones(levels: list[int]):
    lanes = Lanes()
    for n, level in enumerate(levels):
        lanes.push(lease(n, level))
    assert len(lanes) == len(levels)
    order = popped(lanes)
    assert sorted(order) == list(range(len(levels)))
    others = sum(level < 7 for level in levels)
    run = 0
    for n in order:
        run = run + 1 if levels[n] >= 7 else 0
        others -= levels[n] < 7
        assert run <= 8 or not others
    for level in range(1, 11):
        same = [n for n in order if levels[n] == level]
        assert same == sorted(same)


def test_clear_takes_everything_that_was_not_popped():
    lanes = Lanes()
    for n in range(5):
        lanes.push(lease(n, priority=10 - n))
    first = lanes.pop()
    assert first is not None
    lanes.done(first)
    assert sorted(int(each.token) for each in lanes.clear()) == [1, 2, 3, 4]
    assert (len(lanes), lanes.pop()) == (0, None)


# --- chains -------------------------------------------------------------------------------------------------------


def chains(*keys: str) -> tuple[Chains, list[Lease]]:
    hand = Chains(lambda event: event.correlation_id)
    leases = [lease(n, key=key) for n, key in enumerate(keys)]
    for each in leases:
        hand.push(each)
    return hand, leases


def test_one_event_of_a_key_at_a_time_keys_side_by_side():
    hand, leases = chains("a", "a", "b", "a", "b")
    assert popped(hand) == [0, 2]
    hand.done(leases[2])
    assert popped(hand) == [4]
    hand.done(leases[0])
    assert popped(hand) == [1]
    assert len(hand) == 1
    hand.done(leases[1])
    hand.done(leases[4])
    assert popped(hand) == [3]
    hand.done(leases[3])
    hand.push(lease(9, key="a"))
    assert popped(hand) == [9]


def test_what_is_pushed_back_holds_back_its_key_until_it_is_freed():
    hand, leases = chains("a", "a", "b")
    assert popped(hand) == [0, 2]
    hand.push_back(leases[0])
    hand.push(lease(5, key="a"))
    assert popped(hand) == []
    hand.free(leases[0])
    assert popped(hand) == [0]
    hand.free(leases[0])
    assert popped(hand) == [], "it is in work, and free only once"
    hand.done(leases[0])
    assert popped(hand) == [1]


def test_freeing_what_was_cleared_is_nothing():
    hand, leases = chains("a", "a")
    hand.pop()
    hand.push_back(leases[0])
    assert [int(each.token) for each in hand.clear()] == [0, 1]
    hand.free(leases[0])
    assert popped(hand) == []
    hand.push(leases[1])
    assert popped(hand) == [1]


def test_clear_takes_every_key_in_its_order_and_keys_in_work_stay_in_work():
    hand, leases = chains("a", "b", "a", "b", "c")
    hand.pop()
    assert [int(each.token) for each in hand.clear()] == [2, 1, 3, 4]
    assert len(hand) == 0
    hand.push(lease(7, key="a"))
    assert popped(hand) == []
    hand.done(leases[0])
    assert popped(hand) == [7]


def test_what_waits_behind_one_in_work_is_not_idle():
    hand, leases = chains("a", "b", "a", "b", "c")
    hand.pop()
    assert [int(each.token) for each in hand.clear_idle()] == [1, 3, 4]
    assert (len(hand), popped(hand)) == (1, [])
    hand.done(leases[0])
    assert [int(each.token) for each in hand.clear_idle()] == [2]
    assert (len(hand), popped(hand)) == (0, [])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2))))
def test_keys_keep_their_order_whatever_fails(events: list[tuple[str, int]]):
    hand, leases = chains(*(key for key, _ in events))
    failures = [failures for _, failures in events]
    finished: list[int] = []
    while (each := hand.pop()) is not None:
        n = int(each.token)
        if failures[n]:
            failures[n] -= 1
            hand.push_back(each)
            hand.free(each)
        else:
            finished.append(n)
            hand.done(each)
    assert sorted(finished) == list(range(len(leases)))
    for key in "abc":
        mine = [n for n in finished if events[n][0] == key]
        assert mine == sorted(mine)
