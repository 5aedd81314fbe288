"""GET /overview and GET /routers: how all processes of the namespace are, together, and the routers among them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from wowevent.access.sight import administers, sees_subscription
from wowevent.errors import BusError
from wowevent.service.access import asker
from wowevent.service.answers import UnixSeconds, answer
from wowevent.service.asking import bus_of
from wowevent.service.health import look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from wowevent.access.rights import Identity
    from wowevent.broker import SubscriptionInfo
    from wowevent.bus import EventBus
    from wowevent.pulse import Connected, Sample

_PATIENCE: Final = 3.0  # seconds for the engine to answer; the rates are there without it


class LatencyShown(Struct):
    """How long handlers took within the last ten seconds."""

    p50: float
    p95: float
    p99: float


class SampleShown(Struct):
    """Events a second of all processes at one moment, and the p95 of seconds that handlers took."""

    at: UnixSeconds
    published: Annotated[float | None, Meta(description="Null, as the others: the other processes were not heard.")]
    delivered: float | None
    failed: float | None
    p95: float | None


class Overview(Struct):
    """All processes of the namespace together.

    Null is what is not known: numbers of the engine's if it does not answer, and those of the processes while they
    cannot be heard.
    """

    engine: str
    url: Annotated[str | None, Meta(description="Without credentials; for who administers.")]
    health: Literal["healthy", "unhealthy"]
    processes: Annotated[
        int | None, Meta(description="Those that were heard of in the last 6 seconds, this one included.")
    ]
    since: Annotated[float | None, Meta(description="When samples began to be taken, Unix seconds.")]
    published_per_second: float | None
    delivered_per_second: float | None
    failed_per_second: float | None
    latency: LatencyShown | None
    subscriptions: int | None
    ready: int | None
    leased: int | None
    delayed: int | None
    dead: int | None
    series: Annotated[list[SampleShown], Meta(description="One every 2 seconds, of 10 minutes at most.")]


class ConnectionShown(Struct):
    """One client of a router."""

    name: str | None
    address: str
    since: UnixSeconds
    subscriptions: int
    outbox_bytes: Annotated[int, Meta(description="What waits for it to read.")]


class RouterShown(Struct):
    """One router, as it said some seconds ago."""

    process: str
    host: Annotated[str | None, Meta(description="For who administers.")]
    clients: int
    named: Annotated[int, Meta(description="Named subscriptions that it serves.")]
    events_processed: Annotated[int, Meta(description="Published by its clients since it serves.")]
    since: UnixSeconds
    connections: Annotated[list[ConnectionShown] | None, Meta(description="Null of routers in other processes.")]


class Routers(Struct):
    """The routers of the namespace, by process."""

    routers: list[RouterShown]
    complete: Annotated[bool, Meta(description="False: other processes cannot be heard now.")]


async def overview(request: Request) -> Response:
    """Rates and latencies of all processes, with the last ten minutes, and what waits; null what is not known.

    Who does not administer is told of the subscriptions that it may hear, and not where the log is.
    """
    bus, identity = bus_of(request), asker(request)
    vitals = await bus.pulses.look()
    infos, health = await asyncio.gather(_subscriptions(bus), _health(bus))
    seen = None if infos is None else [info for info in infos if sees_subscription(identity, info)]
    last = _known(vitals.samples[-1]) if vitals.samples else None
    return answer(
        Overview(
            engine=bus.capabilities.name,
            url=bus.url if administers(identity) else None,
            health=health,
            processes=None if last is None else len(vitals.there(bus.pulses.now)),
            since=vitals.since,
            published_per_second=None if last is None else last.published,
            delivered_per_second=None if last is None else last.delivered,
            failed_per_second=None if last is None else last.failed,
            latency=None if last is None else LatencyShown(last.latency.p50, last.latency.p95, last.latency.p99),
            subscriptions=None if seen is None else len(seen),
            ready=_sum(seen, "ready"),
            leased=_sum(seen, "leased"),
            delayed=_sum(seen, "delayed"),
            dead=_sum(seen, "dead"),
            series=[_point(each) for each in vitals.samples],
        )
    )


async def routers(request: Request) -> Response:
    """`{"routers": […]}`, by process; the connections of those of this process, to who administers all of them."""
    bus, identity = bus_of(request), asker(request)
    vitals = await bus.pulses.look()
    whole, own = administers(identity), bus.attendance.process
    shown = [
        RouterShown(
            process=pulse.process,
            host=pulse.host if whole else None,
            clients=router.clients,
            named=router.named,
            events_processed=router.events_processed,
            since=router.since,
            connections=None,
        )
        for pulse in vitals.there(bus.pulses.now)
        if pulse.process != own
        for router in pulse.routers
    ]
    for router in bus.pulses.routers:
        now = router.pulse()
        shown.append(
            RouterShown(
                process=own,
                host=bus.pulses.host if whole else None,
                clients=now.clients,
                named=now.named,
                events_processed=now.events_processed,
                since=now.since,
                connections=[_shown(each) for each in router.connected() if _may_see(identity, each)],
            )
        )
    return answer(Routers(sorted(shown, key=_process), complete=bus.pulses.whole))


def _known(sample: Sample) -> Sample | None:
    """A sample of all processes; of this one alone it would pass for one in which the others do nothing."""
    return sample if sample.whole else None


def _point(sample: Sample) -> SampleShown:
    if not sample.whole:
        return SampleShown(sample.at, None, None, None, None)
    return SampleShown(sample.at, sample.published, sample.delivered, sample.failed, sample.latency.p95)


async def _subscriptions(bus: EventBus) -> Sequence[SubscriptionInfo] | None:
    """None if the engine does not answer."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await bus.subscriptions()
    except (BusError, TimeoutError):
        return None


async def _health(bus: EventBus) -> Literal["healthy", "unhealthy"]:
    try:
        async with asyncio.timeout(_PATIENCE):
            return "healthy" if (await look(bus))["status"] == "healthy" else "unhealthy"
    except TimeoutError:
        return "unhealthy"


def _sum(infos: Sequence[SubscriptionInfo] | None, name: str) -> int | None:
    """Of all of them; None where one cannot be told."""
    numbers: list[Any] = [None] if infos is None else [getattr(info, name) for info in infos]
    return None if None in numbers else sum(numbers)


def _may_see(identity: Identity | None, connected: Connected) -> bool:
    return administers(identity) or (identity is not None and connected.name == identity.name)


def _shown(connected: Connected) -> ConnectionShown:
    return ConnectionShown(
        connected.name, connected.address, connected.since, connected.subscriptions, connected.outbox_bytes
    )


def _process(router: RouterShown) -> tuple[str, float]:
    return router.process, router.since
