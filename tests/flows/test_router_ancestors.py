"""What the ancestor's WebSocket router and client got wrong (contract, section 2): each test would have caught one."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.conformance.engines import eventually, url_of
from wowevent import BrokerUnavailable, Event, EventPriority
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter

Make = Callable[..., EventRouterClient]


@pytest.fixture
async def router(broker_name: str, tmp_path: Path) -> AsyncIterator[EventRouter]:
    """One on every engine."""
    async with EventRouter(port=0, url=url_of(broker_name, tmp_path)) as router:
        yield router


@pytest.fixture
async def make(router: EventRouter) -> AsyncIterator[Make]:
    """Clients of it, which end with the test."""
    made: list[EventRouterClient] = []

    def make(**settings: Any) -> EventRouterClient:
        made.append(EventRouterClient(router.url, **settings))
        return made[-1]

    yield make
    for client in made:
        await client.disconnect()


@pytest.fixture
async def client(make: Make) -> EventRouterClient:
    client = make(agent="tester")
    await client.connect()
    return client


class Seen:
    """A handler that notes what it gets."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def numbers(self) -> list[int]:
        return [event.payload["n"] for event in self.events]


async def subscriptions(router: EventRouter) -> int:
    """How many the server has."""
    count: int = (await router.health())["subscriptions"]
    return count


# --- the queue: lock-order deadlock, 4 producers delivered 0 of 800 ---------------------------------------------------


@pytest.mark.parametrize("name", [None, "worker"], ids=["live", "named"])
async def test_four_producers_of_two_hundred_events_deliver_eight_hundred(make: Make, name: str | None):
    consumer, seen = make(), Seen()
    consumer.on("load.*", name=name)(seen)
    await consumer.connect()

    async def produce(number: int) -> None:
        producer = make(agent=f"producer-{number}")
        await producer.connect()
        for n in range(200):
            await producer.publish(f"load.{number}", {"n": n})

    async with asyncio.timeout(30):
        await asyncio.gather(*(produce(number) for number in range(4)))
        await eventually(lambda: len(seen.events) >= 800, 20)
    for number in range(4):
        assert [event.payload["n"] for event in seen.events if event.topic == f"load.{number}"] == list(range(200))
    assert len(seen.events) == 800


# --- the client -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [True, False], ids=["before connecting", "after it"])
async def test_on_alone_subscribes(make: Make, early: bool):
    client, seen = make(), Seen()
    if early:
        client.on("task.*")(seen)
    await client.connect()
    if not early:
        client.on("task.*")(seen)
    await client.publish("task.created", {"n": 1})
    await eventually(lambda: seen.numbers == [1])


async def test_the_callback_of_a_subscription_is_called(client: EventRouterClient):
    seen = Seen()
    await client.subscribe(["task.*"], None, None, seen)
    await client.publish("task.created", {"n": 1})
    await eventually(lambda: seen.numbers == [1])


@pytest.mark.parametrize("name", [None, "worker"], ids=["live", "named"])
async def test_the_server_hears_of_an_unsubscribe(router: EventRouter, client: EventRouterClient, name: str | None):
    seen, other = Seen(), Seen()
    sub_id = await client.subscribe("task.*", callback=seen, name=name)
    await client.subscribe("task.*", callback=other)
    assert await subscriptions(router) == 2
    await client.unsubscribe(sub_id)
    assert await subscriptions(router) == 1
    await client.publish("task.created", {"n": 1})
    await eventually(lambda: other.numbers == [1])
    assert seen.events == []
    assert (await router.health())["events_delivered"] == 1


class _Deaf(asyncio.Protocol):
    """Takes connections, and says nothing."""

    def __init__(self, made: list[asyncio.BaseTransport]) -> None:
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made.append(transport)


@pytest.mark.parametrize("kind", ["nobody listens", "never answers", "no name"])
async def test_connecting_to_a_dead_server_returns_within_its_timeout(kind: str):
    loop, taken = asyncio.get_running_loop(), list[asyncio.BaseTransport]()
    server = await loop.create_server(lambda: _Deaf(taken), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if kind == "nobody listens":
        server.close()
        await server.wait_closed()
    host = "router.invalid" if kind == "no name" else "127.0.0.1"
    client = EventRouterClient(f"ws://{host}:{port}", timeout=0.5)
    began = loop.time()
    with pytest.raises(BrokerUnavailable, match=host):
        await client.connect()
    assert loop.time() - began < 1.5
    assert client.closed
    for transport in taken:
        transport.close()
    server.close()


@pytest.mark.parametrize("name", [None, "worker"], ids=["live", "named"])
async def test_a_request_inside_a_handler_is_answered(client: EventRouterClient, name: str | None):
    found: asyncio.Queue[Any] = asyncio.Queue()

    async def double(event: Event) -> int:
        n: int = event.payload["n"]
        return 2 * n

    async def ask(event: Event) -> None:
        found.put_nowait(await client.request("math.double", event.payload, timeout=10))
        found.put_nowait((await client.get_health())["status"])

    await client.subscribe("math.double", callback=double, name=name)
    await client.subscribe("task.*", callback=ask, name=name)
    await client.publish("task.created", {"n": 21})
    async with asyncio.timeout(10):
        assert [await found.get(), await found.get()] == [42, "healthy"]


# --- the router -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", [*range(1, 11), *EventPriority], ids=repr)
async def test_every_priority_is_taken_and_delivered(client: EventRouterClient, priority: int):
    seen = Seen()
    await client.subscribe("task.*", callback=seen)
    await client.publish("task.created", {"n": 1}, priority)
    await eventually(lambda: len(seen.events) == 1)
    assert seen.events[0].priority == priority


async def test_a_client_that_does_not_read_stalls_nobody(router: EventRouter, client: EventRouterClient):
    seen = Seen()
    await client.subscribe("load.*", callback=seen)
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little is enough
        silent.setblocking(False)
        await asyncio.get_running_loop().sock_connect(silent, ("127.0.0.1", router.port))
        async with connect(router.url, sock=silent, max_queue=1, ping_interval=None, close_timeout=0.1) as slow:
            slow.transport.pause_reading()
            await slow.send(json.dumps({"type": "subscribe", "subscription": {"topics": ["load.*"]}}))
            await eventually(_has(router, "subscriptions", 2))
            text = "x" * 100_000
            for n in range(100):
                await client.publish("load.test", {"n": n, "text": text})
            await eventually(lambda: len(seen.events) == 100)
            assert seen.numbers == list(range(100))
            await eventually(_has(router, "slow_clients", 1))  # it was cut off, with what it could not take
            slow.transport.abort()
    assert (await client.get_health())["status"] == "healthy"


async def test_a_handler_that_does_not_return_stalls_no_other(make: Make, client: EventRouterClient):
    seen, own, gate = Seen(), Seen(), asyncio.Event()

    async def stuck(_event: Event) -> None:
        await gate.wait()

    other = make()
    await other.connect()
    await other.subscribe("load.*", callback=stuck)
    await other.subscribe("load.*", callback=own)
    await client.subscribe("load.*", callback=seen)
    for n in range(50):
        await client.publish("load.test", {"n": n})
    await eventually(lambda: seen.numbers == own.numbers == list(range(50)))
    gate.set()


async def test_overlapping_subscriptions_of_one_handler_call_it_once(client: EventRouterClient):
    seen = Seen()
    for pattern in ("task.*", "*", "task.created", ["task.#", "#.created"]):
        await client.subscribe(pattern, callback=seen)
    for n in range(20):
        await client.publish("task.created", {"n": n})
    await client.publish("task.ended", {"n": 20})
    await eventually(lambda: len(seen.events) >= 21)
    await client.get_health()  # whatever else was on its way has come
    await asyncio.sleep(0)
    assert sorted(seen.numbers) == list(range(21))


async def test_every_subscriber_gets_the_same_bytes(router: EventRouter, client: EventRouterClient):
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(connect(router.url)) for _ in range(10)]
        for reader in readers:
            assert json.loads(await reader.recv())["type"] == "welcome"
            await reader.send('{"type": "subscribe", "subscription": {"topics": ["task.*"]}}')
            assert json.loads(await reader.recv())["type"] == "subscribed"
        await client.publish("task.created", {"n": 1})
        async with asyncio.timeout(10):
            frames = {await reader.recv() for reader in readers}
    (frame,) = frames
    assert json.loads(frame)["event"]["payload"] == {"n": 1}


def _has(router: EventRouter, what: str, count: int) -> Callable[[], Any]:
    """For `eventually`: the server's health says so."""

    async def has() -> bool:
        return bool((await router.health())[what] == count)

    return has
