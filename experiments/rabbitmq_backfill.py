"""Can a new subscription on RabbitMQ begin in the past, while others publish, with nothing missing and nothing twice?

A queue gets only what comes after its binding. So the declaration, under a lock: fill the queue from the history up to
a marker; bind it; copy what lies between that marker and one published after the binding, but for what the binding
brought too (the consumer drops those ids, as it drops any id that it settled).
"""

import asyncio
import time
from itertools import pairwise
from typing import Any

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from servers import rabbitmq_server

HISTORY = "agent_events.history"


async def marker(channel: Any) -> str:
    """A message for the history alone."""
    name = f"marker-{time.monotonic_ns()}"
    await channel.default_exchange.publish(Message(b"", message_id=name), HISTORY)
    return name


async def copy_until(connection: Any, offset: Any, end: str, queue: str) -> int:
    """From an offset to the marker `end` into the queue, confirmed by hundreds; returns the marker's offset."""
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=500)
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    await (await channel.get_queue(HISTORY)).consume(arrived.put, arguments={"x-stream-offset": offset})
    out = await connection.channel()
    copies: list[Any] = []
    while (message := await asyncio.wait_for(arrived.get(), 5)).message_id != end:
        await message.ack()
        if message.message_id.startswith("e"):  # here the subscription's patterns and filters are asked
            copy = Message(message.body, message_id=message.message_id, delivery_mode=DeliveryMode.PERSISTENT)
            copies.append(out.default_exchange.publish(copy, queue))
        if len(copies) == 100:
            await asyncio.gather(*copies)
            copies.clear()
    await asyncio.gather(*copies)
    await channel.close()
    await out.close()
    return int(message.headers["x-stream-offset"])


async def declare_from_first(connection: Any, channel: Any, name: str) -> None:
    """The three steps."""
    queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
    reached = await copy_until(connection, "first", await marker(channel), name)
    await queue.bind("agent_events", "#")
    await copy_until(connection, reached + 1, await marker(channel), name)


async def main() -> None:
    with rabbitmq_server() as server:
        connection: Any = await aio_pika.connect(server.url)
        version = connection.transport.connection.server_properties["version"]
        channel = await connection.channel()
        events = await channel.declare_exchange("agent_events", ExchangeType.TOPIC, durable=True)
        history = await channel.declare_queue(HISTORY, durable=True, arguments={"x-queue-type": "stream"})
        await history.bind(events, "#")
        stop = asyncio.Event()
        published = 0

        async def publisher() -> None:
            nonlocal published
            while not stop.is_set():
                batch = [Message(b"x", message_id=f"e{published + n}") for n in range(20)]
                await asyncio.gather(*[events.publish(message, "a.normal") for message in batch])
                published += 20

        for n in range(100):
            await asyncio.gather(
                *[events.publish(Message(b"x", message_id=f"e{n * 20 + i}"), "a.normal") for i in range(20)]
            )
        published = 2000
        task = asyncio.create_task(publisher())
        started = time.perf_counter()
        await declare_from_first(connection, channel, "late")
        took = time.perf_counter() - started
        await asyncio.sleep(0.1)
        stop.set()
        await task

        queue = await channel.get_queue("late")
        got = []
        while message := await queue.get(no_ack=True, fail=False):
            got.append(message.message_id)
        assert set(got) == {f"e{n}" for n in range(published)}, "nothing is missing"
        twice = len(got) - len(set(got))
        order = list(dict.fromkeys(got))
        moved = sum(int(a[1:]) > int(b[1:]) for a, b in pairwise(order))
        await connection.close()
        print(
            f"rabbitmq {version}: began at the first of {published} meanwhile published: none missing, {twice} twice, "
            f"{moved} steps out of order at the seam; {took:.1f} s"
        )


if __name__ == "__main__":
    asyncio.run(main())
