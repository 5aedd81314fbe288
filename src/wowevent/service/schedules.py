"""/schedules: events that are fired at their moments: list, show, put, remove.

With tokens a schedule is its owner's: of the agent whose name its event bears. Others than it see and remove it by
`admin` alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct
from starlette.responses import Response

from wowevent.access.sight import check_replaceable, sees_schedule
from wowevent.codec import from_fields, to_fields
from wowevent.errors import ScheduleNotFound, shown
from wowevent.service.access import asker, note, stamped
from wowevent.service.answers import EventFields, answer
from wowevent.service.asking import bus_of
from wowevent.service.intake import order_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from wowevent.schedule import ScheduleInfo

EventGiven = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": "#/components/schemas/EventIn"})]


class ScheduleOrder(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to fire, and when: `every` so many seconds, or when `cron` says so by the clocks of `tz`."""

    event: Annotated[EventGiven, Meta(description="Each firing has an id and a time of its own.")]
    every: Annotated[float, Meta(ge=1, description="Seconds between two firings.")] | None = None
    cron: Annotated[str, Meta(description="Such as `30 2 * * mon-fri`.")] | None = None
    tz: Annotated[str, Meta(description="A time zone such as `Europe/Berlin`.")] = "UTC"
    start: Annotated[str | None, Meta(description="ISO 8601; naive is UTC. Nothing is fired before.")] = None
    until: Annotated[str | None, Meta(description="Nothing is fired behind it.")] = None


class ScheduleShown(Struct):
    """One schedule as it is now."""

    name: str
    event: EventFields
    every: float | None
    cron: str | None
    tz: str
    start: datetime | None
    until: datetime | None
    added: datetime
    next: Annotated[datetime | None, Meta(description="When it fires next; null once it never will again.")]
    last: Annotated[datetime | None, Meta(description="When it fired last, as far as is known.")]


class Schedules(Struct):
    """All that may be seen, by name."""

    schedules: list[ScheduleShown]


async def schedules(request: Request) -> Response:
    """`{"schedules": […]}`, by name."""
    found = await bus_of(request).schedules.list()
    return answer(Schedules([shown_schedule(each) for each in found if sees_schedule(asker(request), each)]))


async def schedule(request: Request) -> Response:
    """One of them."""
    return answer(shown_schedule(await _seen(request)))


async def put(request: Request) -> Response:
    """The schedule: it is new, replaces the one of its name, or says what that says, which then stays as it is."""
    bus, name = bus_of(request), request.path_params["name"]
    order = await order_of(request, ScheduleOrder)
    (event,) = stamped(request, [from_fields(order.event)])
    check_replaceable(asker(request), await bus.schedules.list(), name)
    made = await bus.schedules.add(
        name, event, every=order.every, cron=order.cron, tz=order.tz, start=order.start, until=order.until
    )
    note(request, "schedule added", schedule=name, topic=event.topic)
    return answer(shown_schedule(made))


async def remove(request: Request) -> Response:
    """204: it is fired no more; what is due within a second may still come."""
    bus, name = bus_of(request), request.path_params["name"]
    await _seen(request)
    await bus.schedules.remove(name)
    note(request, "schedule removed", schedule=name)
    return Response(status_code=204)


def shown_schedule(info: ScheduleInfo) -> ScheduleShown:
    """A schedule for outside."""
    return ScheduleShown(
        name=info.name,
        event=to_fields(info.event),
        every=info.every,
        cron=info.cron,
        tz=info.tz,
        start=info.start,
        until=info.until,
        added=info.added,
        next=info.next,
        last=info.last,
    )


async def _seen(request: Request) -> ScheduleInfo:
    """The schedule that the path names; ScheduleNotFound also for what may not be seen."""
    name = request.path_params["name"]
    found = await bus_of(request).schedules.get(name)
    if not sees_schedule(asker(request), found):
        raise ScheduleNotFound(f"no schedule {shown(name)} is known")
    return found
