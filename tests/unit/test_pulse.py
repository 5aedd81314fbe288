"""What all processes do together: nothing negative, nothing twice, no dip where a process ended."""

from __future__ import annotations

import pytest

from wowevent.metrics import EventMetrics
from wowevent.pulse import NAMED, ROOM, SAMPLES, SILENT, Pulse, Vitals, pulse_of
from wowevent.testing import ManualClock


def pulse(process: str, published: int, seconds: float = 2.0, **fields: object) -> Pulse:
    return Pulse(process, seconds=seconds, published=published, **fields)  # type: ignore[arg-type]


def rate(vitals: Vitals, now: float) -> float:
    return vitals.sample(now, 1_000.0 + now).published


def test_the_rates_of_all_are_added_up() -> None:
    vitals = Vitals()
    vitals.hear(Pulse("a", seconds=2, published=10, delivered=4, failed=2), 0)
    vitals.hear(Pulse("b", seconds=4, published=10, delivered=8), 0)
    sample = vitals.sample(0, 1_000)
    assert (sample.at, sample.published, sample.delivered, sample.failed) == (1_000, 7.5, 4.0, 1.0)
    assert [each.process for each in vitals.there(0)] == ["a", "b"]
    assert (list(vitals.samples), vitals.since) == ([sample], 1_000)


def test_what_was_said_in_between_counts_once_and_what_is_late_stands() -> None:
    vitals = Vitals()
    vitals.hear(pulse("a", 10), 0)
    assert rate(vitals, 0) == 5
    assert rate(vitals, 2) == 5  # its word is late
    vitals.hear(pulse("a", 20), 2.1)
    vitals.hear(pulse("a", 60), 3.9)
    assert rate(vitals, 4) == 20  # 80 in 4 seconds
    vitals.hear(pulse("a", 0, 0.0), 5)  # the same second still runs
    assert rate(vitals, 6) == 20
    vitals.hear(pulse("a", 0), 7)
    assert rate(vitals, 8) == 0


def test_who_leaves_counts_once_more_with_its_last_words_and_no_longer() -> None:
    vitals = Vitals()
    vitals.hear(pulse("a", 10), 0)
    vitals.hear(pulse("b", 10), 0)
    assert rate(vitals, 0) == 10
    vitals.hear(pulse("a", 10), 2)
    vitals.hear(pulse("b", 10, 1.0, gone=True), 2)
    assert [each.process for each in vitals.there(2)] == ["a"]
    assert rate(vitals, 2) == 10  # 10 events, over in less than a period: not twice as fast
    assert rate(vitals, 4) == 5
    vitals.hear(pulse("c", 6, 1.0, gone=True), 5)  # it came and went
    vitals.hear(pulse("d", 0, 1.0, gone=True), 5)
    assert rate(vitals, 5) == 8
    assert rate(vitals, 5) == 5


def test_who_falls_silent_is_forgotten() -> None:
    vitals = Vitals()
    vitals.hear(pulse("a", 10), 0)
    assert rate(vitals, SILENT - 0.1) == 5
    assert (rate(vitals, SILENT), vitals.there(SILENT)) == (0, [])


def test_one_that_starts_anew_is_another_and_nothing_falls() -> None:
    vitals, found = Vitals(), []
    for now, (process, published) in enumerate([("a", 1_000), ("a", 1_000), ("b", 0), ("b", 10), ("b", 20)]):
        vitals.hear(pulse(process, published), 2 * now)
        found.append(rate(vitals, 2 * now))
    assert min(found) >= 0


def test_latencies_are_those_of_all_deliveries_together() -> None:
    clock = ManualClock()
    quick, slow = EventMetrics(clock=clock.monotonic), EventMetrics(clock=clock.monotonic)
    fast, tardy = quick.meter("q"), slow.meter("s")
    for _ in range(90):
        fast.took("a.b", 0.001)
    for _ in range(10):
        tardy.took("a.b", 1.0)
    vitals = Vitals()
    for name, metrics in (("q", quick), ("s", slow)):
        lately = metrics.lately(None, ended=True)
        vitals.hear(Pulse(name, seconds=2, marks=tuple(lately.marks.items()), longest=lately.longest), 0)
    latency = vitals.sample(0, 0).latency
    assert latency.p50 == pytest.approx(0.001, rel=0.05)
    assert latency.p95 == latency.p99 == pytest.approx(1.0, rel=0.05)


def test_samples_are_kept_for_ten_minutes() -> None:
    vitals = Vitals()
    for n in range(SAMPLES + 10):
        vitals.sample(2.0 * n, 2.0 * n)
    assert len(vitals.samples) == 300
    assert vitals.samples[0].at == 20.0


# --- what each subscription gets ----------------------------------------------------------------------------------


def test_what_a_subscription_gets_is_what_all_who_are_there_say() -> None:
    vitals = Vitals()
    assert vitals.rates(0).of("w") is None, "nobody was heard"
    vitals.hear(pulse("a", 0, subscriptions=(("w", 2.0, 0.5), ("v", 1.0, 0.0))), 0)
    vitals.hear(pulse("b", 0, subscriptions=(("w", 3.0, 1.0),)), 0)
    assert [vitals.rates(0).of(id) for id in ("w", "v", "x")] == [(5.0, 1.5), (1.0, 0.0), (0.0, 0.0)]
    vitals.hear(pulse("b", 0, subscriptions=(("w", 4.0, 0.0),)), 1)
    assert vitals.rates(1).of("w") == (6.0, 0.5), "the last word stands, and nothing is added up"
    vitals.hear(pulse("b", 0, 0.0, subscriptions=(("w", 4.0, 0.0),), gone=True), 2)
    assert vitals.rates(2).of("w") == (2.0, 0.5), "who has left does not count"
    assert vitals.rates(SILENT - 0.1).of("w") == (2.0, 0.5)
    vitals.hear(pulse("c", 0), 5)
    assert vitals.rates(SILENT).of("w") == (0.0, 0.0), "nor who was killed"


def test_what_may_not_have_been_named_is_not_known() -> None:
    vitals = Vitals()
    vitals.hear(pulse("a", 0, subscriptions=(("w", 2.0, 0.0), ("v", 2.0, 0.0))), 0)
    vitals.hear(pulse("b", 0, subscriptions=(("w", 3.0, 0.0),), more=True), 0)
    assert [vitals.rates(0).of(id) for id in ("w", "v", "x")] == [(5.0, 0.0), None, None]


@pytest.mark.parametrize(("width", "named"), [(3, NAMED), (1000, ROOM // 1000)])
async def test_a_pulse_names_those_that_do_most_and_says_if_there_are_more(width: int, named: int) -> None:
    clock = ManualClock(0.0)
    metrics = EventMetrics(clock=clock.monotonic)
    await clock.advance(10)
    for n in range(NAMED + 20):
        for _ in range(3 if n % 5 == 0 else 1):
            metrics.meter(f"{n}".rjust(width, "s")).took("a.b", 0.01)
    said = pulse_of(("p", "h", 1), metrics.lately(None), routers=(), desks=(), gone=False)
    assert (len(said.subscriptions), said.more) == (named, True)
    assert {delivered for _, delivered, _ in said.subscriptions[: min(named, NAMED // 5)]} == {0.6}
    few = EventMetrics(clock=clock.monotonic)
    few.meter("w").took("a.b", 0.01)
    said = pulse_of(("p", "h", 1), few.lately(None), routers=(), desks=(), gone=False)
    assert (said.subscriptions, said.more) == ((("w", 1.0, 0.0),), False)


async def test_rates_are_of_the_last_five_to_ten_seconds() -> None:
    clock = ManualClock(0.0)
    metrics = EventMetrics(clock=clock.monotonic)
    meter, idle = metrics.meter("w"), metrics.meter("idle")
    for _ in range(33):  # two a second, of which one fails
        meter.took("a.b", 0.01)
        meter.took("a.b", 0.01, ok=False)
        idle.fold()
        await clock.advance(1)
        found = metrics.lately(None).subscribers
        assert found == {"w": pytest.approx((1.0, 1.0))}, clock.monotonic()
    for passed in range(10):
        await clock.advance(1)
        found = metrics.lately(None).subscribers
        assert ("w" in found) == (passed < 6), "33 s were over, and so 40 is where the part begins that has none"


# --- what a process has to say ------------------------------------------------------------------------------------


async def test_each_second_is_told_once_and_none_is_left_out() -> None:
    clock = ManualClock(0.0)
    metrics = EventMetrics(clock=clock.monotonic)
    await clock.advance(100)
    lately, told, seconds = metrics.lately(None), 0, 0.0
    for step in (0.3, 0.9, 2.0, 2.1, 0.05, 4.0, 1.0, 2.0):
        metrics.published("a.b", 7)
        await clock.advance(step)
        lately = metrics.lately(lately)
        told, seconds = told + lately.published, seconds + lately.seconds
    last = metrics.lately(lately, ended=True)
    assert told + last.published == 8 * 7
    assert seconds + last.seconds == 13.0  # 12.35, and the rest of the slot that runs


async def test_who_looks_first_is_told_of_two_seconds_and_who_looks_seldom_of_the_window() -> None:
    clock = ManualClock(0.0)
    metrics = EventMetrics(clock=clock.monotonic)
    meter = metrics.meter("worker")
    for _ in range(200):
        metrics.published("a.b")
        meter.took("a.b", 0.01)
        await clock.advance(1)
    first = metrics.lately(None)
    assert (first.seconds, first.published, first.delivered) == (2.0, 2, 2)
    for _ in range(200):
        metrics.published("a.b")
        await clock.advance(1)
    second = metrics.lately(first)
    assert second.seconds == second.published <= 60
    assert metrics.lately(second).seconds == 0.0


def test_coarse_marks_are_few_and_near() -> None:
    clock = ManualClock(0.0)
    metrics = EventMetrics(clock=clock.monotonic)
    meter = metrics.meter("worker")
    for n in range(1, 20_000):
        meter.took("a.b", n / 1_000)
    lately = metrics.lately(None, ended=True)
    assert sum(lately.marks.values()) == 19_999
    assert len(lately.marks) < 300
