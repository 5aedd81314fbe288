"""What do the server's counters tell on NATS: stale acks, failures apart from crashes, delays over a restart?

A delivery bears the number of deliveries so far. We write a small record when a delivery is settled by
anything but an ack (`{namespace}.r._bus.tries.{subscription}.{sequence}`: how many deliveries ended by a
settlement, failures, errors, due), before the nak. So crashes = deliveries - 1 - settled, whatever is killed
in between.
"""

import asyncio
import json
import time
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from nats.js.errors import FetchTimeoutError
from servers import nats_server

LEASE = 1.0


async def bind(client: Any) -> Any:
    return await client.jetstream().pull_subscribe_bind("s", "ns")


async def fetch_one(subscription: Any, wait: float) -> Any:
    """One delivery, or None."""
    try:
        [message] = await subscription.fetch(1, timeout=wait)
    except (FetchTimeoutError, nats.errors.TimeoutError):
        return None
    return message


async def tries(js: Any, sequence: int) -> dict[str, Any]:
    """The record of a delivery's settlements, or a fresh one."""
    try:
        last = await js.get_last_msg("control", f"ns.r._bus.tries.s.{sequence}")
    except nats.js.errors.NotFoundError:
        return {"settled": 0, "failures": 0, "errors": [], "due": 0}
    record: dict[str, Any] = json.loads(last.data)
    return record


async def retry(js: Any, message: Any, delay: float, error: str | None) -> None:
    """The record first, with a confirmation, then the nak."""
    sequence = message.metadata.sequence.stream
    record = await tries(js, sequence)
    record["settled"] = message.metadata.num_delivered - crashes(message, record)
    record["failures"] += error is not None
    record["errors"] += [error] if error else []
    record["due"] = time.time() + delay
    await js.publish(f"ns.r._bus.tries.s.{sequence}", json.dumps(record).encode())
    await message.nak(delay=delay)


def crashes(message: Any, record: dict[str, Any]) -> int:
    """Deliveries before this one that ended without a settlement."""
    return int(message.metadata.num_delivered) - 1 - int(record["settled"])


async def stale_ack(js: Any, subscription: Any) -> bool:
    """An ack after the lease, while another delivery is out: does it settle that one?"""
    await js.publish("ns.n.a", b"slow")
    late = await fetch_one(subscription, 1)
    again = await fetch_one(subscription, LEASE + 1)
    assert again.metadata.num_delivered == 2
    await late.ack_sync()
    info = await js.consumer_info("ns", "s")
    settled: bool = info.num_ack_pending == 0
    await again.ack_sync()
    return settled


async def counts(js: Any, subscription: Any) -> None:
    """Fail, crash, give back, fail: two failures, one crash."""
    await js.publish("ns.n.a", b"counted")
    message = await fetch_one(subscription, 1)
    await retry(js, message, 0.05, "first")
    message = await fetch_one(subscription, 1)
    assert crashes(message, await tries(js, message.metadata.sequence.stream)) == 0
    message = await fetch_one(subscription, LEASE + 1)  # not settled: the lease ends
    record = await tries(js, message.metadata.sequence.stream)
    assert (record["failures"], crashes(message, record)) == (1, 1)
    await retry(js, message, 0, None)
    message = await fetch_one(subscription, 1)
    record = await tries(js, message.metadata.sequence.stream)
    assert (record["failures"], crashes(message, record)) == (1, 1), "given back: nothing charged"
    await retry(js, message, 0, "second")
    message = await fetch_one(subscription, 1)
    record = await tries(js, message.metadata.sequence.stream)
    assert (record["failures"], crashes(message, record), record["errors"]) == (2, 1, ["first", "second"])
    await message.ack_sync()


async def delay_over_restart(server: Any, client: Any) -> tuple[float, float]:
    """(seconds of a nak of 4 s without a restart, and with kill -9 of the server in it); the lease is 1 s."""
    took = []
    for restart in (False, True):
        js = client.jetstream()
        subscription = await bind(client)
        await js.publish("ns.n.a", b"delayed")
        message = await fetch_one(subscription, 1)
        await retry(js, message, 4.0, "later")
        await client.flush()
        started = time.monotonic()
        if restart:
            await asyncio.sleep(0.3)
            await client.close()
            server.crash_and_restart()
            client = await nats.connect(server.url)
            subscription = await bind(client)
        message = await fetch_one(subscription, 7)
        took.append(time.monotonic() - started)
        record = await tries(client.jetstream(), message.metadata.sequence.stream)
        early = record["due"] - time.time()
        assert restart or early <= 0
        await message.ack_sync()
    await client.close()
    return took[0], took[1]


async def delayed_do_not_block(js: Any, subscription: Any) -> None:
    """3,000 delayed ones, far above the default limit of 1,000 unacknowledged, and the next still comes."""
    for n in range(3000):
        await js._nc.publish("ns.n.a", str(n).encode())
    await js._nc.flush()
    for _ in range(6):
        for message in await subscription.fetch(500, timeout=2):
            await message.nak(delay=60)
    await js.publish("ns.n.a", b"next")
    message = await fetch_one(subscription, 2)
    assert message is not None and message.data == b"next"
    await js.purge_stream("ns")


async def main() -> None:
    with nats_server() as server:
        client = await nats.connect(server.url, pending_size=0)
        js = client.jetstream()
        version = str(client.connected_server_version).strip("<>").split()[-1]
        await js.add_stream(StreamConfig(name="ns", subjects=["ns.n.>"]))
        await js.add_stream(StreamConfig(name="control", subjects=["ns.r.>"], max_msgs_per_subject=1))
        await js.add_consumer(
            "ns",
            ConsumerConfig(
                durable_name="s",
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=LEASE,
                max_ack_pending=-1,
                filter_subject="ns.n.>",
            ),
        )
        subscription = await bind(client)
        settled = await stale_ack(js, subscription)
        await counts(js, subscription)
        await delayed_do_not_block(js, subscription)
        kept, restarted = await delay_over_restart(server, client)
        print(
            f"nats {version}: a late ack {'DOES' if settled else 'does not'} settle a newer delivery; "
            f"failures 2 and "
            f"crashes 1 told apart; 3,000 delayed do not block; a nak of 4 s came after {kept:.1f} s, "
            f"with kill -9 of the server in it after {restarted:.1f} s (the record tells when it is early)"
        )


if __name__ == "__main__":
    asyncio.run(main())
