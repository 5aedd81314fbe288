"""The proof that a peer's queue is empty once its consumer has gone; imports nothing of ours."""

from __future__ import annotations

import aio_pika

from benchmarks.parts.rabbitmq_message import QUEUE

_ENOUGH = 100
"""Nobody has to know how many more."""


async def left(url: str) -> int:
    """What the queue has, now that its consumer's connection is closed: what was not acknowledged is back in it.

    Asked by taking, which waits its turn behind the acknowledgements; the queue's count is behind on a busy server.
    """
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(QUEUE, passive=True)
        found = 0
        while found < _ENOUGH and await queue.get(fail=False) is not None:
            found += 1
        return found
