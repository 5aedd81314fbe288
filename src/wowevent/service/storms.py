"""/storms: the conversations that went too far and are parked; release."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from wowevent.access.sight import sees_storm
from wowevent.errors import shown
from wowevent.log import logger
from wowevent.service.access import asker, note
from wowevent.service.answers import UnixSeconds, answer
from wowevent.service.asking import bus_of
from wowevent.service.failures import Refusal
from wowevent.service.intake import no_order
from wowevent.storm import Limit, Step, Storm

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class StormShown(Struct):
    """One conversation that went too far, and is parked."""

    id: Annotated[str, Meta(description="The event that it began with.")]
    correlation_id: Annotated[str, Meta(description="Of the event that was beyond the limit.")]
    limit: Limit
    most: Annotated[int, Meta(description="How much the limit allows.")]
    path: Annotated[list[Step], Meta(description="The way to that event, in the order of the first visits.")]
    since: UnixSeconds
    who: Annotated[str, Meta(description="Who would have handled that event; of `max_events` who published it.")]
    why: Annotated[str, Meta(description="All of it in a sentence.")]


class StormsShown(Struct):
    """The conversations that are parked, the oldest first."""

    storms: list[StormShown]


class Released(Struct):
    """The conversations that are parked no longer."""

    released: list[StormShown]


async def storms(request: Request) -> Response:
    """`{"storms": […]}`: those that are parked, the oldest first."""
    identity, found = asker(request), bus_of(request).storms.list()
    return answer(StormsShown([shown_storm(each) for each in found if sees_storm(identity, each)]))


async def release(request: Request) -> Response:
    """`{"released": […]}`: those of this root, or of this correlation, which are parked no longer."""
    bus, id = bus_of(request), request.path_params["id"]
    await no_order(request)
    released = await bus.storms.release(id)
    if not released:
        raise Refusal(HTTPStatus.NOT_FOUND, "storm_not_found", f"no conversation {shown(id)} is parked")
    for storm in released:
        logger.info("storm released by a request", root=storm.id, correlation_id=storm.correlation_id)
        note(request, "release", storm=storm.id)
    return answer(Released([shown_storm(each) for each in released]))


def shown_storm(storm: Storm) -> StormShown:
    """A storm for outside."""
    return StormShown(
        id=storm.id,
        correlation_id=storm.correlation_id,
        limit=storm.limit,
        most=storm.most,
        path=list(storm.path),
        since=storm.since,
        who=storm.who,
        why=storm.why,
    )
