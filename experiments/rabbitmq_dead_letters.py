"""Can RabbitMQ's dead letters be listed and resolved exactly once, and presence be known?

A queue cannot be looked into without taking. So whoever lists or resolves holds a lock (an exclusive queue,
which ends with its connection), takes the letters, acks what it resolves and gives the rest back in order.
Presence goes by the live exchange: a heartbeat every few seconds, and a hello at the start which all answer
at once.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aiormq.exceptions import ChannelLockedResource
from servers import rabbitmq_server

QUORUM = {"x-queue-type": "quorum"}


@asynccontextmanager
async def letters(connection: Any, queue: str) -> AsyncIterator[list[Any]]:
    """All letters of a queue, under its lock; what is not acked goes back when the channel closes."""
    while True:
        lock = await connection.channel()
        try:
            held = await lock.declare_queue(f"lock.{queue}", exclusive=True)
            break
        except ChannelLockedResource:
            await asyncio.sleep(0.02)
    channel = await connection.channel()
    try:
        source = await channel.get_queue(queue)
        count = source.declaration_result.message_count
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        await channel.set_qos(prefetch_count=count or 1)
        await source.consume(arrived.put)
        yield [await asyncio.wait_for(arrived.get(), 5) for _ in range(count)]
    finally:
        await channel.close()
        await held.delete()
        await lock.close()


async def resolve(url: str, ids: set[str], redeliver: bool) -> int:
    """Redeliver (a confirmed copy to the work queue, marked) or discard; how many were."""
    connection: Any = await aio_pika.connect(url)
    done = 0
    async with letters(connection, "dlq.q") as found:
        out = await connection.channel()
        for letter in found:
            if letter.message_id not in ids:
                continue
            if redeliver:
                copy = Message(
                    letter.body,
                    message_id=letter.message_id,
                    delivery_mode=DeliveryMode.PERSISTENT,
                    headers={"wow-redelivered": True},
                )
                await out.default_exchange.publish(copy, "q")
            await letter.ack()
            done += 1
    await connection.close()
    return done


async def listing(connection: Any) -> list[str]:
    async with letters(connection, "dlq.q") as found:
        return [letter.message_id for letter in found]


class Process:
    """What presence needs: an exclusive queue on the live exchange, a heartbeat, and an answer to a hello."""

    def __init__(self, name: str, serving: list[str]) -> None:
        """Not there yet."""
        self.name, self.serving, self.known = name, serving, {}  # type: ignore[var-annotated]

    async def open(self, url: str) -> None:
        """Listen, then say hello."""
        self.connection: Any = await aio_pika.connect(url)
        self.channel = await self.connection.channel()
        self.live = await self.channel.declare_exchange("agent_events.live", ExchangeType.TOPIC, durable=True)
        queue = await self.channel.declare_queue(exclusive=True)
        for pattern in ("_bus.#", f"_reply.{self.name}.#"):
            await queue.bind(self.live, pattern)
        await queue.consume(self.hear, no_ack=True)
        await self.say("hello")

    async def say(self, what: str) -> None:
        """One live message: never stored."""
        body = json.dumps([self.name, what, self.serving]).encode()
        await self.live.publish(Message(body), f"_bus.presence.{what}")

    async def hear(self, message: Any) -> None:
        """Keep who is there; answer a hello."""
        name, what, serving = json.loads(message.body)
        self.known[name] = (serving, time.monotonic())
        if what == "hello" and name != self.name:
            await self.say("here")


async def presence(url: str) -> float:
    """How long until a newcomer knows the twenty that are there already (ms)."""
    others = [Process(f"p{n}", [f"live-{n}"]) for n in range(20)]
    for other in others:
        await other.open(url)
    await asyncio.sleep(0.2)
    newcomer = Process("new", [])
    started = time.perf_counter()
    await newcomer.open(url)
    while len(newcomer.known) < 21:
        await asyncio.sleep(0.001)
    took = (time.perf_counter() - started) * 1000
    returned = await newcomer.live.publish(Message(b""), "_reply.nobody.1", mandatory=True)
    assert type(returned).__name__ == "DeliveredMessage", "a live reply to nobody is returned at once"
    for process in [*others, newcomer]:
        await process.connection.close()
    return took


async def main() -> None:
    with rabbitmq_server() as server:
        connection: Any = await aio_pika.connect(server.url)
        version = connection.transport.connection.server_properties["version"]
        channel = await connection.channel()
        for name in ("q", "dlq.q"):
            await channel.declare_queue(name, durable=True, arguments=QUORUM)
        names = [f"e{n:02}" for n in range(60)]
        for name in names:
            message = Message(b"{}", message_id=name, delivery_mode=DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, "dlq.q")

        started = time.perf_counter()
        assert await listing(connection) == names == await listing(connection), "twice the same, in order"
        each = (time.perf_counter() - started) * 500
        wanted = set(names[:20])
        counts = await asyncio.gather(*[resolve(server.url, wanted, redeliver=n % 2 == 0) for n in range(4)])
        assert sum(counts) == 20 and await listing(connection) == names[20:], counts
        redelivered = (await channel.declare_queue("q", passive=True)).declaration_result.message_count
        assert redelivered in (0, 20)
        took = await presence(server.url)
        await connection.close()
        print(
            f"rabbitmq {version}: 60 letters listed twice alike, {each:.0f} ms a listing; 4 racing "
            f"resolvers of 20: {counts}; "
            f"a newcomer knows 20 processes after {took:.0f} ms; a live reply to nobody is returned at once"
        )


if __name__ == "__main__":
    asyncio.run(main())
