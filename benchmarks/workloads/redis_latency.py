"""redis-latency: publish to handler at 1,000 events a second, in one process beside the server's; and raw redis-py."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Row
from benchmarks.pace import POINTS, PROMPT, RATE, count
from benchmarks.places import CLIENT_CORE, redis_everysec
from benchmarks.side import Part, Side

NAME = "redis-latency"


async def run(bench: Bench) -> list[Row]:
    ours, raw = _side(bench, "redis", "bus"), _side(bench, "raw redis-py", "redis_streams")
    found = await bench.alternate(ours, raw)
    return [
        row(NAME, found, ours, peer=raw, aim=PROMPT[point], unit="ms", of=value(point), what=f"redis, {point}")
        for point in POINTS
    ]


def _side(bench: Bench, name: str, part: str) -> Side:
    return Side(
        name=name,
        place=redis_everysec,
        parts=(Part(f"benchmarks.parts.{part}:latency", CLIENT_CORE),),
        count=count(bench),
        options={"rate": RATE, "at_once": 100, "delete": True},
    )
