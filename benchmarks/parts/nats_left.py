"""Where the peers on NATS publish and consume, and the proof that nothing is left there. Imports nothing of ours."""

from __future__ import annotations

import asyncio

from nats.js import JetStreamContext
from nats.js.api import StorageType, StreamConfig

STREAM = "events"
SUBJECT = "events.created"
DURABLE = "workers"


async def made(js: JetStreamContext) -> None:
    """The stream, on file: as durable as ours."""
    await js.add_stream(StreamConfig(name=STREAM, subjects=[f"{STREAM}.>"], storage=StorageType.FILE))


async def left(js: JetStreamContext) -> int:
    """What the consumer has, given or not; the last acknowledgements are on their way when the last is handled."""
    found = 0
    for _ in range(100):
        info = await js.consumer_info(STREAM, DURABLE)
        found = (info.num_pending or 0) + (info.num_ack_pending or 0)
        if not found:
            return 0
        await asyncio.sleep(0.05)
    return found
