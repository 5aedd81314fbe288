"""Our consumer on RabbitMQ, where only a closed connection tells what it had not acknowledged."""

from __future__ import annotations

import asyncio

from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.bus import WORKER, Handled, subscribe
from wowevent import EventBus

_GIVEN_BACK = 0.5
"""Seconds: what a consumer held when its connection ended is in the queue again by then."""


async def consumer(setting: Setting, signal: Signal) -> Record:
    """Handles only; what is left is asked by another bus, once this one is closed."""
    bus = EventBus(setting.url)
    handled = Handled(setting.count)
    await subscribe(bus, handled, batch=False)
    async with bus:
        await signal.ready()
        await handled.all.wait()
        cpu = signal.cpu()
    return Record(ended=handled.ended, handled=handled.ids, cpu=cpu, values={"lost": await left(setting.url)})


async def left(url: str) -> int:
    """What the engine has for the subscription; a busy server's counts are behind, so nothing is nothing twice."""
    left, nothing = 0, 0
    async with EventBus(url) as bus:
        for _ in range(20):
            await asyncio.sleep(_GIVEN_BACK)
            info = await bus.info(WORKER)
            if info is None:
                raise RuntimeError("the subscription is gone")
            left = info.ready + info.dead + (info.leased or 0) + (info.delayed or 0)
            nothing = 0 if left else nothing + 1
            if nothing == 2:
                break
    return left
