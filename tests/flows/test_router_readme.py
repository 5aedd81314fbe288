"""The Event Router's page, block by block: each runs as it stands there, with only its import lines changed.

Placeholders are filled in (`{...}`, names that a block leaves undefined, the port), and what can be seen of it is
checked.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import datetime
from pathlib import Path
from types import FunctionType
from typing import Any, get_type_hints

import pytest
from websockets.asyncio.client import connect

from tests.cli.daemons import end_all, started, status
from tests.cli.dialogue import Terminal
from tests.conformance.engines import eventually, url_of
from tests.processes import end, environment, running, until, wowevent
from wowevent import Event, EventBus, EventMetadata, EventPriority, EventType, NotPermitted
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter

IMPORTS = {
    "from src.core.router import EventRouter": "from wowevent.router import EventRouter",
    "from src.client.client import EventRouterClient": "from wowevent.client import EventRouterClient",
    "from src.core.models import EventPriority": "from wowevent import EventPriority",
}


def ours(block: str, port: int) -> str:
    """A block with our import lines, a port that is free, and something in the place of `{...}`."""
    for theirs, line in IMPORTS.items():
        block = block.replace(theirs, line)
    return block.replace("9090", str(port)).replace("{...}", '{"n": 1}')


class Page:
    """Runs blocks against one router; what they open is closed at the end."""

    def __init__(self, router: EventRouter) -> None:
        self.router = router
        self.names: dict[str, Any] = {
            "__name__": "page",
            "asyncio": asyncio,
            "datetime": datetime,
            "random": random,
            "EventPriority": EventPriority,
            "EventRouter": EventRouter,
            "EventRouterClient": self.client,
            "EventType": EventType,
        }
        self.made: list[EventRouterClient] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def client(self, **settings: Any) -> EventRouterClient:
        """A client whose default port is this router's."""
        client = EventRouterClient(**{"url": self.router.url, **settings})
        self.made.append(client)
        return client

    async def run(self, block: str) -> None:
        """Run a block, which may await outside of functions, to its end."""
        code = compile(ours(block, self.router.port), "<page>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = FunctionType(code, self.names)()
        if inspect.isawaitable(done):
            await done

    def begin(self, job: Awaitable[Any]) -> asyncio.Task[Any]:
        """Beside the test: blocks like to sleep for a minute."""
        self._tasks.append(asyncio.ensure_future(job))
        return self._tasks[-1]

    async def health(self, what: str) -> Any:
        return (await self.router.health())[what]

    async def subscribed(self, count: int) -> None:
        """Return when so many subscriptions are served."""

        async def served() -> bool:
            return bool(await self.health("subscriptions") == count)

        await eventually(served)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        made = self.names.get("client")
        for client in [*self.made, *([made] if isinstance(made, EventRouterClient) else [])]:
            await client.disconnect()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with EventRouter(port=0) as router:
        page = Page(router)
        yield page
        await page.close()


@pytest.fixture
async def client(page: Page) -> AsyncIterator[EventRouterClient]:
    """The `client` of blocks that begin with one, connected."""
    async with EventRouterClient(page.router.url, agent="reader") as client:
        page.names["client"] = client
        yield client


@pytest.fixture
async def heard(page: Page) -> AsyncIterator[list[Event]]:
    """Every event there is, as another agent sees it."""
    events: list[Event] = []
    auditor = EventRouterClient(page.router.url, agent="auditor")

    @auditor.on("*")
    async def hear(event: Event) -> None:
        events.append(event)

    async with auditor:
        yield events


def topics(events: list[Event]) -> list[str]:
    return sorted(event.topic for event in events)


# --- quick start ----------------------------------------------------------------------------------------------------

SERVER = """\
#!/usr/bin/env python3
import asyncio
from src.core.router import EventRouter

async def main():
    router = EventRouter(host="localhost", port=9090)
    await router.start()  # Runs forever

asyncio.run(main())
"""

CONNECT = """\
from src.client.client import EventRouterClient
from src.core.models import EventPriority

# Create client
client = EventRouterClient(url="ws://localhost:9090")

# Connect
await client.connect()

# Publish an event
await client.publish(
    topic="user.created",
    payload={"user_id": 123, "name": "Alice"},
    priority=EventPriority.NORMAL
)

# Subscribe to events
@client.on("user.*")
async def handle_user_event(event):
    print(f"User event: {event.topic} - {event.payload}")

# Wait for events
await asyncio.sleep(60)

# Disconnect
await client.disconnect()
"""


async def test_the_server_serves_until_it_is_told_to_end(tmp_path: Path, unused_port: int):
    (tmp_path / "server.py").write_text(ours(SERVER, unused_port))
    with running(tmp_path, "server") as process:
        await eventually(lambda: _is_open(unused_port), 20)
        async with EventRouterClient(f"ws://localhost:{unused_port}") as client:
            await client.publish("user.created", {"user_id": 123})
            assert (await client.get_health())["events_processed"] == 1
        await asyncio.to_thread(end, process, signal.SIGINT)
    assert (tmp_path / "err.txt").read_text().splitlines()[-1] == "KeyboardInterrupt"


async def test_a_client_connects_publishes_and_subscribes(page: Page, capsys: pytest.CaptureFixture[str]):
    page.begin(page.run(CONNECT))
    await eventually(lambda: "handle_user_event" in page.names)
    client = page.names["client"]
    await client.publish("user.renamed", {"user_id": 123, "name": "Bob"})
    await eventually(lambda: client.counters.handled)
    assert capsys.readouterr().out == "User event: user.renamed - {'user_id': 123, 'name': 'Bob'}\n"
    assert await page.health("events_processed") == 2


def test_the_port_and_the_url_are_the_documented_ones():
    assert EventRouter().port == 9090
    assert EventRouterClient().url == "ws://localhost:9090"


# --- usage ----------------------------------------------------------------------------------------------------------

PUBLISHER_SUBSCRIBER = """\
# Publisher
async def publisher():
    client = EventRouterClient()
    await client.connect()
    
    for i in range(10):
        await client.publish(
            topic=f"data.update",
            payload={"value": i}
        )
        await asyncio.sleep(1)

# Subscriber
async def subscriber():
    client = EventRouterClient()
    await client.connect()
    
    @client.on("data.*")
    async def handle_data(event):
        print(f"Received: {event.payload}")
    
    await asyncio.sleep(60)  # Keep running
"""  # noqa: W293 - as it stands there

AGENTS = """\
class TaskAgent:
    def __init__(self, client):
        self.client = client
    
    async def create_task(self, description):
        await self.client.publish(
            topic="task.created",
            payload={
                "description": description,
                "created_at": datetime.now().isoformat()
            },
            type=EventType.TASK_CREATED,
            priority=EventPriority.HIGH
        )

class WorkerAgent:
    def __init__(self, client):
        self.client = client
        
    async def start(self):
        @self.client.on("task.created")
        async def process_task(event):
            print(f"Processing: {event.payload['description']}")
            # Do work...
            await self.client.publish(
                topic="task.completed",
                payload={"task_id": event.id}
            )
"""  # noqa: W293 - as it stands there

REQUEST_RESPONSE = """\
async def request_response_example():
    client = EventRouterClient()
    await client.connect()
    
    response_received = asyncio.Event()
    response_data = {}
    
    # Set up response handler
    @client.on("response.data")
    async def handle_response(event):
        if event.payload.get("request_id") == "req-123":
            response_data.update(event.payload)
            response_received.set()
    
    # Send request
    await client.publish(
        topic="request.data",
        payload={"request_id": "req-123", "query": "get_status"}
    )
    
    # Wait for response
    await asyncio.wait_for(response_received.wait(), timeout=5.0)
    print(f"Response: {response_data}")
"""  # noqa: W293 - as it stands there


async def test_a_publisher_and_a_subscriber(page: Page, capsys: pytest.CaptureFixture[str]):
    await page.run(PUBLISHER_SUBSCRIBER)
    page.begin(page.names["subscriber"]())
    await page.subscribed(1)
    page.begin(page.names["publisher"]())
    (subscriber, _) = await _clients(page, 2)
    await eventually(lambda: subscriber.counters.handled == 2)
    assert capsys.readouterr().out == "Received: {'value': 0}\nReceived: {'value': 1}\n"


async def test_an_agent_creates_a_task_and_another_completes_it(
    page: Page, client: EventRouterClient, heard: list[Event], capsys: pytest.CaptureFixture[str]
):
    await page.run(AGENTS)
    await page.names["WorkerAgent"](client).start()
    await page.names["TaskAgent"](client).create_task("tidy up")
    await eventually(lambda: len(heard) == 2)
    created, completed = heard
    assert (created.topic, created.type, created.priority) == ("task.created", EventType.TASK_CREATED, 7)
    assert (completed.topic, completed.payload) == ("task.completed", {"task_id": created.event_id})
    assert completed.correlation_id == created.event_id
    assert capsys.readouterr().out == "Processing: tidy up\n"


async def test_a_request_and_its_response(page: Page, client: EventRouterClient, capsys: pytest.CaptureFixture[str]):
    async def answer(event: Event) -> None:
        await client.publish("response.data", {**event.payload, "status": "fine"})

    await client.subscribe("request.data", callback=answer)
    await page.run(REQUEST_RESPONSE)
    await page.names["request_response_example"]()
    assert capsys.readouterr().out == ("Response: {'request_id': 'req-123', 'query': 'get_status', 'status': 'fine'}\n")


# --- responding -----------------------------------------------------------------------------------------------------

DIRECT = """\
@client.on("task.created")
async def handle_task_created(event):
    print(f"New task: {event.payload['task_id']}")
    # Respond by claiming the task
    await client.publish(
        topic="task.claimed",
        payload={"task_id": event.payload['task_id']}
    )
"""

WILDCARDS = """\
# Respond to all error events
@client.on("error.*")
async def handle_any_error(event):
    if event.payload.get("severity") == "critical":
        await client.publish("alert.page_oncall", {...})

# Respond to all failure events from any source
@client.on("*.failed")
async def handle_failures(event):
    print(f"Failure detected: {event.topic}")
"""

PRIORITIES = """\
# Only respond to high-priority events
await client.subscribe(
    topics=["task.*"],
    priorities=[EventPriority.HIGH, EventPriority.CRITICAL],
    callback=handle_urgent_tasks
)
"""

CHAIN = """\
@client.on("order.placed")
async def handle_order(event):
    # One event triggers multiple responses
    await client.publish("inventory.check", {...})
    await client.publish("payment.process", {...})
    await client.publish("email.send", {...})
"""


async def test_a_topic_is_responded_to(page: Page, client: EventRouterClient, heard: list[Event], capsys: Any):
    await page.run(DIRECT)
    await client.publish("task.created", {"task_id": 7})
    await eventually(lambda: len(heard) == 2)
    assert [(event.topic, event.payload) for event in heard[1:]] == [("task.claimed", {"task_id": 7})]
    assert capsys.readouterr().out == "New task: 7\n"


async def test_wildcards_are_responded_to(page: Page, client: EventRouterClient, heard: list[Event], capsys: Any):
    await page.run(WILDCARDS)
    for topic, severity in (("error.disk", "minor"), ("error.network.lost", "critical"), ("no.error", "critical")):
        await client.publish(topic, {"severity": severity})
    for topic in ("task.failed", "plan.failed", "task.failed.badly", "failed"):
        await client.publish(topic)
    await eventually(lambda: len(heard) == 8 and client.counters.handled == 4)
    assert topics(heard).count("alert.page_oncall") == 1
    assert capsys.readouterr().out == "Failure detected: task.failed\nFailure detected: plan.failed\n"


async def test_priorities_are_responded_to(page: Page, client: EventRouterClient):
    urgent: list[int] = []

    async def handle_urgent_tasks(event: Event) -> None:
        urgent.append(event.priority)

    page.names["handle_urgent_tasks"] = handle_urgent_tasks
    await page.run(PRIORITIES)
    for priority in range(1, 11):
        await client.publish("task.created", {}, priority)
    await client.publish("order.placed", {}, EventPriority.HIGH)
    await eventually(lambda: len(urgent) == 4)
    await client.get_health()
    assert sorted(urgent) == [7, 8, 9, 10]


async def test_one_event_sets_off_a_chain(page: Page, client: EventRouterClient, heard: list[Event]):
    await page.run(CHAIN)
    event_id = await client.publish("order.placed", {"item": "lamp"})
    await eventually(lambda: len(heard) == 4)
    assert topics(heard) == ["email.send", "inventory.check", "order.placed", "payment.process"]
    assert {event.correlation_id for event in heard} == {event_id}
    assert {event.parent_event_id for event in heard} == {None, event_id}


# --- testing --------------------------------------------------------------------------------------------------------

LOAD = """\
# Create many clients
async def load_test():
    clients = []
    for i in range(100):
        client = EventRouterClient()
        await client.connect()
        clients.append(client)
    
    # Publish many events
    for _ in range(1000):
        client = random.choice(clients)
        await client.publish(
            topic="load.test",
            payload={"data": "test"}
        )
    
    # Check health
    health = await clients[0].get_health()
    print(f"Processed: {health['events_processed']}")
"""  # noqa: W293 - as it stands there


async def test_a_hundred_clients_and_a_thousand_events(page: Page, capsys: pytest.CaptureFixture[str]):
    await page.run(LOAD)
    await page.names["load_test"]()
    assert capsys.readouterr().out == "Processed: 1000\n"
    assert await page.health("clients") == 100


# --- configuration --------------------------------------------------------------------------------------------------

SERVER_SETTINGS = """\
router = EventRouter(
    host="0.0.0.0",          # Bind address
    port=9090,               # Port
    max_queue_size=10000,    # Max events in queue
    max_clients=1000,        # Max concurrent clients
    use_multi_queue=False    # Use priority-based multi-queue
)
"""

CLIENT_SETTINGS = """\
client = EventRouterClient(
    url="ws://localhost:9090",
    auto_reconnect=True,           # Enable auto-reconnection
    reconnect_interval=1.0,        # Initial reconnect delay
    max_reconnect_interval=30.0,   # Max reconnect delay
    reconnect_decay=1.5,           # Exponential backoff factor
    heartbeat_interval=30.0,       # Heartbeat interval
    timeout=10.0                   # Connection timeout
)
"""

REDIS = """\
# Future enhancement - not yet implemented
router = EventRouter(
    transport="redis",
    redis_url="redis://localhost:6379"
)
"""


async def test_a_server_that_others_reach_must_be_meant(page: Page):
    await page.run(SERVER_SETTINGS)
    assert page.names["router"].max_clients == 1000
    with pytest.raises(NotPermitted, match=r"0\.0\.0\.0 can be reached by others"):
        await page.names["router"].start()

    router = EventRouter(host="0.0.0.0", port=0, allow_anonymous=True)
    async with router, page.client(url=f"ws://127.0.0.1:{router.port}") as client:
        assert (await client.get_health())["status"] == "healthy"


async def test_a_client_with_all_its_settings(page: Page):
    await page.run(CLIENT_SETTINGS)
    async with page.names["client"] as client:
        assert client.connected


async def test_the_redis_transport(page: Page):
    url = url_of("redis", Path())
    await page.run(REDIS.replace("redis://localhost:6379", url))
    async with EventRouter(port=0, transport="redis", redis_url=url) as router:
        client = page.client(url=f"ws://127.0.0.1:{router.port}")
        async with client, EventBus(url) as other:
            id = await client.publish("task.created", {"n": 1})
            assert [stored.event.event_id async for stored in other.history()] == [id]


# --- reference ------------------------------------------------------------------------------------------------------

EVENT_MODEL = """\
Event(
    topic: str,                    # Event topic (e.g., "user.created")
    payload: Dict[str, Any],       # Event data
    priority: EventPriority,       # Priority level
    type: EventType,              # Event type
    source: str,                  # Source agent/service
    target: Optional[str],        # Target agent/service
    metadata: EventMetadata       # Tracking metadata
)
"""

METHODS = """\
# Connect/disconnect
await client.connect()
await client.disconnect()

# Publish events
event_id = await client.publish(topic, payload, priority, type, target)

# Subscribe to events
sub_id = await client.subscribe(topics, types, priorities, callback)
await client.unsubscribe(sub_id)

# Decorators
@client.on("topic.pattern")
async def handler(event): ...

# Health check
health = await client.get_health()

# Context manager
async with EventRouterClient() as client:
    await client.publish(...)
"""


def test_an_event_has_the_fields_of_the_model():
    values: dict[str, Any] = {
        "topic": "user.created",
        "payload": {"user_id": 123},
        "priority": EventPriority.HIGH,
        "type": EventType.TASK_CREATED,
        "source": "website",
        "target": "audit",
        "metadata": EventMetadata(correlation_id="c-1", user_id="u-1", tags=("a",)),
    }
    assert re.findall(r"^    (\w+):", EVENT_MODEL, re.MULTILINE) == list(values)
    event = Event(**values)
    for name in values.keys() - {"metadata"}:
        assert getattr(event, name) == values[name], name
    assert (event.metadata.correlation_id, event.metadata.user_id, event.metadata.tags) == ("c-1", "u-1", ("a",))
    assert get_type_hints(EventRouterClient.publish)["return"] is str


async def test_the_methods_in_their_order(page: Page, heard: list[Event]):
    """The block goes on after its `disconnect()`, and publishes what it leaves open: these two are filled in."""
    seen: list[Event] = []

    async def callback(event: Event) -> None:
        seen.append(event)

    page.names |= {
        "client": page.client(agent="caller"),
        "topic": "user.created", "payload": {"user_id": 123}, "priority": EventPriority.HIGH,
        "type": EventType.TASK_CREATED, "target": "auditor",
        "topics": ["user.*"], "types": [EventType.TASK_CREATED], "priorities": [EventPriority.HIGH],
        "callback": callback,
    }  # fmt: skip
    block = METHODS.replace("await client.disconnect()\n", "await client.disconnect(); await client.connect()\n")
    await page.run(block.replace("publish(...)", 'publish("user.deleted")'))
    await eventually(lambda: len(heard) == 2)
    created, deleted = heard
    assert created.event_id == page.names["event_id"]
    assert (created.topic, created.payload, created.priority) == ("user.created", {"user_id": 123}, 7)
    assert (created.type, created.target, created.source) == (EventType.TASK_CREATED, "auditor", "caller")
    assert deleted.topic == "user.deleted"
    assert isinstance(page.names["sub_id"], str)
    assert page.names["health"]["events_processed"] == 1
    assert seen == []  # it was unsubscribed before anything else came


# --- troubleshooting ------------------------------------------------------------------------------------------------

DEBUG = """\
# Enable debug logging
import logging
logging.basicConfig(level=logging.DEBUG)
"""


def test_debug_logging_shows_what_the_client_does(tmp_path: Path, unused_port: int):
    lines = "from wowevent.client import EventRouterClient\nimport asyncio\n"
    lines += f"asyncio.run(EventRouterClient('ws://localhost:{unused_port}', timeout=5).connect())\n"
    (tmp_path / "debug.py").write_text(DEBUG + lines)
    done = subprocess.run(
        [sys.executable, "debug.py"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert b"DEBUG:" in done.stderr
    assert b"BrokerUnavailable" in done.stderr


async def test_the_port_is_open_and_speaks_json_by_hand(page: Page):
    assert _is_open(page.router.port)  # nc -zv localhost 9090
    async with connect(page.router.url) as wscat:  # wscat -c ws://localhost:9090
        assert '"type":"welcome"' in str(await wscat.recv())
        await wscat.send('{ "type" : "subscribe", "subscription" : {"topics": ["task.*"]} }')
        assert '"type":"subscribed"' in str(await wscat.recv())
        await wscat.send('{"type": "publish", "event": {"topic": "task.created", "payload": {"n": 1}}}')
        answers = sorted([str(await wscat.recv()), str(await wscat.recv())])
        assert '"payload":{"n":1}' in answers[0]
        assert '"status":"queued"' in answers[1]


# --- the management commands ----------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty one; whatever runs with it at the end is killed."""
    yield tmp_path
    end_all(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(180)  # it starts many processes
def test_the_commands_that_start_and_stop_it(home: Path):
    first = started(home)  # start --daemon
    code, said = status(home)
    assert (code, said["state"], said["pid"]) == (0, "running", first["pid"])
    assert wowevent(home, "restart").returncode == 0
    assert status(home)[1]["pid"] != first["pid"]

    lines = wowevent(home, "logs", "-n", "50").stdout.decode().splitlines()
    assert 1 < len(lines) <= 50
    assert sum("router serves" in line for line in lines) == 2
    with running(home, "wowevent", "logs", "-f") as following:
        shown = home / "out.txt"
        until(lambda: shown.read_text().count("router serves") == 2, "the last lines")
        assert wowevent(home, "stop").returncode == 0
        until(lambda: shown.read_text().count("router stopped") == 2, "the line that came")
        assert end(following, signal.SIGINT) == 0
    assert status(home)[1]["state"] == "not_running"


@pytest.mark.slow
@pytest.mark.timeout(180)  # it starts many processes
def test_the_commands_that_talk(home: Path):
    started(home)
    with Terminal(home, "monitor") as terminal:  # shows live events
        terminal.wait_for("WowEvent")  # it is subscribed before it shows anything
        assert wowevent(home, "publish", "task.created", '{"n": 1}').returncode == 0
        terminal.wait_for("task.created")
        terminal.type("q")
        assert terminal.end()[0] == 0
    with Terminal(home, "configure") as terminal:  # asks, and writes a file
        for question in ("[embedded log]: ", "[127.0.0.1]: "):
            terminal.answer(question, "")
        terminal.answer("[9090]: ", "9191")
        for _ in range(3):
            terminal.answer("]: ", "")
        code, seen = terminal.end()
    assert (code, "wrote " in seen) == (0, True)
    assert b"9191" in wowevent(home, "configure", "--show").stdout


# --- what the tests need --------------------------------------------------------------------------------------------


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port), timeout=1).close()
    except OSError:
        return False
    return True


async def _clients(page: Page, count: int) -> list[EventRouterClient]:
    """The clients that a block made, once there are so many."""
    await eventually(lambda: len(page.made) == count)
    return page.made
