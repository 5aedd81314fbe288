"""Do exchanges by band give RabbitMQ two lanes, and does "publish the retry with a confirm, then ack" count truly?

Asked besides: how our patterns become bindings; what nack(requeue) and a late ack do; what one retry costs;
whether a kill between the two steps of a retry loses the event.
"""

import asyncio
import itertools
import time
from typing import Any

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from servers import rabbitmq_server

QUORUM = {"x-queue-type": "quorum"}
BANDS = {"plain": ("low", "normal"), "urgent": ("high", "critical")}


def binding(pattern: str) -> str:
    """Our pattern as an AMQP binding on `{topic}.{band}`: a last `*` is one or more words, and the band follows."""
    words = pattern.split(".")
    return ".".join(words + ["#"] * (words[-1] == "*") + ["*"])


async def topology(channel: Any) -> tuple[Any, Any, Any]:
    """The exchange, its two lanes, and one subscription's two queues."""
    events = await channel.declare_exchange("agent_events", ExchangeType.TOPIC, durable=True)
    queues = []
    for lane, bands in BANDS.items():
        exchange = await channel.declare_exchange(f"agent_events.{lane}", ExchangeType.TOPIC, durable=True)
        for band in bands:
            await exchange.bind(events, f"#.{band}")
        queue = await channel.declare_queue("q" + ".urgent" * (lane == "urgent"), durable=True, arguments=QUORUM)
        await queue.bind(exchange, binding("task.*"))
        queues.append(queue)
    return events, queues[0], queues[1]


def message(name: str, failures: int = 0) -> Message:
    return Message(
        b"x" * 300, message_id=name, delivery_mode=DeliveryMode.PERSISTENT, headers={"wow-failures": failures}
    )


async def patterns(channel: Any) -> None:
    """Compare the bindings with our grammar, on every topic of up to three words of two letters."""
    events = await channel.declare_exchange("patterns", ExchangeType.TOPIC, auto_delete=True)
    topics = [".".join(words) for n in (1, 2, 3) for words in itertools.product("ab", repeat=n)]
    for pattern in ("*", "#", "a.*", "a.*.b", "a.#", "#.b", "a.#.b", "*.b", "a.b"):
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(events, binding(pattern))
        for topic in topics:
            await events.publish(message(topic), f"{topic}.normal")
        got = {m.message_id for m in [await queue.get(no_ack=True, fail=False) for _ in topics] if m}
        assert got == {topic for topic in topics if matches(pattern.split("."), topic.split("."))}, pattern


def matches(pattern: list[str], words: list[str]) -> bool:
    """Our grammar, as an oracle."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[n:]) for n in range(len(words) + 1))
    if pattern == ["*"]:
        return bool(words)
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


async def urgent_first(channel: Any, events: Any, plain: Any, urgent: Any) -> tuple[int, float]:
    """After a backlog of 5,000: how many plain ones come before the urgent one; and the confirmed rate."""
    started = time.perf_counter()
    for _ in range(10):
        await asyncio.gather(*[events.publish(message(f"n{i}"), "task.created.normal") for i in range(500)])
    rate = 5000 / (time.perf_counter() - started)
    await channel.set_qos(prefetch_count=50)
    got: asyncio.Queue[Any] = asyncio.Queue()
    for queue in (urgent, plain):
        await queue.consume(got.put)
    first = await got.get()
    await events.publish(message("urgent"), "task.created.critical")
    await first.ack()
    before = 0
    while (event := await got.get()).message_id != "urgent":
        before += 1
        await event.ack()
    await event.ack()
    return before, rate


async def retry_counts(connection: Any) -> float:
    """Retry = publish a copy with the count raised, confirmed, then ack. Returns retries/s, gathered by 100."""
    channel = await connection.channel()
    queue = await channel.declare_queue("retries", durable=True, arguments=QUORUM)
    await channel.default_exchange.publish(message("poison"), "retries")
    for failures in range(4):
        event = await queue.get(timeout=5)
        assert event.headers["wow-failures"] == failures and not event.headers.get("x-delivery-count")
        await channel.default_exchange.publish(message("poison", failures + 1), "retries")
        await event.ack()

    await queue.purge()
    await asyncio.gather(*[channel.default_exchange.publish(message(str(i)), "retries") for i in range(1000)])
    held = [await queue.get(timeout=5) for _ in range(1000)]
    started = time.perf_counter()
    for start in range(0, 1000, 100):
        copies = [message(event.message_id, 1) for event in held[start : start + 100]]
        await asyncio.gather(*[channel.default_exchange.publish(copy, "retries") for copy in copies])
        await held[start + 99].ack(multiple=True)
    return 1000 / (time.perf_counter() - started)


async def killed_between(server: Any) -> None:
    """The copy is confirmed, the ack never sent: two of the same id, told apart by the count; none lost."""
    connection: Any = await aio_pika.connect(server.url)
    channel = await connection.channel()
    queue = await channel.declare_queue("between", durable=True, arguments=QUORUM)
    await channel.default_exchange.publish(message("e"), "between")
    event = await queue.get(timeout=5)
    await channel.default_exchange.publish(message("e", 1), "between")
    await connection.close()
    try:
        await event.ack()
        raise AssertionError("a late ack must not pass")
    except (aio_pika.exceptions.ChannelInvalidStateError, ConnectionError, RuntimeError):
        pass
    connection = await aio_pika.connect(server.url)
    queue = await (await connection.channel()).get_queue("between")
    both = [await queue.get(timeout=5) for _ in range(2)]
    assert sorted(e.headers["wow-failures"] for e in both) == [0, 1] and {e.message_id for e in both} == {"e"}
    await both[0].nack(requeue=True)
    again = await queue.get(timeout=5)
    assert again.headers["x-delivery-count"] >= 1, "nack(requeue) counts like a crash, so giving back must republish"
    await connection.close()


async def main() -> None:
    with rabbitmq_server() as server:
        connection: Any = await aio_pika.connect(server.url)
        channel = await connection.channel()
        await patterns(channel)
        before, rate = await urgent_first(channel, *await topology(channel))
        assert before <= 100
        retries = await retry_counts(connection)
        version = connection.transport.connection.server_properties["version"]
        await connection.close()
        await killed_between(server)
        print(
            f"rabbitmq {version}: patterns equal to the grammar; urgent came after {before} of 5,000 "
            f"plain (prefetch 50); "
            f"{rate:,.0f} confirmed publishes/s, {retries:,.0f} retries/s, gathered; killed between copy "
            f"and ack: a "
            f"duplicate of the same id, no loss; nack(requeue) raises x-delivery-count"
        )


if __name__ == "__main__":
    asyncio.run(main())
