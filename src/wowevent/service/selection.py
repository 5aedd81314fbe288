"""Which dead letters a request means: by their ids, by filters, or by its path; of those that who asks may see."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from msgspec import Meta, Struct

from wowevent.access.sight import check_named, letters_seen, sees_letter
from wowevent.broker import DeadLetter, DeadQuery, Reason
from wowevent.dead_letter import named
from wowevent.errors import DeadLetterNotFound, InvalidEvent, shown
from wowevent.event import check_name
from wowevent.fingerprint import PATTERN, check_fingerprint
from wowevent.service.access import asker
from wowevent.service.asking import bus_of, name_of
from wowevent.service.intake import order_of

if TYPE_CHECKING:
    from starlette.requests import Request

Fingerprint = Annotated[
    str, Meta(description="What letters died of: a group, as GET /dead-letters/groups names it.", pattern=PATTERN)
]


class Choice(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters: `ids`, or filters, of which at least one must be given."""

    ids: list[str] | None = None
    subscription: Annotated[str | None, Meta(description="An id, or the name of an agent.")] = None
    reason: Reason | None = None
    event_id: str | None = None
    correlation_id: str | None = None
    fingerprint: Fingerprint | None = None


class DiscardOrder(Choice, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters to forget."""

    dry_run: Annotated[bool, Meta(description="Only say how many, and change nothing.")] = False


class RedeliverOrder(DiscardOrder, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters to hand to their subscriptions again, and how fast."""

    rate: Annotated[float, Meta(gt=0, le=10_000, description="So many a second at most, in the background.")] | None = (
        None
    )


C = TypeVar("C", bound=Choice)


def queried(request: Request) -> Choice:
    """The filters of a query."""
    asked = request.query_params
    return Choice(
        subscription=asked.get("subscription"),
        reason=_reason(asked["reason"]) if "reason" in asked else None,
        event_id=name_of(asked, "event_id"),
        correlation_id=name_of(asked, "correlation_id"),
        fingerprint=check_fingerprint(asked["fingerprint"]) if "fingerprint" in asked else None,
    )


async def ordered(request: Request, kind: type[C]) -> C:
    """Which letters are meant, and what else; InvalidEvent unless that is clear: nothing is done by accident."""
    order = await order_of(request, kind)
    filtered = any((order.subscription, order.reason, order.event_id, order.correlation_id, order.fingerprint))
    if bool(order.ids) == filtered:
        raise InvalidEvent("say which dead letters: ids, or at least one of subscription, reason, event_id, …")
    for id in (order.event_id, order.correlation_id):
        if id is not None:
            check_name(id)
    return order


def filters(request: Request, choice: Choice) -> dict[str, Any]:
    """What is asked for, of what may be seen."""
    return {
        "subscription": choice.subscription,
        "reason": choice.reason,
        "event_id": choice.event_id,
        "correlation_id": choice.correlation_id,
        "fingerprint": choice.fingerprint,
        "where": letters_seen(asker(request)),
    }


async def ids_of(request: Request, choice: Choice) -> Sequence[str]:
    """The letters that are meant, are there and may be seen."""
    if choice.ids:
        return [letter.id for letter in await _named(request, choice.ids)]
    found = await bus_of(request).dead_letters.ids(**filters(request, choice))
    await check_seen(request, choice, found)
    return found


async def letter_of(request: Request) -> DeadLetter:
    """The one that the path names; one that may not be seen is not there."""
    id = request.path_params["id"]
    found = await bus_of(request).broker.dead(DeadQuery(ids=(id,), limit=1))
    if not found or not sees_letter(asker(request), found[0]):
        raise unknown(id)
    return found[0]


async def check_seen(request: Request, choice: Choice, found: Collection[object]) -> None:
    """SubscriptionNotFound for an unknown one: a misspelt name has no letters, and must not look as if well."""
    if choice.subscription is not None and not found:
        check_named(asker(request), await bus_of(request).subscriptions(), choice.subscription)


def unknown(id: str) -> DeadLetterNotFound:
    """What is raised for one that is not there, or may not be seen."""
    return DeadLetterNotFound(f"there is no dead letter {shown(id)}")


async def _named(request: Request, ids: Sequence[str]) -> list[DeadLetter]:
    """Those of the ids that are there and may be seen, each once."""
    found = await named(bus_of(request).broker, ids)
    return [letter for letter in found if sees_letter(asker(request), letter)]


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        raise InvalidEvent(f"reason: {text!r:.40} is none of {', '.join(Reason)}") from None
