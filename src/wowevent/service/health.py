"""GET /health, GET /live and GET /ready: for people, probes and load balancers. Always open."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse

from wowevent.service.access import is_stranger

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from wowevent.bus import EventBus

_NAMING: Final = frozenset({"lapsed", "not_served", "states", "here", "pauses"})
"""Of the details, those that name subscriptions, agents and topics."""


async def health(request: Request) -> Response:
    """`{"status": "healthy", "<engine>": "connected", "event_bus": "running", "details": …}`; 503 when not healthy.

    One of several processes on a port adds `worker`: its number. Who is asked for a token and shows none is told no
    names of subscriptions: they are made of agents and topics.
    """
    worker: int | None = request.app.state.worker
    seen = {**await look(request.app.state.bus), **({} if worker is None else {"worker": worker})}
    if is_stranger(request):
        seen["details"] = {name: value for name, value in seen["details"].items() if name not in _NAMING}
    return JSONResponse(seen, _status(well=seen["status"] == "healthy"))


async def live(_request: Request) -> Response:
    """`{"live": true}`, whatever the engine does: starting the process again would not bring that back."""
    return JSONResponse({"live": True})


async def ready(request: Request) -> Response:
    """`{"ready": true}`; 503 and a reason until the bus runs and its engine answers, and from the moment it drains."""
    if request.app.state.draining:
        return JSONResponse({"ready": False, "reason": "draining"}, _status(well=False))
    seen = await look(request.app.state.bus)
    if seen["status"] == "healthy" and seen["event_bus"] == "running":
        return JSONResponse({"ready": True})
    engine = next((f"{name} is {said}" for name, said in seen.items() if said == "unreachable"), None)
    reason = engine or f"the event bus is {seen['event_bus']}"
    return JSONResponse({"ready": False, "reason": reason}, _status(well=False))


async def look(bus: EventBus | None) -> dict[str, Any]:
    """What the bus says of itself; one that is switched off is well, and says so."""
    return {"status": "healthy", "event_bus": "disabled", "details": {}} if bus is None else await bus.health()


def _status(*, well: bool) -> int:
    return HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
