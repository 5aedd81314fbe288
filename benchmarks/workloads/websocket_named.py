"""websocket-named: publish to acknowledgement through the router on sqlite (FULL), one named subscription, 1 to 1."""

from __future__ import annotations

from benchmarks.bench import Bench, row
from benchmarks.figures import Row
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, behind_socket, sqlite
from benchmarks.side import Part, Side
from wowevent.router.session import CREDIT

NAME = "websocket-named"


async def run(bench: Bench) -> list[Row]:
    count = bench.size(200, 5_000, 20_000, 50_000)
    compared = [
        Side(
            name=f"sqlite, credit {credit:,}",
            place=behind_socket(sqlite),
            parts=(
                Part("benchmarks.parts.router:serve", ENGINE_CORE),
                Part("benchmarks.parts.acknowledging:named", CLIENT_CORE),
            ),
            count=count,
            options={"name": "worker", "credit": credit, "window": 500},
        )
        for credit in (CREDIT, 1_000)
    ]
    found = await bench.alternate(*compared)
    return [row(NAME, found, side) for side in compared]
