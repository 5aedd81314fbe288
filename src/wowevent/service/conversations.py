"""GET /conversations/{id}: who caused what, when, and what failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wowevent.access.sight import seen_conversation
from wowevent.causation import MOST, find
from wowevent.conversation import conversation as tree
from wowevent.service.access import asker
from wowevent.service.answers import answer
from wowevent.service.asking import bus_of, limit_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def conversation(request: Request) -> Response:
    """`{"id": …, "steps": […], …}`, the tree of what may be seen: each event by its topic and by whom it is for.

    A dead letter shows for who may see those of its topic. What hides leaves orphans below it.
    """
    bus, id = bus_of(request), request.path_params["id"]
    limit = limit_of(request.query_params.get("limit"), MOST) or MOST
    found = seen_conversation(asker(request), await find(bus.broker, id, limit, time.time()), id)
    return answer(tree(found))
