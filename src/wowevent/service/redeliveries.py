"""/redeliveries: dead letters that are handed out again at a rate, in the background; looked at, cancelled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct, structs

from wowevent.id import new_id
from wowevent.service.access import asker, note
from wowevent.service.answers import UnixSeconds, answer
from wowevent.service.asking import bus_of
from wowevent.service.jobs import Failure, Jobs, JobState
from wowevent.service.selection import RedeliverOrder

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class RedeliveryShown(Struct):
    """Dead letters that are handed to their subscriptions again at a rate, as far as that is now."""

    id: str
    process: Annotated[str, Meta(description="The id of the process that has it; it ends with that.")]
    state: JobState
    order: Annotated[RedeliverOrder, Meta(description="Without the ids, of which `total` says how many there were.")]
    total: Annotated[int, Meta(description="How many fitted when it began; those that come later are left alone.")]
    redelivered: int
    gone: Annotated[int, Meta(description="How many somebody else had taken.")]
    rate: Annotated[float, Meta(description="A second, at most.")]
    started_at: UnixSeconds
    ended_at: Annotated[float | None, Meta(description="Unix seconds.")]
    failure: Failure | None


class Redeliveries(Struct):
    """The redeliveries of all processes, the newest first."""

    redeliveries: list[RedeliveryShown]
    complete: Annotated[bool, Meta(description="False: other processes cannot be heard now.")]


def begin(request: Request, order: RedeliverOrder, ids: Sequence[str], rate: float) -> RedeliveryShown:
    """Begin to redeliver these; Refusal if too many run."""
    bus = bus_of(request)
    shown = RedeliveryShown(
        id=new_id(), process=bus.errands.process, state="running", order=structs.replace(order, ids=None),
        total=len(ids), redelivered=0, gone=0, rate=rate, started_at=time.time(), ended_at=None, failure=None,
    )  # fmt: skip
    work = partial(bus.dead_letters.redeliver, ids, rate=rate, progress=partial(_note, shown))
    return _redeliveries(request).start(shown, work, owner=asker(request))


def _note(redelivery: RedeliveryShown, tried: int, done: int) -> None:
    redelivery.redelivered, redelivery.gone = done, tried - done


async def redeliveries(request: Request) -> Response:
    """`{"redeliveries": […]}` of all processes, the newest first."""
    found, complete = await _redeliveries(request).all(asker(request))
    return answer(Redeliveries(found, complete))


async def redelivery(request: Request) -> Response:
    """One of them."""
    return answer(await _redeliveries(request).get(request.path_params["id"], asker(request)))


async def cancel(request: Request) -> Response:
    """The redelivery, which has ended; one that had ended already is left as it is."""
    shown = await _redeliveries(request).steer(request.path_params["id"], "cancel", asker(request))
    note(request, "redelivery cancelled", redelivery=shown.id)
    return answer(shown)


def _redeliveries(request: Request) -> Jobs[RedeliveryShown]:
    """All there are; Closed while the bus is switched off or draining."""
    bus_of(request)
    found: Jobs[RedeliveryShown] = request.app.state.redeliveries
    return found
