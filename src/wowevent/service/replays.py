"""/replays: ranges of the log that are published again, in the background; started, looked at, held, cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from wowevent.errors import BusError, printable, shown
from wowevent.event import check_name, new_id
from wowevent.log import logger
from wowevent.replay import ReplayConfig, ReplayControl, check_destination
from wowevent.service import answers
from wowevent.service.access import asker, note, permit
from wowevent.service.answers import Failure, ReplayOrder, ReplayShown, answer
from wowevent.service.asking import bus_of
from wowevent.service.failures import Refusal
from wowevent.service.intake import no_order, order_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from wowevent.access.rights import Identity
    from wowevent.broker import Position
    from wowevent.bus import EventBus

RUNNING: Final = 4
"""Replays that are under way at a time, held ones included."""
KEPT: Final = 100
"""Replays that ended and can still be looked at."""

_UNDER_WAY: Final = frozenset({"running", "paused"})


class Replay(Struct, eq=False):
    """One replay, under way or ended, what steers it, and the task that it is."""

    shown: ReplayShown
    control: ReplayControl
    task: asyncio.Task[int]
    owner: Identity | None
    """Who began it, where that is known."""

    def concerns(self, identity: Identity | None) -> bool:
        """Whether who asks may know of it: it is theirs, or they administer."""
        return identity is None or self.owner is None or self.owner.name == identity.name or identity.may("admin")


class Replays:
    """The replays of one application."""

    def __init__(self) -> None:
        self._known: dict[str, Replay] = {}

    def start(
        self, bus: EventBus, order: ReplayOrder, config: ReplayConfig, end: Position, *, owner: Identity | None = None
    ) -> ReplayShown:
        """Begin one; what it publishes is its owner's. Refusal if too many run."""
        if sum(1 for each in self._known.values() if each.shown.state in _UNDER_WAY) >= RUNNING:
            message = f"{RUNNING} replays are under way; wait for one, or cancel one"
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too_many_replays", message)
        shown = ReplayShown(
            id=new_id(), state="running", order=order, replayed=0, position=None, end=str(end),
            started_at=time.time(), ended_at=None, failure=None,
        )  # fmt: skip
        control = ReplayControl()
        name = None if owner is None else owner.name
        run = bus.replay_into(order.topic, config, source_agent=name, control=control, progress=partial(_note, shown))
        replay = Replay(shown, control, asyncio.create_task(run, name="wowevent:replay"), owner)
        replay.task.add_done_callback(partial(_end, shown))
        self._known[shown.id] = replay
        self._forget()
        return shown

    def all(self, identity: Identity | None) -> list[ReplayShown]:
        """Those that concern who asks, the newest first."""
        return [replay.shown for replay in reversed(self._known.values()) if replay.concerns(identity)]

    def get(self, id: str, identity: Identity | None) -> ReplayShown:
        """One of them; Refusal."""
        return self._get(id, identity).shown

    def pause(self, id: str, identity: Identity | None) -> ReplayShown:
        """Hold one, unless it has ended; Refusal if it is unknown."""
        replay = self._get(id, identity)
        if replay.shown.state in _UNDER_WAY:
            replay.control.pause()
            replay.shown.state = "paused"
        return replay.shown

    def resume(self, id: str, identity: Identity | None) -> ReplayShown:
        """Let one go on, unless it has ended; Refusal if it is unknown."""
        replay = self._get(id, identity)
        if replay.shown.state in _UNDER_WAY:
            replay.control.resume()
            replay.shown.state = "running"
        return replay.shown

    async def cancel(self, id: str, identity: Identity | None) -> ReplayShown:
        """Cancel one, and return when it has ended: what it was publishing is finished. Refusal if it is unknown."""
        replay = self._get(id, identity)
        replay.task.cancel()
        await asyncio.gather(replay.task, return_exceptions=True)
        return replay.shown

    async def close(self) -> None:
        """Cancel all."""
        await asyncio.gather(*(self.cancel(id, None) for id in self._known))

    def end_fallen(self, stands: Callable[[Identity], bool]) -> None:
        """Cancel those whose owner's token holds no more."""
        for replay in self._known.values():
            going = replay.shown.state in _UNDER_WAY and not replay.task.cancelling()
            if going and replay.owner is not None and not stands(replay.owner):
                logger.warning("replay cancelled, its token holds no more", replay=replay.shown.id)
                replay.task.cancel()

    def _get(self, id: str, identity: Identity | None) -> Replay:
        if (replay := self._known.get(id)) is None or not replay.concerns(identity):
            raise Refusal(HTTPStatus.NOT_FOUND, "replay_not_found", f"there is no replay {shown(id)} here")
        return replay

    def _forget(self) -> None:
        ended = [id for id, replay in self._known.items() if replay.shown.state not in _UNDER_WAY]
        for id in ended[: max(0, len(ended) - KEPT)]:
            del self._known[id]


def _note(replay: ReplayShown, count: int, position: Position) -> None:
    replay.replayed, replay.position = count, str(position)


def _end(replay: ReplayShown, task: asyncio.Task[int]) -> None:
    replay.ended_at = time.time()
    error = None if task.cancelled() else task.exception()
    replay.state = "cancelled" if task.cancelled() else "failed" if error is not None else "done"
    if isinstance(error, BusError):
        replay.failure = Failure(error.code, printable(str(error)))
    elif error is not None:
        replay.failure = Failure("internal_error", "this is a fault of the service; its log has it")
    if error is not None:
        logger.error("replay ended early", replay=replay.id, replayed=replay.replayed, exc_info=error)


async def start(request: Request) -> Response:
    """202 and the replay, with its place in `Location`: a range of the log is published into `topic`, as new events."""
    bus = bus_of(request)
    order = await order_of(request, ReplayOrder, request.app.state.body_limit)
    config = _config(order)
    patterns = config.query().patterns
    permit(request, "replay", None if order.pattern is None else patterns)
    permit(request, "publish", (order.topic,))
    head = (await bus.broker.ping()).head
    replay = _replays(request).start(bus, order, config, head, owner=asker(request))
    note(request, "replay started", replay=replay.id, patterns=" ".join(patterns), topic=order.topic)
    return answer(replay, 202, location=f"/replays/{replay.id}")


async def replays(request: Request) -> Response:
    """`{"replays": […]}`, the newest first."""
    bus_of(request)
    return answer(answers.Replays(_replays(request).all(asker(request))))


async def replay(request: Request) -> Response:
    """One of them."""
    bus_of(request)
    return answer(_replays(request).get(request.path_params["id"], asker(request)))


async def pause(request: Request) -> Response:
    """The replay, which is held; one that had ended is left as it is."""
    bus_of(request)
    await no_order(request, request.app.state.body_limit)
    return answer(_replays(request).pause(request.path_params["id"], asker(request)))


async def resume(request: Request) -> Response:
    """The replay, which goes on; one that had ended is left as it is."""
    bus_of(request)
    await no_order(request, request.app.state.body_limit)
    return answer(_replays(request).resume(request.path_params["id"], asker(request)))


async def cancel(request: Request) -> Response:
    """The replay, which has ended; one that had ended already is left as it is."""
    bus_of(request)
    shown = await _replays(request).cancel(request.path_params["id"], asker(request))
    note(request, "replay cancelled", replay=shown.id)
    return answer(shown)


def _replays(request: Request) -> Replays:
    found: Replays = request.app.state.replays
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
