"""nats-latency: publish to handler at 1,000 events a second, in one process beside the server's; and raw nats-py."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Row
from benchmarks.pace import POINTS, PROMPT, RATE, count
from benchmarks.places import CLIENT_CORE, nats
from benchmarks.side import Part, Side
from benchmarks.workloads.nats import SIZE

NAME = "nats-latency"


async def run(bench: Bench) -> list[Row]:
    ours, raw = sides(bench)
    found = await bench.alternate(ours, raw)
    return [
        row(NAME, found, ours, peer=raw, aim=PROMPT[point], unit="ms", of=value(point), what=f"nats, {point}")
        for point in POINTS
    ]


def sides(bench: Bench) -> tuple[Side, Side]:
    """Ours and the peer."""
    return _side(bench, "nats", "bus:latency"), _side(bench, "raw nats-py", "nats_stream:latency")


def _side(bench: Bench, name: str, part: str) -> Side:
    return Side(
        name=name,
        place=nats,
        parts=(Part(f"benchmarks.parts.{part}", CLIENT_CORE),),
        count=count(bench),
        options={"rate": RATE, "size": SIZE},
    )
