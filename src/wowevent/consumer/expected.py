"""What a bus waits for: the events that it has published itself, and that come to one of its own subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from wowevent.broker import SubscriptionInfo
from wowevent.wakeup import Wakeup

_ASK: Final = 0.2  # seconds after which a drain asks the engine whether others did the rest
_ALIKE: Final = 3  # such answers in a row, between which nothing came

Info = Callable[[], Awaitable[SubscriptionInfo | None]]


class Expected:
    """Of one subscription."""

    def __init__(self, in_hand: Callable[[], int], info: Info | None) -> None:
        """`in_hand()` is how many leases are here that the engine does not know to have ended.

        `info` asks the engine for the subscription's numbers, where other members of the group may share the work.
        """
        self.ids: dict[str, bool] = {}
        """Of the events, and whether each was handled once."""
        self._in_hand = in_hand
        self._info = info
        self._progress = Wakeup()
        self._closed = False

    def add(self, event_id: str, *, held: bool) -> bool:
        """One more; False if it is expected already. One that is `held` by a pause counts as handled once."""
        if event_id in self.ids:
            return False
        self.ids[event_id] = held
        return True

    def drop(self, event_id: str) -> None:
        """It does not come after all, or it is through."""
        if self.ids.pop(event_id, None) is not None:
            self.tell()

    def note(self, event_id: str) -> None:
        """It was handled once."""
        if event_id in self.ids:
            self.ids[event_id] = True
            self.tell()

    def tell(self) -> None:
        """Something changed, in here or in `ids`."""
        if self._progress.waiting:
            self._progress.notify()

    def clear(self) -> None:
        """Nobody has what was expected."""
        self.ids.clear()
        self.tell()

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        self._progress.notify()

    def outstanding(self, *, retries: bool) -> bool:
        """Whether some are not through: not handled once, or, with `retries`, not settled for good."""
        return bool(self.ids) if retries else not all(self.ids.values())

    async def drained(self, *, retries: bool) -> bool:
        """Return once nothing is outstanding, here or with another member of the group; False if it was closed."""
        alike = 0
        while not self._closed and self.outstanding(retries=retries):
            with suppress(TimeoutError):
                async with asyncio.timeout(_ASK):
                    await self._progress.wait()
                    alike = 0
                    continue
            elsewhere = await self._rest_is_elsewhere()
            alike = alike + 1 if elsewhere is None else 0
            if elsewhere or alike == _ALIKE:
                self.ids.clear()
        return not self._closed

    async def _rest_is_elsewhere(self) -> bool | None:
        """Whether what is left was finished by other members of the group; None if they may have it in hand.

        Then it may as well be on its way to us, for a moment: a fetch has leased it, and has not returned.
        """
        if self._info is None:
            return False
        held = self._in_hand()
        info = await self._info()
        if info is None:
            return True
        if info.ready or info.delayed:
            return False
        if info.leased == 0:  # and not None: some engines cannot tell
            return True
        return False if held or self._in_hand() else None
