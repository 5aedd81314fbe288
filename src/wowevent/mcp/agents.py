"""The tool for agents: who is there, what it hears and what it says."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from wowevent.access.sight import seen_agents
from wowevent.mcp.call import Call
from wowevent.mcp.shown import fitting
from wowevent.mcp.tool import Tool
from wowevent.roster import AgentInfo


class Which(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which agents."""

    name: Annotated[str, Meta(description="Only this one.", max_length=128)] | None = None
    state: Annotated[Literal["online", "suspect", "offline"], Meta(description="Only those.")] | None = None
    limit: Annotated[int, Meta(description="At most so many.", ge=1, le=200)] = 50


async def agents(call: Call, asked: Which) -> dict[str, Any]:
    """Who is there: agents by name, whether they are online, where they run, what they hear and what they publish.

    Answers {agents: [{name, state, last_seen, processes, subscriptions, publishes}], more}. `suspect` was not heard of
    for 7.5 s, `offline` for 15 s or said goodbye; `last_seen` is Unix seconds. The first call takes a second and a
    half.
    Errors: broker_unavailable.
    """
    found = seen_agents(call.identity, await (await call.bus()).agents())
    fits = [each for each in found if _fits(each, asked)]
    shown = fitting(msgspec.to_builtins(each) for each in fits[: asked.limit])
    return {"agents": shown, "more": len(shown) < len(fits)}


TOOLS: Final = (Tool(call=agents, arguments=Which, rights=("subscribe", "admin")),)


def _fits(info: AgentInfo, asked: Which) -> bool:
    return asked.name in {None, info.name} and asked.state in {None, info.state}
