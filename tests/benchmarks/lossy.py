"""Parts that go wrong on purpose, as benchmarks.part runs them."""

import time
from typing import Any

from websockets.asyncio.server import broadcast

from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.broadcast import fan_out


async def honest(setting: Setting, signal: Signal) -> Record:
    await signal.ready()
    ids = [str(number) for number in range(setting.count)]
    return Record(started=time.monotonic(), ended=time.monotonic() + 0.5, published=ids, handled=ids[::-1])


async def drops(setting: Setting, signal: Signal) -> Record:
    record = await honest(setting, signal)
    record.handled.pop()
    return record


async def repeats(setting: Setting, signal: Signal) -> Record:
    record = await honest(setting, signal)
    record.handled[0] = record.handled[1]
    return record


async def keeps_some_back(setting: Setting, signal: Signal) -> Record:
    record = await honest(setting, signal)
    record.values["lost"] = 1
    return record


async def breaks(setting: Setting, signal: Signal) -> Record:
    await signal.ready()
    raise SystemExit(3)


async def fan_out_twice(setting: Setting, signal: Signal) -> Record:
    """The bare fan-out, with everything sent twice."""

    def twice(clients: Any, message: Any, **settings: Any) -> None:
        for _ in range(2):
            broadcast(clients, message, **settings)

    return await fan_out(setting, signal, twice)
