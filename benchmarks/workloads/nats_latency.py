"""nats-latency: publish to handler at 1,000 events a second, in one process beside the server's; and raw nats-py."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Aim, Row
from benchmarks.places import CLIENT_CORE, nats
from benchmarks.side import Part, Side
from benchmarks.workloads.nats import SIZE

NAME = "nats-latency"
_RATE = 1_000
_AIMS = {"p50": Aim("figure", 1.0, at_least=False), "p99": Aim("figure", 5.0, at_least=False)}


async def run(bench: Bench) -> list[Row]:
    ours, raw = sides(bench)
    found = await bench.alternate(ours, raw)
    return [
        row(NAME, found, ours, peer=raw, aim=_AIMS.get(point), unit="ms", of=value(point), what=f"nats, {point}")
        for point in ("p50", "p95", "p99")
    ]


def sides(bench: Bench) -> tuple[Side, Side]:
    """Ours and the peer."""
    return _side(bench, "nats", "bus:latency"), _side(bench, "raw nats-py", "nats_stream:latency")


def _side(bench: Bench, name: str, part: str) -> Side:
    return Side(
        name=name,
        place=nats,
        parts=(Part(f"benchmarks.parts.{part}", CLIENT_CORE),),
        count=_RATE * bench.size(1, 3, 10, 30) // (10 if bench.scale == "tiny" else 1),
        options={"rate": _RATE, "size": SIZE},
    )
