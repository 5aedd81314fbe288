"""websocket-latency: publish to handler through the router on memory, at 1,000 events a second, 1 to 1."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Row
from benchmarks.pace import POINTS, PROMPT, RATE, count
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, behind_socket, memory
from benchmarks.side import Part, Side

NAME = "websocket-latency"
_ROUTER, _BARE = "benchmarks.parts.router:serve", "benchmarks.parts.broadcast:fan_out"


async def run(bench: Bench) -> list[Row]:
    clients = _side(bench, "EventRouterClient", _ROUTER, "clients")
    sockets = _side(bench, "bare sockets", _ROUTER, "sockets")
    bare = _side(bench, "bare sockets, bare fan-out", _BARE, "sockets")
    found = await bench.alternate(clients, sockets, bare)
    return [
        row(NAME, found, side, peer=peer, aim=PROMPT[point], unit="ms", of=value(point), what=f"{side.name}, {point}")
        for side, peer in ((clients, None), (sockets, bare))
        for point in POINTS
    ]


def _side(bench: Bench, name: str, server: str, function: str) -> Side:
    return Side(
        name=name,
        place=behind_socket(memory),
        parts=(Part(server, ENGINE_CORE), Part(f"benchmarks.parts.paced:{function}", CLIENT_CORE)),
        count=count(bench),
        options={"rate": RATE, "confirm": True},
    )
