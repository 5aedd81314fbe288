"""latency: publish to handler at 1,000 events a second; on sqlite beside a bare group commit that wakes its waiter."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Aim, Row
from benchmarks.places import memory, sqlite
from benchmarks.side import Part, Side

NAME = "latency"
_RATE = 1_000


async def run(bench: Bench) -> list[Row]:
    options = {"rate": _RATE}
    count = _RATE * bench.size(1, 3, 10, 30) // (10 if bench.scale == "tiny" else 1)
    ours = (Part("benchmarks.parts.bus:latency", 0),)
    bare = Side(
        name="bare group commit",
        place=sqlite,
        parts=(Part("benchmarks.parts.apsw_commits:latency", 0),),
        count=count,
        options=options,
    )
    on_memory = Side(name="memory", place=memory, parts=ours, count=count, options=options)
    on_sqlite = Side(name="sqlite", place=sqlite, parts=ours, count=count, options=options)
    found = await bench.alternate(on_memory, on_sqlite, bare)
    rows = []
    for side, peer in ((on_memory, None), (on_sqlite, bare)):
        for point in ("p50", "p95", "p99"):
            aim = Aim("ratio", 1.5, at_least=False) if peer and point == "p99" else None
            of = value(point)
            rows.append(row(NAME, found, side, peer=peer, aim=aim, unit="ms", of=of, what=f"{side.name}, {point}"))
    return rows
