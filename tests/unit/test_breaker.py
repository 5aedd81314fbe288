"""What becomes of a subscription whose handler fails: the states, the waits, and that it always gets out again."""

import math
from collections.abc import Callable, Iterator
from itertools import cycle, repeat

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from wowevent.breaker import Breaker, BreakerPolicy, Transition

DEFAULT = BreakerPolicy()
QUICK = BreakerPolicy(window=10, minimum=4, patience=2, pause=1, longest=4, probes=2)


class Subscription:
    """A breaker with a handler at its end, and a clock of its own: fetches one, handles it, and so on."""

    def __init__(self, policy: BreakerPolicy = DEFAULT) -> None:
        self.breaker = Breaker(policy)
        self.now = 1000.0
        self.told: list[Transition] = []
        self.times: list[float] = []
        self.handled = 0

    def state(self) -> str:
        return self.breaker.state

    def tell(self, change: Transition | None) -> None:
        if change is not None:
            self.told.append(change)
            self.times.append(self.now)

    def handle(self, *outcomes: bool | None, seconds: float = 0.0, every: float = 0.0) -> None:
        """Handle one event for each outcome, waiting as long as the breaker says."""
        for ok in outcomes:
            while (wait := self.breaker.wait(self.now)) > 0:
                self.now += wait
            self.tell(self.breaker.begin(self.now))
            self.now += seconds
            self.tell(self.breaker.note(ok, seconds, self.now))
            self.handled += 1
            self.now += every

    def run(self, outcomes: Iterator[bool], until: Callable[[], bool], *, every: float = 0.01) -> None:
        for _ in range(100_000):
            if until():
                return
            self.handle(next(outcomes), every=every)
        raise AssertionError("it never came to that")

    @property
    def path(self) -> list[str]:
        return [change.new for change in self.told]


def in_state(state: str, policy: BreakerPolicy = QUICK) -> Subscription:
    """A subscription whose handler failed until it was there."""
    subscription = Subscription(policy)
    if state in {"slowed", "paused", "probing"}:
        subscription.run(repeat(False), lambda: subscription.state() == "slowed")
    if state in {"paused", "probing"}:
        subscription.run(repeat(False), lambda: subscription.state() == "paused")
    if state == "probing":
        subscription.now += policy.pause
        assert subscription.breaker.wait(subscription.now) == 0.0
    if state == "degraded":
        subscription.handle(*[True] * 9, False)
        subscription.now += policy.window / 10
        subscription.handle(True)
    assert subscription.state() == state
    return subscription


# --- the states -----------------------------------------------------------------------------------------------------

# how it goes, with the seconds of each event's handling -> the state at the end of the slot
WINDOWS = {
    "all went well": ([True] * 100, 0.0, "healthy"),
    "just below 5 %": ([*[True] * 96, *[False] * 4], 0.0, "healthy"),
    "5 % exactly": ([*[True] * 95, *[False] * 5], 0.0, "degraded"),
    "20 % exactly": ([*[True] * 80, *[False] * 20], 0.0, "degraded"),
    "just above 20 %": ([*[True] * 79, *[False] * 20], 0.0, "slowed"),
    "too few to be judged": ([False] * 49, 0.0, "healthy"),
    "as few as can be judged": ([False] * 50, 0.0, "slowed"),
    "just below 1 s": ([True] * 55, 0.99, "healthy"),
    "1 s exactly": ([True] * 55, 1.0, "degraded"),
}


@pytest.mark.parametrize(("outcomes", "seconds", "state"), WINDOWS.values(), ids=WINDOWS.keys())
def test_the_window_decides(outcomes: list[bool], seconds: float, state: str):
    breaker, now = Breaker(), 1000.0
    for ok in outcomes[:-1]:
        now += seconds
        breaker.note(ok, seconds, now)
    breaker.note(outcomes[-1], seconds, now + DEFAULT.window / 10)  # a slot has ended
    assert breaker.state == state


# error rate, mean seconds -> class, as W10 has them
CLASSES = {
    "nothing wrong": (0.0, 0.0, "healthy"),
    "below both": (0.049, 0.999, "healthy"),
    "5 %": (0.05, 0.0, "degraded"),
    "1 s": (0.0, 1.0, "degraded"),
    "20 %": (0.20, 0.0, "degraded"),
    "5 s": (0.0, 5.0, "degraded"),
    "above 20 %": (0.201, 0.0, "unhealthy"),
    "above 5 s": (0.0, 5.001, "unhealthy"),
    "above both": (1.0, 60.0, "unhealthy"),
}


@pytest.mark.parametrize(("error_rate", "seconds", "health"), CLASSES.values(), ids=CLASSES.keys())
def test_health_has_three_classes(error_rate: float, seconds: float, health: str):
    assert DEFAULT.health(error_rate, seconds) == health


def test_a_subscriber_that_fails_30_percent_for_a_while_goes_the_whole_round():
    subscription = Subscription()
    breaker = subscription.breaker
    bad = cycle([True, False, True, True, False, True, True, False, True, True])
    subscription.run(repeat(True), lambda: subscription.handled == 50)
    assert subscription.path == []
    subscription.run(bad, lambda: subscription.state() == "paused")
    assert subscription.path in (["slowed", "paused"], ["degraded", "slowed", "paused"])
    slowed, paused = subscription.told[-2:]
    assert slowed.error_rate > 0.2
    assert subscription.times[-1] - subscription.times[-2] == pytest.approx(5.0, abs=0.5)
    assert paused.until == pytest.approx(subscription.now + 5.0, abs=0.02)
    subscription.run(bad, lambda: subscription.state() == "probing")
    subscription.run(bad, lambda: subscription.state() == "paused")
    subscription.run(repeat(True), lambda: subscription.state() == "healthy")
    assert subscription.path[-5:] == ["paused", "probing", "paused", "probing", "healthy"]
    assert breaker.error_rate == 0.0


def test_a_subscriber_that_fails_for_a_moment_is_slowed_and_not_paused():
    subscription = Subscription()
    subscription.run(repeat(False), lambda: subscription.state() == "slowed")
    began = subscription.now
    subscription.run(repeat(True), lambda: subscription.state() != "slowed")
    assert subscription.path == ["slowed", "healthy"]
    assert 5.0 <= subscription.now - began < 7.0


def test_slowness_alone_only_degrades():
    subscription = Subscription()
    for _ in range(200):
        subscription.tell(subscription.breaker.note(True, 59.0, subscription.now))
        subscription.now += 0.1
    assert subscription.path == ["degraded"]
    assert subscription.breaker.mean_seconds == pytest.approx(59.0)
    assert subscription.breaker.wait(subscription.now) == 0.0


def test_degraded_comes_and_goes_at_the_end_of_a_slot_only():
    subscription = in_state("degraded")
    assert subscription.path == ["degraded"]
    subscription.handle(*[True] * 1000)
    assert subscription.state() == "degraded"
    subscription.now += 1.0
    subscription.handle(True)
    assert subscription.path == ["degraded", "healthy"]


def test_a_rate_near_its_bound_does_not_swing_with_every_event():
    subscription = Subscription()
    subscription.handle(*[True] * 30, *[False] * 3)
    assert subscription.state() == "healthy"
    subscription.run(cycle([False, *[True] * 19]), lambda: subscription.handled == 3000, every=0.01)
    assert 1 <= len(subscription.path) <= 10


def test_what_the_window_left_behind_is_forgotten():
    subscription = Subscription(QUICK)
    subscription.handle(*[False] * 3)
    subscription.now += 10.0
    subscription.handle(False)
    assert subscription.state() == "healthy"
    subscription.handle(*[False] * 3)
    assert subscription.state() == "slowed"


def test_old_successes_do_not_hide_that_it_fails_now():
    subscription = Subscription(QUICK)
    subscription.handle(*[True] * 10_000)
    subscription.now += 9.0
    subscription.handle(*[False] * 100)
    assert subscription.state() == "healthy"
    subscription.now += 1.5
    subscription.handle(False)
    assert subscription.state() == "slowed"


def test_the_events_of_a_batch_count_each():
    breaker = Breaker()
    assert breaker.note(False, 0.1, 1000.0, 49) is None
    assert breaker.note(False, 0.1, 1000.0, 1) == Transition("healthy", "slowed", 1.0, 0.1, None)


def test_each_event_of_a_batch_took_as_long_as_the_batch():
    breaker = Breaker()
    for now in range(1000, 1004):
        breaker.note(True, 2.0, now, 50)
    assert breaker.mean_seconds == pytest.approx(2.0)


def test_slowed_without_events_is_healthy_again_once_the_window_slid_on():
    subscription = in_state("slowed")
    subscription.now += QUICK.window + 2.0
    assert subscription.breaker.wait(subscription.now) == 0.0
    assert subscription.state() == "healthy"
    subscription.handle(True)
    assert subscription.path == ["slowed", "healthy"]


def test_nothing_is_paused_by_fewer_than_the_minimum():
    subscription = in_state("slowed")
    subscription.now += QUICK.window - 0.5
    subscription.handle(*[False] * 2, every=1.0)  # the trial fails, but the window has nearly left the rest
    assert subscription.state() == "healthy"
    assert "paused" not in subscription.path


def test_the_trial_waits_for_enough_to_decide_by():
    subscription = in_state("slowed", BreakerPolicy(patience=2, probes=5))
    subscription.now += 3.0
    subscription.handle(*[False] * 4)
    assert subscription.state() == "slowed"
    subscription.handle(False)
    assert subscription.state() == "paused"


def test_what_began_before_it_was_slowed_is_no_part_of_the_trial():
    subscription = in_state("slowed")
    breaker = subscription.breaker
    subscription.now += 1.0
    for _ in range(100):
        breaker.note(True, 1.5, subscription.now)
    subscription.handle(*[False] * 3, every=0.5)
    assert subscription.state() == "paused"


# --- pauses and probes ----------------------------------------------------------------------------------------------


def test_each_pause_is_twice_as_long_up_to_the_longest():
    subscription = in_state("paused", DEFAULT)
    pauses = [subscription.breaker.wait(subscription.now)]
    for _ in range(5):
        subscription.handle(False)
        pauses.append(subscription.breaker.wait(subscription.now))
    assert pauses == pytest.approx([5, 10, 20, 40, 60, 60], abs=0.02)


def test_after_recovery_the_first_pause_is_short_again():
    subscription = in_state("paused")
    subscription.handle(False, False, True, True)
    assert subscription.state() == "healthy"
    subscription.run(repeat(False), lambda: subscription.state() == "paused")
    assert subscription.breaker.wait(subscription.now) == pytest.approx(1.0, abs=0.02)


def test_after_recovery_the_window_is_empty():
    subscription = in_state("probing")
    subscription.handle(True, True, False, False, False)
    assert subscription.state() == "healthy"
    subscription.handle(False)
    assert subscription.state() == "slowed"


def test_an_earlier_trial_does_not_count_in_a_later_one():
    subscription = in_state("slowed")
    subscription.run(repeat(False), lambda: subscription.state() == "paused")
    subscription.handle(True, True)
    subscription.handle(*[False] * 4)
    assert subscription.state() == "slowed"
    subscription.handle(True, True, every=2.0)
    assert subscription.state() == "healthy"


def test_probes_count_in_the_middle_of_a_slot_too():
    subscription = in_state("probing", BreakerPolicy(window=1000, minimum=4, patience=2, pause=1, probes=2))
    subscription.handle(True, True)
    assert subscription.state() == "healthy"


def test_successes_of_probes_must_follow_each_other():
    subscription = in_state("probing")
    subscription.handle(True, False)
    assert subscription.state() == "paused"
    subscription.handle(True)
    assert subscription.state() == "probing"
    subscription.handle(True)
    assert subscription.state() == "healthy"


def test_probes_go_one_at_a_time():
    subscription = in_state("probing")
    breaker, now = subscription.breaker, subscription.now
    assert breaker.limit(now, 100) == 1
    breaker.begin(now)
    assert breaker.wait(now + 0.5) == pytest.approx(1.5)
    assert breaker.limit(now + 0.5, 100) == 0
    breaker.note(True, 0.5, now + 0.5)
    assert breaker.wait(now + 0.5) == 0.0


def test_a_probe_that_takes_long_keeps_the_next_waiting_for_the_patience_only():
    subscription = in_state("probing")
    breaker, now = subscription.breaker, subscription.now
    for _ in range(2):
        breaker.begin(now)
        now += 2.0
        assert breaker.wait(now) == 0.0
    breaker.note(True, 4.0, now)
    assert subscription.state() == "probing"
    breaker.note(True, 2.0, now)
    assert subscription.state() == "healthy"


@pytest.mark.parametrize("ok", [True, False])
def test_what_began_before_the_pause_is_no_probe(ok: bool):
    subscription = in_state("probing")
    breaker, now = subscription.breaker, subscription.now
    breaker.begin(now)
    for _ in range(10):
        breaker.note(ok, 1.5, now)
    assert subscription.state() == "probing"
    assert breaker.wait(now) == 2.0


def test_what_ends_during_a_pause_changes_nothing():
    subscription = in_state("paused")
    breaker, now = subscription.breaker, subscription.now
    for ok in (False, True, None) * 10:
        assert breaker.note(ok, 0.1, now + 0.2) is None
    assert breaker.wait(now) == pytest.approx(1.0, abs=0.02)


def test_what_began_before_the_recovery_is_old_news():
    subscription = in_state("probing")
    subscription.now += 50.0
    subscription.handle(True, True)
    breaker, now = subscription.breaker, subscription.now + 5.0
    for _ in range(100):
        breaker.note(False, 60.0, now)
    assert subscription.state() == "healthy"
    for _ in range(4):
        breaker.note(False, 4.0, now)
    assert subscription.state() == "slowed"


@pytest.mark.parametrize("state", ["healthy", "degraded", "slowed", "paused", "probing"])
def test_an_outcome_that_says_nothing_of_the_handler_counts_nowhere(state: str):
    subscription = in_state(state)
    breaker, now = subscription.breaker, subscription.now
    for _ in range(1000):
        breaker.note(None, 0.0, now)
    assert subscription.state() == state
    if state == "probing":
        subscription.handle(None, True, None, True)
        assert subscription.state() == "healthy"


def test_a_probe_that_did_not_reach_the_handler_makes_room_for_the_next():
    subscription = in_state("probing")
    breaker, now = subscription.breaker, subscription.now
    breaker.begin(now)
    assert breaker.wait(now) == 2.0
    breaker.note(None, 0.0, now)
    assert breaker.wait(now) == 0.0


# --- waits and limits -----------------------------------------------------------------------------------------------

LIMITS = {"healthy": 100, "degraded": 50, "slowed": 1, "paused": 0, "probing": 1}


@pytest.mark.parametrize(("state", "limit"), LIMITS.items(), ids=LIMITS.keys())
def test_the_worse_the_fewer_are_fetched(state: str, limit: int):
    subscription = in_state(state)
    breaker = subscription.breaker
    if state == "slowed":
        subscription.now += breaker.wait(subscription.now)
    assert breaker.limit(subscription.now, 100) == limit
    assert breaker.limit(subscription.now, 1) == min(1, limit)
    assert breaker.limit(subscription.now, 0) == 0


@pytest.mark.parametrize(
    ("failed", "seconds", "limit"), [(22, 0.025, 40), (30, 0.125, 8), (60, 0.5, 2), (100, 1.0, 1)], ids=str
)
def test_the_more_fail_the_longer_it_waits_between_them(failed: int, seconds: float, limit: int):
    breaker = Breaker(BreakerPolicy(minimum=100))
    for n in range(100):
        breaker.note(n < 100 - failed, 0.0, 1000.0)
    assert breaker.state == "slowed"
    breaker.begin(1010.0)
    assert breaker.wait(1010.0) == pytest.approx(seconds)
    assert breaker.limit(1010.0, 512) == 0
    assert breaker.limit(1011.0, 512) == pytest.approx(limit, abs=1)
    breaker.begin(1011.0, 1000)
    assert breaker.wait(1011.0) == 1.0


# --- policies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"window": math.inf},
        {"window": math.nan},
        {"patience": 0},
        {"patience": 61},
        {"minimum": 0},
        {"probes": 0},
        {"degraded": 0},
        {"degraded": 0.3},
        {"error_rate": 1.0},
        {"error_rate": math.nan},
        {"degraded_seconds": 0},
        {"degraded_seconds": 6},
        {"slow_seconds": math.nan},
        {"pause": 0},
        {"pause": 61},
        {"longest": math.inf},
    ],
    ids=lambda wrong: "{}={}".format(*next(iter(wrong.items()))),
)
def test_a_policy_that_cannot_be_carried_out_is_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="a breaker policy's"):
        BreakerPolicy(**wrong)  # type: ignore[arg-type]


# --- whatever happens -----------------------------------------------------------------------------------------------


class BreakerMachine(RuleBasedStateMachine):
    """Handlers of any length, any outcome, at any time; a breaker that is asked, and sometimes not asked."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = QUICK
        self.breaker = Breaker(self.policy)
        self.now = 1000.0
        self.running: list[float] = []
        self.counted: list[float] = []
        self.state = "healthy"
        self.paused_at = -math.inf

    def tell(self, change: Transition | None) -> None:
        while change is not None:
            assert change.old == self.state
            self.state = change.new
            if change.new == "paused":
                assert change.until is not None
                assert 0 < change.until - self.now <= self.policy.longest
                if change.old == "slowed":
                    recent = [at for at in self.counted if at > self.now - self.policy.window]
                    assert len(recent) >= self.policy.minimum
            change = self.breaker.begin(self.now, 0) if self.breaker.state != self.state else None

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.3, 1.0, 5.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 20))
    def fetch(self, count: int) -> None:
        if self.breaker.wait(self.now) > 0:
            assert self.breaker.limit(self.now, count) == 0
            return
        taken = self.breaker.limit(self.now, count)
        assert 1 <= taken <= count
        self.tell(self.breaker.begin(self.now, taken))
        self.running += [self.now] * taken

    @precondition(lambda self: self.running)
    @rule(data=st.data(), ok=st.sampled_from([True, False, None]), count=st.integers(1, 6))
    def finish(self, data: st.DataObject, ok: bool | None, count: int) -> None:
        for _ in range(min(count, len(self.running))):
            began = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
            if ok is not None:
                self.counted.append(self.now)
            self.tell(self.breaker.note(ok, self.now - began, self.now))

    @rule(ok=st.sampled_from([True, False]), count=st.integers(1, 100))
    def note_what_never_began(self, ok: bool, count: int) -> None:
        self.counted += [self.now] * count
        self.tell(self.breaker.note(ok, 0.0, self.now, count))

    @invariant()
    def waits_are_finite_and_bounded(self) -> None:
        wait = self.breaker.wait(self.now)
        assert 0.0 <= wait <= max(self.policy.longest, self.policy.patience)
        assert self.breaker.limit(self.now, 50) == 0 if wait > 0 else self.breaker.limit(self.now, 50) > 0

    @invariant()
    def the_numbers_are_rates(self) -> None:
        assert 0.0 <= self.breaker.error_rate <= 1.0
        assert self.breaker.mean_seconds >= 0.0

    def teardown(self) -> None:
        """From wherever it is, a handler that succeeds gets it out, and soon."""
        until = self.now + self.policy.longest + self.policy.patience + self.policy.window + 10
        steps = 0
        while self.breaker.state not in {"healthy", "degraded"}:
            assert self.now < until
            assert steps < 1000
            self.now += max(self.breaker.wait(self.now), 0.0)
            self.breaker.begin(self.now)
            self.now += 0.01
            self.breaker.note(True, 0.01, self.now)
            steps += 1


def test_whatever_happens_it_waits_within_bounds_and_gets_out_again():
    way = settings(max_examples=150, stateful_step_count=60, deadline=None, database=None)
    run_state_machine_as_test(BreakerMachine, settings=way)
