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
from wowevent.service.answers import Choice, DeadLetters, Discarded, Redelivered, answer, shown_letter
from wowevent.service.asking import bus_of, limit_of, name_of
from wowevent.service.failures import Refusal
from wowevent.service.intake import no_order, order_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from wowevent.bus import EventBus

MOST: Final = 1000
"""Dead letters of one answer."""

_PAGE: Final = "100"
_EVERY: Final = 2**31  # letters: no limit
_TOGETHER: Final = 500  # letters of one call of the engine


async def dead_letters(request: Request) -> Response:
    """`{"dead_letters": […], "more": false}` by subscription, reason, event and correlation, oldest first."""
    bus, asked = bus_of(request), request.query_params
    limit = limit_of(asked.get("limit", _PAGE), MOST) or MOST
    choice = Choice(
        subscription=asked.get("subscription"),
        reason=_reason(asked["reason"]) if "reason" in asked else None,
        event_id=name_of(asked, "event_id"),
        correlation_id=name_of(asked, "correlation_id"),
    )
    found = await _fitting(bus, choice, limit + 1)
    return answer(DeadLetters([shown_letter(letter) for letter in found[:limit]], len(found) > limit))


async def dead_letter(request: Request) -> Response:
    """One of them."""
    return answer(shown_letter(await _letter(bus_of(request), request.path_params["id"])))


async def redeliver(request: Request) -> Response:
    """`{"redelivered": 1}`: its subscription gets it again, with fresh attempts."""
    bus = bus_of(request)
    await no_order(request, request.app.state.body_limit)
    count = await _one(bus, request.path_params["id"], bus.dead_letters.redeliver)
    return answer(Redelivered(_note("redelivered", count)))


async def discard(request: Request) -> Response:
    """204: it is forgotten."""
    bus = bus_of(request)
    _note("discarded", await _one(bus, request.path_params["id"], bus.dead_letters.discard))
    return Response(status_code=204)


async def redeliver_several(request: Request) -> Response:
    """`{"redelivered": n}` for the ids, or all that fit the filters, of the body."""
    bus = bus_of(request)
    return answer(Redelivered(_note("redelivered", await _several(request, bus, bus.dead_letters.redeliver))))


async def discard_several(request: Request) -> Response:
    """`{"discarded": n}` for the ids, or all that fit the filters, of the body."""
    bus = bus_of(request)
    return answer(Discarded(_note("discarded", await _several(request, bus, bus.dead_letters.discard))))


def _note(what: str, count: int) -> int:
    """The count itself, with a line for whoever asks later where they went."""
    logger.info(f"dead_letter {what} by a request", count=count)
    return count


async def _one(bus: EventBus, id: str, resolve: Callable[[str], Awaitable[int]]) -> int:
    await _letter(bus, id)
    if not (count := await resolve(id)):  # somebody else was quicker
        raise _unknown(id)
    return count


async def _several(request: Request, bus: EventBus, resolve: Callable[[Sequence[str]], Awaitable[int]]) -> int:
    choice = await order_of(request, Choice, request.app.state.body_limit)
    _check(choice)
    ids = await _named(bus, choice.ids) if choice.ids else [each.id for each in await _fitting(bus, choice, _EVERY)]
    return sum([await resolve(ids[start : start + _TOGETHER]) for start in range(0, len(ids), _TOGETHER)])


def _check(choice: Choice) -> None:
    """InvalidEvent unless it is clear which letters are meant: nothing is sent or forgotten by accident."""
    filtered = any((choice.subscription, choice.reason, choice.event_id, choice.correlation_id))
    if bool(choice.ids) == filtered:
        raise InvalidEvent("say which dead letters: ids, or at least one of subscription, reason, event_id, …")
    for id in (choice.event_id, choice.correlation_id):
        if id is not None:
            check_name(id)


async def _fitting(bus: EventBus, choice: Choice, limit: int) -> Sequence[DeadLetter]:
    """Those that fit the filters; SubscriptionNotFound, for a misspelt name has none and must not look as if well."""
    if (name := choice.subscription) is not None:
        specs = [info.subscription for info in await bus.subscriptions()]
        if not any(name in {spec.id, spec.agent} for spec in specs if name):
            raise SubscriptionNotFound(f"no subscription or agent {shown(name)} is known")
    return await bus.dead_letters.list(
        subscription=name,
        reason=choice.reason,
        event_id=choice.event_id,
        correlation_id=choice.correlation_id,
        limit=limit,
    )


async def _named(bus: EventBus, ids: Sequence[str]) -> list[str]:
    """Those of the ids that are there, each once."""
    asked = list(dict.fromkeys(ids))
    parts = [tuple(asked[start : start + _TOGETHER]) for start in range(0, len(asked), _TOGETHER)]
    found = [await bus.broker.dead(DeadQuery(ids=part, limit=_TOGETHER)) for part in parts]
    return [letter.id for letters in found for letter in letters]


async def _letter(bus: EventBus, id: str) -> DeadLetter:
    found = await bus.broker.dead(DeadQuery(ids=(id,), limit=1))
    if not found:
        raise _unknown(id)
    return found[0]


def _unknown(id: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, "dead_letter_not_found", f"there is no dead letter {shown(id)}")


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        raise InvalidEvent(f"reason: {text!r:.40} is none of {', '.join(Reason)}") from None
