"""What a handler can know of the delivery it is working on: Delivery, current(); and what its publishes inherit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

from msgspec import Struct

from wowevent.broker import Position
from wowevent.event import Event
from wowevent.lineage import LINEAGE, extended


class Delivery(Struct, frozen=True):
    """One delivery of one event to one subscription."""

    event: Event
    attempt: int
    """1 for the first; failures and crashes so far, and this one."""
    subscription: str
    """The subscription's id."""
    position: Position | None
    """Where the event lies in the log; None where it does not."""
    replayed: bool = False
    """This is a replay: the event was delivered when it happened."""
    redelivered: bool = False
    """This was sent again from the dead letters."""
    _token: str = ""
    _extend: Callable[[str, float], Awaitable[None]] | None = None
    via: str | None = None
    """What stands for the subscription in the lineage of what follows, where that is another name."""
    hops: int = 0
    """Of a batch: the most of any of its events. What follows has more, whichever of them it follows from."""
    outer: Delivery | None = None
    """Of a replay that a handler began: that handler's."""

    async def extend(self, seconds: float) -> None:
        """Ask for `seconds` from now before the event may be given to another consumer.

        Needed only by handlers that keep the event loop from running: the bus extends a running handler's lease itself.
        """
        if self._extend is not None:
            await self._extend(self._token, seconds)


def inherited(event: Event, parent: Event, subscription: str | None = None) -> dict[str, Any]:
    """The fields that an event takes from the one it follows from, which `subscription` handled.

    What an event says itself stays, but for its hops, which never shrink, and its lineage, which is not its own to say.
    """
    changes: dict[str, Any] = {
        "hops": max(event.hops, parent.hops + 1),
        "head": {**event.head, LINEAGE: extended(parent, subscription)},
    }
    if event.correlation_id == event.event_id:
        changes["correlation_id"] = parent.correlation_id
    for name in ("trace_id", "traceparent", "execution_id"):
        if getattr(event, name) is None and (value := getattr(parent, name)) is not None:
            changes[name] = value
    if event.parent_event_id is None:
        changes["parent_event_id"] = parent.event_id
    return changes


_current: ContextVar[Delivery | None] = ContextVar("wowevent_delivery", default=None)


def current() -> Delivery | None:
    """In a handler: its delivery. Elsewhere None."""
    return _current.get()


def followed() -> Delivery | None:
    """The delivery that what is published now follows from, if any: a replayed event happened long ago."""
    delivery = _current.get()
    while delivery is not None and delivery.replayed:
        delivery = delivery.outer
    return delivery


def following(event: Event, delivery: Delivery) -> dict[str, Any]:
    """`inherited`, for what is published while a delivery is handled."""
    changes = inherited(event, delivery.event, delivery.via or delivery.subscription)
    return changes | {"hops": max(changes["hops"], delivery.hops + 1)} if delivery.hops else changes


enter: Final[Callable[[Delivery | None], object]] = _current.set
"""Make it the current one of this task from here on; for who runs handlers, twice an event."""
