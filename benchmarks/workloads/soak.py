"""soak: minutes at a steady rate with three named subscriptions, one flaky; the end beside what was after a quarter."""

from __future__ import annotations

import statistics

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.places import ENGINES
from benchmarks.side import Outcome, Part, Side

NAME = "soak"
_RATE = 2_000
_SLOWER = {"rabbitmq": 300}  # each event is four copies in quorum queues and a stream there, with one core for all
_LONG = 480  # seconds: ids are known for two minutes, and until then what knows them grows
_KEPT = (("rss_mib", "MiB"), ("fds", "files"), ("tasks", "tasks"), ("wal_mib", "MiB"))


async def run(bench: Bench) -> list[Row]:
    seconds = bench.size(1, 20, 120, 600)
    rows: list[Row] = []
    brief = bench.scale in {"tiny", "quick"}
    for engine in ("memory", "sqlite") if brief else ENGINES:
        rate = _SLOWER.get(engine, _RATE)
        side = Side(
            name=f"{engine}, {rate:,}/s",
            place=ENGINES[engine],
            parts=(Part("benchmarks.parts.soak:soak"),),
            count=rate * seconds,
            options={"rate": rate},
            timeout=2 * seconds + 120.0,
        )
        found = await bench.alternate(side, rounds=1)  # it is long; alternating it would say nothing more
        if side.name not in found:
            continue
        aim = Aim("ratio", 1.15, at_least=False) if seconds >= _LONG else None
        rows += [_row(found, side, kept, aim) for kept in _KEPT if any(_all(found, side, kept[0]))]
    return rows


def _all(found: dict[str, list[Outcome]], side: Side, name: str) -> list[float]:
    return found[side.name][0].samples[name]


def _row(found: dict[str, list[Outcome]], side: Side, kept: tuple[str, str], aim: Aim | None) -> Row:
    name, unit = kept
    samples = _all(found, side, name)
    look = largest if name == "wal_mib" else about
    quarter, end = look(samples, 0.25), look(samples, 1.0)
    one = row(NAME, found, side, unit=unit, of=lambda _: end, what=f"{side.name}, {name}")
    return Row(
        workload=NAME,
        what=one.what,
        unit=unit,
        figure=end,
        aim=aim,
        peer="after a quarter",
        peer_figure=quarter,
        ratio=end / quarter if quarter else None,
        figures=tuple(samples),
    )


def about(samples: list[float], share: float) -> float:
    """The median of the tenth of the samples that ends at this share of the run."""
    upto = max(1, round(share * len(samples)))
    return statistics.median(samples[max(0, upto - max(1, len(samples) // 10)) : upto])


def largest(samples: list[float], share: float) -> float:
    """The largest of the quarter that ends there: the write-ahead log is a saw, only its height says something."""
    upto = max(1, round(share * len(samples)))
    return max(samples[max(0, upto - max(1, len(samples) // 4)) : upto])
