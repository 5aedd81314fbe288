"""Tools for conversations that went too far and are parked: which, and letting one go on."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from wowevent.access.sight import sees_storm
from wowevent.errors import shown
from wowevent.mcp.call import Call
from wowevent.mcp.problem import Refusal
from wowevent.mcp.shown import fitting
from wowevent.mcp.tool import Nothing, Tool
from wowevent.service.storms import shown_storm


async def storms(call: Call, _: Nothing) -> dict[str, Any]:
    """Which conversations went too far and are parked: agents that answered each other without end.

    Answers {storms: [{id, correlation_id, limit, most, path, since, who, why}], more}, the oldest first: `why` says it
    in a sentence, `path` shows who kept whom going. What was stopped is among dead_letters, with reason loop_detected.
    """
    found = [each for each in (await call.bus()).storms.list() if sees_storm(call.identity, each)]
    answer = fitting(msgspec.to_builtins(shown_storm(each)) for each in found)
    return {"storms": answer, "more": len(answer) < len(found)}


class Release(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which one."""

    id: Annotated[str, Meta(description="The storm's id, or its correlation_id.", max_length=128)]


async def storm_release(call: Call, asked: Release) -> dict[str, Any]:
    """Park a conversation no longer: it may go as far again as it went. Correct or pause what loops first.

    What was stopped stays among the dead letters until it is redelivered. Answers {released: [ids]}.
    Errors: storm_not_found.
    """
    released = await (await call.bus()).storms.release(asked.id)
    if not released:
        raise Refusal("storm_not_found", f"no conversation {shown(asked.id)} is parked")
    call.note("release", storm=asked.id)
    return {"released": [each.id for each in released]}


TOOLS: Final = (
    Tool(call=storms, rights=("dead_letters", "admin")),
    Tool(call=storm_release, arguments=Release, rights=("admin",), changes=True),
)
