"""subscriptions: what publishing costs while many subscriptions are remembered that do not match, and one that does."""

from __future__ import annotations

from benchmarks.bench import Bench, rate, row
from benchmarks.figures import Aim, Row
from benchmarks.places import ENGINES
from benchmarks.side import Outcome, Part, Side

NAME = "subscriptions"
_LEAST = 1


async def run(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    for engine in ("memory", "sqlite"):
        count = bench.size(200, 10_000, 20_000, 40_000)
        known = (_LEAST, 10) if bench.scale == "tiny" else (_LEAST, 10, 100, 1_000)
        sides = [_side(engine, others, count) for others in known]
        found = await bench.alternate(*sides)
        for side in sides:
            peer = sides[0] if side is not sides[0] else None
            aim = Aim("ratio", 1.25, at_least=False, source="ours") if peer else None
            rows.append(row(NAME, found, side, peer=peer, aim=aim, unit="µs an event", of=_micros))
    return rows


def _side(engine: str, others: int, count: int) -> Side:
    return Side(
        name=f"{engine}, {others:,} others",
        place=ENGINES[engine],
        parts=(Part("benchmarks.parts.bus:crowd", 0),),
        count=count,
        options={"others": others, "publishers": 100},
    )


def _micros(outcome: Outcome) -> float:
    return 1e6 / rate(outcome)
