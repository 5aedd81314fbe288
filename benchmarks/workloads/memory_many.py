"""memory-many: publish_many of 500 and a batch handler of 500, one process."""

from __future__ import annotations

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.places import memory
from benchmarks.side import Part, Side

NAME = "memory-many"


async def run(bench: Bench) -> list[Row]:
    count = bench.size(1_200, 100_000, 200_000, 400_000)
    part = (Part("benchmarks.parts.bus:both", 0),)
    many = {"many": True}
    made = Side(
        name="memory, events made before", place=memory, parts=part, count=count, options={**many, "made": True}
    )
    fresh = Side(
        name="memory, each event made when it is published", place=memory, parts=part, count=count, options=many
    )
    found = await bench.alternate(made, fresh)
    return [row(NAME, found, side, aim=Aim("figure", 300_000)) for side in (made, fresh)]
