"""/subscriptions: what the engine remembers and who listens live; pause, purge and remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from wowevent.errors import SubscriptionConflict, SubscriptionNotFound, shown
from wowevent.log import logger
from wowevent.service.access import asker, name_of_asker, note
from wowevent.service.answers import Purged, Subscriptions, SubscriptionShown, answer, shown_subscription
from wowevent.service.asking import bus_of, flag_of
from wowevent.service.intake import no_order

if TYPE_CHECKING:
    from starlette.requests import Request

    from wowevent.broker import SubscriptionInfo
    from wowevent.bus import EventBus
    from wowevent.pulse import Rates


async def subscriptions(request: Request) -> Response:
    """`{"subscriptions": […]}`: what each was declared with, and its numbers; by id."""
    bus = bus_of(request)
    rates = await _rates(request, bus)
    seen = [info for info in await bus.subscriptions() if sees(request, info)]
    found = sorted(seen, key=lambda info: info.subscription.id)
    return answer(Subscriptions([_shown(bus, info, rates) for info in found]))


async def subscription(request: Request) -> Response:
    """One of them."""
    bus = bus_of(request)
    rates = await _rates(request, bus)
    info = await _info(bus, request.path_params["id"])
    if not sees(request, info):
        raise _unknown(info.subscription.id)
    return answer(_shown(bus, info, rates))


async def pause(request: Request) -> Response:
    """The subscription, paused: no process gets events of it until it is resumed. One that is paused stays so."""
    bus, id = bus_of(request), request.path_params["id"]
    await no_order(request, request.app.state.body_limit)
    info = await _remembered(bus, id)
    await bus.pause(id, by=name_of_asker(request))
    logger.info("subscription paused by a request", subscription=id)
    note(request, "pause", subscription=id)
    return answer(_shown(bus, info))


async def resume(request: Request) -> Response:
    """The subscription, served again by whoever serves it."""
    bus, id = bus_of(request), request.path_params["id"]
    await no_order(request, request.app.state.body_limit)
    info = await _remembered(bus, id)
    await bus.resume(id)
    logger.info("subscription resumed by a request", subscription=id)
    note(request, "resume", subscription=id)
    return answer(_shown(bus, info))


async def purge(request: Request) -> Response:
    """`{"purged": n}`: what was ready is dropped; what is leased, delayed or dead stays."""
    bus, id = bus_of(request), request.path_params["id"]
    await no_order(request, request.app.state.body_limit)
    await _remembered(bus, id)
    purged = await bus.purge(id)
    logger.info("subscription purged by a request", subscription=id, purged=purged)
    note(request, "purge", subscription=id, purged=purged)
    return answer(Purged(purged))


async def remove(request: Request) -> Response:
    """204: it is forgotten, with its backlog and its dead letters."""
    bus, id = bus_of(request), request.path_params["id"]
    await _remembered(bus, id)
    await bus.remove(id)
    logger.info("subscription removed by a request", subscription=id)
    note(request, "remove", subscription=id)
    return Response(status_code=204)


def sees(request: Request, info: SubscriptionInfo) -> bool:
    """Whether who asks may know of it: who may hear all that it hears, and who administers."""
    identity = asker(request)
    patterns = info.subscription.patterns
    return identity is None or identity.may("admin") or identity.may("subscribe", *patterns)


async def _rates(request: Request, bus: EventBus) -> Rates | None:
    """How fast all of them go, if that is asked for: whoever asks has all processes say so for a while."""
    if not flag_of(request.query_params, "rates"):
        return None
    vitals = await bus.pulses.look()
    return vitals.rates(bus.pulses.now)


def _shown(bus: EventBus, info: SubscriptionInfo, rates: Rates | None = None) -> SubscriptionShown:
    spec = info.subscription
    rate = None if rates is None or not spec.durable else rates.of(spec.id)  # live ones of an agent count together
    return shown_subscription(info, paused=bus.paused(spec.id, spec.agent), rate=rate)


async def _info(bus: EventBus, id: str) -> SubscriptionInfo:
    """The subscription of exactly that id, live ones included; SubscriptionNotFound."""
    for info in await bus.subscriptions():
        if info.subscription.id == id:
            return info
    raise _unknown(id)


def _unknown(id: str) -> SubscriptionNotFound:
    return SubscriptionNotFound(f"no subscription {shown(id)} is known")


async def _remembered(bus: EventBus, id: str) -> SubscriptionInfo:
    """As `_info`, but refuse a live one: nothing is kept for it, and it ends with whoever reads."""
    info = await _info(bus, id)
    if not info.subscription.durable:
        raise SubscriptionConflict(f"{shown(id)} is live: nothing is kept for it, and it ends with its process")
    return info
