"""GET /events/{id}: one event, who got it and when, what became of it."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from wowevent.access.sight import administers, sees_letters, sees_subscription
from wowevent.broker import DeadQuery
from wowevent.causation import find_event
from wowevent.codec import to_fields
from wowevent.errors import ValidationError, printable, shown
from wowevent.routing import matches
from wowevent.service.access import asker, sight
from wowevent.service.answers import EventFields, PositionText, answer
from wowevent.service.asking import bus_of
from wowevent.service.failures import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from wowevent.broker import DeadLetter, SubscriptionInfo
    from wowevent.bus import EventBus
    from wowevent.event import Event
    from wowevent.trail import Delivered


class SchemaNamed(Struct):
    """The schema that a payload is held against now."""

    version: str


class DeliveryShown(Struct):
    """One delivery of an event to one subscription, as the process remembers it that made it."""

    subscription: str
    agent: str | None
    at: Annotated[float, Meta(description="When it was handed over, Unix seconds.")]
    seconds: Annotated[float, Meta(description="How long the handler took.")]
    attempt: Annotated[int, Meta(description="1 for the first.")]
    outcome: Annotated[
        Literal["acked", "retried", "dead", "dropped"],
        Meta(description="`dropped`: failed for good where no dead letters are kept."),
    ]
    error: Annotated[str | None, Meta(description="For who may see dead letters of its topic.")]
    process: str


class EventShown(Struct):
    """One event, and what became of it."""

    event: EventFields
    position: Annotated[PositionText | None, Meta(description="Null: only a dead letter has it any more.")]
    stored_at: float | None
    schema: SchemaNamed | None
    deliveries: Annotated[list[DeliveryShown], Meta(description="Of those that processes remember, the oldest first.")]
    dead_letters: Annotated[list[str], Meta(description="Their ids.")]
    matched: Annotated[list[str], Meta(description="The ids of the subscriptions that it matches now.")]


async def event(request: Request) -> Response:
    """The event with its place, schema, deliveries, dead letters, and the subscriptions that it matches now.

    One that only a dead letter has any more has no place. Deliveries are those that processes remember; what may not
    be seen of all this is left out.
    """
    bus, id = bus_of(request), request.path_params["id"]
    stored = await find_event(bus.broker, id, time.time())
    letters = await bus.broker.dead(DeadQuery(event_id=id))
    found = stored.event if stored is not None else letters[0].event if letters else None
    may_see = sight(request, "replay")
    if found is None or (may_see is not None and not may_see(found)):
        raise Refusal(HTTPStatus.NOT_FOUND, "event_not_found", f"no event is known by {shown(id)}")
    infos = [info for info in await bus.subscriptions() if sees_subscription(asker(request), info)]
    judges = sees_letters(asker(request), found.topic)  # whether they may know what handlers raised
    return answer(
        EventShown(
            event=to_fields(found),
            position=None if stored is None else str(stored.position),
            stored_at=None if stored is None else stored.stored_at,
            schema=_schema(bus, found),
            deliveries=_deliveries(request, await bus.deliveries(id), infos, errors=judges),
            dead_letters=_ids(letters) if judges else [],
            matched=_matched(found, infos),
        )
    )


def _schema(bus: EventBus, event: Event) -> SchemaNamed | None:
    """The schema that its payload is held against now, if there is one."""
    try:
        schema = None if bus.registry is None else bus.registry.schema_for(event)
    except ValidationError:  # it names a version that is not registered
        return None
    return None if schema is None else SchemaNamed(schema.version)


def _deliveries(
    request: Request, found: Sequence[Delivered], infos: Collection[SubscriptionInfo], *, errors: bool
) -> list[DeliveryShown]:
    """Those to subscriptions that may be seen; to who does not administer, one that is gone cannot be."""
    whole, ids = administers(asker(request)), {info.subscription.id for info in infos}
    return [
        DeliveryShown(
            subscription=each.subscription,
            agent=each.agent,
            at=each.at,
            seconds=each.seconds,
            attempt=each.attempt,
            outcome=each.outcome,
            error=printable(each.error) if each.error is not None and errors else None,
            process=each.process,
        )
        for each in found
        if whole or each.subscription in ids
    ]


def _ids(letters: Sequence[DeadLetter]) -> list[str]:
    return [letter.id for letter in letters]


def _matched(event: Event, infos: Sequence[SubscriptionInfo]) -> list[str]:
    return sorted(info.subscription.id for info in infos if matches(info.subscription, event))
