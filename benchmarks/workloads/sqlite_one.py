"""sqlite-one: one publisher that awaits each, durably; beside raw clients that await each."""

from __future__ import annotations

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.places import redis_always, sqlite
from benchmarks.side import Part, Side

NAME = "sqlite-one"


async def run(bench: Bench) -> list[Row]:
    count = bench.size(50, 1_000, 3_000, 6_000)
    append = Side(
        name="sqlite, to nobody", place=sqlite, parts=(Part("benchmarks.parts.bus:appender", 0),), count=count
    )
    apsw = Side(
        name="raw APSW, INSERT and COMMIT",
        place=sqlite,
        parts=(Part("benchmarks.parts.apsw_commits:one_by_one", 0),),
        count=count,
    )
    handled = Side(
        name="sqlite, to one named subscription",
        place=sqlite,
        parts=(Part("benchmarks.parts.bus:both", 0),),
        count=count,
    )
    redis = Side(
        name="raw redis-py, XADD awaited, to one group",
        place=redis_always,
        parts=(Part("benchmarks.parts.redis_streams:both", 0),),
        count=count,
        options={"one": True},
    )
    found = await bench.alternate(append, apsw, handled, redis)
    return [
        row(NAME, found, append, peer=apsw, aim=Aim("ratio", 0.85)),
        row(NAME, found, handled, peer=redis, aim=Aim("ratio", 0.85)),
        row(NAME, found, handled, peer=apsw),
    ]
