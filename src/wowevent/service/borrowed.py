"""An answer that lasts is borrowed: it ends with the token that asked for it, and is cut off where nobody reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from wowevent.ending import end
from wowevent.log import logger
from wowevent.service.access import asker, standing

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

ABORT: Final = "wowevent.abort"
"""The extension of an ASGI scope that ends its connection at once, unsent bytes and all."""
LAST_WORDS: Final = 1.0
"""Seconds for the end of an answer to go out."""

_LOOK: Final = 0.5  # seconds between two looks whether a token still holds


class Borrowed:
    """An answer that lasts, and ends with the token that asked for it, also where its client does not read."""

    def __init__(self, answer: Callable[[Scope, Receive, Send], Awaitable[None]], request: Request) -> None:
        self._answer = answer
        self._stands = standing(request)
        self._asker = asker(request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; once the token has ended, what is under way may be finished, not waited for."""
        if self._stands is None or self._asker is None:
            return await self._answer(scope, receive, send)
        answering = asyncio.create_task(self._answered(scope, receive, send), name="wowevent:answer")
        ending = asyncio.create_task(fallen(self._stands, self._asker.name), name="wowevent:answer:token")
        try:
            await asyncio.wait({answering, ending}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({answering}, timeout=LAST_WORDS)
            if not answering.done():
                cut_off(scope)
        finally:
            await end(answering, ending)
        return None if answering.cancelled() else answering.result()

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)


async def fallen(stands: Callable[[], bool], who: str) -> None:
    """Return when the token holds no more."""
    while stands():  # noqa: ASYNC110 - time ends a token, and time sets no event
        await asyncio.sleep(_LOOK)
    logger.info("stream ended, its token holds no more", who=who)


def cut_off(scope: Scope) -> None:
    """End the connection at once, where the server has a way to."""
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort()
