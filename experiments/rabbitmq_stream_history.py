"""Is a stream queue a log we can read by position, follow from exactly "now", and fold a control log from?

Asked: what is a position, and does publish know it; how `ping` finds the head (a marker published to the
stream alone); is a gap noticed; does the fold of a truncated control log equal the fold of the whole one when
snapshots are written; what does `mandatory` still say once the history is bound to everything.
"""

import asyncio
import json
import time
from typing import Any

import aio_pika
from aio_pika import ExchangeType, Message
from servers import rabbitmq_server

HISTORY = "agent_events.history"
State = dict[str, Any]


async def read(connection: Any, stream: str, spec: object, enough: Any) -> list[tuple[int, Any]]:
    """(position, message) from an offset specification until `enough(position, message)`, or 0.3 s of silence."""
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=200)
    queue = await channel.get_queue(stream)
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    await queue.consume(arrived.put, arguments={"x-stream-offset": spec})
    got: list[tuple[int, Any]] = []
    while True:
        try:
            message = await asyncio.wait_for(arrived.get(), 0.3)
        except TimeoutError:
            break
        await message.ack()
        got.append((int(message.headers["x-stream-offset"]), message))
        if enough(*got[-1]):
            break
    await channel.close()
    return got


async def head(connection: Any, channel: Any) -> int:
    """Attach at the end, then publish a marker to the stream alone: its position is a "now" inside this call."""
    reader = await connection.channel()
    await reader.set_qos(prefetch_count=200)
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    await (await reader.get_queue(HISTORY)).consume(arrived.put, arguments={"x-stream-offset": "next"})
    marker = f"marker-{time.monotonic_ns()}"
    await channel.default_exchange.publish(Message(b"", message_id=marker), HISTORY)
    while (message := await asyncio.wait_for(arrived.get(), 5)).message_id != marker:
        await message.ack()
    await reader.close()
    return int(message.headers["x-stream-offset"])


async def from_now(connection: Any, channel: Any, events: Any) -> tuple[int, float]:
    """While another task publishes: head, then follow; is the sequence after the head complete and in order?"""
    stop = asyncio.Event()

    async def publisher() -> int:
        n = 0
        while not stop.is_set():
            await asyncio.gather(*[events.publish(Message(b"", message_id=f"e{n + i}"), "a.normal") for i in range(20)])
            n += 20
        return n

    task = asyncio.create_task(publisher())
    await asyncio.sleep(0.2)
    started = time.perf_counter()
    now = await head(connection, channel)
    took = time.perf_counter() - started
    followed = await read(connection, HISTORY, now + 1, lambda position, _: position >= now + 300)
    stop.set()
    await task
    assert [position for position, _ in followed] == list(range(now + 1, now + 301)), "no gap, no repetition"
    numbers = [int(m.message_id[1:]) for _, m in followed if m.message_id.startswith("e")]
    assert len(set(numbers)) == len(numbers) and sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
    return len(followed), took


async def silent_gap(connection: Any, channel: Any) -> int:
    """A stream of at most 1 MB: an old position is answered with the first one that is left. Returns that."""
    await channel.declare_queue(
        "tiny",
        durable=True,
        arguments={
            "x-queue-type": "stream",
            "x-max-length-bytes": 1_000_000,
            "x-stream-max-segment-size-bytes": 250_000,
        },
    )
    for _ in range(6):
        await asyncio.gather(
            *[channel.default_exchange.publish(Message(b"x" * 2000, message_id="e"), "tiny") for _ in range(300)]
        )
    [(first, _)] = await read(connection, "tiny", 5, lambda *_: True)
    return first


def fold(entries: list[tuple[int, bytes]]) -> State:
    """Changes in order; a snapshot replaces what went before it, and what it did not yet know is done again."""
    state: State = {}
    recent: list[tuple[int, State]] = []
    for position, body in entries:
        change = json.loads(body)
        if "snapshot" in change:
            state = dict(change["snapshot"])
            for _, later in [item for item in recent if item[0] > change["through"]]:
                state.update(later)
        else:
            recent.append((position, change))
            state.update(change)
    return state


async def control_log(connection: Any, channel: Any) -> tuple[int, int]:
    """Two writers, a snapshot every 100 changes, old segments dropped: (changes, entries left to read at a start)."""
    await channel.declare_queue(
        "control",
        durable=True,
        arguments={"x-queue-type": "stream", "x-max-length-bytes": 300_000, "x-stream-max-segment-size-bytes": 60_000},
    )

    async def append(change: State) -> None:
        await channel.default_exchange.publish(Message(json.dumps(change).encode()), "control")

    truth: State = {}
    for n in range(1000):
        change = {f"subscription-{n % 37}": f"{n} " + "x" * 500}
        truth.update(change)
        await append(change)
        if n % 100 == 99:  # `through` lies a little back, as for a writer that has not read its own last changes yet
            known = await fold_known(connection, n)
            await append({"snapshot": known[1], "through": known[0]})
    entries = [(position, m.body) for position, m in await read(connection, "control", "first", lambda *_: False)]
    assert entries[0][0] > 0, "the beginning is gone"
    assert fold(entries) == truth
    return 1000, len(entries)


async def fold_known(connection: Any, _: int) -> tuple[int, State]:
    """What a process knows that is five entries behind."""
    entries = [(position, m.body) for position, m in await read(connection, "control", "first", lambda *_: False)][:-5]
    return entries[-1][0], fold(entries)


async def main() -> None:
    with rabbitmq_server() as server:
        connection: Any = await aio_pika.connect(server.url)
        version = connection.transport.connection.server_properties["version"]
        channel = await connection.channel(on_return_raises=True)
        events = await channel.declare_exchange("agent_events", ExchangeType.TOPIC, durable=True)
        history = await channel.declare_queue(HISTORY, durable=True, arguments={"x-queue-type": "stream"})
        await history.bind(events, "#")
        confirmed = await events.publish(Message(b"", message_id="e"), "nobody.normal", mandatory=True)
        assert type(confirmed).__name__ == "Ack", "the history takes all, so nothing is ever returned"
        assert not hasattr(confirmed, "offset"), "a confirm does not tell the position"

        followed, took = await from_now(connection, channel, events)
        first = await silent_gap(connection, channel)
        assert first > 6, "asked for 5, given a later one without a word: we compare"
        changes, left = await control_log(connection, channel)
        await connection.close()
        print(
            f"rabbitmq {version}: head found in {took * 1000:.0f} ms under load, {followed} followed "
            f"from it without gap or "
            f"repetition; asked for position 5 of a truncated stream it gave {first}; {changes} control "
            f"changes fold "
            f"alike from the {left} entries that are left; confirms bear no position, mandatory returns nothing"
        )


if __name__ == "__main__":
    asyncio.run(main())
