"""Storms: how far a conversation may go, and whether an event has gone further. Pure.

an event      hops, lineage  -> exceeded(policy, …)  -> the limit that it is beyond, or None
a parked one  Storm          <-> what the processes share of it (`stored`, `storm_of`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec
from msgspec import Struct

from wowevent.event import Event
from wowevent.lineage import Lineage, visit

Limit = Literal["max_hops", "max_visits", "max_events"]

_STEPS: Final = 16  # of a path that are kept: those that were taken most


class StormPolicy(Struct, frozen=True, kw_only=True):
    """How far the events of one conversation may go. None or 0 is no such limit.

    A conversation is all that one event, published outside of handlers, has caused.
    """

    max_hops: int | None = 512
    """Events in a row, each caused by the one before."""
    max_visits: int | None = 128
    """How often one subscription handles one topic along one such row: what is caused in a circle."""
    max_events: int | None = 10_000
    """Events that one conversation causes, as one process sees them, until it is quiet for an hour."""

    def __post_init__(self) -> None:
        """ValueError for what is no limit."""
        for name in ("max_hops", "max_visits", "max_events"):
            most = getattr(self, name)
            if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 0):
                raise ValueError(f"{name}: {most!r} is not a whole number from 0 on, or None")


class Step(Struct, frozen=True):
    """A subscription on the way, what it handled there, and how often."""

    subscription: str
    topic: str
    visits: int


class Storm(Struct, frozen=True, kw_only=True):
    """A conversation that is parked: what went too far, where and when."""

    id: str
    """The event that it began with."""
    correlation_id: str
    """Of the event that was beyond the limit."""
    limit: Limit
    """Which limit."""
    most: int
    """And how much it allows."""
    path: tuple[Step, ...]
    """The way to that event, or its most frequent steps, in the order in which they were taken first."""
    since: float
    """Unix seconds."""
    who: str
    """The subscription that would have handled that event; of `max_events` the one that published it."""

    @property
    def why(self) -> str:
        """All of it in a sentence."""
        return f"storm: {_SAID[self.limit].format(self.most)} ({self.limit}): {in_words(self.path)}"


_SAID: Final[Mapping[Limit, str]] = {
    "max_hops": "more than {:,} events caused one by another",
    "max_visits": "a subscription was to handle one topic more than {:,} times in a row of causes",
    "max_events": "more than {:,} events caused in one conversation",
}


class Guard(Protocol):
    """What those who hand out events ask beforehand."""

    @property
    def alert(self) -> bool:
        """Whether any conversation is parked; else an event without hops need not be looked at."""
        ...

    def stops(self, subscription: str, event: Event, *, redelivered: bool = False) -> str | None:
        """Why an event must not be handled there; None if it may."""
        ...


def exceeded(policy: StormPolicy, event: Event, lineage: Lineage, subscription: str, times: int = 1) -> Limit | None:
    """The limit that an event is beyond before `subscription` handles it; each counts `times` as much.

    A visit too many is noticed at once by who would make it, and one step later by all, since not everybody looks.
    """
    if policy.max_hops and event.hops > policy.max_hops * times:
        return "max_hops"
    if policy.max_visits and lineage.visits:
        most = policy.max_visits * times
        if lineage.visits.get(visit(subscription, event.topic), 0) >= most or max(lineage.visits.values()) > most:
            return "max_visits"
    return None


def path_of(lineage: Lineage) -> tuple[Step, ...]:
    """The steps that were taken most, in the order of the first time."""
    kept = set(sorted(lineage.visits, key=lineage.visits.__getitem__, reverse=True)[:_STEPS])
    return tuple(Step(*_parts(key), count) for key, count in lineage.visits.items() if key in kept)


def in_words(path: Sequence[Step]) -> str:
    """`planner (plan.step) x32 -> worker (task.done) x32`."""
    return " -> ".join(f"{step.subscription} ({step.topic}) x{step.visits}" for step in path) or "no step is known"


def stored(storm: Storm) -> dict[str, Any]:
    """What processes tell each other of one that is parked."""
    found: dict[str, Any] = msgspec.to_builtins(storm)
    return found


def storm_of(value: object) -> Storm | None:
    """The same read; None for what is none."""
    try:
        return msgspec.convert(value, Storm)
    except msgspec.ValidationError:
        return None


def _parts(key: str) -> tuple[str, str]:
    subscription, _, topic = key.rpartition(" ")
    return subscription, topic
