"""rabbitmq-latency: publish to handler at 1,000 events a second, in one process beside the server's; and aio-pika."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Aim, Row
from benchmarks.pace import POINTS, RATE, count
from benchmarks.places import CLIENT_CORE, rabbitmq
from benchmarks.side import Part, Side
from benchmarks.workloads.rabbitmq import SIZE

NAME = "rabbitmq-latency"
_AIM = Aim("ratio", 1.1, at_least=False)


async def run(bench: Bench) -> list[Row]:
    ours, raw = sides(bench)
    found = await bench.alternate(ours, raw)
    return [
        row(NAME, found, ours, peer=raw, aim=_AIM, unit="ms", of=value(point), what=f"rabbitmq, {point}")
        for point in POINTS
    ]


def sides(bench: Bench) -> tuple[Side, Side]:
    """Ours and the peer."""
    return _side(bench, "rabbitmq", "bus:latency"), _side(bench, "raw aio-pika", "rabbitmq_queue:latency")


def _side(bench: Bench, name: str, part: str) -> Side:
    return Side(
        name=name,
        place=rabbitmq,
        parts=(Part(f"benchmarks.parts.{part}", CLIENT_CORE),),
        count=count(bench),
        options={"rate": RATE, "size": SIZE},
    )
