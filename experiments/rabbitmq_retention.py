"""When a work queue drops unread events by bytes or age, how does its subscription learn of it?

Nobody counts what a queue drops at its head. A dead-letter route for drops alone (we never reject, so nothing else
uses it) into `{queue}.lost`, which keeps one message, is a bounded note: something was lost. Asked besides: is a
publisher held up, and can a limit be changed?
"""

import asyncio
from typing import Any

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from servers import rabbitmq_server


async def subscription(channel: Any, name: str, **limits: int) -> tuple[Any, Any]:
    """A queue with limits, and the note of its losses."""
    lost = await channel.declare_queue(
        f"{name}.lost", durable=True, arguments={"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "drop-head"}
    )
    arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}.lost"}
    queue = await channel.declare_queue(name, durable=True, arguments=arguments | limits)
    return queue, lost


async def count(channel: Any, name: str) -> int:
    """What is ready."""
    return int((await channel.declare_queue(name, passive=True)).declaration_result.message_count)


async def main() -> None:
    with rabbitmq_server() as server:
        connection: Any = await aio_pika.connect(server.url)
        version = connection.transport.connection.server_properties["version"]
        channel = await connection.channel()
        events = await channel.declare_exchange("agent_events", ExchangeType.TOPIC, durable=True)
        full, full_lost = await subscription(channel, "full", **{"x-max-length-bytes": 100_000})
        old, old_lost = await subscription(channel, "old", **{"x-message-ttl": 300})
        read, _ = await subscription(channel, "read", **{"x-max-length-bytes": 10_000_000})
        for queue in (full, old, read):
            await queue.bind(events, "#")
        publish = [
            events.publish(Message(b"x" * 1000, message_id=str(n), delivery_mode=DeliveryMode.PERSISTENT), "a.normal")
            for n in range(300)
        ]
        assert all(type(answer).__name__ == "Ack" for answer in await asyncio.gather(*publish)), "publishers go on"
        await asyncio.sleep(1)
        assert await count(channel, "read") == 300, "other subscriptions keep theirs"
        kept = await count(channel, "full")
        assert kept < 300 and await count(channel, "old") == 0

        reasons = []
        for lost in (full_lost, old_lost):
            assert await count(channel, lost.name) == 1, "a note of bounded size"
            note = await lost.get(timeout=2)
            reasons.append(note.headers["x-death"][0]["reason"])
            await note.ack()
        assert await count(channel, "read.lost") == 0
        channel_2 = await connection.channel()
        try:
            await subscription(channel_2, "full", **{"x-max-length-bytes": 200_000})
            raise AssertionError("a changed argument must be refused")
        except aio_pika.exceptions.ChannelPreconditionFailed:
            pass
        await connection.close()
        print(
            f"rabbitmq {version}: of 300, a queue of 100 kB kept {kept}, one of 300 ms none, an unbounded one all; the "
            f"two that lost have one note each ({', '.join(reasons)}), without a number; publishers were not held up; "
            f"a changed limit is refused with 406"
        )


if __name__ == "__main__":
    asyncio.run(main())
