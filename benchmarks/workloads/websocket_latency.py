"""websocket-latency: publish to handler through the router on memory, at 1,000 events a second, 1 to 1."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Aim, Row
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, behind_socket, memory
from benchmarks.side import Part, Side

NAME = "websocket-latency"
_RATE = 1_000
_AIMS = {"p50": Aim("figure", 1.0, at_least=False), "p99": Aim("figure", 5.0, at_least=False)}


async def run(bench: Bench) -> list[Row]:
    count = _RATE * bench.size(1, 3, 10, 30) // (10 if bench.scale == "tiny" else 1)
    compared = [
        Side(
            name=name,
            place=behind_socket(memory),
            parts=(
                Part("benchmarks.parts.router:serve", ENGINE_CORE),
                Part(f"benchmarks.parts.paced:{function}", CLIENT_CORE),
            ),
            count=count,
            options={"rate": _RATE},
        )
        for name, function in (("EventRouterClient", "clients"), ("bare sockets", "sockets"))
    ]
    found = await bench.alternate(*compared)
    return [
        row(NAME, found, side, aim=_AIMS.get(point), unit="ms", of=value(point), what=f"{side.name}, {point}")
        for side in compared
        for point in ("p50", "p95", "p99")
    ]
