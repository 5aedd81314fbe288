"""Tools for schedules: events that are fired at their moments. With tokens a schedule is its owner's."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from wowevent.access.sight import check_replaceable, sees_schedule
from wowevent.errors import ScheduleNotFound, shown
from wowevent.event import Event
from wowevent.mcp.call import Call
from wowevent.mcp.events import Payload, Topic
from wowevent.mcp.shown import fitting, shown_event
from wowevent.mcp.tool import Nothing, Tool
from wowevent.schedule import ScheduleInfo
from wowevent.service.schedules import shown_schedule

Name = Annotated[str, Meta(description="The schedule's name.", max_length=128)]
Moment = Annotated[str, Meta(description="ISO 8601, naive is UTC.")]


async def schedules(call: Call, _: Nothing) -> dict[str, Any]:
    """Which events are fired by themselves, and when next.

    Answers {schedules: [{name, event, every, cron, tz, start, until, added, next, last}], more}, by name; with a token
    those of that agent, unless it grants admin.
    """
    found = [each for each in await (await call.bus()).schedules.list() if sees_schedule(call.identity, each)]
    shown = fitting(_shown(each) for each in found)
    return {"schedules": shown, "more": len(shown) < len(found)}


class Add(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to fire, and when."""

    name: Name
    topic: Topic
    payload: Payload = {}
    every: Annotated[float, Meta(description="Seconds between two firings.", ge=1)] | None = None
    cron: Annotated[str, Meta(description="Such as 30 2 * * mon-fri.", max_length=200)] | None = None
    tz: Annotated[str, Meta(description="Whose clocks cron goes by, such as Europe/Berlin.", max_length=64)] = "UTC"
    start: Moment | None = None
    until: Moment | None = None


async def schedule_add(call: Call, asked: Add) -> dict[str, Any]:
    """Fire an event by itself: `every` so many seconds, or by `cron`; give one of the two.

    Answers the schedule, as in schedules. One of that name is replaced; the engine keeps it, whoever runs.
    Errors: invalid_event, invalid_topic, invalid_schedule, not_permitted (it is another agent's).
    """
    event = call.stamped(Event(topic=asked.topic, payload=asked.payload))
    bus = await call.bus()
    check_replaceable(call.identity, await bus.schedules.list(), asked.name)
    made = await bus.schedules.add(
        asked.name, event, every=asked.every, cron=asked.cron, tz=asked.tz, start=asked.start, until=asked.until
    )
    call.note("schedule added", schedule=asked.name, topic=event.topic)
    return _shown(made)


class Remove(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which one."""

    name: Name


async def schedule_remove(call: Call, asked: Remove) -> dict[str, Any]:
    """Fire it no more; what is due within a second may still come. Answers {removed}. Errors: schedule_not_found."""
    bus = await call.bus()
    if not sees_schedule(call.identity, await bus.schedules.get(asked.name)):
        raise ScheduleNotFound(f"no schedule {shown(asked.name)} is known")
    await bus.schedules.remove(asked.name)
    call.note("schedule removed", schedule=asked.name)
    return {"removed": asked.name}


TOOLS: Final = (
    Tool(call=schedules, rights=("publish", "admin")),
    Tool(call=schedule_add, arguments=Add, rights=("publish",), changes=True),
    Tool(call=schedule_remove, arguments=Remove, rights=("publish", "admin"), changes=True),
)


def _shown(info: ScheduleInfo) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(shown_schedule(info)) | {"event": shown_event(info.event)}
    return {name: value for name, value in found.items() if value is not None}
