"""What all latency workloads have in common: how many events a second, how many in all, and the aims."""

from __future__ import annotations

from typing import Final

from benchmarks.bench import Bench
from benchmarks.figures import Aim

RATE: Final = 1_000
POINTS: Final = ("p50", "p95", "p99")
ANCESTORS: Final = {
    "p50": Aim("figure", 5.0, at_least=False, source="W14"),
    "p95": Aim("figure", 20.0, at_least=False, source="W14"),
    "p99": Aim("figure", 50.0, at_least=False, source="W14"),
}
"""In milliseconds."""
PROMPT: Final = ANCESTORS | {"p50": Aim("figure", 1.0, at_least=False), "p99": Aim("figure", 5.0, at_least=False)}
"""What the design wants of redis, nats and WebSocket."""


def count(bench: Bench) -> int:
    """Events: so many seconds of them."""
    return RATE * bench.size(1, 3, 10, 30) // (10 if bench.scale == "tiny" else 1)
