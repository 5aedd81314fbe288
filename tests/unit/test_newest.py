"""Of what comes faster than it is wanted, the newest, and how many were left out."""

from __future__ import annotations

from wowevent import Event, Position, Stored
from wowevent.service.newest import Newest


def stored(number: int) -> Stored:
    return Stored(Event(topic="a.b"), Position("log", number), 0.0)


def taken(newest: Newest, now: float) -> tuple[int, list[int]]:
    skipped, found = newest.take(now)
    return skipped, [each.position.offset for each in found]


def put(newest: Newest, *numbers: int) -> None:
    for number in numbers:
        newest.put(stored(number))


def test_what_comes_slowly_is_handed_over_at_once() -> None:
    newest = Newest(3)
    for second in range(5):
        put(newest, second)
        assert newest.wait(second) == 0.0
        assert taken(newest, second) == (0, [second])


def test_a_burst_that_fits_comes_whole() -> None:
    newest = Newest(3)
    put(newest, 1, 2)
    assert taken(newest, 0.0) == (0, [1, 2])
    put(newest, 3)
    assert taken(newest, 0.5) == (0, [3])


def test_of_more_the_newest_come_when_the_second_is_over_and_the_rest_is_counted() -> None:
    newest = Newest(3)
    put(newest, 1, 2, 3)
    assert taken(newest, 0.0) == (0, [1, 2, 3])
    put(newest, *range(4, 14))
    assert newest.wait(0.25) == 0.75
    assert taken(newest, 0.25) == (0, [])
    assert newest.wait(1.0) == 0.0
    assert taken(newest, 1.0) == (7, [11, 12, 13])
    put(newest, 14)
    assert taken(newest, 2.5) == (0, [14])


def test_what_there_is_no_room_for_in_this_second_waits_in_its_order() -> None:
    newest = Newest(3)
    put(newest, 1, 2)
    assert taken(newest, 0.0) == (0, [1, 2])
    put(newest, 3, 4, 5)
    assert taken(newest, 0.5) == (0, [3])
    assert taken(newest, 1.0) == (0, [4, 5])
    assert len(newest) == 0
