"""idle: what a named subscription costs that gets nothing: in a process of its own, and of a WebSocket client."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, row, value
from benchmarks.figures import Row
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, ENGINES, behind_socket
from benchmarks.side import Part, Side

NAME = "idle"
_FIGURES = {
    "kib": "KiB each", "percent": "% of a core, all", "declared_ms": "ms to subscribe, each",
    "engine_kib": "KiB of the server each", "engine_percent": "% of a core of the server, all",
}  # fmt: skip


async def run(bench: Bench) -> list[Row]:
    tiny = bench.scale == "tiny"
    options = {"settle": 0.1 if tiny else 2.0, "idle": 0.2 if tiny else 5.0}
    names = ["memory", "sqlite"] if tiny else list(ENGINES)
    compared = {name: _side(bench, name, options) for name in names}
    clients = {name: _clients(bench, name, options) for name in names}
    found = await bench.alternate(*compared.values(), *clients.values())
    rows: list[Row] = []
    for name, side in compared.items():
        figures = [each for each in _FIGURES if name not in {"memory", "sqlite"} or not each.startswith("engine")]
        figures = ["percent", "declared_ms"] if tiny else figures  # memory grows by pages
        if side.name in found:
            rows += [row(NAME, found, side, unit=_FIGURES[each], of=value(each)) for each in figures]
    for side in clients.values():
        if side.name in found:
            rows.append(row(NAME, found, side, unit="KiB each", of=value("kib_each")))
            rows.append(row(NAME, found, side, unit="% of a core, all", of=value("cpu_percent")))
    return rows


def _count(bench: Bench, name: str) -> int:
    """A queue of RabbitMQ is a Raft group of its own: fewer of them."""
    return bench.size(10, 100, 200, 200) if name == "rabbitmq" else bench.size(20, 300, 1_000, 1_000)


def _side(bench: Bench, name: str, options: dict[str, Any]) -> Side:
    count = _count(bench, name)
    return Side(
        name=f"{name}, {count:,} named subscriptions in one process",
        place=ENGINES[name],
        parts=(Part("benchmarks.parts.metered:idle", CLIENT_CORE),),
        count=count,
        options=options,
        timeout=300,
    )


def _clients(bench: Bench, name: str, options: dict[str, Any]) -> Side:
    count = _count(bench, name)
    return Side(
        name=f"{name}, {count:,} WebSocket clients with a named subscription each",
        place=behind_socket(ENGINES[name]),
        parts=(
            Part("benchmarks.parts.router:serve_idle", ENGINE_CORE),
            Part("benchmarks.parts.crowd:idle", CLIENT_CORE),
        ),
        count=count,
        options={**options, "agents": False, "named": True},
        timeout=300,
    )
