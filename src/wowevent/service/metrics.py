"""GET /metrics: for people with jq in JSON, for Prometheus in its own text or in OpenMetrics, as `Accept` asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.responses import Response

from wowevent.service.asking import any_bus_of
from wowevent.service.exposition import CONTENT_TYPES, OPENMETRICS, TEXT, look, written

if TYPE_CHECKING:
    from starlette.requests import Request

JSON: Final = "application/json"


# --- the shapes of the JSON ---------------------------------------------------------------------------------------


class Rate(Struct):
    """Of one kind: all since the start, and how many a second within the window."""

    total: int
    per_second: float


class Throughput(Struct):
    """Deliveries succeeded, errors failed."""

    publishes: Rate
    deliveries: Rate
    errors: Rate


class Latency(Struct):
    """Seconds that handlers took within the window, failed ones included; 0 where there were none."""

    p50: float
    p95: float
    p99: float
    mean: float
    max: float
    count: int


class Totals(Struct):
    """Since the start."""

    publishes: int
    refused: int
    deliveries: int
    errors: int
    retries: int
    dlq: int
    expired: int
    redelivered: int
    lost: int
    dropped: int


class SubscriberMetrics(Struct):
    """One subscription that is served here: its health within the window, and its totals."""

    subscriber: str
    health: Literal["healthy", "degraded", "unhealthy"]
    error_rate: Annotated[float, Meta(ge=0, le=1)]
    deliveries: int
    errors: int
    latency: Latency
    last_seen_seconds: Annotated[float | None, Meta(description="Since its last delivery.")]


class Classes(Struct):
    """How many subscriptions are how."""

    healthy: int
    degraded: int
    unhealthy: int


class SubscribersMetrics(Struct):
    """The subscriptions that are served here; by name at most the hundred worst."""

    total: int
    health: Classes
    by_name: dict[str, SubscriberMetrics]


class TypeMetrics(Struct):
    """One event type, since the start."""

    publishes: int
    deliveries: int
    errors: int


class Metrics(Struct):
    """What this process published and delivered."""

    window_seconds: float
    uptime_seconds: float
    throughput: Throughput
    latency: Latency
    totals: Totals
    subscribers: SubscribersMetrics
    event_types: dict[str, TypeMetrics]
    worker: Annotated[int, Meta(description="Which of several processes on one port this is.")] | UnsetType = UNSET


# --- the answer ---------------------------------------------------------------------------------------------------


async def metrics(request: Request) -> Response:
    """The bus's numbers, also while it drains and while its engine is away; Closed where it is switched off."""
    bus = any_bus_of(request)
    headers = {"vary": "accept", "cache-control": "no-store"}
    worker: int | None = request.app.state.worker
    media = wanted(",".join(request.headers.getlist("accept")))
    if media == JSON:
        numbers = await bus.metrics.get_metrics() | ({} if worker is None else {"worker": worker})
        return Response(msgspec.json.encode(numbers), 200, headers, JSON)
    seen = await look(bus, {} if worker is None else {"worker": str(worker)})
    # A thousand subscriptions are some 30,000 lines: the loop has other things to do.
    content = await asyncio.to_thread(written, seen, media)
    return Response(content, 200, {**headers, "content-type": CONTENT_TYPES[media]})


def wanted(accept: str) -> str:
    """JSON, unless Prometheus's text or OpenMetrics is asked for by name, and not less than JSON is."""
    asked: dict[str, float] = {}
    for each in accept.split(","):
        media, *parameters = (part.strip().lower() for part in each.split(";"))
        asked[media] = max(asked.get(media, 0.0), _quality(parameters))
    json = next((asked[each] for each in (JSON, "application/*", "*/*") if each in asked), 0.0)
    text, open_text = asked.get(TEXT, 0.0), asked.get(OPENMETRICS, 0.0)
    if max(text, open_text) == 0 or max(text, open_text) < json:
        return JSON
    return OPENMETRICS if open_text >= text else TEXT


def _quality(parameters: Iterable[str]) -> float:
    """The `q` of a media type; 1 if there is none, 0 if it is no number."""
    for each in parameters:
        name, _, value = each.partition("=")
        if name.strip() == "q":
            try:
                return min(max(0.0, float(value)), 1.0)  # in this order NaN is 0
            except ValueError:
                return 0.0
    return 1.0
