"""What a publisher is told of its events: that the engine has them, where they go, and who is not served."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from msgspec import Struct

from wowevent.attendance import Attendance
from wowevent.broker import Appended, Position
from wowevent.census import Census
from wowevent.clock import Clock
from wowevent.event import Event
from wowevent.tellings import Tellings

_NONE: Final[tuple[str, ...]] = ()


class Receipt(Struct, frozen=True, gc=False):
    """What `publish` says: the engine has the event, as durably as it promises."""

    event_id: str
    position: Position | None
    """Where it lies in the log; None for a delayed event."""
    duplicate: bool
    """An event of that id was there already; nothing was added."""
    matched: int
    """How many known subscriptions it goes to."""
    unserved: tuple[str, ...] = ()
    """The ids of those of them that nobody serves now, as far as this bus knows: it asks the engine every 5 s
    while it publishes, and of those named here each second; of a killed process the engine knows 15 s later."""

    def __bool__(self) -> bool:
        """Always true: what is not stored raises."""
        return True


class Receipts:
    """Made by one bus; who looks on is told along the way: attendance of the sources, senders of what nobody takes."""

    def __init__(
        self, census: Census, attendance: Attendance, tellings: Tellings, served: Container[str], clock: Clock
    ) -> None:
        """`served` are the ids of what the bus serves itself: of these it knows without asking."""
        self._census = census
        self._attendance = attendance
        self._tellings = tellings
        self._served = served
        self._clock = clock

    async def prepare(self, results: Sequence[Appended]) -> None:
        """Find out who is served, before the first of them; that is waited for where others may serve."""
        self._census.begin()
        if any(id not in self._served for result in results for id in result.matched):
            await self._census.known()

    def make(self, events: Sequence[Event], results: Sequence[Appended]) -> Sequence[Receipt]:
        """What became of each, with what the last look at the engine says of who is served."""
        census, attendance = self._census, self._attendance
        if attendance.front:
            attendance.heard(events)
        topics = attendance.topics
        census.asked, served = True, census.served
        receipts = []
        for event, result in zip(events, results, strict=True):
            matched, unserved = result.matched, _NONE
            if event.source_agent and event.topic not in topics.get(event.source_agent, ()):
                attendance.learn(event)
            if not matched:
                if event.target_agent is not None:
                    self._unmatched(event, result)
            elif served is not None and not served.issuperset(matched):
                unserved = tuple(id for id in census.unserved(matched) if id not in self._served)
            receipts.append(Receipt(event.event_id, result.position, result.duplicate, len(matched), unserved))
        return receipts

    def _unmatched(self, event: Event, result: Appended) -> None:
        """An event with a target that goes to nobody; of a delayed one that is not known before it leaves."""
        due = event.not_before is None or event.not_before.timestamp() <= self._clock.time()
        if due and not result.duplicate and event.replay_of is None:
            self._tellings.unmatched(event)
