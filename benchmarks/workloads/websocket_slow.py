"""websocket-slow: how late events come to a thousand clients while one more has stopped reading and is cut off."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Aim, Row
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, behind_socket, memory
from benchmarks.side import Part, Side

NAME = "websocket-slow"
_RATE = 20
_LARGE = 48 * 1024  # bytes of what only the one gets that does not read, so that it is cut off within the run


async def run(bench: Bench) -> list[Row]:
    clients = bench.size(20, 1_000, 1_000, 1_000)
    count = _RATE * bench.size(1, 15, 20, 60)
    all_read = _side(f"{clients:,} clients, all read", clients, count, stopped=False, cut=0)
    one_stops = _side(f"{clients:,} clients, and one that does not read", clients, count, stopped=True,
                      cut=0 if bench.scale == "tiny" else 1)  # fmt: skip
    found = await bench.alternate(all_read, one_stops)
    aim = Aim("ratio", 2.0, at_least=False, source="QUALITY 3")
    return [
        row(
            NAME, found, one_stops, peer=all_read, aim=aim if point == "p99" else None, unit="ms", of=value(point),
            what=f"{one_stops.name}, {point}",
        )
        for point in ("p50", "p99")
    ]  # fmt: skip


def _side(name: str, clients: int, count: int, *, stopped: bool, cut: int) -> Side:
    return Side(
        name=name,
        place=behind_socket(memory),
        parts=(
            Part("benchmarks.parts.router:serve", ENGINE_CORE),
            Part("benchmarks.parts.crowd:readers", CLIENT_CORE),
        ),
        count=count,
        options={"clients": clients, "stopped": stopped, "cut": cut, "rate": _RATE, "large": _LARGE},
    )
