"""Tools that hold what should wait: a subscription, an agent, a topic, a conversation, everything; and go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from wowevent.errors import InvalidEvent
from wowevent.holds import Pause, said
from wowevent.mcp.call import Call
from wowevent.mcp.shown import fitting
from wowevent.mcp.tool import Nothing, Tool
from wowevent.service.pauses import shown_pauses

Name = Annotated[str, Meta(description="A subscription, or an agent: the subscriptions it has now.", max_length=300)]


class Choice(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to pause or resume: exactly one."""

    name: Name | None = None
    agent: Annotated[str, Meta(description="All of an agent's, those made later too.")] | None = None
    topic: Annotated[str, Meta(description="Events whose topic matches, such as task.*.")] | None = None
    correlation_id: Annotated[str, Meta(description="The events of one conversation.")] | None = None
    everything: Annotated[bool, Meta(description="All deliveries there are: the emergency stop.")] = False

    def given(self) -> dict[str, Any]:
        """As the bus takes it."""
        names = ("name", "agent", "topic", "correlation_id", "everything")
        return {name: getattr(self, name) for name in names}


class Pausing(Choice, forbid_unknown_fields=True, kw_only=True):
    """What to pause, and until when."""

    seconds: Annotated[float, Meta(description="For so long.", gt=0, le=31_536_000)] | None = None
    until: Annotated[str, Meta(description="Until then: ISO 8601, naive is UTC.")] | None = None
    reason: Annotated[str, Meta(description="Shown to whoever looks.", max_length=500)] = ""


async def pause(call: Call, asked: Pausing) -> dict[str, Any]:
    """Hand out nothing of a subscription, an agent, a topic, a conversation, or at all, until resume or a time.

    Name exactly one. Answers {paused: [{scope, name, since, until, reason, by}]}. What is remembered waits, what comes
    for live listeners meanwhile is dropped. Every process heeds it within a second; what is being handled is finished.
    Errors: subscription_not_found, subscription_conflict for a live one, invalid_event, broker_unavailable.
    """
    if asked.until is not None and asked.seconds is not None:
        raise InvalidEvent("give either until or seconds")
    who = call.caller.who
    until = asked.seconds if asked.until is None else asked.until
    bus = await call.bus()
    made = await bus.pause(**asked.given(), until=until, reason=asked.reason, by="" if who is None else who.name)
    for each in made:
        call.note("pause", **{name: value for name, value in said(each).items() if name != "by"})
    return {"paused": _shown(made)}


async def resume(call: Call, asked: Choice) -> dict[str, Any]:
    """Go on with what was paused, named as it was; of two pauses that hold an event one may be left.

    Answers {resumed: [{scope, name, since, until, reason, by}]}. Errors: as pause.
    """
    ended = await (await call.bus()).resume(**asked.given())
    for each in ended:
        call.note("resume", scope=each.scope, name=each.name)
    return {"resumed": _shown(ended)}


async def pauses(call: Call, _: Nothing) -> dict[str, Any]:
    """What is paused now, since when, why and by whom.

    Answers {pauses: [{scope, name, since, until, reason, by}], more}.
    """
    found = _shown(await (await call.bus()).pauses())
    shown = fitting(found)
    return {"pauses": shown, "more": len(shown) < len(found)}


TOOLS: Final = (
    Tool(call=pauses, rights=("admin",)),
    Tool(call=pause, arguments=Pausing, rights=("admin",), changes=True),
    Tool(call=resume, arguments=Choice, rights=("admin",), changes=True),
)


def _shown(found: Sequence[Pause]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = msgspec.to_builtins(shown_pauses(found).pauses)
    return shown
