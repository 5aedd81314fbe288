"""sqlite: FULL, 100 awaiting publishers, one named subscription; beside raw Redis streams, AOF synced always."""

from __future__ import annotations

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.places import redis_always, sqlite
from benchmarks.side import Part, Side

NAME = "sqlite"
_OURS, _REDIS = "benchmarks.parts.bus", "benchmarks.parts.redis_streams"


async def run(bench: Bench) -> list[Row]:
    count = bench.size(400, 10_000, 30_000, 60_000)
    hundred = {"publishers": 100}
    # Redis is two processes in any case, so our one process may use both cores too.
    one = Side(name="sqlite, one process", place=sqlite, parts=(Part(f"{_OURS}:both"),), count=count, options=hundred)
    redis_one = Side(
        name="raw redis-py, one process", place=redis_always, parts=(Part(f"{_REDIS}:both", 1),), count=count
    )
    two = Side(
        name="sqlite, two processes",
        place=sqlite,
        parts=(Part(f"{_OURS}:consumer", 1), Part(f"{_OURS}:publisher", 0)),
        count=count,
        options=hundred,
    )
    redis_two = Side(
        name="raw redis-py, two processes",
        place=redis_always,
        parts=(Part(f"{_REDIS}:consumer", 1), Part(f"{_REDIS}:publisher", 0)),
        count=count,
    )
    found = await bench.alternate(one, redis_one, two, redis_two)
    return [
        row(NAME, found, one, aim=Aim("figure", 35_000)),
        row(NAME, found, one, peer=redis_one, aim=Aim("ratio", 0.7)),
        row(NAME, found, two, peer=redis_two, aim=Aim("ratio", 0.7)),
    ]
