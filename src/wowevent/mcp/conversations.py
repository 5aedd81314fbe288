"""The tool for conversations: who caused what, when, and what failed."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct, structs

from wowevent.access.sight import seen_conversation
from wowevent.causation import find
from wowevent.conversation import Step, conversation
from wowevent.mcp.call import Call
from wowevent.mcp.shown import fitting
from wowevent.mcp.tool import Tool

_EMPTY: Final[tuple[Any, ...]] = (None, "", False, [])


class Trace(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which conversation."""

    id: Annotated[str, Meta(description="Of any event of it, or its correlation id.", max_length=128)]
    limit: Annotated[int, Meta(description="Its first so many events.", ge=1, le=500)] = 100


async def trace(call: Call, asked: Trace) -> dict[str, Any]:
    """How one thing led to another: the tree of a conversation, cause before effect, with what failed.

    Answers {id, steps, agents, started, ended, seconds, failures, orphans, replays, unreadable, more}. A step is an
    event at its `depth` in the tree: {event_id, depth, cause, topic, source_agent, time, after, failures, …}; `after`
    is seconds after its cause, `failures` are dead letters that there are now, what is empty is left out. Times are
    Unix seconds.
    Errors: conversation_not_found, invalid_event.
    """
    bus = await call.bus()
    found = seen_conversation(call.identity, await find(bus.broker, asked.id, asked.limit, time.time()), asked.id)
    tree = conversation(found)
    steps = fitting(_shown(step) for step in tree.steps)
    more = tree.more or len(steps) < len(tree.steps)
    told: dict[str, Any] = msgspec.to_builtins(structs.replace(tree, steps=()))
    return told | {"steps": steps, "seconds": tree.seconds, "more": more}


TOOLS: Final = (Tool(call=trace, arguments=Trace, rights=("replay",)),)


def _shown(step: Step) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(step)
    return {name: value for name, value in fields.items() if name == "depth" or value not in _EMPTY}
