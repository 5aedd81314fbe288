"""/schedules: events that are fired at their moments: list, show, put, remove.

With tokens a schedule is its owner's: of the agent whose name its event bears. Others than it see and remove it by
`admin` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from wowevent.codec import from_fields
from wowevent.errors import NotPermitted, ScheduleNotFound, shown
from wowevent.service.access import asker, note, stamped
from wowevent.service.answers import ScheduleOrder, Schedules, answer, shown_schedule
from wowevent.service.asking import bus_of
from wowevent.service.intake import order_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from wowevent.schedule import ScheduleInfo


async def schedules(request: Request) -> Response:
    """`{"schedules": […]}`, by name."""
    found = await bus_of(request).schedules.list()
    return answer(Schedules([shown_schedule(each) for each in found if _sees(request, each)]))


async def schedule(request: Request) -> Response:
    """One of them."""
    return answer(shown_schedule(await _seen(request)))


async def put(request: Request) -> Response:
    """The schedule: it is new, replaces the one of its name, or says what that says, which then stays as it is."""
    bus, name = bus_of(request), request.path_params["name"]
    order = await order_of(request, ScheduleOrder, request.app.state.body_limit)
    (event,) = stamped(request, [from_fields(order.event)])
    await _check_owner(request, name)
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


async def _seen(request: Request) -> ScheduleInfo:
    """The schedule that the path names; ScheduleNotFound also for what may not be seen."""
    name = request.path_params["name"]
    found = await bus_of(request).schedules.get(name)
    if not _sees(request, found):
        raise ScheduleNotFound(f"no schedule {shown(name)} is known")
    return found


def _sees(request: Request, info: ScheduleInfo) -> bool:
    """Whether it is who asks that fires it, or who administers."""
    identity = asker(request)
    if identity is None or identity.may("admin"):
        return True
    return info.event.source_agent == identity.name and identity.may("publish", info.event.topic)


async def _check_owner(request: Request, name: str) -> None:
    """NotPermitted where a schedule of that name is another's."""
    if asker(request) is None:
        return
    try:
        await _seen(request)
    except ScheduleNotFound:
        if any(each.name == name for each in await bus_of(request).schedules.list()):
            raise NotPermitted(f"the schedule {shown(name)} is another agent's; replacing it needs admin") from None
