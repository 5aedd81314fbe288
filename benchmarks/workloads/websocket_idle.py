"""websocket-idle: what a client costs the router that has one subscription and says nothing."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Aim, Row
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, behind_socket, memory
from benchmarks.side import Part, Side

NAME = "websocket-idle"
_KIB = Aim("figure", 40, at_least=False)


async def run(bench: Bench) -> list[Row]:
    thousand = bench.size(20, 1_000, 1_000, 1_000)
    tiny = bench.scale == "tiny"
    options = {"settle": 0.1 if tiny else 1.0, "idle": 0.2 if tiny else 5.0}
    compared = [
        _side(f"{count:,} clients{said}", count, {**options, "agents": agents})
        for count, agents, said in (
            (thousand, False, ""),
            (2 * thousand, False, ""),
            (thousand, True, ", each an agent of its own"),
        )
    ]
    # Memory is the same each time, and a round takes half a minute.
    found = await bench.alternate(*compared, rounds=1 if bench.scale == "quick" else None)
    rows = [row(NAME, found, side, aim=_KIB, unit="KiB each", of=value("kib_each")) for side in compared]
    rows += [row(NAME, found, side, unit="% of a core", of=value("cpu_percent")) for side in compared]
    return rows


def _side(name: str, count: int, options: dict) -> Side:
    return Side(
        name=name,
        place=behind_socket(memory),
        parts=(
            Part("benchmarks.parts.router:serve_idle", ENGINE_CORE),
            Part("benchmarks.parts.crowd:idle", CLIENT_CORE),
        ),
        count=count,
        options=options,
    )
