"""Do a few queues with a TTL, one a level, give delays of any length, none lost?

A level is an exchange (fanout) and a quorum queue with a message TTL. The routing key on the way in is the
queue to come back to: the dead letter keeps it and goes by the default exchange. A delay goes by the largest
level that fits; what comes back too early (a header says when it is due) is parked again. A delayed publish
comes back to `later`, whose consumer publishes it to the exchange unless it was cancelled.
"""

import asyncio
import logging
import time
from typing import Any

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from servers import rabbitmq_server

LEVELS: list[float] = [0.1 * 2**n for n in range(8)]  # seconds: 0.1 to 12.8
EVENTS = 300


async def topology(channel: Any) -> dict[float, Any]:
    """One exchange and one queue a level; at-least-once dead lettering needs reject-publish."""
    exchanges = {}
    for seconds in LEVELS:
        name = f"agent_events.delay.{int(seconds * 1000)}"
        exchanges[seconds] = await channel.declare_exchange(name, ExchangeType.FANOUT, durable=True)
        queue = await channel.declare_queue(
            name,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-message-ttl": int(seconds * 1000),
                "x-dead-letter-exchange": "",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        await queue.bind(exchanges[seconds])
    for name in ("q", "other", "later"):
        await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
    return exchanges


def level(remaining: float) -> float:
    """The largest that fits, or the smallest."""
    return max((seconds for seconds in LEVELS if seconds <= remaining), default=LEVELS[0])


async def park(exchanges: dict[float, Any], back_to: str, name: str, due: float) -> None:
    """Confirmed; the queue to come back to is the routing key."""
    message = Message(b"x" * 300, message_id=name, delivery_mode=DeliveryMode.PERSISTENT, headers={"wow-due": str(due)})
    await exchanges[level(due - time.time())].publish(message, back_to)


async def come_back(exchanges: dict[float, Any], queue: Any, wanted: int) -> tuple[dict[str, float], int]:
    """Take what comes back; park again what is early. Returns how late each came, and the hops that this took."""
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    tag = await queue.consume(arrived.put)
    late: dict[str, float] = {}
    hops = 0
    while len(late) < wanted:
        event = await asyncio.wait_for(arrived.get(), 20)
        due = float(event.headers["wow-due"])
        if due - time.time() > LEVELS[0] / 2:
            await park(exchanges, queue.name, event.message_id, due)
            hops += 1
        else:
            late[event.message_id] = time.time() - due
        await event.ack()
    await queue.cancel(tag)
    return late, hops


async def restart(server: Any) -> tuple[Any, Any, dict[float, Any]]:
    """Kill -9 the broker; connect anew."""
    server.kill()
    server.start()
    connection: Any = await aio_pika.connect(server.url)
    channel = await connection.channel()
    return connection, channel, await topology(channel)


async def main() -> None:
    with rabbitmq_server() as server:
        connection: Any = await aio_pika.connect(server.url)
        version = connection.transport.connection.server_properties["version"]
        channel = await connection.channel()
        exchanges = await topology(channel)
        start = time.time()
        delays = {f"e{n}": 0.2 + n % 30 * 0.1 for n in range(EVENTS)}
        await asyncio.gather(*[park(exchanges, "q", name, start + delay) for name, delay in delays.items()])
        late, hops = await come_back(exchanges, await channel.get_queue("q"), EVENTS)
        assert set(late) == set(delays)
        other = await channel.declare_queue("other", passive=True)
        assert other.declaration_result.message_count == 0, "they come back to their own queue alone"
        worst = max(late.values())
        early = -min(late.values())

        due = time.time() + 8
        await asyncio.gather(*[park(exchanges, "later", f"d{n}", due) for n in range(50)])
        tombstones = {"d7"}  # the fold of the control log
        connection, channel, exchanges = await restart(server)
        late, _ = await come_back(exchanges, await channel.get_queue("later"), 50)
        left = [name for name in late if name not in tombstones]
        assert len(left) == 49 and "d7" not in left
        await connection.close()
        print(
            f"rabbitmq {version}: {EVENTS} delays of 0.2 to 3.1 s came back to their queue alone, "
            f"{early * 1000:.0f} ms early "
            f"to {worst * 1000:.0f} ms late, {hops / EVENTS:.1f} extra hops each; 50 delayed publishes "
            f"survived kill -9 "
            f"({max(late.values()) * 1000:.0f} ms late); the cancelled one was stopped by its tombstone"
        )


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # the client logs the kill that we ask for
    asyncio.run(main())
