"""routers: two routers on one engine beside one: anonymous fan-out, and a named subscription that clients share."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from benchmarks.bench import Bench, row
from benchmarks.figures import Row
from benchmarks.places import Place, behind_socket, redis_everysec, sqlite
from benchmarks.side import Outcome, Part, Side

NAME = "routers"
_PARTS: Final = ("benchmarks.parts.routers:first", "benchmarks.parts.routers:second")
_WINDOW: Final = 1_000  # events on their way, at all routers together
_CREDIT: Final = 256
_COSTS: Final = {
    "the routers together": lambda values: values["router_0"] + values.get("router_1", 0.0),
    "the busier router": lambda values: max(values["router_0"], values.get("router_1", 0.0)),
    "the engine": lambda values: values["engine"],
    "publishers and clients": lambda values: values["clients"],
}
"""Who took how many seconds of processor time."""


async def run(bench: Bench) -> list[Row]:
    few, many = bench.size(60, 1_000, 4_000, 10_000), bench.size(200, 5_000, 20_000, 50_000)
    crowd = 4 if bench.scale == "tiny" else 200
    rows: list[Row] = []
    engines = {"redis": redis_everysec, "sqlite": sqlite}
    for name, engine in engines.items():
        if bench.scale == "tiny" and name != "sqlite":
            continue
        for kind, function, clients, count in (
            (f"{crowd} anonymous clients", "fan_out", crowd, few),
            ("20 clients of one name", "share", 20, many),
        ):
            load = _Load(f"{name}, {kind}", function, clients, count)
            one, two = (_side(load, engine, number) for number in (1, 2))
            found = await bench.alternate(two, one)
            if not found:
                continue
            rows.append(row(NAME, found, two, peer=one))
            for side in (one, two):
                rows += [_cost(found, side, who) for who in _COSTS if who != "the engine" or name != "sqlite"]
    return rows


class _Load(Struct, frozen=True):
    name: str
    function: str
    clients: int
    count: int


def _side(load: _Load, engine: Place, routers: int) -> Side:
    """A server of the engine is on one core; everything else is on all that there are."""
    return Side(
        name=f"{load.name}, {routers} router{'s' * (routers > 1)} on any core",
        place=behind_socket(engine, routers),
        parts=(*(Part(function) for function in _PARTS[:routers]), Part(f"benchmarks.parts.routers:{load.function}")),
        count=load.count,
        options={"subscribers": load.clients, "window": _WINDOW, "credit": _CREDIT}
        | ({"name": "worker"} if load.function == "share" else {}),
    )


def _cost(found: dict[str, list[Outcome]], side: Side, who: str) -> Row:
    def micros(outcome: Outcome) -> float:
        return 1e6 * _COSTS[who](outcome.values) / side.count

    return row(NAME, found, side, unit="µs of a core an event", of=micros, what=f"{side.name}: {who}")
