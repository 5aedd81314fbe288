"""Does NATS keep 10,000 ids over a restart, what happens when a stream is full, and does the janitor's purge help?

Asked besides: can reads notice a gap (the server starts silently at the first message it still has), and does
the stream have an epoch?
"""

import asyncio
import time
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, StreamConfig
from nats.js.errors import APIError
from servers import nats_server

IDS = 10_000


async def publish_all(js: Any) -> tuple[int, list[int]]:
    """Publish the ids gathered by 500; (how many were known, positions)."""
    known, positions = 0, []
    for start in range(0, IDS, 500):
        answers = await asyncio.gather(
            *[js.publish("ns.n.a", b"x" * 100, headers={"Nats-Msg-Id": f"id-{n}"}) for n in range(start, start + 500)]
        )
        known += sum(bool(answer.duplicate) for answer in answers)
        positions += [answer.seq for answer in answers]
    return known, positions


async def full(js: Any) -> tuple[int, str]:
    """Fill a stream whose consumer has acked everything; (how many went in, the error)."""
    await js.add_stream(StreamConfig(name="small", subjects=["small"], max_bytes=200_000, discard=DiscardPolicy.NEW))
    await js.add_consumer("small", ConsumerConfig(durable_name="s", ack_policy=AckPolicy.EXPLICIT))
    subscription = await js.pull_subscribe_bind("s", "small")
    for n in range(10_000):
        try:
            await js.publish("small", b"x" * 1000)
        except APIError as error:
            return n, f"{error.err_code} {error.description}"
        [message] = await subscription.fetch(1)
        await message.ack_sync()
    raise AssertionError("never full")


async def first_after(js: Any, after: int) -> int:
    """The first position that a reader gets which asked for what comes after `after`."""
    reader = await js.subscribe(
        "small",
        ordered_consumer=True,
        config=ConsumerConfig(opt_start_seq=after + 1, deliver_policy=nats.js.api.DeliverPolicy.BY_START_SEQUENCE),
    )
    message = await reader.next_msg(timeout=2)
    await reader.unsubscribe()
    return int(message.metadata.sequence.stream)


async def main() -> None:
    with nats_server() as server:
        client = await nats.connect(server.url, pending_size=0)
        version = str(client.connected_server_version).strip("<>").split()[-1]
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="ns", subjects=["ns.>"], duplicate_window=120))
        started = time.perf_counter()
        known, first = await publish_all(js)
        rate = IDS / (time.perf_counter() - started)
        assert known == 0
        await client.close()
        server.crash_and_restart()
        client = await nats.connect(server.url, pending_size=0)
        js = client.jetstream()
        known, again = await publish_all(js)
        assert known == IDS and again == first, "each known id answers its first position, also after kill -9"

        count, error = await full(js)
        floor = (await js.consumer_info("small", "s")).ack_floor.stream_seq
        assert floor == count, "all is acked, and still it refuses"
        await js.purge_stream(
            "small", seq=floor - 9
        )  # the janitor: everything below the slowest floor, ten kept for reading
        await js.publish("small", b"x" * 1000)

        state = (await js.stream_info("small")).state
        assert await first_after(js, 5) == state.first_seq > 6, "the server says nothing of the gap: we compare"
        assert await first_after(js, state.first_seq - 1) == state.first_seq, "no gap"
        created = (await js.stream_info("small")).created
        await js.delete_stream("small")
        await asyncio.sleep(0.01)
        await js.add_stream(StreamConfig(name="small", subjects=["small"]))
        assert (await js.stream_info("small")).created != created, "the creation time is the epoch"
        await client.close()
        print(
            f"nats {version}: {IDS:,} ids known after kill -9, each with its first position; {rate:,.0f} "
            f"publishes/s with "
            f"sync always; full after {count} although all was acked: {error}; room again after the purge"
        )


if __name__ == "__main__":
    asyncio.run(main())
