"""stored: publishing, consuming and looking into the history while much is stored already; on sqlite."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import side as sides
from benchmarks.bench import Bench, rate, row, value
from benchmarks.figures import Aim, Row
from benchmarks.places import given, sqlite
from benchmarks.side import Outcome, Part, Side

NAME = "stored"
_FLAT = Aim("ratio", 1.25, at_least=False, source="ours")


async def run(bench: Bench) -> list[Row]:
    sizes = {"tiny": (100, 1_000), "quick": (1_000, 10_000), "normal": (10_000, 100_000)}
    count = bench.size(100, 5_000, 10_000, 20_000)
    with tempfile.TemporaryDirectory(dir=bench.directory) as own:
        compared = [
            await _filled(bench, Path(own), size, count)
            for size in sizes.get(bench.scale, (10_000, 100_000, 1_000_000))
        ]
        found = await bench.alternate(*compared)
    rows: list[Row] = []
    kinds = (
        ("publish and handle", "µs an event", _micros),
        ("history of one correlation", "ms", value("correlation_ms")),
        ("first page of the history", "ms", value("first_page_ms")),
    )
    for what, unit, of in kinds:
        for side in compared:
            peer = compared[0] if side is not compared[0] else None
            named = f"{what}, {side.name}"
            rows.append(row(NAME, found, side, peer=peer, aim=_FLAT if peer else None, unit=unit, of=of, what=named))
    return rows


async def _filled(bench: Bench, directory: Path, size: int, count: int) -> Side:
    """A log of that size, made once; each run adds to it."""
    own = directory / str(size)
    own.mkdir()
    async with sqlite(own) as url:
        fill = Side(
            name=f"filling {size:,}", place=given(url), parts=(Part("benchmarks.parts.bus:filler"),), count=size,
            timeout=900.0,
        )  # fmt: skip
        await sides.run(fill, bench.directory)
    return Side(
        name=f"sqlite, {size:,} stored",
        place=given(url),
        parts=(Part("benchmarks.parts.bus:stored"),),
        count=count,
        options={"publishers": 100, "correlated": 20},
    )


def _micros(outcome: Outcome) -> float:
    return 1e6 / rate(outcome)
