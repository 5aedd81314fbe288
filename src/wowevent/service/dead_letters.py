"""/dead-letters: list, show, redeliver, discard; several at once only for who says which."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from wowevent.broker import DeadLetter, DeadQuery, Reason
from wowevent.errors import InvalidEvent, SubscriptionNotFound, shown
from wowevent.event import check_name
from wowevent.log import logger
from wowevent.service.access import asker, note
from wowevent.service.answers import Choice, DeadLetters, Discarded, Redelivered, answer, shown_letter
from wowevent.service.asking import bus_of, limit_of, name_of
from wowevent.service.failures import Refusal
from wowevent.service.intake import no_order, order_of

if TYPE_CHECKING:
    from starlette.requests import Request

MOST: Final = 1000
"""Dead letters of one answer."""

_PAGE: Final = "100"
_EVERY: Final = 2**31  # letters: no limit
_TOGETHER: Final = 500  # letters of one call of the engine


async def dead_letters(request: Request) -> Response:
    """`{"dead_letters": […], "more": false}` by subscription, reason, event and correlation, oldest first."""
    asked = request.query_params
    bus_of(request)
    limit = limit_of(asked.get("limit", _PAGE), MOST) or MOST
    choice = Choice(
        subscription=asked.get("subscription"),
        reason=_reason(asked["reason"]) if "reason" in asked else None,
        event_id=name_of(asked, "event_id"),
        correlation_id=name_of(asked, "correlation_id"),
    )
    found = await _fitting(request, choice, limit + 1)
    return answer(DeadLetters([shown_letter(letter) for letter in found[:limit]], len(found) > limit))


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


async def redeliver_several(request: Request) -> Response:
    """`{"redelivered": n}` for the ids, or all that fit the filters, of the body."""
    bus = bus_of(request)
    count = await _several(request, bus.dead_letters.redeliver)
    return answer(Redelivered(_note(request, "redelivered", count)))


async def discard_several(request: Request) -> Response:
    """`{"discarded": n}` for the ids, or all that fit the filters, of the body."""
    bus = bus_of(request)
    count = await _several(request, bus.dead_letters.discard)
    return answer(Discarded(_note(request, "discarded", count)))


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


async def _several(request: Request, resolve: Callable[[Sequence[str]], Awaitable[int]]) -> int:
    choice = await order_of(request, Choice, request.app.state.body_limit)
    _check(choice)
    found = await _named(request, choice.ids) if choice.ids else await _fitting(request, choice, _EVERY)
    ids = [letter.id for letter in found]
    return sum([await resolve(ids[start : start + _TOGETHER]) for start in range(0, len(ids), _TOGETHER)])


def _check(choice: Choice) -> None:
    """InvalidEvent unless it is clear which letters are meant: nothing is sent or forgotten by accident."""
    filtered = any((choice.subscription, choice.reason, choice.event_id, choice.correlation_id))
    if bool(choice.ids) == filtered:
        raise InvalidEvent("say which dead letters: ids, or at least one of subscription, reason, event_id, …")
    for id in (choice.event_id, choice.correlation_id):
        if id is not None:
            check_name(id)


async def _fitting(request: Request, choice: Choice, limit: int) -> Sequence[DeadLetter]:
    """Those that fit the filters and may be seen.

    SubscriptionNotFound for an unknown one: a misspelt name has none, and must not look as if well.
    """
    bus, whole = bus_of(request), _sees_all(request)
    found = await bus.dead_letters.list(
        subscription=choice.subscription,
        reason=choice.reason,
        event_id=choice.event_id,
        correlation_id=choice.correlation_id,
        limit=limit if whole else _EVERY,
    )
    seen = [letter for letter in found if _sees(request, letter)]
    if choice.subscription is not None and not seen:
        await _check_known(request, choice.subscription)
    return seen[:limit]


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
    parts = [tuple(asked[start : start + _TOGETHER]) for start in range(0, len(asked), _TOGETHER)]
    found = [await bus_of(request).broker.dead(DeadQuery(ids=part, limit=_TOGETHER)) for part in parts]
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


def _unknown(id: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, "dead_letter_not_found", f"there is no dead letter {shown(id)}")


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        raise InvalidEvent(f"reason: {text!r:.40} is none of {', '.join(Reason)}") from None
