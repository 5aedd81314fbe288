"""Schedules: events that are fired at their moments, each once among all processes, without anybody in charge.

What is scheduled is a fact that all share. Every started bus plans each schedule's next moment: it publishes the event
with the moment as its `not_before` and an id that is the same wherever it is made, so the engine holds one of them and
lets it go when it is due. When that moment has passed, the next one is planned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct, structs

from wowevent.clock import Clock
from wowevent.directory import Directory
from wowevent.ending import end
from wowevent.errors import BusError, InvalidSchedule, ScheduleNotFound, shown
from wowevent.event import Event
from wowevent.log import logger
from wowevent.schedule import Schedule, ScheduleInfo, Time, info_of, make, of_fact, to_fact

MOST: Final = 1_000
"""Schedules of a namespace."""
_KIND: Final = "schedule"
_FIRED: Final = "fired"
_FIRST: Final = 1.0  # seconds before a bus plans at all: a command is over by then, and need not say what others say
_NEAR: Final = timedelta(seconds=0.25)  # what is nearer others have planned: it would come when it may have left
_LOOK: Final = 5.0  # seconds between two looks at the clock at most: it can be set
_AGAIN: Final = 300.0  # seconds after which what is planned is said again: an engine can be emptied
_SOON: Final = 1.0  # seconds until what could not be done is tried again
_NOTED: Final = timedelta(seconds=10)  # firings that follow each other more closely are not noted one by one


class _Receipt(Protocol):
    @property
    def event_id(self) -> str: ...
    @property
    def duplicate(self) -> bool: ...


Send = Callable[[Sequence[Event]], Awaitable[Sequence[_Receipt]]]


class _Plan(Struct, frozen=True):
    """What this process has planned of a schedule."""

    schedule: Schedule
    moment: datetime | None
    said: float


class _Note(Struct, frozen=True):
    """What somebody has planned, and what had been fired before that."""

    moment: Time
    before: Time | None = None


class Schedules:
    """`bus.schedules`: add, list and remove them; and the planner of this process."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        *,
        model: Callable[[Event], Event],
        send: Send,
        cancel: Callable[[str], Awaitable[bool]],
    ) -> None:
        """`model` makes of an event what a publish would store now, or raises as that does."""
        self._directory = directory
        self._clock = clock
        self._model = model
        self._send = send
        self._cancel = cancel
        self._known: dict[str, Schedule] = {}
        self._notes: dict[str, _Note] = {}
        self._plans: dict[str, _Plan] = {}
        self._stray: list[str] = []  # ids of what was planned, and is not wanted any more
        self._news = asyncio.Event()
        self._troubled = False
        self._keeping: asyncio.Task[None] | None = None
        directory.watch(_KIND, self._changed)
        directory.watch(_FIRED, self._noted)

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Plan from now on. Starting twice is starting once."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep(), name="wowevent:schedules")

    async def close(self) -> None:
        """Plan no more; what is planned is fired all the same."""
        await end(self._keeping)

    # --- what users say -----------------------------------------------------------------------------------------

    async def add(
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

        `event` is one, or a topic, with `payload` and the other fields of an event. Intervals count from `start`, else
        from now; nothing is fired before `start` or behind `until`. A schedule of that name is replaced, and one that
        says the same stays as it is, so each of many processes may add what it needs when it starts. In a handler,
        what is fired inherits from the event being handled. Raises InvalidSchedule and InvalidEvent before anything is
        stored, BrokerError, Closed.
        """
        given = event
        if not isinstance(given, Event):
            given = Event(topic=given, payload=payload, **fields)
        elif payload is not None or fields:
            raise InvalidSchedule("an Event has its own payload and fields: give one or the other")
        model = self._model(given)
        new = make(name, given, now=self._now(), every=every, cron=cron, tz=tz, start=start, until=until)
        new = structs.replace(new, event=model)
        await self._directory.refresh()
        new = new.behind(self._directory.stamp(_KIND, name))
        old = self._known.get(name)
        if old is not None and old.definition == new.definition:
            await self._plan([old], _NEAR)
            return self._info(old)
        if old is None and len(self._known) >= MOST:
            raise InvalidSchedule(f"{MOST} schedules are the most that a namespace has")
        await self._directory.put(_KIND, name, to_fact(new))
        await self._plan([new], timedelta(0))
        if old is not None:
            await self._take_back(old)
        return self._info(new)

    async def remove(self, name: str) -> None:
        """Fire it no more; what is due within a second may still come. ScheduleNotFound, BrokerError, Closed."""
        await self._directory.refresh()
        if name not in self._directory.facts(_KIND):
            raise _unknown(name)
        old = self._known.get(name)
        await self._directory.drop(_KIND, name)
        if old is not None:
            await self._take_back(old)
        if name in self._notes:
            await self._directory.drop(_FIRED, name)

    async def list(self) -> Sequence[ScheduleInfo]:
        """All of them, by name. BrokerError, Closed."""
        await self._directory.refresh()
        return [self._info(self._known[name]) for name in sorted(self._known)]

    async def get(self, name: str) -> ScheduleInfo:
        """One of them. ScheduleNotFound, BrokerError, Closed."""
        await self._directory.refresh()
        if (found := self._known.get(name)) is None:
            raise _unknown(name)
        return self._info(found)

    def _info(self, schedule: Schedule) -> ScheduleInfo:
        now = self._now()
        return info_of(schedule, now, self._last(schedule.name, now))

    def _last(self, name: str, now: datetime) -> datetime | None:
        """What others have noted, which may be a second old, and what this process had planned itself."""
        note, plan = self._notes.get(name), self._plans.get(name)
        known = [] if note is None else [note.moment, note.before]
        known += [] if plan is None else [plan.moment]
        return max((moment for moment in known if moment is not None and moment <= now), default=None)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)

    # --- what others say ----------------------------------------------------------------------------------------

    def _changed(self, name: str, fact: dict[str, Any] | None) -> None:
        """A schedule is there, is another one, or is gone: what was planned of the one before is taken back."""
        self._known.pop(name, None)
        if fact is not None:
            try:
                self._known[name] = of_fact(name, fact)
            except BusError as error:
                logger.error("a schedule cannot be read, and is not planned here", schedule=name, error=error)
        plan, known = self._plans.get(name), self._known.get(name)
        if plan is not None and (known is None or known.revision != plan.schedule.revision):
            del self._plans[name]
            self._forget(plan.schedule, plan.moment)
        self._news.set()

    def _forget(self, schedule: Schedule, moment: datetime | None) -> None:
        if moment is not None:
            self._stray.append(schedule.id_at(moment))
            self._news.set()

    def _noted(self, name: str, fact: dict[str, Any] | None) -> None:
        self._notes.pop(name, None)
        if fact is not None:
            self._notes[name] = msgspec.convert(fact, _Note)

    # --- planning -----------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        await self._clock.sleep(_FIRST)
        while True:
            pause = await self._try_round()
            if not self._news.is_set():
                await self._wait(pause)
            self._news.clear()

    async def _wait(self, seconds: float | None) -> None:
        """Until then, or until there are news."""
        timer = None if seconds is None else self._clock.call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _try_round(self) -> float | None:
        """Do what is to be done now; in how many seconds to look again, None for news only."""
        try:
            await self._round()
        except Exception as error:  # noqa: BLE001 - whatever it was: it is said, and tried again
            if not self._troubled:
                code = getattr(error, "code", None)
                logger.warning("schedules cannot be planned now, it is tried again", code=code, error=error)
            self._troubled = True
            return _SOON
        self._troubled = False
        moments = [plan.moment for plan in self._plans.values() if plan.moment is not None]
        if not moments:
            return None
        return min(_LOOK, max(0.001, (min(moments) - self._now()).total_seconds()))

    async def _round(self) -> None:
        while self._stray:
            await self._cancel(self._stray[0])
            del self._stray[0]
        now = self._now()
        await self._plan([each for each in self._known.values() if self._is_due(each, now)], _NEAR)

    def _is_due(self, schedule: Schedule, now: datetime) -> bool:
        plan = self._plans.get(schedule.name)
        if plan is None or plan.moment is None:
            return plan is None
        return plan.moment <= now or self._clock.monotonic() >= plan.said + _AGAIN

    async def _plan(self, schedules: Iterable[Schedule], near: timedelta) -> None:
        """Have the engine hold the next firing of each that is not nearer than that; to say it again does no harm."""
        now = self._now()
        found = [(schedule, schedule.after(now + near)) for schedule in schedules]
        events = [schedule.event_at(moment) for schedule, moment in found if moment is not None]
        receipts = await self._send(events) if events else ()
        mine = {receipt.event_id for receipt in receipts if not receipt.duplicate}
        said, notes = self._clock.monotonic(), dict[str, _Note]()
        for schedule, moment in found:
            known = self._known.get(schedule.name)
            if known is None or known.revision != schedule.revision:  # it was replaced meanwhile
                self._forget(schedule, moment)
                continue
            if moment is not None and schedule.id_at(moment) in mine:
                notes[schedule.name] = _Note(moment, self._last(schedule.name, now))
            self._plans[schedule.name] = _Plan(schedule, moment, said)
        await self._note(notes)

    async def _note(self, notes: Mapping[str, _Note]) -> None:
        """Say what will have been fired; one of those who plan it was the first, and says it."""
        puts = (
            self._directory.put(_FIRED, name, msgspec.to_builtins(note))
            for name, note in notes.items()
            if (said := self._notes.get(name)) is None or not timedelta(0) <= note.moment - said.moment < _NOTED
        )
        for problem in await asyncio.gather(*puts, return_exceptions=True):
            if isinstance(problem, BaseException):
                logger.info("when a schedule fires is not noted", error=problem)

    async def _take_back(self, old: Schedule) -> None:
        """Cancel what others have planned of it, too. They do so themselves; they may be gone."""
        now, note = self._now(), self._notes.get(old.name)
        moments = {old.after(now), old.after(now + _NEAR), None if note is None else note.moment}
        for moment in moments - {None}:
            if moment is not None:
                await self._cancel(old.id_at(moment))


def _unknown(name: str) -> ScheduleNotFound:
    return ScheduleNotFound(f"no schedule {shown(name)} is known")
