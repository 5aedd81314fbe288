"""/redeliveries: dead letters that are handed out again at a rate, in the background; looked at, cancelled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec import structs

from wowevent.id import new_id
from wowevent.service import answers
from wowevent.service.access import asker, note
from wowevent.service.answers import RedeliverOrder, RedeliveryShown, answer
from wowevent.service.asking import bus_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from wowevent.service.jobs import Jobs


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
    bus_of(request)
    found, complete = await _redeliveries(request).all(asker(request))
    return answer(answers.Redeliveries(found, complete))


async def redelivery(request: Request) -> Response:
    """One of them."""
    bus_of(request)
    return answer(await _redeliveries(request).get(request.path_params["id"], asker(request)))


async def cancel(request: Request) -> Response:
    """The redelivery, which has ended; one that had ended already is left as it is."""
    bus_of(request)
    shown = await _redeliveries(request).steer(request.path_params["id"], "cancel", asker(request))
    note(request, "redelivery cancelled", redelivery=shown.id)
    return answer(shown)


def _redeliveries(request: Request) -> Jobs[RedeliveryShown]:
    found: Jobs[RedeliveryShown] = request.app.state.redeliveries
    return found
