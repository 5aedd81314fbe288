"""engines: what an event takes of publisher, consumer and server: 100 awaiting publishers, one named subscription."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench, row
from benchmarks.figures import Row
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, ENGINES
from benchmarks.side import Outcome, Part, Side

NAME = "engines"
_SLOW = 5  # RabbitMQ and NATS take several times as long, so they get fewer


async def run(bench: Bench) -> list[Row]:
    count = bench.size(200, 5_000, 30_000, 60_000)
    sides = {
        name: _side(name, count // _SLOW if name in {"rabbitmq", "nats"} else count)
        for name in ENGINES
        if bench.scale != "tiny" or name in {"memory", "redis"}  # the others' servers take long to start
    }
    found = await bench.alternate(*sides.values())
    rows: list[Row] = []
    for name, side in sides.items():
        if side.name not in found:
            continue
        rows.append(row(NAME, found, side))
        for who in _parts(name):
            micros = _micros(who, side)
            rows.append(row(NAME, found, side, unit="µs of a core an event", of=micros, what=f"{side.name}: {who}"))
    return rows


def _parts(engine: str) -> tuple[str, ...]:
    if engine == "memory":
        return ("process",)
    return ("publisher", "consumer") if engine == "sqlite" else ("publisher", "consumer", "engine")


def _micros(who: str, side: Side) -> Callable[[Outcome], float]:
    def micros(outcome: Outcome) -> float:
        return outcome.cpu_us if who == "process" else 1e6 * outcome.values[who] / side.count

    return micros


def _side(name: str, count: int) -> Side:
    """Server and publisher on one core, the consumer on the other; memory has one process."""
    module = "benchmarks.parts.metered"
    parts: tuple[Part, ...] = (Part(f"{module}:consumer", CLIENT_CORE), Part(f"{module}:publisher", ENGINE_CORE))
    if name == "memory":
        parts = (Part("benchmarks.parts.bus:both", CLIENT_CORE),)
    where = "one process on core 1" if name == "memory" else "consumer on core 1, the others on core 0"
    return Side(
        name=f"{name}, {where}", place=ENGINES[name], parts=parts, count=count, options={"publishers": 100}, timeout=300
    )
