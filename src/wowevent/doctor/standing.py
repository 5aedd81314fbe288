"""How subscriptions stand: who lost something, who is not there, who is behind; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wowevent.broker import SubscriptionInfo
from wowevent.finding import Check, Finding

LAPSED: Final = Check("subscriptions.lapsed", "nothing that a subscription had not read is given up")
UNSERVED: Final = Check("subscriptions.unserved", "each is served; one that nobody serves for a week lapses")
BACKLOG: Final = Check("subscriptions.backlog", "fewer than 10,000 events wait for a served one, none for an hour")
DEAD: Final = Check("subscriptions.dead_letters", "no event that a handler gave up")
CHECKS: Final = (LAPSED, UNSERVED, BACKLOG, DEAD)

_MANY: Final = 10_000
_LONG: Final = 3600.0  # seconds
_NAMED: Final = 5


def judge(infos: Sequence[SubscriptionInfo] | None) -> list[Finding]:
    """A finding for each check. None: there is no log yet."""
    if infos is None:
        return [check.ok("no log yet") for check in CHECKS]
    remembered = [info for info in infos if info.subscription.durable]
    return [judge_one(remembered) for judge_one in (_lapsed, _unserved, _backlog, _dead)]


def _lapsed(infos: Sequence[SubscriptionInfo]) -> Finding:
    lapsed = [_id(info) for info in infos if info.lapsed]
    lost = [f"{_id(info)} ({info.lost} events)" for info in infos if info.lost and not info.lapsed]
    if not lapsed and not lost:
        return LAPSED.ok(f"none of {len(infos)}")
    parts = [f"lapsed: {_names(lapsed)}"] * bool(lapsed) + [f"lost events: {_names(lost)}"] * bool(lost)
    return LAPSED.warn(
        "; ".join(parts),
        "start who serves it: it is told once (PositionLost) and goes on; one that nobody needs: "
        "wowevent subscriptions remove NAME",
    )


def _unserved(infos: Sequence[SubscriptionInfo]) -> Finding:
    alone = [f"{_id(info)} ({info.ready} waiting)" for info in infos if not info.consumers and not info.lapsed]
    if not alone:
        return UNSERVED.ok(f"{sum(not info.lapsed for info in infos)} served")
    return UNSERVED.warn(
        _names(alone),
        "start who serves it; one that nobody needs any more keeps events from being trimmed: "
        "wowevent subscriptions remove NAME",
    )


def _backlog(infos: Sequence[SubscriptionInfo]) -> Finding:
    behind = [
        f"{_id(info)} ({info.ready} waiting{'' if info.oldest is None else f', the oldest for {info.oldest:.0f} s'})"
        for info in infos
        if info.consumers and (info.ready > _MANY or (info.oldest or 0.0) > _LONG)
    ]
    if not behind:
        return BACKLOG.ok(f"{sum(info.ready for info in infos)} events wait in all")
    return BACKLOG.warn(
        _names(behind),
        "more workers (wowevent run --workers), concurrency= or a faster handler; wowevent info NAME; a paused one "
        "goes on with: wowevent subscriptions resume NAME",
    )


def _dead(infos: Sequence[SubscriptionInfo]) -> Finding:
    dead = [f"{_id(info)} ({info.dead})" for info in infos if info.dead]
    if not dead:
        return DEAD.ok("none")
    return DEAD.warn(
        f"{sum(info.dead for info in infos)}: {_names(dead)}",
        "wowevent dlq list says why; mend the handler, then wowevent dlq redeliver, or discard",
    )


def _id(info: SubscriptionInfo) -> str:
    return info.subscription.id


def _names(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
