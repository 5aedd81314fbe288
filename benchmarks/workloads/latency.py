"""latency: publish to handler at 1,000 events a second; on sqlite beside a bare group commit that wakes its waiter."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Aim, Row
from benchmarks.pace import ANCESTORS, POINTS, RATE, count
from benchmarks.places import Place, memory, sqlite
from benchmarks.side import Part, Side

NAME = "latency"
_ON_MEMORY = ANCESTORS | {"p50": Aim("figure", 1.0, at_least=False, source="R12")}
_ON_SQLITE = ANCESTORS | {"p99": Aim("ratio", 1.5, at_least=False)}


async def run(bench: Bench) -> list[Row]:
    on_memory, on_sqlite = _side(bench, "memory", memory), _side(bench, "sqlite", sqlite)
    bare = _side(bench, "bare group commit", sqlite, "apsw_commits")
    found = await bench.alternate(on_memory, on_sqlite, bare)
    return [
        row(NAME, found, side, peer=peer, aim=aims[point], unit="ms", of=value(point), what=f"{side.name}, {point}")
        for side, peer, aims in ((on_memory, None, _ON_MEMORY), (on_sqlite, bare, _ON_SQLITE))
        for point in POINTS
    ]


def _side(bench: Bench, name: str, place: Place, part: str = "bus") -> Side:
    return Side(
        name=name,
        place=place,
        parts=(Part(f"benchmarks.parts.{part}:latency", 0),),
        count=count(bench),
        options={"rate": RATE},
    )
