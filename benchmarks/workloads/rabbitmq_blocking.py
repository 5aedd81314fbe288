"""blocking: RabbitMQ, quorum, each publish confirmed, from one thread and from 16 that share a bus; beside raw pika."""

from __future__ import annotations

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.places import CLIENT_CORE, rabbitmq
from benchmarks.side import Part, Side
from benchmarks.workloads.rabbitmq import SIZE

NAME = "blocking"
_THREADS = 16


async def run(bench: Bench) -> list[Row]:
    ours, raw, ours_many, raw_many, raw_shared = sides(bench)
    found = await bench.alternate(ours, raw, ours_many, raw_many, raw_shared)
    return [
        row(NAME, found, ours, peer=raw, aim=Aim("ratio", 0.85, source="ours")),
        row(NAME, found, ours_many, peer=raw_shared, aim=Aim("ratio", 3.0, source="ours")),
        row(NAME, found, ours_many, peer=raw_many),
    ]


def sides(bench: Bench) -> tuple[Side, ...]:
    """Ours and pika with one thread; ours with 16, pika with a connection for each of them, and with one for all."""
    alone, many = bench.size(50, 2_000, 5_000, 10_000), bench.size(160, 4_000, 16_000, 32_000)
    ours, raw = "rabbitmq_blocking", "pika_threads"
    return (
        _side("blocking bus, 1 thread", ours, alone, 1),
        _side("raw pika, 1 thread", raw, alone, 1, peer="pika"),
        _side(f"blocking bus, {_THREADS} threads", ours, many, _THREADS),
        _side(f"raw pika, {_THREADS} threads, a connection each", raw, many, _THREADS, peer="pika"),
        _side(f"raw pika, {_THREADS} threads, one connection", raw, alone, _THREADS, peer="pika", shared=True),
    )


def _side(name: str, part: str, count: int, threads: int, *, peer: str | None = None, shared: bool = False) -> Side:
    """All threads on one core, the server on the other: on one for both, it is the server that 16 threads wait for."""
    return Side(
        name=name,
        place=rabbitmq,
        parts=(Part(f"benchmarks.parts.{part}:publisher", CLIENT_CORE, peer),),
        count=count,
        options={"threads": threads, "shared": shared, "size": SIZE},
    )
