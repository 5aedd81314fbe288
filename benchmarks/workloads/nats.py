"""nats: on file, 100 awaiting publishers, one named subscription; beside raw nats-py and FastStream."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row
from benchmarks.load import event
from benchmarks.places import CLIENT_CORE, ENGINE_CORE, Place, nats, nats_always
from benchmarks.side import Part, Side
from wowevent.codec import encode

NAME = "nats"
SIZE: Final = len(encode(event(0)))
"""Bytes of what our bus stores for an event; what a peer sends is as long."""


async def run(bench: Bench) -> list[Row]:
    ours, raw, known, faststream, synced, raw_synced = sides(bench)
    found = await bench.alternate(ours, raw, known, faststream, synced, raw_synced)
    return [
        row(NAME, found, ours, peer=raw, aim=Aim("ratio", 0.8)),
        row(NAME, found, ours, peer=known),
        row(NAME, found, ours, peer=faststream, aim=Aim("ratio", 2.0)),
        row(NAME, found, synced, peer=raw_synced, aim=Aim("ratio", 0.8)),
    ]


def sides(bench: Bench) -> tuple[Side, ...]:
    """Ours and the peers; then ours and the raw one where each confirm is of what is on disk."""
    count, few = bench.size(400, 10_000, 50_000, 100_000), bench.size(100, 1_000, 5_000, 10_000)
    hundred = {"publishers": 100, "size": SIZE}
    raw = ("nats_stream:consumer", "nats_stream:publisher")
    return (
        two_processes("nats", "bus:consumer", "bus:publisher", count, hundred),
        two_processes("raw nats-py gathered by 100", *raw, count, hundred),
        two_processes("raw nats-py gathered by 100, with ids", *raw, count, {"ids": True, **hundred}),
        # A fifth of the events: it takes several times as long.
        two_processes(
            "FastStream, JetStream durable",
            "faststream_nats:consumer",
            "faststream_nats:publisher",
            count // 5,
            hundred,
            peer="faststream",
        ),
        two_processes("nats, sync always", "bus:consumer", "bus:publisher", few, hundred, place=nats_always),
        two_processes("raw nats-py gathered by 100, sync always", *raw, few, hundred, place=nats_always),
    )


def two_processes(
    name: str,
    consumer: str,
    publisher: str,
    count: int,
    options: dict[str, Any],
    *,
    peer: str | None = None,
    place: Place = nats,
) -> Side:
    """Server and publisher on one core, the consumer on the other."""
    parts = (
        Part(f"benchmarks.parts.{consumer}", CLIENT_CORE, peer),
        Part(f"benchmarks.parts.{publisher}", ENGINE_CORE, peer),
    )
    return Side(name=name, place=place, parts=parts, count=count, options=options)
