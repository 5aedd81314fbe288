"""rabbitmq: quorum, confirmed, 100 awaiting publishers, one named subscription; beside raw aio-pika and FastStream."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.load import event
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, rabbitmq
from benchmarks.side import Part, Side
from wowevent.codec import encode

NAME = "rabbitmq"
SIZE: Final = len(encode(event(0)))
"""Bytes of what our bus stores for an event; what a peer sends is as long."""


async def run(bench: Bench) -> list[Row]:
    ours, raw, faststream = sides(bench)
    found = await bench.alternate(ours, raw, faststream)
    return [
        row(NAME, found, ours, peer=raw, aim=Aim("ratio", 0.9)),
        row(NAME, found, ours, peer=faststream, aim=Aim("ratio", 1.4)),
    ]


def sides(bench: Bench) -> tuple[Side, Side, Side]:
    """Ours and the two peers."""
    count = bench.size(400, 10_000, 30_000, 60_000)
    hundred = {"publishers": 100, "size": SIZE}
    ours = two_processes("rabbitmq", "rabbitmq_bus:consumer", "bus:publisher", count, hundred)
    raw = two_processes(
        "raw aio-pika gathered by 100", "rabbitmq_queue:consumer", "rabbitmq_queue:publisher", count, hundred
    )
    faststream = two_processes(
        "FastStream, quorum queue, acks",
        "faststream_rabbit:consumer",
        "faststream_rabbit:publisher",
        count,
        hundred,
        peer="faststream",
    )
    return ours, raw, faststream


def two_processes(
    name: str, consumer: str, publisher: str, count: int, options: dict[str, Any], *, peer: str | None = None
) -> Side:
    """Server and publisher on one core, the consumer on the other."""
    parts = (
        Part(f"benchmarks.parts.{consumer}", CLIENT_CORE, peer),
        Part(f"benchmarks.parts.{publisher}", ENGINE_CORE, peer),
    )
    return Side(name=name, place=rabbitmq, parts=parts, count=count, options=options)
