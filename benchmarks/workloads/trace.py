"""trace: what it takes to tell a conversation of 100 events in a long log, on each engine."""

from __future__ import annotations

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Aim, Row
from benchmarks.places import ENGINES
from benchmarks.side import Part, Side

NAME = "trace"
_ASKED = {
    "first_root": "the log's first one, by its root",
    "first_leaf": "by a leaf",
    "first_named": "by an event of one that is called order-7",
    "last_root": "its last one, by its root",
    "last_leaf": "by a leaf",
}
_SLOW = 5  # RabbitMQ and NATS take several times as long to fill
_PROMPT = ("memory", "sqlite")


async def run(bench: Bench) -> list[Row]:
    tiny = bench.scale == "tiny"
    count = bench.size(2_000, 20_000, 200_000, 1_000_000)
    sides = {
        name: Side(
            name=f"{name}, {many:,} events",
            place=place,
            parts=(Part("benchmarks.parts.bus:tracer"),),
            count=many,
            options={"apart": 0 if tiny else 31},
            timeout=900.0,
        )
        for name, place in ENGINES.items()
        if not tiny or name in {"memory", "redis"}  # the others' servers take long to start
        for many in (count // _SLOW if name in {"rabbitmq", "nats"} else count,)
    }
    found = await bench.alternate(*sides.values())
    rows: list[Row] = []
    for name, side in sides.items():
        if side.name in found:
            aim = Aim("figure", 1_000, at_least=False, source="ours") if name in _PROMPT else None
            rows += [
                row(NAME, found, side, unit="ms", of=value(f"{asked}_ms"), aim=aim, what=f"{side.name}: {said}")
                for asked, said in _ASKED.items()
            ]
    return rows
