"""A look at the memory engine: there is one thing to know of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from wowevent.broker import Examination, SubscriptionInfo
from wowevent.finding import Check, Finding

DURABILITY: Final = Check("memory.durability", "everything within this process, and nothing beyond it")
CHECKS: Final = (DURABILITY,)


@asynccontextmanager
async def examine(subscriptions: Callable[[], Awaitable[Sequence[SubscriptionInfo]]]) -> AsyncIterator[Examination]:
    """What can be looked at."""
    yield Examination({DURABILITY: _durability}, subscriptions)


async def _durability() -> list[Finding]:
    return [
        DURABILITY.warn(
            "gone with the process: every event, subscription and dead letter",
            "for anything to keep, take an engine that stores: sqlite:///path on one machine (docs/engines.md)",
        )
    ]
