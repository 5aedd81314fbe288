"""/subscriptions: what the engine remembers and who listens live; purge and remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from wowevent.errors import SubscriptionConflict, SubscriptionNotFound, shown
from wowevent.service.answers import Purged, Subscriptions, answer, shown_subscription
from wowevent.service.asking import bus_of
from wowevent.service.intake import no_order

if TYPE_CHECKING:
    from starlette.requests import Request

    from wowevent.broker import SubscriptionInfo
    from wowevent.bus import EventBus


async def subscriptions(request: Request) -> Response:
    """`{"subscriptions": […]}`: what each was declared with, and its numbers; by id."""
    found = sorted(await bus_of(request).subscriptions(), key=lambda info: info.subscription.id)
    return answer(Subscriptions([shown_subscription(info) for info in found]))


async def subscription(request: Request) -> Response:
    """One of them."""
    return answer(shown_subscription(await _info(bus_of(request), request.path_params["id"])))


async def purge(request: Request) -> Response:
    """`{"purged": n}`: what was ready is dropped; what is leased, delayed or dead stays."""
    bus, id = bus_of(request), request.path_params["id"]
    await no_order(request, request.app.state.body_limit)
    await _remembered(bus, id)
    return answer(Purged(await bus.purge(id)))


async def remove(request: Request) -> Response:
    """204: it is forgotten, with its backlog and its dead letters."""
    bus, id = bus_of(request), request.path_params["id"]
    await _remembered(bus, id)
    await bus.remove(id)
    return Response(status_code=204)


async def _info(bus: EventBus, id: str) -> SubscriptionInfo:
    """The subscription of exactly that id, live ones included; SubscriptionNotFound."""
    for info in await bus.subscriptions():
        if info.subscription.id == id:
            return info
    raise SubscriptionNotFound(f"no subscription {shown(id)} is known")


async def _remembered(bus: EventBus, id: str) -> None:
    """Refuse a live one: nothing is kept for it, and it ends with whoever reads."""
    if not (await _info(bus, id)).subscription.durable:
        raise SubscriptionConflict(f"{shown(id)} is live: nothing is kept for it, and it ends with its process")
