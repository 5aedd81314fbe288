"""rabbitmq-one: quorum, one publisher that awaits each, to one named subscription; beside raw aio-pika awaited."""

from __future__ import annotations

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.side import Side
from benchmarks.workloads.rabbitmq import SIZE, two_processes

NAME = "rabbitmq-one"


async def run(bench: Bench) -> list[Row]:
    ours, raw = sides(bench)
    found = await bench.alternate(ours, raw)
    return [row(NAME, found, ours, peer=raw, aim=Aim("ratio", 0.85))]


def sides(bench: Bench) -> tuple[Side, Side]:
    """Ours and the peer."""
    count = bench.size(50, 2_000, 5_000, 10_000)
    options = {"one": True, "size": SIZE}
    raw = "rabbitmq_queue"
    return (
        two_processes("rabbitmq, to one named subscription", "rabbitmq_bus:consumer", "bus:publisher", count, options),
        two_processes("raw aio-pika awaiting each", f"{raw}:consumer", f"{raw}:publisher", count, options),
    )
