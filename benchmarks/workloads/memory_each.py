"""memory-each: one publisher that awaits each publish, one named subscription, one process."""

from __future__ import annotations

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.places import memory
from benchmarks.side import Part, Side

NAME = "memory-each"


async def run(bench: Bench) -> list[Row]:
    count = bench.size(200, 50_000, 100_000, 200_000)
    part = (Part("benchmarks.parts.bus:both", 0),)
    made = Side(name="memory, events made before", place=memory, parts=part, count=count, options={"made": True})
    fresh = Side(name="memory, each event made when it is published", place=memory, parts=part, count=count)
    found = await bench.alternate(made, fresh)
    return [row(NAME, found, side, aim=Aim("figure", 120_000)) for side in (made, fresh)]
