"""metrics: what counting, and the breaker, cost: the same bus with and without them, on memory and on SQLite."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.places import ENGINES
from benchmarks.side import Part, Side

NAME = "metrics"
# name -> engine, events, options
_WAYS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "memory, awaiting each": ("memory", 50_000, {"made": True}),
    "memory, publish_many and a batch handler": ("memory", 100_000, {"made": True, "many": True}),
    "sqlite, 100 publishers": ("sqlite", 20_000, {"publishers": 100}),
}


async def run(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    for name, (engine, count, options) in _WAYS.items():
        size = bench.size(200, count, 2 * count, 4 * count)
        part = (Part("benchmarks.parts.bus:both", 0),)
        place = ENGINES[engine]
        measured = Side(name=name, place=place, parts=part, count=size, options=options)
        plain = Side(
            name=f"{name}, uncounted", place=place, parts=part, count=size, options={**options, "unmeasured": True}
        )
        found = await bench.alternate(measured, plain)
        rows.append(row(NAME, found, measured, peer=plain, aim=Aim("ratio", 0.9, source="W9")))
    return rows
