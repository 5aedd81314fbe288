"""GET /conversations/{id}: who caused what, when, and what failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import structs

from wowevent.causation import MOST, find
from wowevent.conversation import Found
from wowevent.conversation import conversation as tree
from wowevent.errors import ConversationNotFound, shown
from wowevent.service.access import asker, sight
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
    found = _seen(request, await find(bus.broker, id, limit, time.time()))
    if not found.stored and not found.letters:
        raise ConversationNotFound(f"no event is known by {shown(id)}, nor is anything of that correlation id")
    return answer(tree(found))


def _seen(request: Request, found: Found) -> Found:
    """What of it who asks may see."""
    sees, identity = sight(request, "replay"), asker(request)
    stored, letters = found.stored, found.letters
    if sees is not None:
        stored = [each for each in stored if sees(each.event)]
        letters = [each for each in letters if sees(each.event)]
    if identity is not None:
        letters = [each for each in letters if identity.may("dead_letters", each.event.topic)]
    return structs.replace(found, stored=stored, letters=letters)
