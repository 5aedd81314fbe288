"""Dead letters that died of the same are one group."""

import pytest

from wowevent import Event
from wowevent.broker import DeadLetter, Reason
from wowevent.mcp.fingerprint import _MEANING, fingerprint, grouped


def letter(
    error: str, *, subscription: str = "s", reason: Reason = Reason.HANDLER_ERROR, time: float = 1
) -> DeadLetter:
    return DeadLetter(
        id=f"{subscription}-{time}",
        event=Event(topic="a.b"),
        subscription=subscription,
        reason=reason,
        error=error,
        traceback="Traceback\n" + "x" * 5000 + "the end",
        attempts=(),
        time=time,
    )


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
        letter("no table"),
        letter("no room", subscription="t"),
        letter("no room", reason=Reason.TIMEOUT),
    ],
    ids=["error", "subscription", "reason"],
)
def test_another_error_subscription_or_reason_does(other: DeadLetter) -> None:
    assert fingerprint(letter("no room")) != fingerprint(other)


def test_a_group_tells_how_many_and_since_when_the_largest_first() -> None:
    small, large = grouped([letter("rare", time=9), *(letter(f"often {n}", time=n) for n in range(1, 6))])[::-1]
    assert (large.count, large.first, large.last, large.topics) == (5, 1, 5, {"a.b": 5})
    assert (large.error, large.example["id"]) == ("often 5", "s-5")
    assert large.traceback.endswith("the end")
    assert len(large.traceback) == 2000
    assert small.count == 1


def test_every_reason_has_a_meaning() -> None:
    assert set(_MEANING) == set(Reason)


def test_an_error_that_utf8_cannot_say_is_shown() -> None:
    (group,) = grouped([letter("a \ud800 b")])
    assert group.error == "a \\ud800 b"
