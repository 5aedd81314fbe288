"""redis-latency: publish to handler at 1,000 events a second, in one process beside the server's."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Aim, Row
from benchmarks.places import CLIENT_CORE, redis_everysec
from benchmarks.side import Part, Side

NAME = "redis-latency"
_RATE = 1_000
_AIMS = {"p50": Aim("figure", 1.0, at_least=False), "p99": Aim("figure", 5.0, at_least=False)}


async def run(bench: Bench) -> list[Row]:
    side = Side(
        name="redis",
        place=redis_everysec,
        parts=(Part("benchmarks.parts.bus:latency", CLIENT_CORE),),
        count=_RATE * bench.size(1, 3, 10, 30) // (10 if bench.scale == "tiny" else 1),
        options={"rate": _RATE},
    )
    found = await bench.alternate(side)
    return [
        row(NAME, found, side, aim=_AIMS.get(point), unit="ms", of=value(point), what=f"redis, {point}")
        for point in ("p50", "p95", "p99")
    ]
