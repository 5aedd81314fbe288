"""/pauses: what is paused; pause and resume an agent, a topic, a conversation, everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct
from starlette.responses import Response

from wowevent.access.sight import sees_subscription
from wowevent.errors import InvalidEvent, printable
from wowevent.holds import said
from wowevent.log import logger
from wowevent.service.access import asker, name_of_asker, note
from wowevent.service.answers import UnixSeconds, answer
from wowevent.service.asking import bus_of
from wowevent.service.intake import order_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from wowevent.bus import EventBus
    from wowevent.holds import Pause


class PauseChoice(Struct, forbid_unknown_fields=True, kw_only=True):
    """What is meant; exactly one of these has to be given."""

    name: Annotated[str | None, Meta(description="A subscription, or an agent: those that it has now.")] = None
    agent: Annotated[str | None, Meta(description="All of an agent's, those made later too.")] = None
    topic: Annotated[str | None, Meta(description="Events on the topics that this pattern matches.")] = None
    correlation_id: Annotated[str | None, Meta(description="Events of one conversation.")] = None
    everything: bool = False


class PauseOrder(PauseChoice, forbid_unknown_fields=True, kw_only=True):
    """What is to be paused, and for how long; without an end until it is resumed."""

    until: Annotated[str | None, Meta(description="ISO 8601; naive is UTC.")] = None
    seconds: Annotated[float, Meta(description="From now; excludes `until`.", gt=0)] | None = None
    reason: Annotated[str, Meta(max_length=500)] = ""


class PauseShown(Struct):
    """One pause that is in force."""

    scope: Literal["subscription", "agent", "topic", "conversation", "everything"]
    name: Annotated[str, Meta(description="An id, an agent, a pattern; empty for everything.")]
    since: UnixSeconds
    until: Annotated[float | None, Meta(description="Unix seconds; null: until it is resumed.")]
    reason: str
    by: Annotated[str, Meta(description="Who asked for it, by the token's name; empty where nobody is known.")]


class Pauses(Struct):
    """Pauses, by scope and name."""

    pauses: list[PauseShown]


async def pauses(request: Request) -> Response:
    """`{"pauses": […]}`: what is in force, by scope and name; of who does not administer, what concerns it."""
    bus = bus_of(request)
    return answer(shown_pauses(await _visible(request, bus, await bus.pauses())))


async def pause(request: Request) -> Response:
    """What is paused by this, in every process within a second; what is paused already stays so."""
    bus = bus_of(request)
    order = await order_of(request, PauseOrder)
    if order.until is not None and order.seconds is not None:
        raise InvalidEvent("give either `until` or `seconds`")
    until = order.seconds if order.until is None else order.until
    made = await bus.pause(**_choice(order), until=until, reason=order.reason, by=name_of_asker(request))
    for each in made:
        logger.info("paused by a request", scope=each.scope, name=each.name)
        note(request, "pause", **said(each))
    return answer(shown_pauses(made))


async def resume(request: Request) -> Response:
    """What was paused, and is no longer. Each pause ends for itself: of two that hold an event one may be left."""
    bus = bus_of(request)
    order = await order_of(request, PauseChoice)
    ended = await bus.resume(**_choice(order))
    for each in ended:
        logger.info("resumed by a request", scope=each.scope, name=each.name)
        note(request, "resume", scope=each.scope, name=each.name)
    return answer(shown_pauses(ended))


def shown_pauses(pauses: Sequence[Pause]) -> Pauses:
    """Pauses for outside."""
    return Pauses([PauseShown(p.scope, p.name, p.since, p.until, printable(p.reason), printable(p.by)) for p in pauses])


def _choice(order: PauseChoice) -> dict[str, Any]:
    return {
        "name": order.name,
        "agent": order.agent,
        "topic": order.topic,
        "correlation_id": order.correlation_id,
        "everything": order.everything,
    }


async def _visible(request: Request, bus: EventBus, found: Sequence[Pause]) -> Sequence[Pause]:
    """Those that who asks may know of: by its topics, its own name, the subscriptions that it may see, and of all."""
    identity = asker(request)
    if identity is None or identity.may("admin"):
        return found
    ids = {info.subscription.id for info in await bus.subscriptions() if sees_subscription(identity, info)}

    def visible(pause: Pause) -> bool:
        match pause.scope:
            case "everything":
                return True
            case "agent":
                return pause.name == identity.name
            case "topic":
                return identity.may("subscribe", pause.name)
            case "subscription":
                return pause.name in ids
            case _:
                return False

    return [pause for pause in found if visible(pause)]
