"""redis-one: everysec, one publisher that awaits each, to one subscription and to nobody; beside raw XADD awaited."""

from __future__ import annotations

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, redis_everysec
from benchmarks.side import Part, Side

NAME = "redis-one"


async def run(bench: Bench) -> list[Row]:
    count = bench.size(50, 2_000, 10_000, 20_000)
    handled = _handled("redis, to one named subscription", "bus", count)
    raw = _handled("raw redis-py, XADD awaited, to one group", "redis_streams", count)
    append = _appended("redis, to nobody", "bus", count)
    raw_append = _appended("raw redis-py, XADD awaited, to nobody", "redis_streams", count)
    found = await bench.alternate(handled, raw, append, raw_append)
    aim = Aim("ratio", 0.85)
    return [row(NAME, found, handled, peer=raw, aim=aim), row(NAME, found, append, peer=raw_append, aim=aim)]


def _handled(name: str, parts: str, count: int) -> Side:
    """Server and publisher on one core, the consumer on the other."""
    module = f"benchmarks.parts.{parts}"
    return Side(
        name=name,
        place=redis_everysec,
        parts=(Part(f"{module}:consumer", CLIENT_CORE), Part(f"{module}:publisher", ENGINE_CORE)),
        count=count,
        options={"one": True, "at_once": 100, "delete": True},
    )


def _appended(name: str, parts: str, count: int) -> Side:
    return Side(
        name=name,
        place=redis_everysec,
        parts=(Part(f"benchmarks.parts.{parts}:appender", ENGINE_CORE),),
        count=count,
        options={"one": True},
    )
