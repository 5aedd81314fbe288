"""What the server counts of subscriptions: of one, or of all at once, which would be four questions for each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from wowevent.brokers.nats.consumers import Consumers
from wowevent.brokers.nats.letters import count
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.names import Names
from wowevent.brokers.nats.registry import Known

_LISTED: Final = 10_000  # subjects that are listed to be counted, at most; where there are more, the server counts


class Counts(Struct, frozen=True):
    """Of one subscription."""

    pending: int = 0
    """What its consumers have not delivered."""
    given: int = 0
    """What they have delivered, and nobody has settled."""
    delayed: int = 0
    dead: int = 0


class Seen(Struct, frozen=True):
    """What was asked for all at once. What is not in it is asked for."""

    consumers: Mapping[str, dict[str, Any]] = {}
    """What the server says of each, by name."""
    delayed: Mapping[str, int] | None = None
    """How many there are of each subscription, by its word; None: there are too many to tell."""
    dead: Mapping[str, int] | None = None


NOTHING: Final = Seen()


class Counting:
    """Of one namespace, by one link."""

    def __init__(self, link: Link, names: Names, consumers: Consumers) -> None:
        """Nothing is asked before it is needed."""
        self._link = link
        self._names = names
        self._consumers = consumers

    async def all(self) -> Seen:
        """What there is to know of all, as of now."""
        names = self._names
        listed, delayed, dead = await asyncio.gather(
            self._consumers.all(),
            self._by_owner(names.later, f"{names.prefix}l.r."),
            self._by_owner(names.dead, f"{names.prefix}d."),
        )
        return Seen(listed, delayed, dead)

    async def of(self, known: Known, seen: Seen = NOTHING) -> Counts:
        """Of a subscription."""
        names, id = self._names, known.id
        states = await self._consumers.states(self._consumers.wanted(known), seen.consumers)
        delayed, dead = await asyncio.gather(
            self._count(names.later, names.retries(id), seen.delayed),
            self._count(names.dead, names.letters(id), seen.dead),
        )
        return Counts(
            pending=sum(int(state.get("num_pending", 0)) for state in states),
            given=sum(int(state.get("num_ack_pending", 0)) for state in states),
            delayed=delayed,
            dead=dead,
        )

    async def _count(self, stream: str, prefix: str, seen: Mapping[str, int] | None) -> int:
        if seen is None:
            return await count(self._link, stream, f"{prefix}.>")
        return seen.get(prefix.rpartition(".")[2], 0)

    async def _by_owner(self, stream: str, prefix: str) -> Mapping[str, int] | None:
        """How many subjects `{prefix}{owner}.{…}` each owner has; None if they are too many to be listed."""
        total = await count(self._link, stream, f"{prefix}>")
        if not 0 < total <= _LISTED:
            return None if total else {}
        listed = (await self._link.ask(f"STREAM.INFO.{stream}", subjects_filter=f"{prefix}>"))["state"]
        return Counter(subject[len(prefix) :].partition(".")[0] for subject in listed.get("subjects") or ())
