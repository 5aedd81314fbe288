"""redis: everysec, 100 awaiting publishers, one named subscription; beside raw streams and FastStream's."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, redis_everysec
from benchmarks.side import Part, Side

NAME = "redis"


async def run(bench: Bench) -> list[Row]:
    count = bench.size(400, 10_000, 50_000, 100_000)
    hundred = {"publishers": 100}
    ours = _side("redis", "bus", count, hundred)
    # What a subscription has settled leaves its queue with us, so the peer deletes, too.
    raw = _side("raw redis-py streams by 100", "redis_streams", count, {"at_once": 100, "delete": True})
    # A tenth of the events: it takes about ten times as long.
    faststream = _side("FastStream, stream group", "faststream_redis", count // 10, hundred, peer="faststream")
    found = await bench.alternate(ours, raw, faststream)
    return [
        row(NAME, found, ours, peer=raw, aim=Aim("ratio", 0.8)),
        row(NAME, found, ours, peer=faststream, aim=Aim("ratio", 5.0)),
    ]


def _side(name: str, parts: str, count: int, options: dict[str, Any], peer: str | None = None) -> Side:
    """Server and publisher on one core, the consumer on the other."""
    module = f"benchmarks.parts.{parts}"
    return Side(
        name=name,
        place=redis_everysec,
        parts=(Part(f"{module}:consumer", CLIENT_CORE, peer), Part(f"{module}:publisher", ENGINE_CORE, peer)),
        count=count,
        options=options,
    )
