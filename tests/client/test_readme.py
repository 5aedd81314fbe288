"""The ancestor's code blocks, with their import lines changed and their placeholders filled in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from tests.client.scripted import Got, until
from wowevent import EventPriority, EventType
from wowevent import client as module
from wowevent.client import EventRouterClient as Client
from wowevent.router import EventRouter


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with EventRouter(host="localhost", port=0) as router:
        yield router.url


@pytest.fixture
def EventRouterClient(url: str) -> Any:  # noqa: N802 - the blocks' own name
    """The client, whose port here is another one."""
    return partial(Client, url=url)


def test_the_defaults_are_the_documented_ones():
    client = Client(
        url="ws://localhost:9090",
        auto_reconnect=True,
        reconnect_interval=1.0,
        max_reconnect_interval=30.0,
        reconnect_decay=1.5,
        heartbeat_interval=30.0,
        timeout=10.0,
    )
    assert client.url == Client().url
    assert module.__all__ == ["Counters", "EventRouterClient"]


async def test_connect_a_client(EventRouterClient: Any, capsys: pytest.CaptureFixture[str]):  # noqa: N803
    client = EventRouterClient()
    await client.connect()
    await client.publish(topic="user.created", payload={"user_id": 123, "name": "Alice"}, priority=EventPriority.NORMAL)

    @client.on("user.*")
    async def handle_user_event(event):
        print(f"User event: {event.topic} - {event.payload}")  # noqa: T201

    await client.publish("user.deleted", {"user_id": 123})
    await until(lambda: client.counters.handled == 1)
    await client.disconnect()
    assert capsys.readouterr().out == "User event: user.deleted - {'user_id': 123}\n"


async def test_basic_publisher_and_subscriber(EventRouterClient: Any):  # noqa: N803
    got = Got()

    async def publisher():
        client = EventRouterClient()
        await client.connect()
        for i in range(10):
            await client.publish(topic="data.update", payload={"n": i})
        await client.disconnect()

    async def subscriber():
        client = EventRouterClient()
        await client.connect()

        @client.on("data.*")
        async def handle_data(event):
            await got(event)

        await client.get_health()
        return client

    client = await subscriber()
    await publisher()
    await got.count(10)
    assert got.ns == list(range(10))
    await client.disconnect()


async def test_agent_communication(EventRouterClient: Any):  # noqa: N803
    class TaskAgent:
        def __init__(self, client):
            self.client = client

        async def create_task(self, description):
            await self.client.publish(
                topic="task.created",
                payload={"description": description, "created_at": datetime.now().isoformat()},  # noqa: DTZ005
                type=EventType.TASK_CREATED,
                priority=EventPriority.HIGH,
            )

    class WorkerAgent:
        def __init__(self, client):
            self.client = client

        async def start(self):
            @self.client.on("task.created")
            async def process_task(event):
                await self.client.publish(topic="task.completed", payload={"task_id": event.id})

    got = Got()
    async with EventRouterClient() as client:
        await WorkerAgent(client).start()
        await client.subscribe("task.completed", callback=got)
        await TaskAgent(client).create_task("write")
        await got.count(1)
    assert isinstance(got.events[0].payload["task_id"], str)


async def test_request_and_response_by_events(EventRouterClient: Any):  # noqa: N803
    client = EventRouterClient()
    await client.connect()
    response_received = asyncio.Event()
    response_data: dict[str, Any] = {}

    @client.on("request.data")
    async def respond(event):
        await client.publish("response.data", {"request_id": event.payload["request_id"], "status": "ok"})

    @client.on("response.data")
    async def handle_response(event):
        if event.payload.get("request_id") == "req-123":
            response_data.update(event.payload)
            response_received.set()

    await client.publish(topic="request.data", payload={"request_id": "req-123", "query": "get_status"})
    await asyncio.wait_for(response_received.wait(), timeout=5.0)
    assert response_data["status"] == "ok"
    await client.disconnect()


async def test_response_patterns(EventRouterClient: Any):  # noqa: N803
    urgent, claimed, alerts, chain = Got(), Got(), Got(), Got()
    async with EventRouterClient() as client:

        @client.on("task.created")
        async def handle_task_created(event):
            await client.publish(topic="task.claimed", payload={"task_id": event.payload["task_id"]})

        @client.on("error.*")
        async def handle_any_error(event):
            if event.payload.get("severity") == "critical":
                await client.publish("alert.page_oncall", {"why": event.topic})

        @client.on("*.failed")
        async def handle_failures(event):
            await client.publish("alert.failure", {"why": event.topic})

        await client.subscribe(
            topics=["task.*"], priorities=[EventPriority.HIGH, EventPriority.CRITICAL], callback=urgent
        )

        @client.on("order.placed")
        async def handle_order(event):
            await client.publish("inventory.check", {"n": 1})
            await client.publish("payment.process", {"n": 2})
            await client.publish("email.send", {"n": 3})

        await client.subscribe("task.claimed", callback=claimed)
        await client.subscribe("alert.*", callback=alerts)
        await client.subscribe(["inventory.*", "payment.*", "email.*"], callback=chain)
        await client.publish("task.created", {"task_id": "t-1"}, EventPriority.HIGH)
        await client.publish("error.disk", {"severity": "critical"})
        await client.publish("build.failed", {})
        await client.publish("order.placed", {})
        await claimed.count(1)
        await alerts.count(2)
        await chain.count(3)
        assert [event.topic for event in urgent.events] == ["task.created"]
        assert chain.ns == [1, 2, 3]


async def test_load_with_many_clients(EventRouterClient: Any):  # noqa: N803
    clients = []
    for _ in range(100):
        client = EventRouterClient()
        await client.connect()
        clients.append(client)
    for _ in range(1000):
        client = random.choice(clients)
        await client.publish(topic="load.test", payload={"data": "test"})
    health = await clients[0].get_health()
    assert health["events_processed"] == 1000
    await asyncio.gather(*(client.disconnect() for client in clients))


async def test_the_method_list(EventRouterClient: Any):  # noqa: N803
    got = Got()
    client = EventRouterClient()
    await client.connect()
    event_id = await client.publish("a.b", {}, 5, "a.b", None)
    assert isinstance(event_id, str)
    sub_id = await client.subscribe(["a.*"], ["a.b"], [5], got)
    await client.unsubscribe(sub_id)
    await client.disconnect()
    async with EventRouterClient() as client:
        await client.publish("a.b", {"n": 1})
