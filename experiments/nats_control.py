"""Can NATS hold the control log, presence, an exclusive holder, and dead letters resolved once?

One stream with one message a subject is the compacted control log; a compare-and-set append is the expected
last sequence; a message with a TTL is presence, which ends by itself; the same with compare-and-set is a lock
for `exclusive`.
"""

import asyncio
import json
import time
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from nats.js.errors import APIError, NotFoundError
from servers import nats_server


async def swap(js: Any, subject: str, body: bytes, expected: int, ttl: str = "") -> int:
    """Append when the subject's last sequence is the expected one (0: none); 0 when it is not."""
    headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)} | ({"Nats-TTL": ttl} if ttl else {})
    try:
        return int((await js.publish(subject, body, headers=headers)).seq)
    except APIError:
        return 0


async def fold(js: Any) -> dict[str, bytes]:
    """The whole control log: the last value of each subject."""
    reader = await js.subscribe("ns.r._bus.>", ordered_consumer=True)
    state: dict[str, bytes] = {}
    pending = (await js.stream_info("control")).state.messages
    while pending:  # each message tells how many are behind it
        message = await reader.next_msg(timeout=2)
        state[message.subject] = message.data
        pending = message.metadata.num_pending
    await reader.unsubscribe()
    return state


async def presence(js: Any) -> float:
    """How long a process that stopped heartbeating is still there (TTL 1 s here; 15 s with us)."""
    await js.publish("ns.r._bus.presence.p1", b"{}", headers={"Nats-TTL": "1s"})
    await js.publish("ns.r._bus.presence.p1", b"{}", headers={"Nats-TTL": "1s"})
    started = time.monotonic()
    while True:
        try:
            await js.get_last_msg("control", "ns.r._bus.presence.p1")
        except NotFoundError:
            return time.monotonic() - started
        await asyncio.sleep(0.05)


async def exclusive(js: Any) -> float:
    """One holder at a time; after it stops renewing the other takes over. Returns how long that took."""
    subject = "ns.r._bus.holder.orders"
    mine = await swap(js, subject, b"one", 0, "1s")
    assert mine and not await swap(js, subject, b"two", 0, "1s"), "only one holds"
    mine = await swap(js, subject, b"one", mine, "1s")
    assert mine, "the holder renews"
    started = time.monotonic()
    while not await swap(js, subject, b"two", 0, "1s"):
        await asyncio.sleep(0.05)
    assert not await swap(js, subject, b"one", mine, "1s"), "the old holder learns that it lost"
    return time.monotonic() - started


async def dead_letters(js: Any) -> int:
    """Four resolvers race over 50 letters; each is resolved once."""
    await js.add_stream(StreamConfig(name="dead", subjects=["ns.dead.>"]))
    letters = [
        (await js.publish("ns.dead.s", json.dumps({"n": n}).encode(), headers={"Nats-Msg-Id": f"s:{n}"})).seq
        for n in range(50)
    ]
    again = await js.publish("ns.dead.s", b"{}", headers={"Nats-Msg-Id": "s:7"})
    assert again.duplicate, "a bury that is repeated after a kill makes one letter"

    async def resolve(sequence: int) -> bool:
        try:
            return bool(await js.delete_msg("dead", sequence))
        except APIError:
            return False

    results = await asyncio.gather(*[resolve(sequence) for sequence in letters for _ in range(4)])
    return sum(results)


async def purge_ready(js: Any) -> int:
    """A consumer has no purge: its ready ones are fetched and acked; what is leased stays leased."""
    await js.add_stream(StreamConfig(name="log", subjects=["ns.n.>"]))
    await js.add_consumer("log", ConsumerConfig(durable_name="s", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=-1))
    subscription = await js.pull_subscribe_bind("s", "log")
    for n in range(500):
        await js.publish("ns.n.a", str(n).encode())
    leased = await subscription.fetch(10)
    purged = 0
    while (await js.consumer_info("log", "s")).num_pending:
        for message in await subscription.fetch(500, timeout=1):
            await message.ack()
            purged += 1
    await asyncio.sleep(0.05)
    assert (await js.consumer_info("log", "s")).num_ack_pending == len(leased)
    return purged


async def live(client: Any) -> None:
    """A reply goes by the core; one to nobody is answered at once."""
    inbox = await client.subscribe("ns.live._reply.abc")
    await client.publish("ns.live._reply.abc", b"reply")
    assert (await inbox.next_msg(timeout=1)).data == b"reply"
    try:
        await client.request("ns.live._reply.nobody", b"", timeout=5)
        raise AssertionError("somebody answered")
    except nats.errors.NoRespondersError:
        pass


async def main() -> None:
    with nats_server() as server:
        client = await nats.connect(server.url, pending_size=0)
        version = str(client.connected_server_version).strip("<>").split()[-1]
        js = client.jetstream()
        await js.add_stream(
            StreamConfig(name="control", subjects=["ns.r._bus.>"], max_msgs_per_subject=1, allow_msg_ttl=True)
        )
        last = 0
        for n in range(200):
            last = await swap(js, "ns.r._bus.subscription.s", str(n).encode(), last)
            assert last
        assert not await swap(js, "ns.r._bus.subscription.s", b"stale", last - 1), "a stale writer is refused"
        await js.publish("ns.r._bus.schema.task", b"{}")
        assert await fold(js) == {"ns.r._bus.subscription.s": b"199", "ns.r._bus.schema.task": b"{}"}
        gone, taken, resolved = await presence(js), await exclusive(js), await dead_letters(js)
        assert resolved == 50
        purged = await purge_ready(js)
        assert purged == 490
        await live(client)
        await client.close()
        print(
            f"nats {version}: 200 changes fold to 1 message; a stale change is refused; presence with "
            f"TTL 1 s ended after "
            f"{gone:.1f} s, an exclusive holder's lock after {taken:.1f} s; 4 racing resolvers of 50 "
            f"letters: {resolved} "
            f"resolved; purge took {purged} ready and left 10 leased; a live reply to nobody fails at once"
        )


if __name__ == "__main__":
    asyncio.run(main())
