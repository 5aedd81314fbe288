"""/replays: ranges of the log that are published again, in the background; started, looked at, held, cancelled."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct, structs

from wowevent.event import check_name
from wowevent.id import new_id
from wowevent.replay import ReplayConfig, ReplayControl, check_destination
from wowevent.service.access import asker, note, permit
from wowevent.service.answers import PositionText, UnixSeconds, answer
from wowevent.service.asking import bus_of
from wowevent.service.intake import no_order, order_of
from wowevent.service.jobs import Failure, Jobs, JobState, Steering

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from wowevent.access.rights import Identity
    from wowevent.broker import Position
    from wowevent.bus import EventBus

_TOLD: Final = 20  # patterns and ids of an order that other processes are told of


class ReplayOrder(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which events of the log to publish again, into which topic, and how fast."""

    topic: Annotated[str, Meta(description="Where the new events go.")]
    pattern: str | list[str] | None = None
    start_time: Annotated[str | None, Meta(description="ISO 8601; naive is UTC. Ends are included.")] = None
    end_time: str | None = None
    correlation_id: str | None = None
    event_ids: list[str] | None = None
    speed_multiplier: Annotated[
        float, Meta(ge=0, description="0 is at once, 1 as far apart as they were, 2 twice as fast.")
    ] = 0.0
    max_events: Annotated[int, Meta(description="At most so many.", ge=0, le=2**63 - 1)] | None = None


class ReplayShown(Struct):
    """One replay as it is now."""

    id: str
    process: Annotated[str, Meta(description="The id of the process that has it; it ends with that.")]
    state: JobState
    order: ReplayOrder
    replayed: Annotated[int, Meta(description="How many events were published again.")]
    position: Annotated[PositionText | None, Meta(description="That of the last event that was published again.")]
    end: Annotated[PositionText, Meta(description="Where the log ended when the replay began, and it ends.")]
    started_at: UnixSeconds
    ended_at: Annotated[float | None, Meta(description="Unix seconds.")]
    failure: Failure | None


class Replays(Struct):
    """The replays of all processes, the newest first."""

    replays: list[ReplayShown]
    complete: Annotated[bool, Meta(description="False: other processes cannot be heard now.")]


def brief(shown: ReplayShown) -> ReplayShown:
    """What other processes are told of one: its order may be as long as a request."""
    order = shown.order
    pattern = order.pattern[:_TOLD] if isinstance(order.pattern, list) else order.pattern
    ids = None if order.event_ids is None else order.event_ids[:_TOLD]
    return structs.replace(shown, order=structs.replace(order, pattern=pattern, event_ids=ids))


def begin(
    jobs: Jobs[ReplayShown],
    bus: EventBus,
    order: ReplayOrder,
    config: ReplayConfig,
    end: Position,
    *,
    owner: Identity | None = None,
) -> ReplayShown:
    """Begin one; what it publishes is its owner's. Refusal if too many run."""
    shown = ReplayShown(
        id=new_id(), process=bus.errands.process, state="running", order=order, replayed=0, position=None,
        end=str(end), started_at=time.time(), ended_at=None, failure=None,
    )  # fmt: skip
    control = ReplayControl()
    work = partial(
        bus.replay_into,
        order.topic,
        config,
        source_agent=None if owner is None else owner.name,
        control=control,
        progress=partial(_note, shown),
    )
    return jobs.start(shown, work, owner=owner, control=control)


def _note(replay: ReplayShown, count: int, position: Position) -> None:
    replay.replayed, replay.position = count, str(position)


async def start(request: Request) -> Response:
    """202 and the replay, with its place in `Location`: a range of the log is published into `topic`, as new events."""
    bus = bus_of(request)
    order = await order_of(request, ReplayOrder)
    config = _config(order)
    patterns = config.query().patterns
    permit(request, "replay", None if order.pattern is None else patterns)
    permit(request, "publish", (order.topic,))
    head = (await bus.broker.ping()).head
    replay = begin(_replays(request), bus, order, config, head, owner=asker(request))
    note(request, "replay started", replay=replay.id, patterns=" ".join(patterns), topic=order.topic)
    return answer(replay, 202, location=f"/replays/{replay.id}")


async def replays(request: Request) -> Response:
    """`{"replays": […]}` of all processes, the newest first."""
    found, complete = await _replays(request).all(asker(request))
    return answer(Replays(found, complete))


async def replay(request: Request) -> Response:
    """One of them."""
    return answer(await _replays(request).get(request.path_params["id"], asker(request)))


async def pause(request: Request) -> Response:
    """The replay, which is held; one that had ended is left as it is."""
    return await _steered(request, "pause")


async def resume(request: Request) -> Response:
    """The replay, which goes on; one that had ended is left as it is."""
    return await _steered(request, "resume")


async def cancel(request: Request) -> Response:
    """The replay, which has ended; one that had ended already is left as it is."""
    shown = await _replays(request).steer(request.path_params["id"], "cancel", asker(request))
    note(request, "replay cancelled", replay=shown.id)
    return answer(shown)


async def _steered(request: Request, what: Steering) -> Response:
    jobs = _replays(request)
    await no_order(request)
    return answer(await jobs.steer(request.path_params["id"], what, asker(request)))


def _replays(request: Request) -> Jobs[ReplayShown]:
    """All there are; Closed while the bus is switched off or draining."""
    bus_of(request)
    found: Jobs[ReplayShown] = request.app.state.replays
    return found


def _config(order: ReplayOrder) -> ReplayConfig:
    """The order, checked; InvalidEvent, InvalidTopic."""
    check_destination(order.topic)
    for id in (*(order.event_ids or ()), *((order.correlation_id,) if order.correlation_id is not None else ())):
        check_name(id)
    config = ReplayConfig(
        start_time=order.start_time,
        end_time=order.end_time,
        pattern=order.pattern,
        correlation_id=order.correlation_id,
        event_ids=order.event_ids,
        speed_multiplier=order.speed_multiplier,
        max_events=order.max_events,
    )
    config.query()
    return config
