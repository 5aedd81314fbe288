"""Tools for dead letters: what died of what, and sending it again, first as a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from wowevent.access.sight import check_named, letters_seen
from wowevent.broker import DeadLetter, Reason
from wowevent.bus import EventBus
from wowevent.dead_letter import TOGETHER, all_named, named
from wowevent.event import check_name
from wowevent.fingerprint import MOST, PATTERN, Grouping, LetterGroup
from wowevent.mcp.call import Call
from wowevent.mcp.meaning import MEANING
from wowevent.mcp.problem import Refusal
from wowevent.mcp.shown import fitting, shown_event
from wowevent.mcp.tool import Tool

_MOST: Final = 1000  # letters that one call sends again
_ERROR: Final = 500  # characters of an error,
_TRACEBACK: Final = 2000  # and of the end of a traceback, where the reason stands
_SHOWN: Final = 100  # groups of one answer; they have a payload each
_NAMES: Final = 10  # topics, and subscriptions, of a group

Name = Annotated[str, Meta(description="A subscription, or an agent: all of its subscriptions.", max_length=300)]
Mark = Annotated[str, Meta(description="A group, as dead_letters names it.", pattern=PATTERN)]


class Filters(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters."""

    subscription: Name | None = None
    reason: Annotated[Reason, Meta(description="Only those that died of this.")] | None = None
    event_id: Annotated[str, Meta(description="Only those of this event.")] | None = None
    correlation_id: Annotated[str, Meta(description="Only those of one conversation.")] | None = None
    fingerprint: Mark | None = None


async def dead_letters(call: Call, asked: Filters) -> dict[str, Any]:
    """Explain what could not be handled: the dead letters, grouped by what they died of, the largest group first.

    Answers {count, more, groups, groups_left_out}; a group is {fingerprint, subscriptions, reason, meaning, count,
    first, last, topics, error, traceback, example}: `meaning` says what the reason means and what helps, `first` and
    `last` are Unix seconds, `example` the newest letter with its event. All that fit are looked at; `more` says that
    there are more than 1,000 groups, and `count` is without the others.
    Errors: subscription_not_found, broker_unavailable.
    """
    call.permit_any("dead_letters")
    bus = await call.bus()
    found = await bus.dead_letters.groups(**_filters(call, asked), limit=MOST)
    if asked.subscription is not None and not found.groups:
        check_named(call.identity, await bus.subscriptions(), asked.subscription)
    examples = await _examples(bus, found.groups[:_SHOWN])
    shown = fitting(_whole(group, examples.get(group.newest)) for group in found.groups[:_SHOWN])
    return {
        "count": sum(group.count for group in found.groups),
        "more": found.more,
        "groups": shown,
        "groups_left_out": len(found.groups) - len(shown),
    }


class Redeliver(Filters, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters to send again."""

    ids: Annotated[list[str], Meta(description="Dead letters by id.", max_length=TOGETHER)] | None = None
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
    if asked.ids:
        found: Sequence[DeadLetter] = await all_named(bus.broker, asked.ids, letters_seen(call.identity))
    else:
        found = await _fitting(call, bus, asked, asked.limit + 1)
    letters = found[: asked.limit]
    more = len(found) > len(letters)
    if not asked.confirm:
        return {"dry_run": True, "would_redeliver": len(letters), "more": more, "groups": _brief(letters)}
    ids = [letter.id for letter in letters]
    count = await bus.dead_letters.redeliver(ids)
    call.note("dead_letter redelivered", count=count)
    return {"dry_run": False, "redelivered": count, "gone": len(ids) - count, "more": more}


TOOLS: Final = (
    Tool(call=dead_letters, arguments=Filters, rights=("dead_letters",)),
    Tool(call=redeliver, arguments=Redeliver, rights=("dead_letters",), changes=True),
)


def _brief(letters: Sequence[DeadLetter]) -> list[dict[str, Any]]:
    """What these died of, in short."""
    grouping = Grouping()
    for letter in letters:
        grouping.add(letter)
    names = ("fingerprint", "subscriptions", "reason", "meaning", "count", "error")
    return fitting({name: _told(group)[name] for name in names} for group in grouping.groups(MOST).groups)


def _told(group: LetterGroup) -> dict[str, Any]:
    return {
        "fingerprint": group.fingerprint,
        "subscriptions": dict(list(group.subscriptions.items())[:_NAMES]),
        "reason": group.reason,
        "meaning": MEANING[group.reason],
        "count": group.count,
        "first": group.first,
        "last": group.last,
        "topics": dict(list(group.topics.items())[:_NAMES]),
        "error": group.error[:_ERROR],
        "traceback": group.traceback[-_TRACEBACK:],
    }


def _whole(group: LetterGroup, newest: DeadLetter | None) -> dict[str, Any]:
    """A group with its newest letter, unless that is gone meanwhile."""
    if newest is None:
        return {**_told(group), "example": {"id": group.newest}}
    example = {"id": newest.id, "attempts": len(newest.attempts), "event": shown_event(newest.event)}
    return {**_told(group), "example": example}


async def _examples(bus: EventBus, groups: Sequence[LetterGroup]) -> dict[str, DeadLetter]:
    return {letter.id: letter for letter in await named(bus.broker, (group.newest for group in groups))}


def _filters(call: Call, asked: Filters) -> dict[str, Any]:
    """What is asked for, of what may be seen; InvalidEvent for what is no id."""
    for id in (asked.event_id, asked.correlation_id):
        if id is not None:
            check_name(id)
    return {
        "subscription": asked.subscription,
        "reason": asked.reason,
        "event_id": asked.event_id,
        "correlation_id": asked.correlation_id,
        "fingerprint": asked.fingerprint,
        "where": letters_seen(call.identity),
    }


async def _fitting(call: Call, bus: EventBus, asked: Filters, limit: int) -> Sequence[DeadLetter]:
    """Those that fit and may be seen; SubscriptionNotFound for a name that is none: it must not look as if well."""
    found = await bus.dead_letters.list(**_filters(call, asked), limit=limit)
    if asked.subscription is not None and not found:
        check_named(call.identity, await bus.subscriptions(), asked.subscription)
    return found
