"""What one scrape shows, for Prometheus: in its own text, or in OpenMetrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics

from wowevent.errors import BrokerUnavailable, BusError, StorageFull
from wowevent.metrics import BOUNDS, CLASSES, OTHER, SubscriberTotals

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from wowevent.broker import SubscriptionInfo
    from wowevent.bus import EventBus

TEXT: Final = "text/plain"
OPENMETRICS: Final = "application/openmetrics-text"
CONTENT_TYPES: Final = {TEXT: f"{TEXT}; version=0.0.4; charset=utf-8", OPENMETRICS: openmetrics.CONTENT_TYPE_LATEST}
"""Of an answer in one of these media types."""
MOST: Final = 1000
"""Subscriptions of the engine that have series of their own: those with the most waiting; the rest is summed."""

_PATIENCE: Final = 5.0  # seconds for the engine to answer; Prometheus waits 10
_PROCESS: Final = ProcessCollector(registry=None)  # since when it runs, memory, files; nothing where there is no /proc
_REFUSALS: Final = dict.fromkeys((BrokerUnavailable.code, StorageFull.code), 0)
"""Series that are there from the start: whoever looks sees the first refusal as one more."""
_COUNTERS: Final = {
    "retries": ("wowevent_retries", "Deliveries that failed and are tried again."),
    "dlq": ("wowevent_dead_lettered_events", "Events that were put with the dead letters."),
    "dropped": ("wowevent_dropped_events", "Events that failed for good where no dead letters are kept."),
    "expired": ("wowevent_expired_events", "Events whose time to live was over before they were handled."),
    "redelivered": ("wowevent_redelivered_events", "Events that came again from the dead letters."),
    "lost": ("wowevent_lost_events", "Events that were gone before they were read."),
}
_GAUGES: Final = {
    "ready": ("wowevent_subscription_ready_events", "Events that wait to be taken: the lag."),
    "leased": ("wowevent_subscription_leased_events", "Events in the hands of consumers."),
    "delayed": ("wowevent_subscription_delayed_events", "Events that wait for their next attempt."),
    "dead": ("wowevent_dead_letters", "Dead letters that are kept."),
    "consumers": ("wowevent_subscription_consumers", "Processes that fetch from it."),
    "oldest": ("wowevent_subscription_oldest_seconds", "Age of the oldest event that is not settled."),
}


class Seen(Struct, frozen=True):
    """What one scrape shows, copied, so that another thread may write it down."""

    build: Mapping[str, str]
    published: Mapping[str, int]
    refused: Mapping[str, int]
    subscribers: Sequence[SubscriberTotals]
    latency: float | None
    """Of the engine, in seconds; None if it did not answer, and then nothing is known of its subscriptions."""
    infos: Sequence[SubscriptionInfo]
    storms: tuple[int, int]
    """Conversations that were parked here since the start, and those that are parked now, by whomever."""
    tasks: int
    """Of the loop."""
    labels: Mapping[str, str]
    """Of every series: which of several processes on one port it is of."""


async def look(bus: EventBus, labels: Mapping[str, str]) -> Seen:
    """All of it now; the engine is given five seconds to answer. `labels` are those of every series."""
    latency: float | None = None
    infos: Sequence[SubscriptionInfo] = ()
    try:
        async with asyncio.timeout(_PATIENCE):
            infos = await bus.subscriptions()
            latency = (await bus.broker.ping()).latency
    except (BusError, TimeoutError):
        infos = ()  # wowevent_engine_up says it
    return Seen(
        build={"version": version("wowevent"), "engine": bus.capabilities.name, "namespace": bus.namespace},
        published={name: totals.publishes for name, totals in bus.metrics.types().items()},
        refused=bus.metrics.refusals(),
        subscribers=bus.metrics.subscribers(),
        latency=latency,
        infos=infos,
        storms=(bus.storms.tripped, len(bus.storms.list())),
        tasks=len(asyncio.all_tasks()),
        labels=labels,
    )


class _Collector:
    """What was seen, as prometheus-client takes it."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def collect(self) -> Iterable[Metric]:
        """Every family, each with all of its series."""
        for family in self._families():
            family.samples = [each._replace(labels={**each.labels, **self._seen.labels}) for each in family.samples]
            yield family

    def _families(self) -> Iterable[Metric]:
        seen = self._seen
        yield InfoMetricFamily("wowevent_build", "What runs here.", value=dict(seen.build))
        yield from _PROCESS.collect()
        yield GaugeMetricFamily("wowevent_tasks", "Tasks of the event loop.", value=float(seen.tasks))
        yield _published(seen.published)
        yield _refused(seen.refused)
        yield from _handled(seen.subscribers)
        yield _health(seen.subscribers)
        yield from _storms(*seen.storms)
        up = seen.latency is not None
        yield GaugeMetricFamily("wowevent_engine_up", "Whether the engine answers.", value=float(up))
        if seen.latency is not None:
            about = "How long the engine took to answer."
            yield GaugeMetricFamily("wowevent_engine_latency_seconds", about, value=seen.latency)
            yield from _engine(seen.infos)


def written(seen: Seen, media: str) -> bytes:
    """The text in that media type, TEXT or OPENMETRICS."""
    registry = CollectorRegistry()
    registry.register(_Collector(seen))
    if media == OPENMETRICS:
        text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]  # so it is exported
        return text
    return generate_latest(registry)


def _published(types: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily("wowevent_published_events", "Events that were published here.", labels=["type"])
    for name, count in types.items():
        family.add_metric([name], count)
    return family


def _refused(codes: Mapping[str, int]) -> Metric:
    about = "Events that the engine did not take, by the error that their publisher got."
    family = CounterMetricFamily("wowevent_refused_events", about, labels=["code"])
    for code, count in {**_REFUSALS, **codes}.items():
        family.add_metric([code], count)
    return family


def _handled(subscribers: Sequence[SubscriberTotals]) -> Iterable[Metric]:
    """What was counted at each delivery."""
    about = "Deliveries to handlers here, by how they ended."
    outcomes = CounterMetricFamily("wowevent_deliveries", about, labels=["subscription", "outcome"])
    about = "How long handlers took, those that failed included."
    seconds = HistogramMetricFamily("wowevent_delivery_seconds", about, labels=["subscription"])
    counters = {
        name: CounterMetricFamily(title, about, labels=["subscription"]) for name, (title, about) in _COUNTERS.items()
    }
    for each in subscribers:
        totals = each.totals
        outcomes.add_metric([each.name, "ok"], totals["deliveries"])
        outcomes.add_metric([each.name, "failed"], totals["errors"] - totals["rejected"])
        outcomes.add_metric([each.name, "rejected"], totals["rejected"])
        buckets = [(str(bound), float(count)) for bound, count in zip(BOUNDS, each.buckets, strict=True)]
        everything = totals["deliveries"] + totals["errors"]
        seconds.add_metric([each.name], [*buckets, ("+Inf", float(everything))], each.seconds)
        for name, family in counters.items():
            family.add_metric([each.name], totals[name])
    return [outcomes, seconds, *counters.values()]


def _health(subscribers: Sequence[SubscriberTotals]) -> Metric:
    about = "1 at the class of health that a subscription is in here, within the window; 0 at the others."
    family = GaugeMetricFamily("wowevent_subscription_health", about, labels=["subscription", "health"])
    for each in subscribers:
        for name in CLASSES if each.active else ():
            family.add_metric([each.name, name], float(each.health == name))
    return family


def _storms(tripped: int, parked: int) -> Iterable[Metric]:
    about = "Conversations that went too far here, and were parked."
    yield CounterMetricFamily("wowevent_storms", about, value=float(tripped))
    yield GaugeMetricFamily("wowevent_parked_conversations", "Conversations that are parked now.", value=float(parked))


def _engine(infos: Sequence[SubscriptionInfo]) -> Iterable[Metric]:
    """What the engine says of its subscriptions: of the remembered ones each, of the live ones their number."""
    remembered = [info for info in infos if info.subscription.durable]
    about = "Remembered subscriptions that nobody served for too long: nothing is kept for them."
    yield GaugeMetricFamily("wowevent_subscriptions_lapsed", about, value=sum(info.lapsed for info in remembered))
    about = "Subscriptions that are there without being remembered."
    yield GaugeMetricFamily("wowevent_live_subscriptions", about, value=len(infos) - len(remembered))
    numbers = _bounded([(info.subscription.id, _numbers(info)) for info in remembered])
    for key, (name, about) in _GAUGES.items():
        family = GaugeMetricFamily(name, about, labels=["subscription"])
        for id, known in numbers:
            if (number := known[key]) is not None:
                family.add_metric([id], number)
        yield family


def _numbers(info: SubscriptionInfo) -> dict[str, float | None]:
    """The gauges of one subscription; None is not known. Where nothing is unsettled, nothing is old."""
    idle = not (info.ready or info.leased or info.delayed)
    oldest = 0.0 if idle and info.oldest is None else info.oldest
    return {**{key: getattr(info, key) for key in _GAUGES}, "oldest": oldest}


def _bounded(found: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The MOST with the most waiting; all others as one."""
    if len(found) <= MOST:
        return found
    named = [each for each in found if each[0] != OTHER]
    shown = nlargest(MOST, named, key=lambda each: (each[1]["ready"] + each[1]["dead"], each[0]))
    names = {id for id, _ in shown}
    rest = [known for id, known in found if id not in names]
    others: dict[str, Any] = {key: sum(known[key] or 0 for known in rest) for key in _GAUGES}
    others["oldest"] = max(known["oldest"] or 0.0 for known in rest)
    return [*shown, (OTHER, others)]
