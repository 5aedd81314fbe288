"""redis-server: what publishing to 0, 1, 10 and 100 subscriptions costs the server, and fetching with settling."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Row
from benchmarks.places import CLIENT_CORE, redis_everysec
from benchmarks.side import Part, Side

NAME = "redis-server"


async def run(bench: Bench) -> list[Row]:
    count, alone = bench.size(200, 5_000, 20_000, 50_000), bench.size(50, 1_000, 5_000, 10_000)
    by_hundred = [_side(matching, 100, count if matching < 100 else count // 5) for matching in (0, 1, 10, 100)]
    one = _side(1, 1, alone)
    found = await bench.alternate(*by_hundred, one)
    rows: list[Row] = []
    for side in (*by_hundred, one):
        rows += _rows(found, side, "publish")
        if side.options["matching"] == 1:
            rows += _rows(found, side, "settle")
    return rows


def _rows(found, side: Side, step: str) -> list[Row]:
    """The scripts alone, and all of the server: reading, answering and the append-only file too."""
    named = f"publish, {side.name}" if step == "publish" else f"fetch and settle, {side.name}"
    return [
        row(NAME, found, side, unit="µs an event", of=value(f"{step}_{kind}"), what=f"{named}: {what}")
        for kind, what in (("scripts", "scripts"), ("cpu", "server"))
    ]


def _side(matching: int, batch: int, count: int) -> Side:
    return Side(
        name=f"{matching} matching, {batch} a call",
        place=redis_everysec,
        parts=(Part("benchmarks.parts.redis_server:steps", CLIENT_CORE),),
        count=count,
        options={"matching": matching, "batch": batch},
    )
