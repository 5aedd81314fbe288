"""Who is charged when a connection dies with 20 prefetched events, and are innocents spared?

A redelivered event bears `x-delivery-count`. We move it, with its crashes in a header, to `{queue}.suspect`
(single active consumer, prefetch 1) and ack the original. There it is alone: only the guilty one crashes a
second time.
"""

import asyncio
import logging
from functools import partial
from typing import Any

import aio_pika
from aio_pika import DeliveryMode, Message
from servers import rabbitmq_server

QUORUM = {"x-queue-type": "quorum"}
ALONE = {**QUORUM, "x-single-active-consumer": True}


def crashes(event: Any) -> int:
    """Those counted by us before, and those the broker saw since."""
    return int(event.headers.get("wow-crashes", 0)) + int(event.headers.get("x-delivery-count", 0))


async def queues(connection: Any) -> tuple[Any, Any, Any, Any]:
    """A channel, the queue, its suspects, the dead letters."""
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=20)
    names = (("q", QUORUM), ("q.suspect", ALONE), ("dlq.q", QUORUM))
    return channel, *[await channel.declare_queue(name, durable=True, arguments=kind) for name, kind in names]


async def send(channel: Any, queue: str, body: bytes, count: int) -> None:
    """One confirmed publish to a queue."""
    await channel.default_exchange.publish(
        Message(body, delivery_mode=DeliveryMode.PERSISTENT, headers={"wow-crashes": count}), queue
    )


async def one_by_one(connection: Any) -> tuple[asyncio.Queue[Any], Any]:
    """The suspects, on a channel of their own with prefetch 1 (basic.get is refused on such a queue)."""
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1)
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    queue = await channel.get_queue("q.suspect")
    tag = await queue.consume(arrived.put)
    return arrived, lambda: queue.cancel(tag)


async def next_of(arrived: asyncio.Queue[Any]) -> Any:
    """The next one, or None when none comes in a while."""
    try:
        return await asyncio.wait_for(arrived.get(), 0.2)
    except TimeoutError:
        return None


async def process(url: str, handled: list[bytes], died: list[int]) -> bool:
    """One consumer process: suspects alone first, then the rest; False when the guilty one killed it."""
    connection: Any = await aio_pika.connect(url)
    channel, plain, *_ = await queues(connection)
    alone, leave = await one_by_one(connection)
    while suspect := await next_of(alone):
        count = crashes(suspect)
        if count >= 2:
            await send(channel, "dlq.q", suspect.body, count)
        elif suspect.body == b"guilty":
            died.append(count)
            await connection.close()
            return False
        else:
            handled.append(suspect.body)
        await suspect.ack()
    await leave()  # else the first one moved below would come here, and closing would charge it again
    held = [event for event in [await plain.get(fail=False) for _ in range(20)] if event]
    moved = [event for event in held if crashes(event)]
    for event in moved:
        await send(channel, "q.suspect", event.body, crashes(event))
        await event.ack()
    for event in [event for event in held if not crashes(event)]:
        if event.body == b"guilty":
            died.append(0)
            await connection.close()  # the broker sees what it sees of a killed process: the connection ends
            return False
        handled.append(event.body)
        await event.ack()
    await connection.close()
    return not moved and not held


async def charged_by_restart(server: Any) -> int:
    """Prefetched when the *engine* is killed: what is the count afterwards?"""
    connection: Any = await aio_pika.connect(server.url)
    channel, plain, *_ = await queues(connection)
    await send(channel, "q", b"innocent", 0)
    assert await plain.get(timeout=5)
    server.kill()
    await asyncio.sleep(0.2)
    server.start()
    connection = await aio_pika.connect(server.url)
    _, plain, *_ = await queues(connection)
    for _ in range(50):
        if event := await plain.get(fail=False):
            break
        await asyncio.sleep(0.1)
    await event.ack()
    await connection.close()
    return crashes(event)


async def one_active(url: str) -> None:
    """Two processes consume the suspects' queue; only one is served until it goes."""
    connections = [await aio_pika.connect(url) for _ in range(2)]
    seen: list[list[bytes]] = [[], []]
    for connection, bodies in zip(connections, seen, strict=True):
        channel, _, suspects, _ = await queues(connection)
        await suspects.consume(partial(take, bodies=bodies))
    for n in range(10):
        await send(channel, "q.suspect", str(n).encode(), 1)
    await asyncio.sleep(0.3)
    assert [len(bodies) for bodies in seen] == [10, 0], seen
    await connections[0].close()
    await send(channel, "q.suspect", b"after", 1)
    await asyncio.sleep(0.3)
    assert seen[1] == [b"after"]
    await connections[1].close()


async def take(event: Any, bodies: list[bytes]) -> None:
    bodies.append(event.body)
    await event.ack()


async def main() -> None:
    with rabbitmq_server() as server:
        connection: Any = await aio_pika.connect(server.url)
        version = connection.transport.connection.server_properties["version"]
        channel, *_ = await queues(connection)
        for n in range(20):
            await send(channel, "q", b"guilty" if n == 10 else f"innocent-{n}".encode(), 0)
        handled: list[bytes] = []
        died: list[int] = []
        runs = 1
        while not await process(server.url, handled, died):
            runs += 1
            assert runs < 20
        _, _, _, dead = await queues(connection)
        letter = await dead.get(timeout=5)
        assert letter.body == b"guilty" and crashes(letter) == 2 and not await dead.get(fail=False)
        assert sorted(handled) == sorted(f"innocent-{n}".encode() for n in range(20) if n != 10), "each innocent once"
        await letter.ack()
        await connection.close()
        await one_active(server.url)
        charged = await charged_by_restart(server)
        print(
            f"rabbitmq {version}: the guilty one killed {len(died)} processes (crashes before: {died}) "
            f"and is the only dead "
            f"letter; 19 innocents handled once; one active consumer of suspects; kill -9 of the engine itself "
            f"charges {charged} (the broker cannot tell)"
        )


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # the client logs the kill that we ask for
    asyncio.run(main())
