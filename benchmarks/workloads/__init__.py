"""The workloads, one file each: what is measured, on which sides, and what figure is aimed at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks.bench import Bench
from benchmarks.figures import Row
from benchmarks.workloads import (
    engines,
    idle,
    latency,
    memory_each,
    memory_many,
    metrics,
    nats,
    nats_latency,
    nats_one,
    rabbitmq,
    rabbitmq_blocking,
    rabbitmq_latency,
    rabbitmq_one,
    redis,
    redis_latency,
    redis_one,
    redis_server,
    redis_subscriptions,
    replay,
    routers,
    soak,
    sqlite,
    sqlite_one,
    stored,
    subscriptions,
    trace,
    websocket,
    websocket_idle,
    websocket_latency,
    websocket_named,
    websocket_slow,
)

_MODULES: Final = (
    memory_each, memory_many, sqlite, sqlite_one, latency, redis, redis_one, redis_latency, redis_server,
    redis_subscriptions, rabbitmq, rabbitmq_one, rabbitmq_latency, rabbitmq_blocking, nats, nats_one, nats_latency,
    websocket, websocket_latency, websocket_named, websocket_idle, websocket_slow,
    engines, idle, routers, subscriptions, stored, replay, trace, metrics, soak,
)  # fmt: skip
WORKLOADS: Final[dict[str, Callable[[Bench], Awaitable[list[Row]]]]] = {each.NAME: each.run for each in _MODULES}
TITLES: Final = {each.NAME: (each.__doc__ or "").partition(": ")[2].strip() for each in _MODULES}
DESIGN: Final = (
    "memory-each", "memory-many", "sqlite", "redis", "rabbitmq", "nats",
    "sqlite-one", "redis-one", "rabbitmq-one", "nats-one", "websocket",
    "latency", "redis-latency", "nats-latency", "websocket-latency", "rabbitmq-latency", "soak", "websocket-idle",
)  # fmt: skip
"""Those whose figures the design sets, in its order."""
