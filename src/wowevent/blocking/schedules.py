"""`bus.schedules` of the blocking bus: as the async bus has it, in blocking calls."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from wowevent.bus import EventBus
from wowevent.event import Event
from wowevent.schedule import ScheduleInfo

T = TypeVar("T")


class Ask(Protocol):
    """Asks the async bus, in its loop, and waits for the answer."""

    def __call__(self, job: Callable[[EventBus], Coroutine[Any, Any, T]], /) -> T:
        """What the job gives or raises."""
        ...


class Schedules:
    """Add, list and remove them. What is planned, this bus plans too as long as it is open."""

    def __init__(self, ask: Ask) -> None:
        """Nothing is asked before the first call."""
        self._ask = ask

    def add(
        self,
        name: str,
        event: Event | str,
        payload: Any = None,
        *,
        every: float | timedelta | None = None,
        cron: str | None = None,
        tz: str = "UTC",
        start: datetime | str | None = None,
        until: datetime | str | None = None,
        **fields: Any,
    ) -> ScheduleInfo:
        """Fire an event `every` so many seconds (1 at least), or when `cron` says so by the clocks of `tz`.

        `event` is one, or a topic, with `payload` and the other fields of an event. A schedule of that name is
        replaced, and one that says the same stays as it is. In a callback, what is fired inherits from the event being
        handled. Raises InvalidSchedule and InvalidEvent before anything is stored, BrokerError, Closed.
        """
        timing: dict[str, Any] = {"every": every, "cron": cron, "tz": tz, "start": start, "until": until}
        return self._ask(lambda bus: bus.schedules.add(name, event, payload, **timing, **fields))

    def remove(self, name: str) -> None:
        """Fire it no more; what is due within a second may still come. ScheduleNotFound, BrokerError, Closed."""
        self._ask(lambda bus: bus.schedules.remove(name))

    def list(self) -> Sequence[ScheduleInfo]:
        """All of them, by name. BrokerError, Closed."""
        return self._ask(lambda bus: bus.schedules.list())

    def get(self, name: str) -> ScheduleInfo:
        """One of them. ScheduleNotFound, BrokerError, Closed."""
        return self._ask(lambda bus: bus.schedules.get(name))
