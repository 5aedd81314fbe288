"""A bus's life: what state it is in, who may still publish, and that it ends once.

new ──begin──> running ──end──> draining ──> stopped
 └───────────────────────end───────────────────^
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from wowevent.delivery import current
from wowevent.ending import finished
from wowevent.errors import Closed

State = Literal["new", "running", "draining", "stopped"]


class Life:
    """The state of one bus, which changes it as it starts and stops."""

    def __init__(self) -> None:
        self.state: State = "new"
        """See above."""
        self._ending: asyncio.Task[None] | None = None

    @property
    def said(self) -> str:
        """`running`, `not started` or `stopped`, as people are told: one that drains takes nothing from them."""
        return {"running": "running", "new": "not started"}.get(self.state, "stopped")

    @property
    def over(self) -> bool:
        """Whether nothing begins here any more."""
        return self.state in {"draining", "stopped"}

    def check(self) -> None:
        """Closed unless it runs; while it drains, what handlers begin is still taken."""
        if self.state != "running" and not (self.state == "draining" and current() is not None):
            raise Closed(f"this bus is {self.said}")

    def begins(self) -> bool:
        """Whether there is something to start; Closed for one that was stopped."""
        if self.over:
            raise Closed("this bus was stopped; make a new one")
        return self.state == "new"

    async def end(self, shut: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Carry out `shut()`, once, whoever asks for it and however often."""
        if self._ending is None:
            self._ending = asyncio.create_task(shut(), name="wowevent:stop")
        await finished(self._ending)
