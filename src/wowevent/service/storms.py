"""/storms: the conversations that went too far and are parked; release."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from wowevent.errors import shown
from wowevent.log import logger
from wowevent.service.access import asker, note
from wowevent.service.answers import Released, StormsShown, answer, shown_storm
from wowevent.service.asking import bus_of
from wowevent.service.failures import Refusal
from wowevent.service.intake import no_order

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from wowevent.storm import Storm


async def storms(request: Request) -> Response:
    """`{"storms": […]}`: those that are parked, the oldest first."""
    return answer(StormsShown([shown_storm(each) for each in bus_of(request).storms.list() if _sees(request, each)]))


async def release(request: Request) -> Response:
    """`{"released": […]}`: those of this root, or of this correlation, which are parked no longer."""
    bus, id = bus_of(request), request.path_params["id"]
    await no_order(request, request.app.state.body_limit)
    released = await bus.storms.release(id)
    if not released:
        raise Refusal(HTTPStatus.NOT_FOUND, "storm_not_found", f"no conversation {shown(id)} is parked")
    for storm in released:
        logger.info("storm released by a request", root=storm.id, correlation_id=storm.correlation_id)
        note(request, "release", storm=storm.id)
    return answer(Released([shown_storm(each) for each in released]))


def _sees(request: Request, storm: Storm) -> bool:
    """Whether who asks may know of it: who may see the dead letters of its whole path, and who administers."""
    identity = asker(request)
    topics = {step.topic for step in storm.path}
    return identity is None or identity.may("admin") or identity.may("dead_letters", *topics)
