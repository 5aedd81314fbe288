"""Tools for dead letters: what died of what, and sending it again, first as a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from wowevent.broker import DeadLetter, DeadQuery, Reason
from wowevent.bus import EventBus
from wowevent.errors import SubscriptionNotFound, shown
from wowevent.event import check_name
from wowevent.mcp.call import Call
from wowevent.mcp.fingerprint import Group, fingerprint, grouped
from wowevent.mcp.problem import Refusal
from wowevent.mcp.shown import fitting
from wowevent.mcp.tool import Tool

_MOST: Final = 1000  # letters that one call looks at
_TOGETHER: Final = 500  # letters of one call of the engine

Name = Annotated[str, Meta(description="A subscription, or an agent: all of its subscriptions.", max_length=300)]
Mark = Annotated[str, Meta(description="A group, as dead_letters names it.", pattern="^[0-9a-f]{12}$")]


class Filters(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters."""

    subscription: Name | None = None
    reason: Annotated[Reason, Meta(description="Only those that died of this.")] | None = None
    event_id: Annotated[str, Meta(description="Only those of this event.")] | None = None
    correlation_id: Annotated[str, Meta(description="Only those of one conversation.")] | None = None
    fingerprint: Mark | None = None


async def dead_letters(call: Call, asked: Filters) -> dict[str, Any]:
    """Explain what could not be handled: the dead letters, grouped by what they died of, the largest group first.

    Answers {count, more, groups, groups_left_out}; a group is {fingerprint, subscription, reason, meaning, count,
    first, last, topics, error, traceback, example}: `meaning` says what the reason means and what helps, `first` and
    `last` are Unix seconds, `example` the newest letter with its event. The oldest 1,000 that fit are looked at; `more`
    says that there are others.
    Errors: subscription_not_found, broker_unavailable.
    """
    call.permit_any("dead_letters")
    found = await _fitting(call, await call.bus(), asked, _MOST + 1)
    groups = grouped(found[:_MOST])
    shown = fitting(msgspec.to_builtins(group) for group in groups)
    return {
        "count": len(found[:_MOST]),
        "more": len(found) > _MOST,
        "groups": shown,
        "groups_left_out": len(groups) - len(shown),
    }


class Redeliver(Filters, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters to send again."""

    ids: Annotated[list[str], Meta(description="Dead letters by id.", max_length=_TOGETHER)] | None = None
    limit: Annotated[int, Meta(description="The oldest so many of them.", ge=1, le=_MOST)] = _MOST
    confirm: Annotated[bool, Meta(description="False: only say what would be sent. Do that first.")] = False


async def redeliver(call: Call, asked: Redeliver) -> dict[str, Any]:
    """Hand dead letters to their subscriptions again, with fresh attempts: a dry run unless `confirm` is true.

    Say which: `ids`, or at least one of fingerprint, subscription, reason, event_id, correlation_id. First call it
    without `confirm`: it answers {dry_run: true, would_redeliver, more, groups} and changes nothing. Correct what they
    died of, show a person the numbers if they are large, then call it with the same arguments and confirm=true:
    {dry_run: false, redelivered, gone, more}. `more` says that others fit beyond `limit`.
    Errors: invalid_arguments, dead_letter_not_found, subscription_not_found, storage_full, broker_unavailable.
    """
    call.permit_any("dead_letters")
    filters = (asked.fingerprint, asked.subscription, asked.reason, asked.event_id, asked.correlation_id)
    if bool(asked.ids) == any(filters):
        raise Refusal("invalid_arguments", "redeliver: say which: ids, or at least one filter, and not both")
    bus = await call.bus()
    found = await _named(call, bus, asked.ids) if asked.ids else await _fitting(call, bus, asked, asked.limit + 1)
    letters = found[: asked.limit]
    more = len(found) > len(letters)
    if not asked.confirm:
        return {"dry_run": True, "would_redeliver": len(letters), "more": more, "groups": _brief(grouped(letters))}
    ids = [letter.id for letter in letters]
    count = sum(
        [await bus.dead_letters.redeliver(ids[start : start + _TOGETHER]) for start in range(0, len(ids), _TOGETHER)]
    )
    call.note("dead_letter redelivered", count=count)
    return {"dry_run": False, "redelivered": count, "gone": len(ids) - count, "more": more}


TOOLS: Final = (
    Tool(call=dead_letters, arguments=Filters, rights=("dead_letters",)),
    Tool(call=redeliver, arguments=Redeliver, rights=("dead_letters",), changes=True),
)


def _brief(groups: Sequence[Group]) -> list[dict[str, Any]]:
    names = ("fingerprint", "subscription", "reason", "meaning", "count", "error")
    return fitting({name: getattr(group, name) for name in names} for group in groups)


async def _fitting(call: Call, bus: EventBus, asked: Filters, limit: int) -> list[DeadLetter]:
    """Those that fit and may be seen; SubscriptionNotFound for a name that is none: it must not look as if well."""
    for id in (asked.event_id, asked.correlation_id):
        if id is not None:
            check_name(id)
    narrowed = asked.fingerprint is not None or not call.may("dead_letters")
    found = await bus.dead_letters.list(
        subscription=asked.subscription,
        reason=asked.reason,
        event_id=asked.event_id,
        correlation_id=asked.correlation_id,
        limit=max(limit, _MOST + 1) if narrowed else limit,
    )
    seen = [letter for letter in found if call.may("dead_letters", letter.event.topic)]
    if asked.subscription is not None and not seen:
        await _check_known(call, bus, asked.subscription)
    wanted = [each for each in seen if asked.fingerprint in {None, fingerprint(each)}]
    return wanted[:limit]


async def _check_known(call: Call, bus: EventBus, name: str) -> None:
    for spec in (info.subscription for info in await bus.subscriptions()):
        if name in {spec.id, spec.agent} and call.may("dead_letters", *spec.patterns):
            return
    raise SubscriptionNotFound(f"no subscription or agent {shown(name)} is known")


async def _named(call: Call, bus: EventBus, ids: Sequence[str]) -> list[DeadLetter]:
    """The letters of these ids, all of them."""
    asked = tuple(dict.fromkeys(ids))
    found = await bus.broker.dead(DeadQuery(ids=asked, limit=_TOGETHER))
    there = {each.id: each for each in found if call.may("dead_letters", each.event.topic)}
    if missing := [id for id in asked if id not in there]:
        raise Refusal("dead_letter_not_found", f"there is no dead letter {', '.join(map(shown, missing[:10]))}")
    return [there[id] for id in asked]
