"""nats-one: on file, one publisher that awaits each, to one named subscription; beside raw nats-py awaited."""

from __future__ import annotations

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.side import Side
from benchmarks.workloads.nats import SIZE, two_processes

NAME = "nats-one"


async def run(bench: Bench) -> list[Row]:
    ours, raw = sides(bench)
    found = await bench.alternate(ours, raw)
    return [row(NAME, found, ours, peer=raw, aim=Aim("ratio", 0.85))]


def sides(bench: Bench) -> tuple[Side, Side]:
    """Ours and the peer."""
    count, options = bench.size(50, 2_000, 10_000, 20_000), {"one": True, "size": SIZE}
    raw = ("nats_stream:consumer", "nats_stream:publisher")
    return (
        two_processes("nats, to one named subscription", "bus:consumer", "bus:publisher", count, options),
        two_processes("raw nats-py awaiting each", *raw, count, options),
    )
