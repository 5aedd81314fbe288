"""What senders are told: that nobody takes an event that they sent, and that one of theirs became a dead letter.

A telling is an event on `_bus.undeliverable` or `_bus.dead_letter`, targeted to the sender, so that its subscriptions
to these topics get its own ones and no others. It follows from the event that it is about: same correlation, its child.
Nobody waits for it: what is to be told goes, with what else gathered, behind the publish or the settlement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from msgspec import Struct, structs

from wowevent.broker import CONTROL, Appended, Bury, Reason
from wowevent.census import Census
from wowevent.delivery import inherited
from wowevent.directory import DEAD_LETTER, UNDELIVERABLE
from wowevent.ending import end
from wowevent.errors import BusError
from wowevent.event import Event
from wowevent.log import logger
from wowevent.routing import Routes

_MOST: Final = 1_000  # that wait; of more the newest are dropped, and counted
_TOGETHER: Final = 200
_AGE: Final = (
    1.0  # seconds that the answer may be old by which is decided whether a sender wants to hear of dead letters
)
_LONGEST: Final = 1_000  # characters of an error
_NOBODY: Final = "no subscription of that agent takes it"

Send = Callable[[Sequence[Event]], Awaitable[Sequence[Appended]]]


class _About(Struct, frozen=True):
    """An event, and what is told of it."""

    event: Event
    topic: str
    payload: dict[str, Any]


class Tellings:
    """Those of one bus."""

    def __init__(self, census: Census, send: Send) -> None:
        """`send` is the bus's way to the engine."""
        self.dropped: int = 0
        """Tellings that did not go out: there were too many, or the engine did not take them."""
        self._census = census
        self._send = send
        self._waiting: list[_About] = []
        self._telling: asyncio.Task[None] | None = None

    def unmatched(self, event: Event) -> None:
        """An event with a target was stored, and went to nobody, as far as its publisher knows."""
        if event.source_agent and not event.topic.startswith(CONTROL):
            target = event.target_agent
            said = {"event_id": event.event_id, "topic": event.topic, "target": target, "reason": _NOBODY}
            self._put(_About(event, UNDELIVERABLE, said))

    def buried(self, subscription: str, event: Event, bury: Bury) -> None:
        """An event is a dead letter of that subscription now. Of a storm the guard tells: ours would be part of it."""
        if bury.reason is Reason.LOOP_DETECTED:
            return
        if event.source_agent and not event.topic.startswith(CONTROL):
            said = {
                "event_id": event.event_id,
                "topic": event.topic,
                "subscription": subscription,
                "reason": bury.reason.value,
                "error": (bury.error or "")[:_LONGEST],
            }
            self._put(_About(event, DEAD_LETTER, said))

    async def flush(self, timeout: float) -> None:
        """Return when all of it was told, or after so many seconds."""
        if self._telling is not None and not self._telling.done():
            await asyncio.wait([self._telling], timeout=timeout)

    async def close(self) -> None:
        """Tell no more; what is left is dropped, and said."""
        await end(self._telling)
        self._drop(len(self._waiting), "the bus was stopped")
        self._waiting.clear()

    def _put(self, about: _About) -> None:
        if len(self._waiting) >= _MOST:
            self._drop(1, "too many wait")
            return
        self._waiting.append(about)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_all(), name="wowevent:tellings")

    async def _tell_all(self) -> None:
        while self._waiting:
            batch = self._waiting[:_TOGETHER]
            try:
                await self._tell(batch)
            except BusError as error:
                self._drop(len(batch), str(error))
            del self._waiting[: len(batch)]

    async def _tell(self, batch: Sequence[_About]) -> None:
        unmatched = any(about.topic == UNDELIVERABLE for about in batch)
        # Who publishes may know of a new subscription a moment late: what it says of nobody is looked at once more.
        routes = await self._census.look(0.0 if unmatched else _AGE)
        events = [event for about in batch if (event := _telling(about, routes)) is not None]
        if events:
            await self._send(events)

    def _drop(self, count: int, why: str) -> None:
        if count:
            self.dropped += count
            logger.error("senders are not told what became of their events", dropped=count, why=why)


def _telling(about: _About, routes: Routes) -> Event | None:
    """What the sender is told; None if the event has somebody after all, or if nobody would take the telling."""
    event = Event(topic=about.topic, target_agent=about.event.source_agent, payload=about.payload)
    event = structs.replace(event, **inherited(event, about.event))
    if about.topic == UNDELIVERABLE:
        return None if routes.match(about.event) else event
    return event if routes.match(event) else None
