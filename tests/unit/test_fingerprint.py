"""Dead letters that died of the same are one group, and however many there are, little of them is kept."""

import tracemalloc

import pytest

from wowevent import Event
from wowevent import fingerprint as module
from wowevent.broker import Attempt, DeadLetter, Reason
from wowevent.fingerprint import IDS, NAMES, Grouping, LetterGroup, fingerprint

FRAMES = """Traceback (most recent call last):
  File "{folder}/consumer.py", line 12, in _call
    await handler(event)
  File "{folder}{slash}{file}", line {line}, in {function}
    total = event.payload["sum"]
            ~~~~~~~~~~~~~^^^^^^^
KeyError: 'sum'
"""


def trace(
    *, folder: str = "/srv/a", slash: str = "/", file: str = "billing.py", line: int = 7, function: str = "bill"
) -> str:
    return FRAMES.format(folder=folder, slash=slash, file=file, line=line, function=function)


def letter(
    error: str = "no room",
    *,
    subscription: str = "s",
    reason: Reason = Reason.HANDLER_ERROR,
    time: float = 1,
    traceback: str = "",
    topic: str = "a.b",
    attempts: int = 0,
    payload: object = None,
) -> DeadLetter:
    return DeadLetter(
        id=f"{subscription}-{time:g}",
        event=Event(topic=topic, payload=payload),
        subscription=subscription,
        reason=reason,
        error=error,
        traceback=traceback,
        attempts=tuple(Attempt(n + 1, time, error) for n in range(attempts)),
        time=time,
    )


def grouped(*letters: DeadLetter, limit: int = 100) -> tuple[LetterGroup, ...]:
    grouping = Grouping()
    for each in letters:
        grouping.add(each)
    return grouping.groups(limit).groups


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timeout after 1.5 s", "timeout after 30 s"),
        ("no order 0b6ce9f0-7511-7000-af7a-715914b5eb99", "no order 01a203e9-7511-7000-af7a-715914b5eb99"),
        ("KeyError: 'jane'", "KeyError: 'joe'"),
        ("at 0x7f7a0ebee700", "at 0x7f7a0ebee111"),
        ("hash deadbeef0123 differs", "hash 00ffeeddccbb differs"),
    ],
)
def test_numbers_and_names_do_not_tell_errors_apart(one: str, other: str) -> None:
    assert fingerprint(letter(one)) == fingerprint(letter(other))


@pytest.mark.parametrize(
    "other",
    [
        letter(traceback=trace(line=70)),
        letter(traceback=trace(folder="/opt/b")),
        letter(traceback=trace(folder="C:\\b", slash="\\")),
        letter(traceback=trace(), subscription="t"),
        letter(traceback=trace(), time=9, attempts=5, topic="c.d"),
    ],
    ids=["line", "directory", "another system", "subscription", "when and what"],
)
def test_it_is_the_same_wherever_and_whenever_it_died(other: DeadLetter) -> None:
    assert fingerprint(letter(traceback=trace())) == fingerprint(other)


@pytest.mark.parametrize(
    "other",
    [
        letter("no table", traceback=trace()),
        letter(reason=Reason.TIMEOUT, traceback=trace()),
        letter(traceback=trace(function="remind")),
        letter(traceback=trace(file="shop.py")),
        letter(traceback=""),
    ],
    ids=["error", "reason", "function", "file", "no traceback"],
)
def test_another_error_reason_or_place_does(other: DeadLetter) -> None:
    assert fingerprint(letter(traceback=trace())) != fingerprint(other)


def test_it_stays_what_it_is_from_one_version_to_the_next() -> None:
    """A page, a script or an agent may keep it."""
    assert fingerprint(letter("KeyError: 'sum'", traceback=trace())) == "aa06f34afb959c93"


def test_of_a_group_of_errors_the_place_is_found() -> None:
    nested = trace().replace("\n  ", "\n  |   ")
    assert fingerprint(letter(traceback=nested)) == fingerprint(letter(traceback=trace()))


def test_a_group_tells_how_many_where_and_since_when_the_largest_first() -> None:
    often = [letter(f"often {n}", time=n, subscription="st"[n % 2], attempts=n, traceback=trace()) for n in (3, 1, 2)]
    large, small = grouped(letter("rare", time=9), *often)
    assert (large.count, large.first, large.last, large.least, large.most) == (3, 1, 3, 1, 3)
    assert (large.error, large.newest, large.ids) == ("often 3", "t-3", ("t-3", "s-2", "t-1"))
    assert (large.subscriptions, large.topics) == ({"t": 2, "s": 1}, {"a.b": 3})
    assert large.traceback == trace()
    assert (small.count, small.ids, small.reason) == (1, ("s-9",), Reason.HANDLER_ERROR)


def test_of_groups_as_large_as_each_other_the_one_that_died_last_is_first() -> None:
    assert [group.error for group in grouped(letter("old", time=1), letter("new", time=2))] == ["new", "old"]


def test_more_groups_than_are_asked_for() -> None:
    grouping = Grouping()
    for error in ("a", "b", "b"):
        grouping.add(letter(error))
    assert ([group.error for group in grouping.groups(1).groups], grouping.groups(1).more) == (["b"], True)
    assert not grouping.groups(2).more


def test_more_groups_than_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    grouping = Grouping()
    for error in ("a", "b", "c", "a"):
        grouping.add(letter(error))
    found = grouping.groups(100)
    assert ([group.error for group in found.groups], found.more) == (["a", "b"], True)


def test_what_is_kept_does_not_grow_with_their_number() -> None:
    tracemalloc.start()
    try:
        grouping = Grouping()
        for n in range(2_000):
            grouping.add(
                letter(
                    "e" * 5_000,
                    time=n,
                    subscription=f"s{n}",
                    topic=f"t.n{n}",
                    traceback="x" * 20_000,
                    payload={"p": "x" * 2_000},
                )
            )
        (group,) = grouping.groups(1).groups
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert group.count == 2_000
    assert group.ids == tuple(f"s{n}-{n}" for n in range(1_999, 1_999 - IDS, -1))
    assert (len(group.subscriptions), len(group.topics)) == (NAMES, NAMES)
    assert (len(group.error), len(group.traceback)) == (2_000, 8_000)
    assert size < 1_000_000


def test_an_error_that_utf8_cannot_say_is_shown() -> None:
    (group,) = grouped(letter("a \ud800 b", traceback="c \ud800"))
    assert (group.error, group.traceback) == ("a \\ud800 b", "c \\ud800")
