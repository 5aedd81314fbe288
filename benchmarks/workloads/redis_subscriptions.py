"""redis-subscriptions: 1,000 idle named subscriptions in one process: connections, processor time, and publishing."""

from __future__ import annotations

from benchmarks.bench import Bench, rate, row, value
from benchmarks.figures import Aim, Row
from benchmarks.places import CLIENT_CORE, redis_everysec
from benchmarks.side import Outcome, Part, Side

NAME = "redis-subscriptions"
_FLAT = Aim("ratio", 1.2, at_least=False, source="ours")


async def run(bench: Bench) -> list[Row]:
    few = _side(bench, 1)
    many = _side(bench, 10 if bench.scale == "tiny" else 1_000)
    found = await bench.alternate(few, many)
    rows = [row(NAME, found, many, unit="connections", of=value("connections"), what=f"{many.name}: connections")]
    for side in (few, many):
        for who in ("client", "server"):
            what = f"{side.name}: {who}, idle"
            rows.append(row(NAME, found, side, unit="% of a core", of=value(f"{who}_percent"), what=what))
    for of, what in ((_publish_micros, "publish"), (_micros, "publish and handle")):
        named = f"{many.name}: {what}"
        rows.append(row(NAME, found, many, peer=few, aim=_FLAT, unit="µs an event", of=of, what=named))
    return rows


def _side(bench: Bench, others: int) -> Side:
    tiny = bench.scale == "tiny"
    return Side(
        name=f"redis, {others:,} idle",
        place=redis_everysec,
        parts=(Part("benchmarks.parts.redis_server:served", CLIENT_CORE),),
        count=bench.size(200, 10_000, 30_000, 60_000),
        options={
            "others": others,
            "publishers": 100,
            "settle": 0.1 if tiny else 2.0,
            "idle": 0.2 if tiny else bench.size(1, 5, 20, 20),
        },
    )


def _micros(outcome: Outcome) -> float:
    return 1e6 / rate(outcome)


def _publish_micros(outcome: Outcome) -> float:
    return 1e6 / outcome.values["publish_rate"]
