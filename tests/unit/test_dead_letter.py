"""Looking through many dead letters holds up nothing else."""

import asyncio

from wowevent import Event, EventBus
from wowevent.broker import Bury, Reason, Subscription


async def test_others_get_their_turn_while_letters_are_looked_through() -> None:
    """Memory hands them out in one part."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with EventBus("memory://") as bus:
        await bus.broker.declare(Subscription(id="w", patterns=("#",)))
        await bus.publish_many([Event(topic="a.b") for _ in range(1_000)])
        leases = await bus.broker.fetch("w", limit=1_000, wait=0)
        await bus.broker.settle("w", [Bury(lease.token, Reason.HANDLER_ERROR, "x") for lease in leases])
        turning = asyncio.create_task(turn())
        (group,) = (await bus.dead_letters.groups()).groups
        turning.cancel()
    assert group.count == 1_000
    assert turns >= 10
