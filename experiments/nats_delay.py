"""Does the server's own message scheduling (2.12 and later) give delayed publish and a truthful cancel?

A delayed event is published to `{namespace}.later.{event_id}` with the headers `Nats-Schedule: @at <time>`
and `Nats-Schedule-Target: {namespace}.due.{event_id}`. When it is due the server itself publishes the body to
the target, from where any process moves it into the log (message id = event id). Purging the subject cancels,
and the count that was purged is the truth. A stream with schedules cannot be `discard: new`, so they have a
stream beside the log.
"""

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import APIError
from servers import nats_server


async def request(client: Any, api: str, body: dict[str, Any]) -> dict[str, Any]:
    """A call of the JetStream API that the client library has no method for."""
    answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{api}", json.dumps(body).encode())).data)
    return answer


async def hold(js: Any, name: str, at: float) -> None:
    """A delayed publish; while it is held, a second one of the same id is refused, however late it comes."""
    due = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    headers = {
        "Nats-Schedule": f"@at {due}",
        "Nats-Schedule-Target": f"ns.due.{name}",
        "wow-id": name,
        "Nats-Expected-Last-Subject-Sequence": "0",
    }
    await js.publish(f"ns.later.{name}", f"body of {name}".encode(), headers=headers)


async def cancel(client: Any, name: str) -> bool:
    """True when it had not left."""
    return bool((await request(client, "STREAM.PURGE.later", {"filter": f"ns.later.{name}"}))["purged"])


async def streams(client: Any) -> None:
    """The log, guarded by discard new; and beside it, since the two exclude each other, the schedules."""
    common = {
        "storage": "file",
        "num_replicas": 1,
        "retention": "limits",
        "max_msgs": -1,
        "max_consumers": -1,
        "max_age": 0,
        "duplicate_window": 120_000_000_000,
    }
    log = {**common, "name": "log", "subjects": ["ns.n.>"], "discard": "new", "max_bytes": 50_000_000}
    refused = await request(client, "STREAM.CREATE.log", {**log, "allow_msg_schedules": True})
    assert refused["error"]["description"] == "message scheduling cannot use discard new", refused
    later = {
        **common,
        "name": "later",
        "subjects": ["ns.later.>", "ns.due.>"],
        "discard": "old",
        "max_bytes": -1,
        "allow_msg_schedules": True,
        "allow_msg_ttl": True,
    }
    for stream in (log, later):
        answer = await request(client, f"STREAM.CREATE.{stream['name']}", stream)
        assert "error" not in answer, answer
    await client.jetstream().add_consumer(
        "later",
        ConsumerConfig(durable_name="mover", ack_policy=AckPolicy.EXPLICIT, ack_wait=5, filter_subject="ns.due.>"),
    )


async def mover(client: Any) -> None:
    """What every process runs: publish to the log, confirmed; then take it out of the schedules' stream."""
    js = client.jetstream()
    due = await js.pull_subscribe_bind("mover", "later")
    while True:
        try:
            messages = await due.fetch(100, timeout=0.5)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            headers = {"Nats-Msg-Id": message.headers["wow-id"], "wow-id": message.headers["wow-id"]}
            await js.publish("ns.n.task.created", message.data, headers=headers)
            await message.ack_sync()
            await js.purge_stream("later", subject=message.subject)


async def main() -> None:
    with nats_server() as server:
        client = await nats.connect(server.url)
        version = str(client.connected_server_version).strip("<>").split()[-1]
        await streams(client)
        js = client.jetstream()
        start = time.time()
        for n in range(100):
            await hold(js, f"id-{n}", start + 2.5 + n * 0.005)
        try:
            await hold(js, "id-3", start + 60)
            raise AssertionError("held twice")
        except APIError as error:
            assert error.err_code == 10071, error  # wrong last sequence
        assert await cancel(client, "id-7") and not await cancel(client, "id-7")
        assert (await js.stream_info("log")).state.messages == 0, "nothing in the log yet"
        await client.close()
        server.crash_and_restart()

        client = await nats.connect(server.url)
        js = client.jetstream()
        movers = [asyncio.create_task(mover(client)) for _ in range(2)]
        reader = await js.subscribe("ns.n.>", ordered_consumer=True)
        late: list[float] = []
        seen: list[str] = []
        while len(seen) < 99:
            message = await reader.next_msg(timeout=6)
            name = message.data.decode().removeprefix("body of ")
            late.append(time.time() - (start + 2.5 + int(name[3:]) * 0.005))
            seen.append(name)
        assert "id-7" not in seen and len(set(seen)) == 99
        headers = dict(message.headers or {})
        assert headers["wow-id"] == seen[-1], "headers come along"
        assert not await cancel(client, seen[-1]), "what has left cannot be cancelled"
        await asyncio.sleep(0.1)
        assert (await js.stream_info("later")).state.messages == 0, "nothing stays beside the log"
        for task in movers:
            task.cancel()
        await asyncio.gather(*movers, return_exceptions=True)
        await client.close()
        print(
            f"nats {version}: 99 delayed left once each over kill -9, {min(late) * 1000:.0f} to "
            f"{max(late) * 1000:.0f} ms "
            f"after due; 1 cancelled; a schedule's stream cannot discard new"
        )


if __name__ == "__main__":
    asyncio.run(main())
