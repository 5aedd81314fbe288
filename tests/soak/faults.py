"""What goes wrong in a soak, in an order of chance that a seed names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from random import Random

from msgspec import Struct

Strike = Callable[[], Awaitable[None]]


class Fault(Struct, frozen=True):
    """One that happened."""

    at: float
    """Seconds since the load began."""
    what: str
    seconds: float
    """How long it took until what was killed was there again."""


def order(kinds: Iterable[str], seed: int) -> Iterator[str]:
    """All of them in some order, then all of them in another one, without end: none is left out by chance."""
    random, names = Random(seed), sorted(kinds)
    while True:
        yield from random.sample(names, len(names))


async def strike(kinds: Mapping[str, Strike], seed: int, *, every: float, until: float, struck: list[Fault]) -> None:
    """One each so many seconds (more, if the one before took longer), the last one before `until`."""
    began = time.monotonic()
    for what in order(kinds, seed):
        await asyncio.sleep(every)
        at = time.monotonic() - began
        if at > until:
            return
        await kinds[what]()
        struck.append(Fault(at, what, time.monotonic() - began - at))
