"""Whether a target has what its source has: both read side by side, a digest of each, and the first that differs."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Literal

from msgspec import Struct

from wowevent.broker import Broker, Position, Stored
from wowevent.codec import encode
from wowevent.copying.past import Past, Told, facts, is_newer, once
from wowevent.event import Event

Kind = Literal["missing", "changed", "misplaced", "twice"]

_SAID: Final = {
    "missing": "is not at the target",
    "changed": "is another event at the target",
    "misplaced": "lies at the target before one that it came after",
    "twice": "is at the target twice",
}


class Difference(Struct, frozen=True, kw_only=True):
    """The first event that is not the same."""

    kind: Kind
    event_id: str
    topic: str
    position: Position
    """Where it lies in the source."""

    def __str__(self) -> str:
        """One sentence, without its end."""
        return f"{self.topic} {self.event_id}, at {self.position} of the source, {_SAID[self.kind]}"


class Compared(Struct, frozen=True, kw_only=True):
    """What was found."""

    events: int
    """The same at both."""
    facts: int
    """The same at both, or newer at the target."""
    others: int
    """Events of the target that are none of the source's."""
    source: str
    """SHA-256 over id, topic and envelope of each event, in hex."""
    target: str
    """The same of what was read back; of events that are no part of the source, nothing goes in."""
    position: Position
    """Up to here of the source."""
    difference: Difference | None


class _Digest:
    """Of events, in their order."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, event: Event) -> bytes:
        """Take one in; its envelope. What is before the envelope says where that ends."""
        body = encode(event)
        self._sha.update(f"{event.event_id}\n{event.topic}\n{len(body)}\n".encode())
        self._sha.update(body)
        return body

    def __str__(self) -> str:
        return self._sha.hexdigest()


class _Comparison:
    """The target, looked through as the source is."""

    def __init__(self, target: AsyncGenerator[Stored]) -> None:
        self.source: _Digest = _Digest()
        self.target: _Digest = _Digest()
        self.events: int = 0
        self.others: set[str] = set()
        self._target = target

    async def same(self, stored: Stored) -> Difference | None:
        """Find the source's next event at the target; what is wrong with it."""
        body = self.source.add(stored.event)
        id = stored.event.event_id
        async for found in self._target:
            if found.event.event_id == id:
                if self.target.add(found.event) != body:
                    return difference("changed", stored)
                self.events += 1
                return None
            self.others.add(found.event.event_id)
        return difference("misplaced" if id in self.others else "missing", stored)

    async def rest(self) -> None:
        """What the target has behind the last one of the source."""
        self.others.update([stored.event.event_id async for stored in self._target])


def difference(kind: Kind, stored: Stored) -> Difference:
    """That difference of the source's event."""
    event = stored.event
    return Difference(kind=kind, event_id=event.event_id, topic=event.topic, position=stored.position)


async def compare(
    source: Broker,
    target: Broker,
    upto: Position,
    behind: Position | None = None,
    told: Told = lambda _count, _part: None,
) -> Compared:
    """The source up to a position, with what the target has behind another one. BrokerError.

    The target may have other events, before, between and behind; of the source's each one, once, in their order.
    What lies in its place cannot be read from a damaged source, so that is compared with nothing.
    """
    past = once(Past(source, None, upto).read(told))
    async with aclosing(Past(target, behind).read()) as there, aclosing(past) as here:
        found, wrong = _Comparison(there), None
        async for stored in here:
            if (wrong := await found.same(stored)) is not None:
                break
        else:
            await found.rest()
    if wrong is None and found.others:
        wrong = await _twice(source, upto, found.others)
    count, changed = await _facts(source, target)
    return Compared(
        events=found.events,
        facts=count,
        others=len(found.others),
        source=str(found.source),
        target=str(found.target),
        position=upto,
        difference=wrong or changed,
    )


async def _twice(source: Broker, upto: Position, others: set[str]) -> Difference | None:
    """The first event of the source among those of the target that seemed to be others."""
    async with aclosing(Past(source, None, upto).read()) as events:
        async for stored in events:
            if stored.event.event_id in others:
                return difference("twice", stored)
    return None


async def _facts(source: Broker, target: Broker) -> tuple[int, Difference | None]:
    """How many facts are the same or newer at the target, and the first that is neither."""
    there, here = await facts(target), await facts(source)
    for count, (topic, stored) in enumerate(here.items()):
        if topic not in there:
            return count, difference("missing", stored)
        fact, known = stored.event, there[topic].event
        same = known.event_id == fact.event_id
        if is_newer(fact, known) or (same and encode(known) != encode(fact)):
            return count, difference("changed", stored)
    return len(here), None
