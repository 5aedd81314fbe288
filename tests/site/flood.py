"""`python flood.py ENGINE RATE` says `ready`, and publishes so many events a second until it is told to end."""

import asyncio
import signal
import sys
import time

from wowevent import Event, EventBus

BATCH = 250


async def main(engine: str, rate: float) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with EventBus(engine) as bus:
        print("ready", flush=True)  # noqa: T201 - who started it waits for this
        began, sent = time.monotonic(), 0
        while not told.is_set():
            await bus.publish_many([Event(topic="flood.wave", payload={"n": sent + n}) for n in range(BATCH)])
            sent += BATCH
            await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
