"""/agents: who is there, what it hears and what it publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from wowevent.access.sight import seen_agents
from wowevent.roster import AgentInfo
from wowevent.service.access import asker
from wowevent.service.answers import answer
from wowevent.service.asking import bus_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class Agents(Struct):
    """Who is there or has a subscription that is remembered, by name."""

    agents: list[AgentInfo]


async def agents(request: Request) -> Response:
    """`{"agents": […]}`, by name. The first request of a process takes a second and a half."""
    return answer(Agents(seen_agents(asker(request), await bus_of(request).agents())))
