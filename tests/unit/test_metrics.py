"""EventMetrics: totals, a window that forgets, percentiles within 1 %, health, and bounds. Time is moved by hand."""

import gc
import itertools
import math
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wowevent.errors import InvalidEvent
from wowevent.event_type import EventType
from wowevent.metrics import BOUNDS, EventMetrics, SubscriberTotals, health_of

NOTHING = {"p50": 0.0, "p95": 0.0, "p99": 0.0, "mean": 0.0, "max": 0.0, "count": 0}


class Time:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def metrics(time: Time) -> EventMetrics:
    return EventMetrics(window_seconds=60, clock=time)


def of(metrics: EventMetrics, name: str) -> SubscriberTotals:
    return next(each for each in metrics.subscribers() if each.name == name)


# --- as the ancestor's README has it ------------------------------------------------------------------------------


async def test_the_block_of_the_readme(capsys: pytest.CaptureFixture[str]):
    metrics = EventMetrics(window_seconds=60)

    # Record activity
    await metrics.record_publish("task.created")
    await metrics.record_delivery("task.created", "worker-1", 0.05, success=True)

    # Get metrics
    snapshot = await metrics.get_metrics()
    print(f"Throughput: {snapshot['throughput']['publishes']['per_second']} events/sec")  # noqa: T201
    print(f"P95 latency: {snapshot['latency']['p95']}s")  # noqa: T201
    print(f"Healthy subscribers: {snapshot['subscribers']['health']['healthy']}")  # noqa: T201

    # Check subscriber health
    sub_metrics = await metrics.get_subscriber_metrics("worker-1")
    print(f"Health: {sub_metrics['health']}")  # noqa: T201
    print(f"Error rate: {sub_metrics['error_rate']}")  # noqa: T201

    said = capsys.readouterr().out.splitlines()
    assert said == [
        "Throughput: 1.0 events/sec",
        "P95 latency: 0.05s",
        "Healthy subscribers: 1",
        "Health: healthy",
        "Error rate: 0.0",
    ]


async def test_an_empty_snapshot(metrics: EventMetrics):
    nothing = {"total": 0, "per_second": 0.0}
    assert await metrics.get_metrics() == {
        "window_seconds": 60,
        "uptime_seconds": 0.0,
        "throughput": {"publishes": nothing, "deliveries": nothing, "errors": nothing},
        "latency": NOTHING,
        "totals": {
            "publishes": 0, "refused": 0, "deliveries": 0, "errors": 0, "retries": 0, "dlq": 0, "expired": 0,
            "redelivered": 0, "lost": 0, "dropped": 0,
        },
        "subscribers": {"total": 0, "health": {"healthy": 0, "degraded": 0, "unhealthy": 0}, "by_name": {}},
        "event_types": {},
    }  # fmt: skip


async def test_a_full_snapshot(metrics: EventMetrics, time: Time):
    for _ in range(3):
        await metrics.record_publish(EventType.TASK_CREATED)
    await metrics.record_delivery("task.created", "w", 0.25)
    await metrics.record_delivery("task.created", "w", 0.75, success=False)
    await metrics.record_retry("task.created", "w")
    await metrics.record_dead_letter("task.created", "w")
    time.now += 2
    snapshot = await metrics.get_metrics()

    assert snapshot["uptime_seconds"] == 2.0
    assert snapshot["throughput"] == {
        "publishes": {"total": 3, "per_second": 1.5},
        "deliveries": {"total": 1, "per_second": 0.5},
        "errors": {"total": 1, "per_second": 0.5},
    }
    totals = {name: count for name, count in snapshot["totals"].items() if count}
    assert totals == {"publishes": 3, "deliveries": 1, "errors": 1, "retries": 1, "dlq": 1}
    assert snapshot["event_types"] == {"task.created": {"publishes": 3, "deliveries": 1, "errors": 1}}
    assert [type(name) for name in snapshot["event_types"]] == [str]
    assert snapshot["subscribers"]["health"] == {"healthy": 0, "degraded": 0, "unhealthy": 1}
    worker = await metrics.get_subscriber_metrics("w")
    assert snapshot["subscribers"]["by_name"] == {"w": worker}
    assert (worker["subscriber"], worker["health"], worker["error_rate"]) == ("w", "unhealthy", 0.5)
    assert (worker["deliveries"], worker["errors"], worker["last_seen_seconds"]) == (1, 1, 1.0)
    assert worker["latency"] == snapshot["latency"]
    assert (worker["latency"]["mean"], worker["latency"]["max"], worker["latency"]["count"]) == (0.5, 0.75, 2)


async def test_one_who_never_was_here_is_unknown(metrics: EventMetrics):
    assert await metrics.get_subscriber_metrics("nobody") == {
        "subscriber": "nobody",
        "health": "unknown",
        "error_rate": 0.0,
        "deliveries": 0,
        "errors": 0,
        "latency": NOTHING,
        "last_seen_seconds": None,
    }


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seconds",
    [-1, -0.001, math.nan, math.inf, -math.inf, "0.1", None, True, 10**5000, 1e10, [], 1j],
    ids=itertools.count(),
)
async def test_seconds_that_are_none(metrics: EventMetrics, seconds: Any):
    with pytest.raises(InvalidEvent, match=r"^seconds: "):
        await metrics.record_delivery("a", "w", seconds)
    assert (await metrics.get_metrics())["totals"]["deliveries"] == 0
    assert metrics.subscribers() == []


@pytest.mark.parametrize(
    "name", ["", "a\nb", "a\x00", "\ud800", "x" * 257, None, 1, b"a", ["a"]], ids=itertools.count()
)
async def test_names_that_are_none(metrics: EventMetrics, name: Any):
    for refused in (
        metrics.record_publish(name),
        metrics.record_delivery(name, "w", 1),
        metrics.record_delivery("a", name, 1),
        metrics.record_retry(name, "w"),
        metrics.record_dead_letter("a", name),
    ):
        with pytest.raises(InvalidEvent, match="is not a name"):
            await refused
    assert metrics.subscribers() == []
    assert metrics.types() == {}


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, True])
def test_windows_that_are_none(wrong: float):
    with pytest.raises(ValueError, match="window_seconds"):
        EventMetrics(wrong)


@pytest.mark.parametrize("wrong", [{"max_types": 0}, {"max_subscribers": -1}])
def test_bounds_that_are_none(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match="at least 1"):
        EventMetrics(**wrong)


# --- percentiles --------------------------------------------------------------------------------------------------

DURATIONS = st.floats(min_value=1e-6, max_value=50_000) | st.sampled_from([0.0, 1e-6, 0.001, 1.0, 3600.0, 36_000.0])


def exact(values: list[float], percent: int) -> float:
    """The nearest rank's."""
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


@given(st.lists(st.tuples(DURATIONS, st.floats(0, 58)), min_size=1, max_size=300))
async def test_percentiles_are_within_one_percent(entries: list[tuple[float, float]]):
    """Over slots that are added up, too."""
    time = Time()
    metrics = EventMetrics(clock=time)
    for seconds, at in sorted(entries, key=lambda entry: entry[1]):
        time.now = 1000 + at
        await metrics.record_delivery("a", "w", seconds)
    values = [seconds for seconds, _ in entries]
    latency = (await metrics.get_metrics())["latency"]
    for percent in (50, 95, 99):
        assert latency[f"p{percent}"] == pytest.approx(exact(values, percent), rel=0.01)
    assert latency["mean"] == pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=1e-9)
    assert (latency["max"], latency["count"]) == (max(values), len(values))
    assert (await metrics.get_subscriber_metrics("w"))["latency"] == latency


@pytest.mark.parametrize(
    "values",
    [
        [10 ** random.Random(1).uniform(-6, 4) for _ in range(1)],
        [10 ** (n / 1000 - 6) for n in range(10_000)],
        [1e-6] * 99 + [3600.0],
        [0.1] * 94 + [9.0] * 6,
        [0.02] * 5000,
    ],
    ids=["one", "ten decades", "one outlier", "six outliers", "all the same"],
)
def test_percentiles_of_what_a_meter_took(values: list[float], metrics: EventMetrics):
    meter = metrics.meter("w~a", "w")
    for value in random.Random(2).sample(values, len(values)):
        meter.took("a", value)
    latency = run(metrics.get_metrics())["latency"]
    for percent in (50, 95, 99):
        assert latency[f"p{percent}"] == pytest.approx(exact(values, percent), rel=0.01)
    assert latency["max"] == max(values)


def run(coroutine: Any) -> Any:
    """None of them waits for anything."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def test_a_histogram_counts_up_to_its_bounds_the_bound_included_and_forgets_nothing(metrics: EventMetrics, time: Time):
    meter = metrics.meter("w~a")
    for bound in BOUNDS:
        meter.took("a", bound)
        meter.took("a", math.nextafter(bound, math.inf), 1, False)
        time.now += 60
    meter.took("a", 0.0)
    assert list(of(metrics, "w~a").buckets) == [2 * n for n in range(1, len(BOUNDS) + 1)]
    assert of(metrics, "w~a").seconds == pytest.approx(2 * sum(BOUNDS))
    time.now += 1000
    assert list(of(metrics, "w~a").buckets) == [2 * n for n in range(1, len(BOUNDS) + 1)]


# --- the window ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "uptime", "published", "rate"),
    [
        (60, 0.0, 30, 30.0),  # a second at least
        (60, 0.5, 30, 30.0),
        (60, 10.0, 30, 3.0),  # since the start
        (60, 59.0, 30, 30 / 59),
        (60, 59.9, 30, 30 / 59.9),
        (60, 60.0, 30, 0.0),  # gone
        (10, 5.0, 30, 6.0),
        (0.5, 0.0, 30, 60.0),  # a window of less than a second is whole
        (3600, 3000.0, 30, 0.01),
    ],
)
async def test_rates(window: float, uptime: float, published: int, rate: float):
    time = Time()
    time.now = 7200.0
    metrics = EventMetrics(window, clock=time)
    metrics.published("a", published)
    time.now += uptime
    snapshot = await metrics.get_metrics()
    assert snapshot["throughput"]["publishes"] == {"total": published, "per_second": pytest.approx(rate)}


async def test_a_steady_rate_is_told_to_a_sixtieth(metrics: EventMetrics, time: Time):
    for _ in range(2000):
        metrics.published("a", 10)
        time.now += 0.1
        if time.now > 1070:
            rate = (await metrics.get_metrics())["throughput"]["publishes"]["per_second"]
            assert 100 * 59 / 60 - 0.2 <= rate <= 100


async def test_what_is_older_than_the_window_is_gone_also_when_nothing_comes(metrics: EventMetrics, time: Time):
    await metrics.record_publish("a")
    await metrics.record_delivery("a", "w", 9.0, success=False)
    meter = metrics.meter("m~a")
    meter.took("a", 7.0)
    assert (await metrics.get_metrics())["latency"]["count"] == 2
    time.now += 58.9
    assert (await metrics.get_metrics())["latency"]["count"] == 2
    time.now += 1.2
    snapshot = await metrics.get_metrics()
    assert snapshot["latency"] == NOTHING
    assert [each["per_second"] for each in snapshot["throughput"].values()] == [0, 0, 0]
    assert [each["total"] for each in snapshot["throughput"].values()] == [1, 1, 1], "totals are for ever"
    assert snapshot["subscribers"]["health"] == {"healthy": 2, "degraded": 0, "unhealthy": 0}
    assert (await metrics.get_subscriber_metrics("w"))["latency"] == NOTHING
    assert (await metrics.get_subscriber_metrics("w"))["last_seen_seconds"] == pytest.approx(59.1)


async def test_what_gathered_belongs_to_the_moment_when_it_happened_and_not_to_that_of_the_look(
    metrics: EventMetrics, time: Time
):
    meter = metrics.meter("w~a")
    meter.took("a", 5.0)
    metrics.published("a")
    time.now += 61
    assert (await metrics.get_metrics())["latency"] == NOTHING
    assert (await metrics.get_metrics())["throughput"]["publishes"] == {"total": 1, "per_second": 0.0}
    early, late = metrics.meter("early~a"), metrics.meter("late~a")
    early.took("a", 1.0)  # is told of after `late`, whose slots are newer
    time.now += 30
    late.took("a", 2.0)
    time.now += 1
    late.took("a", 2.0)
    assert (await metrics.get_metrics())["latency"]["count"] == 3
    time.now += 30
    assert (await metrics.get_metrics())["latency"]["count"] == 2
    early.took("a", 1.0)
    time.now += 90
    late.took("a", 2.0)
    assert (await metrics.get_metrics())["latency"]["count"] == 1, "what is told too late is counted in totals alone"
    assert (await metrics.get_metrics())["totals"]["deliveries"] == 6


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0, 40), st.sampled_from(["by hand", "meter", "other meter"]), st.booleans())),
    st.floats(0, 100),
)
async def test_the_window_holds_what_a_list_of_all_would(entries: list[tuple[float, str, bool]], rest: float):
    """Of the last 59 s everything, and of what is older than 60 s nothing."""
    time = Time()
    metrics = EventMetrics(clock=time)
    meters = {"meter": metrics.meter("m"), "other meter": metrics.meter("o")}
    happened = []
    for pause, way, ok in entries:
        time.now += pause
        if way == "by hand":
            await metrics.record_delivery("a", "h", 0.01, success=ok)
        else:
            meters[way].took("a", 0.01, 1, ok)
        happened.append((time.now, ok))
    time.now += rest
    snapshot = await metrics.get_metrics()
    span = min(60.0, max(1.0, snapshot["uptime_seconds"]))
    for name, wanted in (("deliveries", True), ("errors", False)):
        lately = round(snapshot["throughput"][name]["per_second"] * span)
        assert sum(ok is wanted and at > time.now - 59 for at, ok in happened) <= lately
        assert lately <= sum(ok is wanted and at > time.now - 60 for at, ok in happened)
        assert snapshot["totals"][name] == sum(ok is wanted for _, ok in happened)


# --- health -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error_rate", "mean", "health"),
    [
        (0.0, 0.0, "healthy"),
        (0.0499, 0.999, "healthy"),
        (0.05, 0.0, "degraded"),
        (0.0, 1.0, "degraded"),
        (0.2, 5.0, "degraded"),
        (0.2001, 0.0, "unhealthy"),
        (0.0, 5.001, "unhealthy"),
        (1.0, 60.0, "unhealthy"),
        (0.1, 6.0, "unhealthy"),  # the worse of both
        (0.3, 0.1, "unhealthy"),
        (0.01, 3.0, "degraded"),
    ],
)
def test_the_classes(error_rate: float, mean: float, health: str):
    assert health_of(error_rate, mean) == health


@pytest.mark.parametrize(
    ("done", "failed", "seconds", "health"),
    [
        (96, 4, 0.1, "healthy"),
        (95, 5, 0.1, "degraded"),
        (19, 1, 0.1, "degraded"),
        (80, 20, 0.1, "degraded"),
        (79, 21, 0.1, "unhealthy"),
        (3, 0, 0.999, "healthy"),  # the mean itself: the sketch could not tell these from the next
        (3, 0, 1.0, "degraded"),
        (3, 0, 5.0, "degraded"),
        (3, 0, 5.001, "unhealthy"),
    ],
)
async def test_the_classes_of_what_was_counted(
    metrics: EventMetrics, done: int, failed: int, seconds: float, health: str
):
    meter = metrics.meter("w~a", "w")
    meter.took("a", seconds, done)
    if failed:
        meter.took("a", seconds, failed, ok=False)
    found = await metrics.get_subscriber_metrics("w")
    assert (found["health"], found["error_rate"]) == (health, failed / (done + failed))
    assert (await metrics.get_metrics())["subscribers"]["health"][health] == 1
    assert of(metrics, "w~a").health == health


async def test_a_subscriber_recovers_when_its_window_does(metrics: EventMetrics, time: Time):
    for _ in range(10):
        await metrics.record_delivery("a", "w", 0.1, success=False)
    assert (await metrics.get_subscriber_metrics("w"))["health"] == "unhealthy"
    time.now += 30
    for _ in range(100):
        await metrics.record_delivery("a", "w", 0.1)
    assert (await metrics.get_subscriber_metrics("w"))["health"] == "degraded"
    time.now += 31
    found = await metrics.get_subscriber_metrics("w")
    assert (found["health"], found["error_rate"], found["errors"]) == ("healthy", 0.0, 10)


async def test_the_worst_hundred_are_shown_by_name(metrics: EventMetrics):
    for n in range(150):
        await metrics.record_delivery("a", f"w{n}", 0.001 * n)
    await metrics.record_delivery("a", "w3", 1.0, success=False)
    await metrics.record_delivery("a", "w4", 30.0)
    subscribers = (await metrics.get_metrics())["subscribers"]
    names = list(subscribers["by_name"])
    assert (len(names), subscribers["total"]) == (100, 150)
    assert names[:4] == ["w3", "w4", "w149", "w148"]
    assert subscribers["health"] == {"healthy": 148, "degraded": 0, "unhealthy": 2}


# --- meters -------------------------------------------------------------------------------------------------------


async def test_a_meter_counts_for_its_subscription(metrics: EventMetrics):
    meter = metrics.meter("worker-1~task.*", "worker-1")
    meter.took("task.created", 0.1, 1, True)
    meter.took("task.created", 0.2, 100, True)  # a batch: each of its events took so long
    meter.took("task.failed", 0.4, 2, False)
    for tell in (meter.rejected, meter.retried, meter.buried, meter.dropped, meter.expired, meter.redelivered):
        tell()
    meter.lost(7)
    found = of(metrics, "worker-1~task.*")
    assert found.active
    assert found.totals == {
        "deliveries": 101, "errors": 2, "retries": 1, "dlq": 1, "expired": 1, "redelivered": 1, "lost": 7, "dropped": 1,
        "rejected": 1,
    }  # fmt: skip
    assert found.seconds == pytest.approx(0.1 + 20 + 0.8)
    snapshot = await metrics.get_metrics()
    assert snapshot["latency"]["count"] == 103
    assert snapshot["event_types"] == {
        "task.created": {"publishes": 0, "deliveries": 101, "errors": 0},
        "task.failed": {"publishes": 0, "deliveries": 0, "errors": 2},
    }
    assert snapshot["totals"] == {
        "publishes": 0, "refused": 0, "deliveries": 101, "errors": 2, "retries": 1, "dlq": 1, "expired": 1,
        "redelivered": 1, "lost": 7, "dropped": 1,
    }  # fmt: skip
    found.totals["deliveries"] = 0  # type: ignore[index] # a copy
    metrics.types()["task.created"].deliveries = 0
    assert of(metrics, "worker-1~task.*").totals["deliveries"] == 101
    assert metrics.types()["task.created"].deliveries == 101


async def test_an_agents_subscriptions_are_summed_under_its_name(metrics: EventMetrics):
    metrics.meter("w~a", "w").took("a", 1.0)
    metrics.meter("w~b", "w").took("b", 3.0, 1, False)
    one, both = await metrics.get_subscriber_metrics("w~b"), await metrics.get_subscriber_metrics("w")
    assert (one["errors"], one["deliveries"], one["error_rate"]) == (1, 0, 1.0)
    assert (both["errors"], both["deliveries"], both["error_rate"]) == (1, 1, 0.5)
    assert (both["latency"]["mean"], both["latency"]["count"], both["subscriber"]) == (2.0, 2, "w")


async def test_a_closed_meter_is_not_active_and_its_totals_stay(metrics: EventMetrics):
    first, second = metrics.meter("w~a", "w"), metrics.meter("w~a", "w")
    first.took("a", 9.0)
    first.close()
    first.close()
    assert (await metrics.get_metrics())["subscribers"]["total"] == 1, "the other one is open"
    second.close()
    snapshot = await metrics.get_metrics()
    assert snapshot["subscribers"] == {
        "total": 0,
        "health": {"healthy": 0, "degraded": 0, "unhealthy": 0},
        "by_name": {},
    }
    assert snapshot["totals"]["deliveries"] == 1
    assert (await metrics.get_subscriber_metrics("w"))["deliveries"] == 1
    assert not of(metrics, "w~a").active
    again = metrics.meter("w~a", "w")
    again.took("a", 9.0)
    assert of(metrics, "w~a").active
    assert of(metrics, "w~a").totals["deliveries"] == 2


async def test_who_counts_elsewhere_is_asked_before_each_look_and_at_the_end(metrics: EventMetrics):
    meter = metrics.meter("w~a", "w")
    meter.tell = lambda: meter.expired(2)
    assert (await metrics.get_metrics())["totals"]["expired"] == 2
    assert of(metrics, "w~a").totals["expired"] == 4
    meter.close()
    meter.close()
    assert (await metrics.get_metrics())["totals"]["expired"] == 6


async def test_live_subscriptions_count_by_their_agent(metrics: EventMetrics):
    for n in range(3):
        metrics.meter(f"live~0199a5f0-0000-7000-8000-00000000000{n}").took("a", 1.0)
        metrics.meter(f"live~0199a5f0-0000-7000-8000-00000000001{n}", "w").took("a", 1.0)
    metrics.meter("live~task.*", "live").took("a", 1.0)  # an agent of that name
    found = {each.name: each.totals["deliveries"] for each in metrics.subscribers()}
    assert found == {"live": 3, "live~w": 3, "live~task.*": 1}


async def test_reset_begins_anew(metrics: EventMetrics, time: Time):
    meter = metrics.meter("w~a", "w")
    meter.took("a", 1.0)
    metrics.published("a")
    await metrics.record_delivery("a", "h", 1.0, success=False)
    time.now += 5
    metrics.reset()
    snapshot = await metrics.get_metrics()
    assert (snapshot["uptime_seconds"], snapshot["event_types"], snapshot["latency"]) == (0.0, {}, NOTHING)
    assert set(snapshot["totals"].values()) == {0}
    assert list(snapshot["subscribers"]["by_name"]) == ["w~a"], "it is served still"
    meter.took("a", 2.0)
    assert (await metrics.get_metrics())["latency"]["max"] == 2.0


# --- bounds -------------------------------------------------------------------------------------------------------


async def test_types_beyond_the_most_count_together(time: Time):
    metrics = EventMetrics(clock=time, max_types=3)
    for n in range(5):
        metrics.published(f"t{n}", 2)
    metrics.published("other")
    assert set(metrics.types()) == {"t0", "t1", "t2", "other"}
    await metrics.record_delivery("t9", "w", 1.0)
    types = (await metrics.get_metrics())["event_types"]
    assert {name: each["publishes"] for name, each in types.items()} == {"t0": 2, "t1": 2, "t2": 2, "other": 5}
    assert types["other"]["deliveries"] == 1
    time.now += 59
    metrics.published("t0")
    metrics.published("t4")
    assert set((await metrics.get_metrics())["event_types"]) == {"t0", "t1", "t2", "other"}
    time.now += 2
    metrics.published("t4")
    metrics.published("t5")
    metrics.published("t6")
    types = (await metrics.get_metrics())["event_types"]
    assert {name: each["publishes"] for name, each in types.items()} == {"t0": 3, "t4": 1, "t5": 1, "other": 7}, (
        "those that were seen longest ago make room, and nobody of the window"
    )
    assert (await metrics.get_metrics())["totals"]["publishes"] == 16


async def test_subscribers_beyond_the_most_count_together(time: Time):
    metrics = EventMetrics(clock=time, max_subscribers=2)
    served = metrics.meter("served~a", "served")
    served.took("a", 1.0)
    for n in range(3):
        await metrics.record_delivery("a", f"w{n}", 1.0)
    late = metrics.meter("late~a", "late")
    late.took("a", 1.0)
    counts = {each.name: each.totals["deliveries"] for each in metrics.subscribers()}
    assert counts == {"served~a": 1, "w0": 1, "other": 3}
    late.close()
    time.now += 100
    await metrics.record_delivery("a", "w9", 1.0)
    counts = {each.name: each.totals["deliveries"] for each in metrics.subscribers()}
    assert counts == {"served~a": 1, "w9": 1, "other": 3}, "who is served keeps its place, however long it rests"
    served.close()
    time.now += 100
    await metrics.record_delivery("a", "w10", 1.0)
    await metrics.record_delivery("a", "w11", 1.0)
    assert {each.name for each in metrics.subscribers()} == {"w10", "w11", "other"}
    assert (await metrics.get_metrics())["totals"]["deliveries"] == 8


@pytest.mark.parametrize("pace", ["at once", "slowly"])
def test_memory_is_bounded_whatever_the_names(pace: str, time: Time):
    """100,000 types and subscribers, each once; what the last 10,000 leave is what there is room for."""
    metrics = EventMetrics(clock=time, max_types=100, max_subscribers=200)
    try:
        for n in range(100_000):
            if n == 90_000:
                tracemalloc.start()
            metrics.published(f"type.{n}")
            meter = metrics.meter(f"agent-{n}~#", f"agent-{n}")
            if n % 20 == 0:
                meter.took(f"type.{n}", 0.1)
                run(metrics.record_delivery(f"type.{n}", f"agent-{n}", 0.1))
            meter.close()
            if pace == "slowly":
                time.now += 1
        metrics.types()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 400_000
    finally:
        tracemalloc.stop()
    snapshot = run(metrics.get_metrics())
    assert len(snapshot["event_types"]) <= 101
    assert len(metrics.subscribers()) <= 201
    assert snapshot["totals"]["publishes"] == 100_000
    assert snapshot["totals"]["deliveries"] == 10_000
    assert sum(each["publishes"] for each in snapshot["event_types"].values()) == (
        100_000 if pace == "at once" else 100
    )


@pytest.mark.parametrize("what", ["deliveries of one type", "deliveries of many types", "publishes of many types"])
def test_what_gathers_within_a_slot_is_bounded(what: str, metrics: EventMetrics):
    meter = metrics.meter("w~a", "w")
    tracemalloc.start()
    try:
        for n in range(20_000):
            if what == "deliveries of one type":
                meter.took("a", n * 1e-6)
            elif what == "deliveries of many types":
                meter.took(f"type.{n}", 0.1, 1, n % 2 == 0)
            else:
                metrics.published(f"type.{n}")
        assert tracemalloc.get_traced_memory()[0] < (300_000 if what == "deliveries of one type" else 1_500_000)
    finally:
        tracemalloc.stop()
    assert sum(run(metrics.get_metrics())["totals"].values()) == 20_000
