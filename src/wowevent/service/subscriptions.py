"""/subscriptions: what the engine remembers and who listens live; pause, purge and remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct
from starlette.responses import Response

from wowevent.access.sight import sees_subscription
from wowevent.errors import SubscriptionConflict, SubscriptionNotFound, shown
from wowevent.log import logger
from wowevent.service.access import asker, name_of_asker, note
from wowevent.service.answers import answer
from wowevent.service.asking import bus_of, flag_of
from wowevent.service.intake import no_order

if TYPE_CHECKING:
    from starlette.requests import Request

    from wowevent.broker import SubscriptionInfo
    from wowevent.bus import EventBus
    from wowevent.pulse import Rates


class Wishes(Struct):
    """What a subscription wants of the topics it matches; null is no wish."""

    types: list[str] | None
    priorities: list[int] | None
    sources: list[str] | None


class SubscriptionShown(Struct):
    """One subscription as the engine sees it now; a number is null where the engine cannot tell it."""

    id: str
    agent: str | None
    durable: Annotated[bool, Meta(description="False: it is live, nothing is kept for it.")]
    patterns: list[str]
    filter: Wishes | None
    ready: int
    leased: int | None
    delayed: int | None
    dead: int
    consumers: int
    oldest: Annotated[float | None, Meta(description="Seconds since the oldest unsettled event was stored.")]
    lost: Annotated[int | None, Meta(description="Unread events that were dropped and not yet reported.")]
    lapsed: Annotated[bool, Meta(description="Unserved for too long: nothing is kept for it until it is served again.")]
    paused: Annotated[bool, Meta(description="By hand, itself, its agent or everything: nobody is given its events.")]
    delivered_per_second: Annotated[
        float | None,
        Meta(
            description="Of the last 5 to 10 seconds, in all processes, as are the next two. Null where `rates` was "
            "not asked for, of a live one, and where a process has more subscriptions at work than it names."
        ),
    ]
    failed_per_second: Annotated[float | None, Meta(description="Each attempt counts.")]
    error_rate: Annotated[float | None, Meta(description="The fraction that failed; 0 where nothing came.")]


class Subscriptions(Struct):
    """All that the engine remembers, and the live ones that are there now, by id."""

    subscriptions: list[SubscriptionShown]


class Purged(Struct):
    """How many events were dropped."""

    purged: int


async def subscriptions(request: Request) -> Response:
    """`{"subscriptions": […]}`: what each was declared with, and its numbers; by id."""
    bus = bus_of(request)
    rates = await _rates(request, bus)
    seen = [info for info in await bus.subscriptions() if sees_subscription(asker(request), info)]
    found = sorted(seen, key=lambda info: info.subscription.id)
    return answer(Subscriptions([_shown(bus, info, rates) for info in found]))


async def subscription(request: Request) -> Response:
    """One of them."""
    bus = bus_of(request)
    rates = await _rates(request, bus)
    info = await _info(bus, request.path_params["id"])
    if not sees_subscription(asker(request), info):
        raise _unknown(info.subscription.id)
    return answer(_shown(bus, info, rates))


async def pause(request: Request) -> Response:
    """The subscription, paused: no process gets events of it until it is resumed. One that is paused stays so."""
    bus, id = bus_of(request), request.path_params["id"]
    await no_order(request)
    info = await _remembered(bus, id)
    await bus.pause(id, by=name_of_asker(request))
    logger.info("subscription paused by a request", subscription=id)
    note(request, "pause", subscription=id)
    return answer(_shown(bus, info))


async def resume(request: Request) -> Response:
    """The subscription, served again by whoever serves it."""
    bus, id = bus_of(request), request.path_params["id"]
    await no_order(request)
    info = await _remembered(bus, id)
    await bus.resume(id)
    logger.info("subscription resumed by a request", subscription=id)
    note(request, "resume", subscription=id)
    return answer(_shown(bus, info))


async def purge(request: Request) -> Response:
    """`{"purged": n}`: what was ready is dropped; what is leased, delayed or dead stays."""
    bus, id = bus_of(request), request.path_params["id"]
    await no_order(request)
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


def shown_subscription(
    info: SubscriptionInfo, *, paused: bool, rate: tuple[float, float] | None = None
) -> SubscriptionShown:
    """A subscription for outside; `rate` is how much it gets and fails at a second, where that is known."""
    spec = info.subscription
    wish = spec.filter
    delivered, failed = rate or (None, None)
    return SubscriptionShown(
        id=spec.id,
        agent=spec.agent or None,
        durable=spec.durable,
        patterns=list(spec.patterns),
        filter=None if wish is None else Wishes(_sorted(wish.types), _sorted(wish.priorities), _sorted(wish.sources)),
        ready=info.ready,
        leased=info.leased,
        delayed=info.delayed,
        dead=info.dead,
        consumers=info.consumers,
        oldest=info.oldest,
        lost=info.lost,
        lapsed=info.lapsed,
        paused=paused,
        delivered_per_second=delivered,
        failed_per_second=failed,
        error_rate=None if rate is None else rate[1] / (sum(rate) or 1.0),
    )


def _sorted(values: frozenset[Any] | None) -> list[Any] | None:
    return None if values is None else sorted(values)


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
