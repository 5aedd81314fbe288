"""/agents: who is there, what it hears and what it publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, structs

from wowevent.roster import AgentInfo
from wowevent.service.access import asker
from wowevent.service.answers import answer
from wowevent.service.asking import bus_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from wowevent.access.rights import Identity


class Agents(Struct):
    """Who is there or has a subscription that is remembered, by name."""

    agents: list[AgentInfo]


async def agents(request: Request) -> Response:
    """`{"agents": […]}`, by name. The first request of a process takes a second and a half."""
    identity, found = asker(request), await bus_of(request).agents()
    if identity is not None and not identity.may("admin"):
        found = [each for info in found if (each := _seen(identity, info)) is not None]
    return answer(Agents(list(found)))


def _seen(identity: Identity, info: AgentInfo) -> AgentInfo | None:
    """What may be known of it by who does not administer: of itself all; of others what may be heard, and not where."""
    if info.name == identity.name:
        return info
    subscriptions = tuple(each for each in info.subscriptions if identity.may("subscribe", *each.patterns))
    publishes = tuple(topic for topic in info.publishes if identity.may("subscribe", topic))
    if not subscriptions and not publishes:
        return None
    return structs.replace(info, processes=(), subscriptions=subscriptions, publishes=publishes)
