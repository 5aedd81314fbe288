"""What becomes of a delivery: the state table, the delays, the rates."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wowevent.broker import Ack, Bury, Lease, Position, Reason, Retry
from wowevent.event import Event
from wowevent.retry import (
    MAX_DELAY,
    Done,
    Failed,
    GivenBack,
    Later,
    Rejected,
    RetryPolicy,
    condemned,
    decide,
    limit,
    parse_rate,
)

DEFAULT = RetryPolicy()
TWO = RetryPolicy(max_retries=2)  # three attempts
ONCE = RetryPolicy(max_retries=0)


def lease(failures: int = 0, crashes: int = 0, own: int | None = None) -> Lease:
    event = Event(topic="task.created", max_retries=own)
    return Lease(event=event, token="t", position=Position("e", 1), failures=failures, crashes=crashes)


FAILED = Failed("boom", "trace")
BURIED = Bury("t", Reason.HANDLER_ERROR, "boom", "trace")

# policy, failures and crashes before, the event's own max_retries, outcome -> settlement
TABLE = {
    "done": (TWO, 0, 0, None, Done(), Ack("t")),
    "done at last": (TWO, 2, 1, None, Done(), Ack("t")),
    "first failure": (TWO, 0, 0, None, FAILED, Retry("t", 1.0, "boom")),
    "second failure": (TWO, 1, 0, None, FAILED, Retry("t", 2.0, "boom")),
    "last failure": (TWO, 2, 0, None, FAILED, BURIED),
    "beyond the last": (TWO, 9, 0, None, FAILED, BURIED),
    "no retries": (ONCE, 0, 0, None, FAILED, BURIED),
    "crashes count as attempts": (TWO, 0, 2, None, FAILED, BURIED),
    "a single crash was a neighbour's": (TWO, 1, 1, None, FAILED, Retry("t", 2.0, "boom")),
    "a crash delays nothing": (TWO, 0, 1, None, FAILED, Retry("t", 1.0, "boom")),
    "the event's own word, more": (ONCE, 0, 0, 3, FAILED, Retry("t", 1.0, "boom")),
    "the event's own word, fewer": (DEFAULT, 0, 0, 0, FAILED, BURIED),
    "timeout at last": (ONCE, 0, 0, None, Failed("late", reason=Reason.TIMEOUT), Bury("t", Reason.TIMEOUT, "late")),
    "rejected": (TWO, 0, 0, None, Rejected("bad", "trace"), Bury("t", Reason.REJECTED, "bad", "trace")),
    "later": (TWO, 0, 0, None, Later(90.0), Retry("t", 90.0, charge=False)),
    "later, after the last failure": (TWO, 2, 5, None, Later(90.0), Retry("t", 90.0, charge=False)),
    "later than a day": (TWO, 0, 0, None, Later(1e9), Retry("t", MAX_DELAY, charge=False)),
    "earlier than now": (TWO, 0, 0, None, Later(-1.0), Retry("t", 0.0, charge=False)),
    "later, no number": (TWO, 0, 0, None, Later(math.nan), Retry("t", 0.0, charge=False)),
    "given back": (TWO, 2, 5, None, GivenBack(), Retry("t", 0.0, charge=False)),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_decision(row: tuple):
    policy, failures, crashes, own, outcome, expected = row
    assert decide(policy, lease(failures, crashes, own), outcome) == expected


@given(st.integers(0, 12), st.none() | st.integers(0, 12))
def test_an_event_that_always_fails_is_delivered_once_and_max_retries_times_again(retries: int, own: int | None):
    policy, deliveries = RetryPolicy(max_retries=retries), 1
    while isinstance(decide(policy, lease(deliveries - 1, own=own), FAILED), Retry):
        deliveries += 1
    assert deliveries == limit(policy, lease(own=own)) == 1 + (retries if own is None else own)


# failures, crashes -> condemned, for three attempts
CRASHES = {
    "nothing happened": (0, 0, False),
    "one crash may have been a neighbour's fault": (0, 1, False),
    "even after all the failures": (2, 1, False),
    "two crashes, attempts left": (0, 2, False),
    "two crashes and a failure": (1, 2, True),
    "three crashes": (0, 3, True),
    "failures alone are not suspicious": (5, 0, False),
}


@pytest.mark.parametrize(("failures", "crashes", "expected"), CRASHES.values(), ids=CRASHES.keys())
def test_a_suspect_is_buried_unhandled_once_its_attempts_are_used_up(failures: int, crashes: int, expected: bool):
    assert condemned(TWO, lease(failures, crashes)) is expected


def test_one_crash_condemns_nobody_even_without_retries():
    assert not condemned(ONCE, lease(crashes=1))
    assert condemned(ONCE, lease(crashes=2))
    assert not condemned(ONCE, lease(crashes=2, own=5))


# ------------------------------------------------------------------------------------------------ delays


def test_the_default_waits_1_2_4_8_16_seconds():
    assert DEFAULT.max_retries == 5
    assert [DEFAULT.delay(failures) for failures in range(1, 6)] == [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize(
    ("policy", "failures", "seconds"),
    [
        (RetryPolicy(initial=0.5, multiplier=3), 3, 4.5),
        (RetryPolicy(multiplier=1), 1000, 1.0),
        (RetryPolicy(initial=0), 5, 0.0),
        (DEFAULT, 9, 256.0),
        (DEFAULT, 10, 300.0),
        (DEFAULT, 10**9, 300.0),
        (RetryPolicy(multiplier=100, maximum=math.inf), 10**9, 1e128),
    ],
    ids=["factor 3", "constant", "none", "below the maximum", "the maximum", "a billion failures", "no maximum"],
)
def test_the_wait_grows_up_to_the_maximum(policy: RetryPolicy, failures: int, seconds: float):
    assert policy.delay(failures) == pytest.approx(seconds)


@given(st.floats(0, 1), st.integers(1, 20), st.floats(0, 1))
def test_jitter_stays_within_its_fraction(jitter: float, failures: int, chance: float):
    plain, shaken = DEFAULT.delay(failures), RetryPolicy(jitter=jitter).delay(failures, chance)
    assert plain * (1 - jitter) - 1e-9 <= shaken <= plain * (1 + jitter) + 1e-9


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 3.0), (0.5, 4.0), (1.0, 5.0)])
def test_the_dice_place_the_wait_within_the_jitter(chance: float, seconds: float):
    policy = RetryPolicy(jitter=0.25)
    assert decide(policy, lease(failures=2), FAILED, chance) == Retry("t", seconds, "boom")


@pytest.mark.parametrize(
    "settings",
    [
        {"max_retries": -1},
        {"initial": -1},
        {"initial": math.nan},
        {"maximum": -1},
        {"maximum": math.nan},
        {"multiplier": 0.5},
        {"multiplier": 101},
        {"multiplier": math.nan},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"jitter": math.nan},
    ],
    ids=lambda settings: "{}={}".format(*next(iter(settings.items()))),
)
def test_a_policy_that_cannot_be_carried_out_is_refused(settings: dict):
    with pytest.raises(ValueError, match="a retry policy's"):
        RetryPolicy(**settings)


# ------------------------------------------------------------------------------------------------ rates


@pytest.mark.parametrize(
    ("rate", "per_second"),
    [
        ("50/s", 50),
        ("50/sec", 50),
        ("50/second", 50),
        ("30/m", 0.5),
        ("30/min", 0.5),
        ("30/minute", 0.5),
        ("36/h", 0.01),
        ("36/hour", 0.01),
        (" 2.5 / s ", 2.5),
        (5, 5),
        (0.5, 0.5),
    ],
    ids=str,
)
def test_a_rate_is_read(rate: str | float, per_second: float):
    assert parse_rate(rate) == pytest.approx(per_second)


@pytest.mark.parametrize(
    "rate",
    ["", "50", "/s", "50/day", "-1/s", "0/s", "1e3/s", "nan/s", "1/s; x", "9" * 5000 + "/s", 0, -1, math.nan, math.inf],
    ids=lambda rate: str(rate)[:8],
)
def test_anything_else_is_no_rate(rate: str | float):
    with pytest.raises(ValueError, match="rate") as caught:
        parse_rate(rate)
    assert len(str(caught.value)) < 200
