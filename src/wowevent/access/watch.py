"""Tokens are looked at again and again: what was changed, revoked or added holds soon, and what they began ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from wowevent.access.keyring import Keyring
from wowevent.access.rights import Identity
from wowevent.log import logger

_LOOK: Final = 0.5  # seconds between two looks


async def watch(keyring: Keyring | None, *ends: Callable[[Callable[[Identity], bool]], object]) -> None:
    """Read tokens again that changed, until cancelled; at once where there is no keyring.

    Each of `ends` is told at each look by what it may ask whether somebody's token still holds.
    """
    while keyring is not None:
        try:
            try:
                keyring.refresh()
            finally:  # what cannot be read keeps nobody whose time is over
                for end in ends:
                    end(keyring.stands)
        except Exception as error:  # noqa: BLE001 - whatever happens, the next look must come
            logger.error("tokens could not be looked at", exc_info=error)
        await asyncio.sleep(_LOOK)
