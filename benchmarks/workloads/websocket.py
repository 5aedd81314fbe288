"""websocket: through the router on memory, to 1 and to 100 clients; beside a bare fan-out of the websockets library."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, behind_socket, memory
from benchmarks.side import Part, Side

NAME = "websocket"
_WINDOW = 500  # events on their way: 100 clients' outboxes and sockets hold that many with ease
_ROUTER, _BARE = "benchmarks.parts.router:serve", "benchmarks.parts.broadcast:fan_out"


async def run(bench: Bench) -> list[Row]:
    one, hundred = bench.size(300, 20_000, 60_000, 150_000), bench.size(100, 1_000, 3_000, 6_000)
    many = 3 if bench.scale == "tiny" else 100
    router = _side("router", _ROUTER, one, 1)
    bare = _side("bare fan-out", _BARE, one, 1)
    blind = _side("bare fan-out that confirms nothing", _BARE, one, 1, confirm=False)
    router_many = _side(f"router, to {many}", _ROUTER, hundred, many)
    batch_many = _side(f"router, to {many}, batch frames", _ROUTER, 5 * hundred, many, batch=True)
    bare_many = _side(f"bare fan-out, to {many}", _BARE, hundred, many)
    found = await bench.alternate(router, bare, blind, router_many, bare_many, batch_many)
    notes = ("server_cpu", "clients_cpu")
    return [
        row(NAME, found, router, peer=bare, aim=Aim("ratio", 1.0), notes=notes),
        row(NAME, found, router, peer=blind, notes=notes),
        row(NAME, found, router_many, peer=bare_many, aim=Aim("ratio", 1.2), notes=notes),
        row(NAME, found, batch_many, peer=bare_many, aim=Aim("ratio", 8.0), notes=notes),
    ]


def _side(name: str, server: str, count: int, subscribers: int, **options: Any) -> Side:
    """The server on one core, the publisher and all subscribers on the other."""
    return Side(
        name=name,
        place=behind_socket(memory),
        parts=(Part(server, ENGINE_CORE), Part("benchmarks.parts.sockets:fan_out", CLIENT_CORE)),
        count=count,
        options={"subscribers": subscribers, "window": _WINDOW, "confirm": True, **options},
    )
