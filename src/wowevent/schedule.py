"""A schedule: which event is fired, and when; pure, with the time as an argument.

Its moments are worked out alike by every process: multiples of `every` from `start`, or from when it was added, or what
a cron expression says of the clocks of a time zone. A firing's id is made of the schedule's revision and the moment, or
its number, so whoever plans it plans the same event.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import blake2b
from typing import Annotated, Any, Final
from uuid import NAMESPACE_URL, uuid5
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim
from msgspec import Meta, Struct, structs

from wowevent.codec import decode, encode, to_fields
from wowevent.errors import InvalidSchedule, StorageDamaged, shown
from wowevent.event import Event, check_name, checked, utc

HEADER: Final = "schedule"
"""The header of a fired event that names its schedule."""
_LEAST: Final = 1.0  # seconds between two firings
_MOST: Final = 366 * 86_400.0
_EXPRESSION: Final = re.compile(r"[0-9A-Za-z*/,#\- ]{1,200}")
_IDS: Final = uuid5(NAMESPACE_URL, "urn:wowevent:schedule")
_INSTANT: Final = timedelta(microseconds=1)
_OWN: Final = ("event_id", "timestamp")  # what each firing has of its own

Time = Annotated[datetime, Meta(tz=True)]
"""Of a fact: one that says of which zone it is."""


class ScheduleInfo(Struct, frozen=True, kw_only=True):
    """One schedule as it is now. Times are UTC."""

    name: str
    event: Event
    """What is fired, but for its id and its time."""
    every: float | None
    """Seconds between two firings; None where `cron` says when."""
    cron: str | None
    """Five or six fields, as cron has them; None where `every` says when."""
    tz: str
    """Whose clocks `cron` goes by."""
    start: datetime | None
    """It fires at no moment before,"""
    until: datetime | None
    """and at none after."""
    added: datetime
    next: datetime | None
    """When it fires next; None once it never will again."""
    last: datetime | None
    """When it fired last, as far as is known: of one that fires more often than every ten seconds up to ten late."""


class Schedule(Struct, frozen=True, kw_only=True):
    """What is agreed about one name, until it is replaced."""

    name: str
    event: Event
    every: float | None
    cron: str | None
    tz: str
    start: datetime | None
    until: datetime | None
    added: datetime
    revision: str
    """New whenever it is replaced: what the one before had planned is another's. The same for two processes that add
    the same without having heard of each other."""
    definition: str
    """The same for whoever adds the same again."""

    def behind(self, before: str) -> Schedule:
        """The same, as what follows `before`: what was said of the name last (`Directory.stamp`)."""
        return structs.replace(self, revision=str(uuid5(_IDS, f"{self.name}\n{self.definition}\n{before}")))

    def after(self, moment: datetime) -> datetime | None:
        """The first of its moments behind that one; None if there is none."""
        try:
            found = _next_by_cron(self, moment) if self.cron is not None else _next_of_interval(self, moment)
        except (OverflowError, ValueError):  # beyond the year 9999
            return None
        return None if found is None or (self.until is not None and found > self.until) else found

    def id_at(self, moment: datetime) -> str:
        """The id of what is fired then.

        Intervals are counted, since two processes that add the same at once begin to count a little apart.
        """
        if self.every is None or self.start is not None:
            return str(uuid5(_IDS, f"{self.revision}\n{moment.isoformat()}"))
        return str(uuid5(_IDS, f"{self.revision}\n{(moment - self.added) // timedelta(seconds=self.every)}"))

    def event_at(self, moment: datetime) -> Event:
        """What is fired then: a conversation of its own, unless the schedule was made in another one."""
        event, id = self.event, self.id_at(moment)
        return structs.replace(
            event,
            event_id=id,
            correlation_id=id if event.correlation_id == event.event_id else event.correlation_id,
            timestamp=moment,
            not_before=moment,
            head={**event.head, HEADER: self.name},
        )


def make(
    name: str,
    event: Event,
    *,
    now: datetime,
    every: float | timedelta | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    start: datetime | str | None = None,
    until: datetime | str | None = None,
) -> Schedule:
    """A schedule that begins now, or at `start`; InvalidSchedule says what is wrong with it."""
    if event.not_before is not None:
        raise InvalidSchedule("not_before: the schedule says when the event is published")
    seconds = every.total_seconds() if isinstance(every, timedelta) else every
    given: dict[str, Any] = {
        "every": seconds if isinstance(seconds, bool) or not isinstance(seconds, int) else float(seconds),
        "cron": " ".join(cron.split()) if isinstance(cron, str) else cron,
        "tz": tz,
        "start": None if start is None else utc(start, "start"),
        "until": None if until is None else utc(until, "until"),
    }
    _check(**given)
    schedule = Schedule(
        name=checked(check_name, name),
        event=event,
        added=now,
        revision="",
        definition=_definition(event, given),
        **given,
    ).behind("")
    if schedule.after(now) is None:
        raise InvalidSchedule(f"{name}: there is no moment at which it would fire")
    return schedule


def _check(*, every: float | None, cron: str | None, tz: str, start: datetime | None, until: datetime | None) -> None:
    """InvalidSchedule for what cannot be worked out."""
    if (every is None) == (cron is None):
        raise InvalidSchedule("a schedule says either every= so many seconds, or cron=")
    if start is not None and until is not None and until < start:
        raise InvalidSchedule("until lies before start")
    if every is None:
        _check_cron(cron, _zone(tz))
        return
    if not isinstance(every, float) or not _LEAST <= every <= _MOST:
        raise InvalidSchedule(f"every: {shown(every)} is not a number of seconds from 1 to {_MOST:.0f} (366 days)")
    if tz != "UTC":
        raise InvalidSchedule("tz: only what cron says goes by a time zone")


def _check_cron(expression: object, zone: tzinfo) -> None:
    if not isinstance(expression, str) or not _EXPRESSION.fullmatch(expression):
        raise InvalidSchedule(f"cron: {shown(expression)} is not a cron expression such as '*/5 * * * *'")
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=zone))
    except Exception as error:  # whatever its parser trips over
        raise InvalidSchedule(f"cron: {shown(expression)} is not a cron expression: {error}") from error


def _zone(name: object) -> tzinfo:
    if name == "UTC":
        return UTC
    if not isinstance(name, str):
        raise InvalidSchedule(f"tz: {shown(name)} is not a time zone such as Europe/Berlin")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # a folder of zones is an OSError
        raise InvalidSchedule(f"tz: {shown(name)} is not a time zone that is known here") from error


# --- moments ------------------------------------------------------------------------------------------------------


def _next_of_interval(schedule: Schedule, moment: datetime) -> datetime:
    anchor, first = (schedule.added, 1) if schedule.start is None else (schedule.start, 0)
    step = timedelta(seconds=schedule.every or _MOST)
    return anchor + max(first, (moment - anchor) // step + 1) * step


def _next_by_cron(schedule: Schedule, moment: datetime) -> datetime | None:
    """Cron counts in minutes of the zone's clocks, and forgets which of two like ones is meant when they go back."""
    before = moment if schedule.start is None else max(moment, schedule.start - _INSTANT)
    for found in CronSim(schedule.cron or "", before.astimezone(_zone(schedule.tz))):
        if (time := found.astimezone(UTC)) > before:
            return time
    return None


# --- the same again -------------------------------------------------------------------------------------------------


def _definition(event: Event, timing: dict[str, Any]) -> str:
    fields = {name: value for name, value in to_fields(event).items() if name not in _OWN}
    if event.correlation_id == event.event_id:
        del fields["correlation_id"]
    return blake2b(msgspec.json.encode([fields, timing], order="deterministic"), digest_size=16).hexdigest()


# --- as a fact ------------------------------------------------------------------------------------------------------


class _Fact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    event: str  # its envelope as text: inside of other JSON a payload could lie too deep
    added: Time
    revision: str
    definition: str
    every: float | None = None
    cron: str | None = None
    tz: str = "UTC"
    start: Time | None = None
    until: Time | None = None


_TIMING: Final = ("every", "cron", "tz", "start", "until")


def to_fact(schedule: Schedule) -> dict[str, Any]:
    """What processes tell each other of it."""
    names = ("added", "revision", "definition", *_TIMING)
    fact = _Fact(event=encode(schedule.event).decode(), **{name: getattr(schedule, name) for name in names})
    found: dict[str, Any] = msgspec.to_builtins(fact)
    return found


def of_fact(name: str, value: dict[str, Any]) -> Schedule:
    """The schedule of a fact. Raises BusError for what a newer version, or a stranger, has written."""
    try:
        fact = msgspec.convert(value, _Fact)
    except msgspec.ValidationError as error:
        raise StorageDamaged(f"schedule {shown(name)}: {error}") from error
    fields = structs.asdict(fact)
    _check(**{each: fields[each] for each in _TIMING})
    fields["event"] = decode(fact.event.encode())
    return Schedule(name=name, **fields)


def info_of(schedule: Schedule, now: datetime, last: datetime | None) -> ScheduleInfo:
    """How it is now."""
    shown_fields = {name: getattr(schedule, name) for name in ("name", "event", "added", *_TIMING)}
    return ScheduleInfo(next=schedule.after(now), last=last, **shown_fields)
