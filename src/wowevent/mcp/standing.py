"""Tools that look at how things stand: health, subscriptions."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from wowevent.access.sight import sees_subscription
from wowevent.broker import SubscriptionInfo
from wowevent.bus import EventBus
from wowevent.errors import BusError
from wowevent.mcp.call import Call
from wowevent.mcp.letters import Name
from wowevent.mcp.problem import problem_of
from wowevent.mcp.shown import fitting
from wowevent.mcp.tool import Nothing, Tool
from wowevent.service.subscriptions import shown_subscription

_MOST: Final = 200  # subscriptions of an answer


async def health(call: Call, _: Nothing) -> dict[str, Any]:
    """Whether the bus is well, as this server sees it: engine, promise, latency, which subscriptions lapsed.

    Answers {status: healthy | degraded | unhealthy, …}, also when the engine is away; then with `problem`: what is
    wrong and what to do. For the service on this machine see router_status, for the causes troubleshoot.
    """
    try:
        return await (await call.bus()).health()
    except BusError as error:
        return {"status": "unhealthy", "problem": msgspec.to_builtins(problem_of(error))}


class Which(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which subscriptions."""

    name: Name | None = None
    troubled: Annotated[
        bool, Meta(description="Only those with dead letters, a backlog that nobody serves, that are paused or lapsed.")
    ] = False
    limit: Annotated[int, Meta(description="At most so many.", ge=1, le=_MOST)] = 50


async def subscriptions(call: Call, asked: Which) -> dict[str, Any]:
    """Who listens to what, and how much waits for them.

    Answers {subscriptions: [{id, agent, durable, patterns, filter, ready, leased, delayed, dead, consumers, oldest,
    lost, lapsed, paused}], more}, by id. `ready` events wait, `consumers` serve it now (0 with ready > 0:
    nobody works on the backlog), `dead` are dead letters, `oldest` is seconds; a number is null where the engine cannot
    tell it.
    Errors: broker_unavailable.
    """
    bus = await call.bus()
    found = sorted(await bus.subscriptions(), key=lambda info: info.subscription.id)
    fits = [_shown(bus, info) for info in found if sees_subscription(call.identity, info) and _named(info, asked.name)]
    wanted = [each for each in fits if not asked.troubled or _troubled(each)]
    shown = fitting(wanted[: asked.limit])
    return {"subscriptions": shown, "more": len(shown) < len(wanted)}


TOOLS: Final = (
    Tool(call=health),
    Tool(call=subscriptions, arguments=Which, rights=("subscribe", "admin")),
)


def _named(info: SubscriptionInfo, name: str | None) -> bool:
    return name is None or name in {info.subscription.id, info.subscription.agent}


def _shown(bus: EventBus, info: SubscriptionInfo) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(
        shown_subscription(info, paused=bus.paused(info.subscription.id, info.subscription.agent))
    )
    return shown


def _troubled(shown: dict[str, Any]) -> bool:
    unserved = shown["durable"] and shown["ready"] and not shown["consumers"]
    return bool(shown["dead"] or unserved or shown["lapsed"] or shown["paused"] or shown["lost"])
