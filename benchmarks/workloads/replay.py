"""replay: how fast a log is read again, as history and into a handler."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Aim, Row
from benchmarks.places import ENGINES
from benchmarks.side import Part, Side

NAME = "replay"


async def run(bench: Bench) -> list[Row]:
    count = bench.size(300, 20_000, 100_000, 200_000)
    part = (Part("benchmarks.parts.bus:replayer", 0),)
    compared = [
        Side(name=name, place=ENGINES[name], parts=part, count=count, options={"keep": count})
        for name in ("memory", "sqlite")
    ]
    found = await bench.alternate(*compared)
    rows = []
    for side in compared:
        aim = Aim("figure", 200_000, source="ours")
        rows.append(row(NAME, found, side, aim=aim, what=f"history, {side.name}"))
        rows.append(row(NAME, found, side, aim=aim, of=value("replay_rate"), what=f"replay, {side.name}"))
    return rows
