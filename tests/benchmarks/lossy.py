"""Parts that go wrong on purpose, as benchmarks.part runs them."""

import time

from benchmarks.part import Record, Setting, Signal


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
