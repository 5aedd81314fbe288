"""The blocking ancestor's page, block by block: each runs as it stands there, with only its import lines changed.

What a block leaves undefined is filled in: names, `{...}`, and where `EventBus()` finds its engine: RABBITMQ_* say so
where that is a RabbitMQ, as on the page, and WOWEVENT_URL elsewhere. What can be seen of a block is checked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

import wowevent
from tests.conformance.engines import url_of
from tests.processes import until
from tests.rabbitmq import shared_rabbit
from tests.servers import free_port
from wowevent import Event, EventPriority, EventType, RetryPolicy, create_agent_event, create_task_event
from wowevent.blocking import EventBus

OURS = "from wowevent.blocking import EventBus\nfrom wowevent import ("


class Page:
    """Runs blocks one after the other, as on the page: what one defines, the next ones know."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.names: dict[str, Any] = {
            "__name__": "page",
            "uuid4": uuid4,
            "logger": logging.getLogger("page"),
            "my_handler": self.seen.append,
            "handle_urgent_task": self.seen.append,
            **{name: getattr(wowevent, name) for name in wowevent.__all__ if name != "EventBus"},
            "EventBus": EventBus,
        }

    def run(self, block: str) -> None:
        block = block.replace("from src.messaging import (\n    EventBus,", OURS).replace("{...}", '{"n": 1}')
        exec(compile(block, "<page>", "exec"), self.names)  # noqa: S102 - that is what it is for

    @property
    def bus(self) -> EventBus:
        """The page's `event_bus`."""
        bus: EventBus = self.names["event_bus"]
        return bus

    def count(self, queue: str) -> int:
        info = self.bus.get_queue_info(queue)
        return -1 if info is None else int(info["message_count"])

    def handled(self, queue: str) -> int:
        """How many its consumer here has handled: a queue may be empty while the last one waits for its handler."""
        here = self.bus.health_check()["details"]["here"]
        return int(here[queue]["handled"]) if queue in here else 0


ENVIRONMENT = """\
# RabbitMQ Connection
RABBITMQ_HOST=localhost
RABBITMQ_PORT=5672
RABBITMQ_USER=guest
RABBITMQ_PASSWORD=guest
RABBITMQ_VHOST=/

# Optional Advanced Settings
RABBITMQ_PREFETCH_COUNT=1      # Messages prefetched per consumer
RABBITMQ_CONNECTION_TIMEOUT=10  # Connection timeout (seconds)
RABBITMQ_HEARTBEAT=600         # Heartbeat interval (seconds)
"""


def found(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let `EventBus()` find that log: a RabbitMQ by the page's own block, with port and virtual host of the test."""
    monkeypatch.delenv("WOWEVENT_URL", raising=False)
    parts = urlsplit(url)
    if parts.scheme != "amqp":
        monkeypatch.setenv("WOWEVENT_URL", url)
        return
    for line in ENVIRONMENT.splitlines():
        name, given, value = line.partition("#")[0].strip().partition("=")
        if given:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("RABBITMQ_PORT", str(parts.port))
    monkeypatch.setenv("RABBITMQ_VHOST", parts.path.removeprefix("/"))


@pytest.fixture
def page(broker_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page whose `EventBus()` is on an engine of the run, with a bus and an event."""
    found(monkeypatch, url_of(broker_name, tmp_path))
    page = Page()
    page.names["event_bus"] = EventBus(retry=RetryPolicy(max_retries=3, initial=0.02, multiplier=1))
    page.names["event"] = create_agent_event(EventType.AGENT_STARTED, "agent_001", {"version": "1.0.0"})
    yield page
    page.bus.close(timeout=2)


# --- quick start ----------------------------------------------------------------------------------------------------

BASIC = """\
from uuid import uuid4
from src.messaging import (
    EventBus,
    EventType,
    EventPriority,
    create_agent_event,
    create_task_event,
)

# Initialize EventBus
event_bus = EventBus()

# Publish an event
event = create_agent_event(
    event_type=EventType.AGENT_STARTED,
    agent_id="my_agent",
    payload={"version": "1.0.0"},
    trace_id=uuid4(),
)
event_bus.publish(event)

# Subscribe to events
def handle_event(event):
    print(f"Received: {event.event_type.value}")
    print(f"Payload: {event.payload}")

event_bus.subscribe(
    queue_name="my_queue",
    routing_patterns=["agent.*.normal"],
    callback=handle_event,
    enable_dlq=True,
)

# Start consuming (blocking)
event_bus.start_consuming("my_queue", blocking=True)
"""


def test_the_quick_start(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    """What it publishes comes before its queue is there; another one comes when it consumes."""
    page.bus.close()
    done = threading.Thread(target=page.run, args=(BASIC,))
    with EventBus() as other:
        done.start()
        until(lambda: (other.get_queue_info("my_queue") or {}).get("consumer_count"), "the consumer")
        assert other.publish(create_agent_event(EventType.AGENT_STOPPED, "my_agent", {"version": "1.0.0"}))
        until(lambda: page.handled("my_queue") == 1, "its end")
        page.bus.stop_consuming("my_queue")
    done.join(10)
    assert not done.is_alive()
    assert capsys.readouterr().out == "Received: agent.stopped\nPayload: {'version': '1.0.0'}\n"


# --- types and creators ---------------------------------------------------------------------------------------------

TYPES = """\
EventType.AGENT_STARTED      # Agent initialization complete
EventType.AGENT_STOPPED      # Agent shutdown
EventType.AGENT_ERROR        # Agent error occurred
EventType.AGENT_HEARTBEAT    # Periodic health signal
EventType.TASK_SUBMITTED     # New task submitted
EventType.TASK_STARTED       # Task execution began
EventType.TASK_COMPLETED     # Task finished successfully
EventType.TASK_FAILED        # Task failed with error
EventType.TASK_TIMEOUT       # Task exceeded time limit
EventType.TASK_CANCELLED     # Task was cancelled
EventType.STATE_SAVED        # State persisted to storage
EventType.STATE_LOADED       # State retrieved from storage
EventType.STATE_RECOVERED    # State recovered after crash
EventType.PLAN_CREATED       # Collaborative plan created
EventType.PLAN_STARTED       # Plan execution started
EventType.PLAN_STEP_COMPLETED  # Plan step completed
EventType.PLAN_STEP_FAILED   # Plan step failed
EventType.PLAN_COMPLETED     # Entire plan completed
EventType.PLAN_FAILED        # Plan execution failed
EventType.SYSTEM_SHUTDOWN    # System shutdown initiated
EventType.SYSTEM_HEALTH_CHECK  # Health check request
"""

CREATORS = {
    "agent.started": """\
event = create_agent_event(
    event_type=EventType.AGENT_STARTED,
    agent_id="agent_001",
    payload={"version": "1.0.0", "capabilities": ["chat", "search"]},
    trace_id=uuid4(),
    priority=EventPriority.NORMAL,
)
""",
    "task.submitted": """\
event = create_task_event(
    event_type=EventType.TASK_SUBMITTED,
    agent_id="agent_001",
    task_id="task_123",
    task_data={"description": "Process request", "priority": "high"},
    trace_id=uuid4(),
)
""",
    "state.saved": """\
event = create_state_event(
    event_type=EventType.STATE_SAVED,
    agent_id="agent_001",
    state_info={"checkpoint_id": "cp_001", "size_bytes": 1024},
    trace_id=uuid4(),
)
""",
    "plan.created": """\
event = create_plan_event(
    event_type=EventType.PLAN_CREATED,
    plan_id=uuid4(),
    plan_data={"steps": 5, "participants": ["agent_001", "agent_002"]},
    trace_id=uuid4(),
    priority=EventPriority.HIGH,
)
""",
    "system.health_check": """\
event = create_system_event(
    event_type=EventType.SYSTEM_HEALTH_CHECK,
    service_name="state_manager",
    system_data={"status": "healthy", "uptime_seconds": 3600},
    priority=EventPriority.NORMAL,
)
""",
}

# What an event has, of the page's schema.
FIELDS = (
    "event_id", "event_type", "timestamp", "source_agent_id", "source_service", "trace_id", "execution_id",
    "parent_event_id", "payload", "priority", "ttl_seconds", "retry_count", "max_retries",
)  # fmt: skip


def test_the_types_are_there(page: Page) -> None:
    page.run(TYPES)
    for line in TYPES.splitlines():
        name = line.split()[0].removeprefix("EventType.")
        assert getattr(EventType, name).value == name.lower().replace("_", ".", 1)


PUBLISH = """\
event_bus.publish(event)
"""


@pytest.mark.parametrize("kind", CREATORS)
def test_what_the_creators_make_goes_through_the_bus(page: Page, kind: str) -> None:
    page.run(CREATORS[kind])
    page.bus.subscribe("all", ["#"], page.seen.append)
    page.run(PUBLISH)
    page.bus.start_consuming("all", blocking=False)
    until(lambda: page.seen, "the event")
    (event,) = page.seen
    assert event == page.names["event"]
    assert event.event_type == kind
    assert event.source_agent_id
    assert event.timestamp.utcoffset() is not None
    assert all(hasattr(event, name) for name in FIELDS)


# --- publishing -----------------------------------------------------------------------------------------------------

CUSTOM_KEY = """\
event_bus.publish(event, routing_key="custom.routing.key")
"""

NOT_PERSISTENT = """\
# For high-throughput, non-critical events
event_bus.publish(event, persistent=False)
"""


@pytest.mark.parametrize(
    ("block", "pattern"),
    [(PUBLISH, "agent.started.normal"), (CUSTOM_KEY, "custom.routing.key"), (NOT_PERSISTENT, "agent.started.normal")],
    ids=["basic", "custom key", "not persistent"],
)
def test_publishing(page: Page, block: str, pattern: str) -> None:
    page.bus.subscribe("q", [pattern], page.seen.append)
    page.run(block)
    until(lambda: page.count("q") == 1, "the event")


# --- subscribing ----------------------------------------------------------------------------------------------------

SUBSCRIBE = """\
def my_handler(event: Event):
    print(f"Processing: {event.event_type.value}")
    # Process event...

event_bus.subscribe(
    queue_name="my_service_queue",
    routing_patterns=["task.*.#"],
    callback=my_handler,
)
"""

SEVERAL = """\
event_bus.subscribe(
    queue_name="multi_pattern_queue",
    routing_patterns=[
        "agent.started.*",
        "agent.stopped.*",
        "task.completed.high",
    ],
    callback=my_handler,
)
"""

NO_DLQ = """\
event_bus.subscribe(
    queue_name="no_dlq_queue",
    routing_patterns=["agent.heartbeat.*"],
    callback=my_handler,
    enable_dlq=False,  # Disable DLQ
)
"""

TTL = """\
event_bus.subscribe(
    queue_name="ttl_queue",
    routing_patterns=["agent.heartbeat.*"],
    callback=my_handler,
    message_ttl_ms=60000,  # Messages expire after 60 seconds
)
"""

AUTO_ACK = """\
# Messages acknowledged automatically (use with caution)
event_bus.subscribe(
    queue_name="auto_ack_queue",
    routing_patterns=["task.*.#"],
    callback=my_handler,
    auto_ack=True,
)
"""

BACKGROUND = """\
# Runs in background thread
event_bus.start_consuming("my_queue", blocking=False)

# Your code continues here...

# Stop when done
event_bus.stop_consuming("my_queue")
"""

BLOCKING = """\
# Blocks current thread
event_bus.start_consuming("my_queue", blocking=True)
"""


def test_a_basic_subscription(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    page.run(SUBSCRIBE)
    page.bus.start_consuming("my_service_queue", blocking=False)
    page.bus.publish(create_task_event(EventType.TASK_SUBMITTED, "a", "t"))
    until(lambda: page.handled("my_service_queue") == 1, "the event's end")
    page.bus.stop_consuming("my_service_queue")
    assert capsys.readouterr().out == "Processing: task.submitted\n"


@pytest.mark.parametrize(
    ("block", "queue", "kinds"),
    [
        (SEVERAL, "multi_pattern_queue", {"agent.started", "agent.stopped", "task.completed"}),
        (NO_DLQ, "no_dlq_queue", {"agent.heartbeat"}),
        (TTL, "ttl_queue", {"agent.heartbeat"}),
        (AUTO_ACK, "auto_ack_queue", {"task.completed", "task.failed"}),
    ],
    ids=["several patterns", "no dlq", "ttl", "auto ack"],
)
def test_other_subscriptions(page: Page, block: str, queue: str, kinds: set[str]) -> None:
    page.run(block)
    page.bus.start_consuming(queue, blocking=False)
    for kind in ("agent.started", "agent.stopped", "agent.error", "agent.heartbeat"):
        page.bus.publish(create_agent_event(kind, "a"))
    page.bus.publish(create_task_event("task.completed", "a", "t", priority="high"))
    page.bus.publish(create_task_event("task.failed", "a", "t"))
    until(lambda: len(page.seen) == len(kinds), "the events")
    assert {event.event_type for event in page.seen} == kinds


def test_consuming_in_the_background_and_in_the_foreground(page: Page) -> None:
    page.bus.subscribe("my_queue", ["#"], page.seen.append)
    page.run(BACKGROUND)
    page.run(PUBLISH)
    foreground = threading.Thread(target=page.run, args=(BLOCKING,))
    foreground.start()
    until(lambda: page.seen, "the event")
    page.bus.stop_consuming("my_queue")
    foreground.join(10)
    assert not foreground.is_alive()


# --- dead letters ---------------------------------------------------------------------------------------------------

DLQ_INFO = """\
dlq_info = event_bus.get_queue_info("dlq.my_queue")
if dlq_info:
    print(f"Failed messages in DLQ: {dlq_info['message_count']}")
"""

DLQ_HANDLER = """\
def dlq_handler(event: Event):
    # Log failed event
    print(f"DLQ Event: {event.event_id}")
    print(f"Retry count: {event.retry_count}")
    # Alert, store, or reprocess

event_bus.subscribe(
    queue_name="dlq.my_queue",
    routing_patterns=["#"],  # DLQ uses direct routing
    callback=dlq_handler,
    enable_dlq=False,  # Don't create DLQ for DLQ
)
"""


def test_dead_letters(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    retries: list[int] = []

    def failing(event: Event) -> None:
        retries.append(event.retry_count)
        raise OSError("down")

    page.bus.subscribe("my_queue", ["#"], failing)
    page.bus.start_consuming("my_queue", blocking=False)
    page.run(PUBLISH)
    until(lambda: page.count("dlq.my_queue") == 1, "the dead letter")
    assert retries == [0, 1, 2, 3]
    page.run(DLQ_INFO)
    page.run(DLQ_HANDLER)
    page.bus.start_consuming("dlq.my_queue", blocking=False)
    until(lambda: page.count("dlq.my_queue") == 0, "its end")
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "Failed messages in DLQ: 1", f"DLQ Event: {page.names['event'].event_id}", "Retry count: 4",
    ]  # fmt: skip


# --- queues and health ----------------------------------------------------------------------------------------------

INFO = """\
info = event_bus.get_queue_info("my_queue")
if info:
    print(f"Messages: {info['message_count']}")
    print(f"Consumers: {info['consumer_count']}")
"""

PURGE = """\
# Remove all messages from queue
purged_count = event_bus.purge_queue("my_queue")
print(f"Purged {purged_count} messages")
"""

HEALTH = """\
health = event_bus.health_check()
print(f"Status: {health['status']}")
print(f"Connected: {health['connected']}")

if health['status'] == 'healthy':
    details = health['details']
    print(f"Host: {details['host']}")
    print(f"Exchange: {details['exchange']}")
"""

TROUBLE = """\
# Check health
health = event_bus.health_check()
if health['status'] == 'unhealthy':
    print(f"Error: {health['details']['error']}")
"""


def test_queues_are_looked_at_and_purged(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    page.run(INFO)
    page.bus.subscribe("my_queue", ["#"], page.seen.append)
    page.run(PUBLISH)
    page.run(INFO)
    page.run(PURGE)
    assert capsys.readouterr().out == "Messages: 1\nConsumers: 0\nPurged 1 messages\n"
    assert page.count("my_queue") == 0


def test_health(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    page.run(HEALTH)
    page.run(TROUBLE)
    status, connected, host, exchange = capsys.readouterr().out.splitlines()
    assert (status, connected, exchange) == ("Status: healthy", "Connected: True", "Exchange: agent_events")
    assert host.removeprefix("Host: ")


CONFIGURATION = """\
event_bus = EventBus(
    host="rabbitmq.example.com",
    port=5672,
    username="myuser",
    password="mypass",
    vhost="/production",
    exchange_type="topic",
    prefetch_count=10,
    connection_timeout=30,
    heartbeat=300,
)
"""


def at(port: int) -> str:
    """The block, with a server of this machine."""
    return CONFIGURATION.replace("rabbitmq.example.com", "127.0.0.1").replace("5672", str(port))


def test_a_rabbitmq_server_is_configured_and_used(broker_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if broker_name != "rabbitmq":
        pytest.skip("it is about RabbitMQ alone")
    page, port = Page(), urlsplit(shared_rabbit.url()).port or 0
    with shared_rabbit.admitting("/production", "myuser", "mypass"):
        page.run(at(port))
        page.run(HEALTH)
        page.run(TROUBLE)
        assert capsys.readouterr().out == (
            "Status: healthy\nConnected: True\nHost: 127.0.0.1\nExchange: agent_events\n"
        )
        page.bus.subscribe("q", ["#"], page.seen.append)
        page.bus.start_consuming("q", blocking=False)
        page.names["event"] = create_agent_event(EventType.AGENT_STARTED, "a")
        page.run(PUBLISH_ERROR)
        until(lambda: page.seen, "the event")
        page.bus.close()
    assert capsys.readouterr().out == ""


def test_a_rabbitmq_server_that_is_not_there_is_configured_and_asked_how_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = Page()
    page.run(at(free_port()).replace("timeout=30", "timeout=0.5"))
    page.run(HEALTH)
    page.run(TROUBLE)
    page.names["event"] = create_agent_event(EventType.AGENT_STARTED, "a")
    page.run(PUBLISH_ERROR)
    status, connected, error, failed = capsys.readouterr().out.splitlines()
    assert (status, connected, failed) == ("Status: unhealthy", "Connected: False", "Failed to publish event")
    assert error.startswith("Error: ")
    assert "refused" in error
    page.bus.close()


# --- patterns -------------------------------------------------------------------------------------------------------

REQUEST_REPLY = """\
# Service A - Make request
request_event = create_task_event(
    event_type=EventType.TASK_SUBMITTED,
    agent_id="requester",
    task_id="req_001",
    task_data={"action": "process_data", "data": {...}},
    trace_id=trace_id,
)
event_bus.publish(request_event)

# Service B - Handle request and send reply
def handle_request(event: Event):
    # Process request
    result = process_data(event.payload['data'])

    # Send reply
    reply_event = create_task_event(
        event_type=EventType.TASK_COMPLETED,
        agent_id="processor",
        task_id=event.payload['task_id'],
        task_data={"result": result},
        trace_id=event.trace_id,  # Same trace ID
        parent_event_id=event.event_id,  # Link to request
    )
    event_bus.publish(reply_event)
"""

FAN_OUT = """\
# Publish to multiple consumers
event = create_system_event(
    event_type=EventType.SYSTEM_HEALTH_CHECK,
    service_name="orchestrator",
)
event_bus.publish(event)

# Multiple services subscribe with same pattern
# Each gets a copy of the message
"""

PRIORITY = """\
# High priority events
high_priority_event = create_task_event(
    event_type=EventType.TASK_SUBMITTED,
    agent_id="agent_001",
    task_id="urgent_task",
    task_data={...},
    priority=EventPriority.CRITICAL,
)
event_bus.publish(high_priority_event)

# Subscribe to high priority only
event_bus.subscribe(
    queue_name="high_priority_queue",
    routing_patterns=["task.*.critical", "task.*.high"],
    callback=handle_urgent_task,
)
"""


def test_request_and_reply(page: Page) -> None:
    page.names |= {"trace_id": uuid4(), "process_data": lambda data: data["n"] + 1}
    page.bus.subscribe("requests", ["task.submitted.*"], lambda event: page.names["handle_request"](event))  # noqa: PLW0108 - a block defines it later
    page.bus.subscribe("replies", ["task.completed.*"], page.seen.append)
    page.run(REQUEST_REPLY)
    page.bus.start_consuming("requests", blocking=False)
    page.bus.start_consuming("replies", blocking=False)
    until(lambda: page.seen, "the reply")
    (reply,) = page.seen
    assert reply.payload == {"result": 2, "task_id": "req_001"}
    assert reply.trace_id == str(page.names["trace_id"])
    assert reply.parent_event_id == page.names["request_event"].event_id


def test_fan_out(page: Page) -> None:
    services: dict[str, list[Event]] = {"one": [], "two": [], "three": []}
    for name, seen in services.items():
        page.bus.subscribe(name, ["system.*.*"], seen.append)
        page.bus.start_consuming(name, blocking=False)
    page.run(FAN_OUT)
    until(lambda: all(services.values()), "all copies")
    assert {event.event_id for seen in services.values() for event in seen} == {page.names["event"].event_id}


def test_priority_queues(page: Page) -> None:
    page.run(PRIORITY)
    for priority in EventPriority:
        page.bus.publish(create_task_event("task.submitted", "a", priority.name, priority=priority))
    page.bus.start_consuming("high_priority_queue", blocking=False)
    until(lambda: len(page.seen) == 3, "the urgent ones")
    assert {event.payload["task_id"] for event in page.seen} == {"HIGH", "CRITICAL", "SYSTEM"}


# --- context manager and errors -------------------------------------------------------------------------------------

CONTEXT = """\
with EventBus() as bus:
    bus.publish(event)
    # Connection automatically closed on exit
"""

PUBLISH_ERROR = """\
success = event_bus.publish(event)
if not success:
    # Handle failure (logged automatically)
    print("Failed to publish event")
"""

SAFE_HANDLER = """\
def safe_handler(event: Event):
    try:
        # Process event
        process_event(event)
    except TemporaryError:
        # Raise to trigger retry
        raise
    except PermanentError as e:
        # Log and don't raise (message will be acked)
        logger.error(f"Permanent error: {e}")
"""


def test_the_context_manager_closes(page: Page) -> None:
    page.bus.subscribe("q", ["#"], page.seen.append)
    page.run(CONTEXT)
    assert page.count("q") == 1
    with pytest.raises(wowevent.Closed):
        page.names["bus"].publish(page.names["event"])


def test_publication_errors(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    page.run(PUBLISH_ERROR)
    assert capsys.readouterr().out == ""


def test_consumption_errors(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    class TemporaryError(Exception):
        pass

    class PermanentError(Exception):
        pass

    def process_event(event: Event) -> None:
        page.seen.append(event)
        if event.event_type == "task.failed":
            raise PermanentError("no such task")
        if event.retry_count < 2:
            raise TemporaryError("the tool is not ready")

    page.names |= {
        "process_event": process_event, "TemporaryError": TemporaryError, "PermanentError": PermanentError,
    }  # fmt: skip
    page.run(SAFE_HANDLER)
    page.bus.subscribe("q", ["task.*.*"], page.names["safe_handler"])
    page.bus.start_consuming("q", blocking=False)
    page.bus.publish(create_task_event("task.failed", "a", "1"))
    page.bus.publish(create_task_event("task.submitted", "a", "2"))
    until(lambda: len(page.seen) == 4, "the retries")
    until(lambda: page.handled("q") == 2, "their ends")
    assert page.count("dlq.q") == 0
    assert "Permanent error: no such task" in caplog.text
