"""/dead-letters: list, group, show, redeliver, discard, resend; several at once only for who says which."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from starlette.responses import Response

from wowevent.broker import DeadLetter, DeadQuery, Reason
from wowevent.dead_letter import TOGETHER
from wowevent.errors import DeadLetterNotFound, InvalidEvent, SubscriptionNotFound, shown
from wowevent.event import check_name
from wowevent.fingerprint import MOST as MOST_GROUPS
from wowevent.fingerprint import PATTERN
from wowevent.log import logger
from wowevent.service import answers
from wowevent.service.access import asker, name_of_asker, note, permit
from wowevent.service.answers import (
    Choice,
    DeadLetters,
    Discarded,
    DiscardOrder,
    Redelivered,
    RedeliverOrder,
    ResendOrder,
    answer,
    shown_count,
    shown_groups,
    shown_letter,
)
from wowevent.service.asking import bus_of, limit_of, name_of
from wowevent.service.intake import no_order, order_of
from wowevent.service.redeliveries import begin

if TYPE_CHECKING:
    from starlette.requests import Request

MOST: Final = 1000
"""Dead letters of one answer."""

C = TypeVar("C", bound=Choice)

_PAGE: Final = "100"
_MARK: Final = re.compile(PATTERN)


async def dead_letters(request: Request) -> Response:
    """`{"dead_letters": […], "more": false}` by subscription, reason, event, correlation and group, oldest first."""
    limit = limit_of(request.query_params.get("limit", _PAGE), MOST) or MOST
    choice = _asked(request)
    found = await bus_of(request).dead_letters.list(**_filters(request, choice), limit=limit + 1)
    await _check_seen(request, choice, found)
    return answer(DeadLetters([shown_letter(letter) for letter in found[:limit]], len(found) > limit))


async def groups(request: Request) -> Response:
    """`{"groups": […], "more": false}`: what those that fit the same filters died of, the largest group first."""
    limit = limit_of(request.query_params.get("limit", _PAGE), MOST_GROUPS) or MOST_GROUPS
    choice = _asked(request)
    found = await bus_of(request).dead_letters.groups(**_filters(request, choice), limit=limit)
    await _check_seen(request, choice, found.groups)
    return answer(shown_groups(found))


async def dead_letter(request: Request) -> Response:
    """One of them."""
    return answer(shown_letter(await _letter(request)))


async def redeliver(request: Request) -> Response:
    """`{"redelivered": 1}`: its subscription gets it again, with fresh attempts."""
    bus = bus_of(request)
    await no_order(request, request.app.state.body_limit)
    count = await _one(request, bus.dead_letters.redeliver)
    return answer(Redelivered(_note(request, "redelivered", count)))


async def discard(request: Request) -> Response:
    """204: it is forgotten."""
    bus = bus_of(request)
    _note(request, "discarded", await _one(request, bus.dead_letters.discard))
    return Response(status_code=204)


async def resend(request: Request) -> Response:
    """`{"event_id": …, "replaces": …}`: its subscription alone gets the event with another payload."""
    bus = bus_of(request)
    order = await order_of(request, ResendOrder, request.app.state.body_limit)
    letter = await _letter(request)
    permit(request, "publish", (letter.event.topic,))
    if (identity := asker(request)) is not None:
        request.app.state.rates.spend(identity, "events")
    by = name_of_asker(request)
    done = await bus.dead_letters.resend(letter.id, order.payload, reason=order.reason, by=by)
    facts = {"letter": letter.id, "event_id": done.event_id, "replaces": done.replaces, "reason": order.reason}
    logger.info("dead_letter resent by a request", subscription=letter.subscription, **facts)
    note(request, "dead_letter resent", subscription=letter.subscription, **facts)
    return answer(answers.Resent(done.event_id, done.replaces, done.duplicate))


async def redeliver_several(request: Request) -> Response:
    """`{"redelivered": n}` for the ids, or all that fit the filters, of the body; 202 for a rate."""
    bus = bus_of(request)
    order = await _order(request, RedeliverOrder)
    if order.dry_run:
        return await _counted(request, order)
    ids = await _ids(request, order)
    if order.rate is None:
        return answer(Redelivered(_note(request, "redelivered", await bus.dead_letters.redeliver(ids))))
    begun = begin(request, order, ids, order.rate)
    note(request, "redelivery started", redelivery=begun.id, count=len(ids), rate=order.rate)
    return answer(begun, 202, location=f"/redeliveries/{begun.id}")


async def discard_several(request: Request) -> Response:
    """`{"discarded": n}` for the ids, or all that fit the filters, of the body."""
    bus = bus_of(request)
    order = await _order(request, DiscardOrder)
    if order.dry_run:
        return await _counted(request, order)
    ids = await _ids(request, order)
    return answer(Discarded(_note(request, "discarded", await bus.dead_letters.discard(ids))))


def _note(request: Request, what: str, count: int) -> int:
    """The count itself, with a line for whoever asks later where they went."""
    logger.info(f"dead_letter {what} by a request", count=count)
    note(request, f"dead_letter {what}", count=count)
    return count


async def _one(request: Request, resolve: Callable[[str], Awaitable[int]]) -> int:
    letter = await _letter(request)
    if not (count := await resolve(letter.id)):  # somebody else was quicker
        raise _unknown(letter.id)
    return count


async def _order(request: Request, kind: type[C]) -> C:
    """Which letters are meant, and what else; InvalidEvent unless that is clear: nothing is done by accident."""
    order = await order_of(request, kind, request.app.state.body_limit)
    filtered = any((order.subscription, order.reason, order.event_id, order.correlation_id, order.fingerprint))
    if bool(order.ids) == filtered:
        raise InvalidEvent("say which dead letters: ids, or at least one of subscription, reason, event_id, …")
    for id in (order.event_id, order.correlation_id):
        if id is not None:
            check_name(id)
    return order


async def _counted(request: Request, choice: Choice) -> Response:
    """How many letters are meant, of which subscription; nothing changes."""
    letters = bus_of(request).dead_letters
    if choice.ids:
        return answer(shown_count(await letters.count(await _ids(request, choice))))
    found = await letters.count(**_filters(request, choice))
    await _check_seen(request, choice, found.by_subscription)
    return answer(shown_count(found))


async def _ids(request: Request, choice: Choice) -> Sequence[str]:
    """The letters that are meant, are there and may be seen."""
    if choice.ids:
        return [letter.id for letter in await _named(request, choice.ids)]
    found = await bus_of(request).dead_letters.ids(**_filters(request, choice))
    await _check_seen(request, choice, found)
    return found


def _asked(request: Request) -> Choice:
    """The filters of a query."""
    asked = request.query_params
    mark = asked.get("fingerprint")
    if mark is not None and _MARK.fullmatch(mark) is None:
        raise InvalidEvent(f"fingerprint: {shown(mark)} is none: 16 hexadecimal digits")
    return Choice(
        subscription=asked.get("subscription"),
        reason=_reason(asked["reason"]) if "reason" in asked else None,
        event_id=name_of(asked, "event_id"),
        correlation_id=name_of(asked, "correlation_id"),
        fingerprint=mark,
    )


def _filters(request: Request, choice: Choice) -> dict[str, Any]:
    """What is asked for, of what may be seen."""
    return {
        "subscription": choice.subscription,
        "reason": choice.reason,
        "event_id": choice.event_id,
        "correlation_id": choice.correlation_id,
        "fingerprint": choice.fingerprint,
        "where": None if _sees_all(request) else partial(_sees, request),
    }


async def _check_seen(request: Request, choice: Choice, found: Collection[object]) -> None:
    """SubscriptionNotFound for an unknown one: a misspelt name has no letters, and must not look as if well."""
    if choice.subscription is not None and not found:
        await _check_known(request, choice.subscription)


async def _check_known(request: Request, name: str) -> None:
    """SubscriptionNotFound unless there is one of that name whose dead letters may be seen."""
    identity = asker(request)
    for spec in (info.subscription for info in await bus_of(request).subscriptions()):
        named = bool(name) and name in {spec.id, spec.agent}
        if named and (identity is None or identity.may("dead_letters", *spec.patterns)):
            return
    raise SubscriptionNotFound(f"no subscription or agent {shown(name)} is known")


async def _named(request: Request, ids: Sequence[str]) -> list[DeadLetter]:
    """Those of the ids that are there and may be seen, each once."""
    asked = list(dict.fromkeys(ids))
    parts = [tuple(asked[start : start + TOGETHER]) for start in range(0, len(asked), TOGETHER)]
    found = [await bus_of(request).broker.dead(DeadQuery(ids=part, limit=TOGETHER)) for part in parts]
    return [letter for letters in found for letter in letters if _sees(request, letter)]


async def _letter(request: Request) -> DeadLetter:
    """The one that the path names; one that may not be seen is not there."""
    id = request.path_params["id"]
    found = await bus_of(request).broker.dead(DeadQuery(ids=(id,), limit=1))
    if not found or not _sees(request, found[0]):
        raise _unknown(id)
    return found[0]


def _sees_all(request: Request) -> bool:
    identity = asker(request)
    return identity is None or identity.may("dead_letters")


def _sees(request: Request, letter: DeadLetter) -> bool:
    """Whether it may be seen: by its topic, whoever the event was for, since that one could not handle it."""
    identity = asker(request)
    return identity is None or identity.may("dead_letters", letter.event.topic)


def _unknown(id: str) -> DeadLetterNotFound:
    return DeadLetterNotFound(f"there is no dead letter {shown(id)}")


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        raise InvalidEvent(f"reason: {text!r:.40} is none of {', '.join(Reason)}") from None
