"""Can one pull consumer per lane serve a subscription's patterns on NATS, and which filters does the server take?

Subjects are `{namespace}.{lane}.{topic}`; reserved topics have a lane of their own, so that `>` does not
catch them, and `{namespace}.to.{subscription}` reaches one subscription alone (a redelivered dead letter).
"""

import asyncio
import time
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from nats.js.errors import APIError, BadRequestError
from servers import nats_server


def subjects(pattern: str) -> list[str]:
    """The smallest NATS filters that hold all our pattern matches; what they hold besides is filtered by us."""
    words = pattern.split(".")
    if "#" not in words:
        return [".".join([*words[:-1], ">" if words[-1] == "*" else words[-1]])]
    head, tail = words[: words.index("#")], words[words.index("#") :]
    bare = [".".join(head)] if head and set(tail) == {"#"} else []  # `a.#` holds `a` itself, which `a.>` does not
    return [*bare, ".".join([*head, ">"])]


def covers(wide: str, narrow: str) -> bool:
    """Does every subject of `narrow` match `wide`?"""
    a, b = wide.split("."), narrow.split(".")
    for n, word in enumerate(a):
        if word == ">":
            return len(b) > n
        if n >= len(b) or b[n] == ">" or (word != "*" and word != b[n]):
            return False
    return len(a) == len(b)


def filters(patterns: list[str]) -> list[str]:
    """What the server takes: no filter that another one holds already."""
    found = sorted({subject for pattern in patterns for subject in subjects(pattern)})
    return [one for one in found if not any(other != one and covers(other, one) for other in found)]


async def consumer(js: Any, name: str, wanted: list[str]) -> Any:
    """A durable pull consumer."""
    config = ConsumerConfig(durable_name=name, ack_policy=AckPolicy.EXPLICIT, filter_subjects=wanted, ack_wait=30)
    await js.add_consumer("ns", config)
    return await js.pull_subscribe_bind(name, "ns")


async def refused(js: Any, wanted: list[str]) -> bool:
    """Does the server refuse these filters?"""
    try:
        await consumer(js, "trial", wanted)
    except (APIError, BadRequestError):
        return True
    await js.delete_consumer("ns", "trial")
    return False


async def once_though_both_match(js: Any) -> None:
    """Two filters that overlap without holding each other: an event that both match comes once."""
    await js.publish("ns.n.a.b", b"both")
    trial = await consumer(js, "trial", ["ns.n.*.b", "ns.n.a.*"])
    got = await trial.fetch(10, timeout=0.5)
    assert len(got) == 1 and (await js.consumer_info("ns", "trial")).num_pending == 0
    await js.delete_consumer("ns", "trial")
    await js.purge_stream("ns")


async def main() -> None:
    with nats_server() as server:
        client = await nats.connect(server.url, pending_size=0)
        js, version = client.jetstream(), str(client.connected_server_version).strip("<>").split()[-1]
        await js.add_stream(StreamConfig(name="ns", subjects=["ns.>"]))

        assert await refused(js, ["ns.n.a.>", "ns.n.a.b"]), "nested"
        await once_though_both_match(js)
        assert filters(["task.*", "task.created"]) == ["task.>"] and filters(["*.b", "a.*.c"]) == ["*.b", "a.*.c"]
        assert filters(["a.#", "b.*"]) == ["a", "a.>", "b.>"] and filters(["a.#.c", "#", "b"]) == [">"]

        lanes = {lane: await consumer(js, f"worker-{lane}", [f"ns.{lane}.task.>"]) for lane in "un"}
        await js.add_consumer(
            "ns",
            ConsumerConfig(
                durable_name="all-n", ack_policy=AckPolicy.EXPLICIT, filter_subjects=["ns.n.>", "ns.to.all-n"]
            ),
        )
        for n in range(3000):
            await client.publish(f"ns.n.task.t{n % 7}", b"x" * 300)
        await js.publish("ns.n._bus.registry", b"")
        await client.flush()
        started = time.perf_counter()
        await js.publish("ns.u.task.created", b"urgent")
        [urgent] = await lanes["u"].fetch(1, timeout=2)
        await urgent.ack()
        first = (time.perf_counter() - started) * 1000
        await js.publish("ns.to.all-n", b"redelivered")
        await js.publish("ns.r._bus.registry", b"")
        pending = (await js.consumer_info("ns", "all-n")).num_pending
        assert pending == 3000 + 1 + 1, "a reserved topic under lane n would be caught by `>`; under lane r it is not"
        plain = (await js.consumer_info("ns", "worker-n")).num_pending
        assert plain == 3000
        started = time.perf_counter()
        for _ in range(6):
            for message in await lanes["n"].fetch(500, timeout=2):
                await message.ack()
        await client.flush()
        rate = 3000 / (time.perf_counter() - started)
        await client.close()
        print(
            f"nats {version}: an urgent one behind 3,000 fetched in {first:.1f} ms; nested filters are "
            f"refused, partly "
            f"overlapping ones are taken and deliver once; {rate:,.0f} fetched and acked/s"
        )


if __name__ == "__main__":
    asyncio.run(main())
