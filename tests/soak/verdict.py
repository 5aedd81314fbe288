"""Whether what was sampled is flat: its last fifth beside its second quarter, when all that fills up has filled up."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

GROWTH: Final = 1.15
"""So many times as much is flat."""
SHORTEST: Final = 400.0
"""Seconds of a run below which nothing is said: ids are known for two minutes, and until then what knows them grows."""


class Rule(Struct, frozen=True):
    """What is sampled."""

    unit: str
    allowed: float
    """So much more is flat, too: a small number grows by a fifth when it grows by one."""
    look: Callable[[Sequence[float]], float] = statistics.median
    """What stands for a stretch of samples: of a saw only its height says something."""


RULES: Final = {
    "memory": Rule("MiB", 12),
    "handles": Rule("handles", 12),
    "tasks": Rule("tasks", 24),
    "ready": Rule("events", 100),
    "leased": Rule("events", 100),
    "delayed": Rule("events", 100),
    "dead": Rule("letters", 40),
    "subscriptions": Rule("subscriptions", 4),
    "server": Rule("MiB", 48),
    "disk": Rule("MiB", 72, max),
    "wal": Rule("MiB", 12, max),
}
"""By the first word of a series' name. `server` is the memory of an engine's server, which is killed now and then;
`disk` is all of an engine's files, of which redis-server (64 MiB) and RabbitMQ (32 MiB) rewrite some whole."""


class Sample(Struct, frozen=True, array_like=True):
    """One look."""

    at: float
    """Seconds since the load began."""
    value: float


class Finding(Struct, frozen=True):
    """One series, judged."""

    name: str
    unit: str
    before: float
    """The second quarter."""
    after: float
    """The last fifth."""
    bound: float
    """What the last fifth may be."""
    flat: bool | None
    """None if the run was too short to tell."""


def judged(name: str, samples: Sequence[Sample], seconds: float, shortest: float = SHORTEST) -> Finding | None:
    """A series of a load of so many seconds; None where nothing was seen in one of the two stretches."""
    rule = RULES[name.partition(" ")[0]]
    second = [each.value for each in samples if 0.25 <= each.at / seconds <= 0.5]
    last = [each.value for each in samples if 0.8 <= each.at / seconds <= 1.0]
    if not second or not last:
        return None
    before, after = rule.look(second), rule.look(last)
    bound = before * GROWTH + rule.allowed
    return Finding(name, rule.unit, before, after, bound, after <= bound if seconds >= shortest else None)
