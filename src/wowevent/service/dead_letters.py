"""/dead-letters: list, group, show, redeliver, discard, resend; several at once only for who says which."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta, Struct
from starlette.responses import Response

from wowevent.broker import Attempt, DeadLetter, Reason
from wowevent.codec import to_fields
from wowevent.dead_letter import LONGEST, LetterCount
from wowevent.errors import printable
from wowevent.fingerprint import MOST as MOST_GROUPS
from wowevent.fingerprint import LetterGroup
from wowevent.log import logger
from wowevent.service.access import asker, name_of_asker, note, permit
from wowevent.service.answers import EventFields, UnixSeconds, answer
from wowevent.service.asking import bus_of, limit_of
from wowevent.service.intake import no_order, order_of
from wowevent.service.redeliveries import begin
from wowevent.service.selection import (
    Choice,
    DiscardOrder,
    Fingerprint,
    RedeliverOrder,
    check_seen,
    filters,
    ids_of,
    letter_of,
    ordered,
    queried,
    unknown,
)

if TYPE_CHECKING:
    from starlette.requests import Request

MOST: Final = 1000
"""Dead letters of one answer."""

_PAGE: Final = "100"


class DeadLetterShown(Struct):
    """One event that one subscription could not handle."""

    id: str
    event: EventFields
    subscription: str
    reason: Reason
    error: str
    traceback: str
    attempts: list[Attempt]
    time: UnixSeconds


class DeadLetters(Struct):
    """Dead letters, oldest first; `more` says whether there are others behind the limit."""

    dead_letters: list[DeadLetterShown]
    more: bool


class Span(Struct):
    """From the least to the most."""

    least: int
    most: int


class LetterGroupShown(Struct):
    """Dead letters that died of the same."""

    fingerprint: Fingerprint
    count: int
    reason: Reason
    error: Annotated[str, Meta(description="Of the newest.")]
    traceback: Annotated[str, Meta(description="Of the newest; its end, where it is long.")]
    subscriptions: Annotated[list[str], Meta(description="Where they died, the most first; 100 at most.")]
    topics: Annotated[list[str], Meta(description="Of their events, the most first; 100 at most.")]
    first: Annotated[float, Meta(description="When the oldest was buried, Unix seconds.")]
    last: Annotated[float, Meta(description="When the newest was buried, Unix seconds.")]
    attempts: Annotated[Span, Meta(description="How many failed at one of them.")]
    newest: Annotated[str, Meta(description="A dead letter.")]
    ids: Annotated[list[str], Meta(description="The newest hundred, the newest first.")]


class LetterGroupsShown(Struct):
    """Dead letters by what they died of, the largest group first; `more` says that groups were left out."""

    groups: list[LetterGroupShown]
    more: bool


class LetterCountShown(Struct):
    """How many dead letters it would be."""

    count: int
    by_subscription: dict[str, int]


class ResendOrder(Struct, forbid_unknown_fields=True, kw_only=True):
    """What the event of a dead letter should have said."""

    payload: dict[str, Any]
    reason: Annotated[str, Meta(max_length=LONGEST, description="Why, for the audit log and the event.")] = ""


class Resent(Struct):
    """That the letter's subscription, and nobody else, gets a corrected event."""

    event_id: Annotated[str, Meta(description="Of the new event.")]
    replaces: Annotated[str, Meta(description="The id of the event that could not be handled.")]
    duplicate: Annotated[bool, Meta(description="It had been sent before, as it was then; nothing was added.")]


class Redelivered(Struct):
    """How many were handed to their subscriptions again."""

    redelivered: int


class Discarded(Struct):
    """How many were forgotten."""

    discarded: int


async def dead_letters(request: Request) -> Response:
    """`{"dead_letters": […], "more": false}` by subscription, reason, event, correlation and group, oldest first."""
    limit = limit_of(request.query_params.get("limit", _PAGE), MOST) or MOST
    choice = queried(request)
    found = await bus_of(request).dead_letters.list(**filters(request, choice), limit=limit + 1)
    await check_seen(request, choice, found)
    return answer(DeadLetters([_shown_letter(letter) for letter in found[:limit]], len(found) > limit))


async def groups(request: Request) -> Response:
    """`{"groups": […], "more": false}`: what those that fit the same filters died of, the largest group first."""
    limit = limit_of(request.query_params.get("limit", _PAGE), MOST_GROUPS) or MOST_GROUPS
    choice = queried(request)
    found = await bus_of(request).dead_letters.groups(**filters(request, choice), limit=limit)
    await check_seen(request, choice, found.groups)
    return answer(LetterGroupsShown([_shown_group(group) for group in found.groups], found.more))


async def dead_letter(request: Request) -> Response:
    """One of them."""
    return answer(_shown_letter(await letter_of(request)))


async def redeliver(request: Request) -> Response:
    """`{"redelivered": 1}`: its subscription gets it again, with fresh attempts."""
    bus = bus_of(request)
    await no_order(request)
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
    order = await order_of(request, ResendOrder)
    letter = await letter_of(request)
    permit(request, "publish", (letter.event.topic,))
    if (identity := asker(request)) is not None:
        request.app.state.rates.spend(identity, "events")
    by = name_of_asker(request)
    done = await bus.dead_letters.resend(letter.id, order.payload, reason=order.reason, by=by)
    facts = {"letter": letter.id, "event_id": done.event_id, "replaces": done.replaces, "reason": order.reason}
    logger.info("dead_letter resent by a request", subscription=letter.subscription, **facts)
    note(request, "dead_letter resent", subscription=letter.subscription, **facts)
    return answer(Resent(done.event_id, done.replaces, done.duplicate))


async def redeliver_several(request: Request) -> Response:
    """`{"redelivered": n}` for the ids, or all that fit the filters, of the body; 202 for a rate."""
    bus = bus_of(request)
    order = await ordered(request, RedeliverOrder)
    if order.dry_run:
        return await _counted(request, order)
    ids = await ids_of(request, order)
    if order.rate is None:
        return answer(Redelivered(_note(request, "redelivered", await bus.dead_letters.redeliver(ids))))
    begun = begin(request, order, ids, order.rate)
    note(request, "redelivery started", redelivery=begun.id, count=len(ids), rate=order.rate)
    return answer(begun, 202, location=f"/redeliveries/{begun.id}")


async def discard_several(request: Request) -> Response:
    """`{"discarded": n}` for the ids, or all that fit the filters, of the body."""
    bus = bus_of(request)
    order = await ordered(request, DiscardOrder)
    if order.dry_run:
        return await _counted(request, order)
    ids = await ids_of(request, order)
    return answer(Discarded(_note(request, "discarded", await bus.dead_letters.discard(ids))))


def _note(request: Request, what: str, count: int) -> int:
    """The count itself, with a line for whoever asks later where they went."""
    logger.info(f"dead_letter {what} by a request", count=count)
    note(request, f"dead_letter {what}", count=count)
    return count


async def _one(request: Request, resolve: Callable[[str], Awaitable[int]]) -> int:
    letter = await letter_of(request)
    if not (count := await resolve(letter.id)):  # somebody else was quicker
        raise unknown(letter.id)
    return count


async def _counted(request: Request, choice: Choice) -> Response:
    """How many letters are meant, of which subscription; nothing changes."""
    letters = bus_of(request).dead_letters
    if choice.ids:
        return answer(_shown_count(await letters.count(await ids_of(request, choice))))
    found = await letters.count(**filters(request, choice))
    await check_seen(request, choice, found.by_subscription)
    return answer(_shown_count(found))


def _shown_letter(letter: DeadLetter) -> DeadLetterShown:
    return DeadLetterShown(
        id=letter.id,
        event=to_fields(letter.event),
        subscription=letter.subscription,
        reason=letter.reason,
        error=printable(letter.error),
        traceback=printable(letter.traceback),
        attempts=[Attempt(each.number, each.time, printable(each.error)) for each in letter.attempts],
        time=letter.time,
    )


def _shown_group(group: LetterGroup) -> LetterGroupShown:
    return LetterGroupShown(
        fingerprint=group.fingerprint,
        count=group.count,
        reason=group.reason,
        error=group.error,
        traceback=group.traceback,
        subscriptions=list(group.subscriptions),
        topics=list(group.topics),
        first=group.first,
        last=group.last,
        attempts=Span(group.least, group.most),
        newest=group.newest,
        ids=list(group.ids),
    )


def _shown_count(found: LetterCount) -> LetterCountShown:
    return LetterCountShown(found.count, found.by_subscription)
