"""The async ancestor's page and its report, block by block: each runs as it stands there, but for its import lines.

Names that a block leaves undefined are filled in, the server's port is a free one, and what can be seen is checked.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import signal
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import httpx
import pytest
from redis import Redis
from redis import asyncio as redis

from tests.conformance.engines import url_of
from tests.processes import end, environment, running, until
from tests.servers import free_port
from wowevent import Event, EventBus, EventStore, NotSupported, ValidationError


def ours(block: str, url: str = "") -> str:
    """A block with our import lines, and a server of our own."""
    return block.replace("from waooaw.events import", "from wowevent import").replace("redis://localhost:6379", url)


async def run(block: str, **names: Any) -> dict[str, Any]:
    """Run a block, which may await outside of functions, to its end; returns its names."""
    given = {"__name__": "page", "asyncio": asyncio, "Event": Event, **names}
    done = FunctionType(compile(ours(block), "<page>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), given)()
    if inspect.isawaitable(done):
        await done
    return given


def program(block: str, tmp_path: Path) -> bytes:
    """What a block that is a program prints, on a Redis."""
    block = ours(block, url_of("redis", tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", block], env=environment(tmp_path), capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr, done.stderr  # the driver says there that its `close` is called `aclose` now
    return done.stdout


TASK = Event(
    event_type="task.created", source_agent="api", payload={"task_id": "123", "title": "Test"},
    timestamp="2025-12-29T11:00:00Z",
)  # fmt: skip

# --- the bus --------------------------------------------------------------------------------------------------------

QUICK_START = """\
import asyncio
import redis.asyncio as redis
from waooaw.events import EventBus, Event

async def main():
    # Connect to Redis
    redis_client = await redis.from_url("redis://localhost:6379")
    
    # Create event bus
    bus = EventBus(redis_client)
    await bus.start()
    
    # Subscribe to events
    async def handler(event: Event):
        print(f"Received: {event.event_type} from {event.source_agent}")
    
    await bus.subscribe("task.*", handler, "my-agent")
    
    # Publish event
    event = Event(
        event_type="task.created",
        source_agent="api",
        payload={"task_id": "123", "title": "Test"}
    )
    await bus.publish(event)
    
    # Cleanup
    await bus.stop()
    await redis_client.close()

asyncio.run(main())
"""  # noqa: W293 - as it stands there


def test_the_quick_start(tmp_path: Path):
    assert program(QUICK_START, tmp_path) == b"Received: task.created from api\n"


BUS = """\
from waooaw.events import EventBus

bus = EventBus(redis_client)
await bus.start()

# Subscribe to pattern
await bus.subscribe("task.*", handler, "worker-1")

# Publish event
await bus.publish(event)

await bus.stop()
"""


@pytest.mark.parametrize("decoded", [True, False])
async def test_the_bus_on_a_client_of_the_callers(tmp_path: Path, decoded: bool):
    redis_client: Any = redis.from_url(url_of("redis", tmp_path), decode_responses=decoded)
    seen: list[Event] = []
    await run(BUS, redis_client=redis_client, handler=seen.append, event=TASK)
    assert [each.event_id for each in seen] == [TASK.event_id]
    await redis_client.set("mine", "still open")
    assert await redis_client.get("mine") == ("still open" if decoded else b"still open")
    await redis_client.aclose()


def test_a_client_that_blocks_is_refused():
    with pytest.raises(NotSupported, match=r"redis\.asyncio"):
        EventBus(Redis())  # type: ignore[arg-type]


# --- schemas --------------------------------------------------------------------------------------------------------

SCHEMA = """\
from waooaw.events import EventSchema, EventValidator, SchemaRegistry

# Define schema
schema = EventSchema(
    event_type="task.created",
    version="1.0.0",
    json_schema={
        "type": "object",
        "properties": {
            "task_id": {"type": "string"},
            "title": {"type": "string"}
        },
        "required": ["task_id", "title"]
    }
)

# Register schema
registry = SchemaRegistry()
registry.register_schema(schema)

# Validate events
validator = EventValidator(registry=registry)
validator.validate_event(event)  # Raises ValidationError if invalid
"""


async def test_a_schema_is_registered_and_an_event_validated():
    await run(SCHEMA, event=TASK)


async def test_the_error_names_every_wrong_field():
    wrong = Event(event_type="task.created", source_agent="api", payload={"task_id": 123})
    with pytest.raises(ValidationError) as refused:
        await run(SCHEMA, event=wrong)
    assert len(refused.value.errors) == 2
    said = str(refused.value)
    assert "task_id" in said
    assert "title" in said


# --- dead letters ---------------------------------------------------------------------------------------------------

DEAD_LETTERS = """\
from waooaw.events import DeadLetterQueue, FailureReason

dlq = DeadLetterQueue()

# Add failed event
await dlq.add_failed_event(
    event,
    subscription_id="sub-123",
    subscriber_agent="worker-1",
    failure_reason=FailureReason.HANDLER_ERROR,
    error_message="Temporary failure"
)

# Process retries
retry_queue = dlq.get_retry_queue()
for failed_event in retry_queue:
    if failed_event.should_retry():
        # Retry logic
        dlq.retry_dead_letter(failed_event.event.correlation_id)
"""


async def test_a_failed_event_waits_for_its_retry():
    names = await run(DEAD_LETTERS, event=TASK)
    (failed,) = names["retry_queue"]
    assert failed.event.correlation_id == TASK.correlation_id
    assert failed.failure_reason.value == "handler_error"
    assert not failed.should_retry()  # it is due in a second
    assert names["dlq"].get_retry_queue()[0].event.event_id == TASK.event_id  # and does not vanish
    assert names["dlq"].retry_dead_letter(TASK.correlation_id)


# --- replay ---------------------------------------------------------------------------------------------------------

REPLAY = """\
from waooaw.events import EventStore, EventReplayer, ReplayConfig

# Store events
event_store = EventStore(max_size=10000)
event_store.store(event)

# Replay events
replayer = EventReplayer(event_store)

async def replay_handler(event: Event):
    print(f"Replaying: {event.event_type}")

config = ReplayConfig(
    start_time="2025-12-29T10:00:00",
    end_time="2025-12-29T12:00:00",
    pattern="task.*",
    speed_multiplier=0  # 0=instant, 1.0=realtime, 2.0=2x
)

await replayer.replay(replay_handler, config)
"""


async def test_a_range_is_replayed(capsys: pytest.CaptureFixture[str]):
    await run(REPLAY, event=TASK)
    assert capsys.readouterr().out == "Replaying: task.created\n"


async def test_what_lies_outside_of_the_range_is_not(capsys: pytest.CaptureFixture[str]):
    await run(REPLAY, event=Event(event_type="task.created", timestamp="2025-12-29T12:00:01"))
    await run(REPLAY, event=Event(event_type="agent.started", timestamp="2025-12-29T11:00:00"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis"])
async def test_the_same_replay_from_the_log_of_a_bus(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    async with EventBus(url_of(engine, tmp_path)) as bus:
        await bus.publish(TASK)
        block = REPLAY.replace("EventStore(max_size=10000)", "EventStore(bus=bus)")
        await run(block.replace("event_store.store(event)\n", ""), bus=bus)
        assert len([stored async for stored in EventStore(bus=bus).history("task.*")]) == 1
    assert capsys.readouterr().out == "Replaying: task.created\n"


# --- metrics --------------------------------------------------------------------------------------------------------

METRICS = """\
from waooaw.events import EventMetrics

metrics = EventMetrics(window_seconds=60)

# Record activity
await metrics.record_publish("task.created")
await metrics.record_delivery("task.created", "worker-1", 0.05, success=True)

# Get metrics
snapshot = await metrics.get_metrics()
print(f"Throughput: {snapshot['throughput']['publishes']['per_second']} events/sec")
print(f"P95 latency: {snapshot['latency']['p95']}s")
print(f"Healthy subscribers: {snapshot['subscribers']['health']['healthy']}")

# Check subscriber health
sub_metrics = await metrics.get_subscriber_metrics("worker-1")
print(f"Health: {sub_metrics['health']}")
print(f"Error rate: {sub_metrics['error_rate']}")
"""


async def test_activity_is_measured(capsys: pytest.CaptureFixture[str]):
    names = await run(METRICS)
    said = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert float(said["Throughput"].removesuffix(" events/sec")) > 0
    assert float(said["P95 latency"].removesuffix("s")) == pytest.approx(0.05, rel=0.01)
    assert (said["Healthy subscribers"], said["Health"], said["Error rate"]) == ("1", "healthy", "0.0")
    totals = names["snapshot"]["totals"]
    assert {name: totals[name] for name in ("publishes", "deliveries", "errors", "retries", "dlq")} == {
        "publishes": 1, "deliveries": 1, "errors": 0, "retries": 0, "dlq": 0,
    }  # fmt: skip
    assert "task.created" in names["snapshot"]["event_types"]


@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis"])
async def test_the_bus_s_own_metrics_are_live(engine: str, tmp_path: Path):
    async with EventBus(url_of(engine, tmp_path)) as bus:
        await bus.subscribe("task.*", lambda event: None, "worker-1")
        await bus.publish(TASK)
        await bus.join(timeout=10)
        snapshot = await bus.metrics.get_metrics()
        assert snapshot["totals"]["publishes"] == snapshot["totals"]["deliveries"] == 1
        assert (await bus.metrics.get_subscriber_metrics("worker-1"))["health"] == "healthy"


# --- the report's example -------------------------------------------------------------------------------------------

EXAMPLE = """\
import asyncio
import redis.asyncio as redis
from waooaw.events import EventBus, Event, EventSchema, SchemaRegistry, EventValidator

async def main():
    # Connect to Redis
    redis_client = await redis.from_url("redis://localhost:6379")
    
    # Setup validation
    schema = EventSchema(
        event_type="task.created",
        version="1.0.0",
        json_schema={
            "type": "object",
            "properties": {
                "task_id": {"type": "string"},
                "title": {"type": "string"}
            },
            "required": ["task_id", "title"]
        }
    )
    
    registry = SchemaRegistry()
    registry.register_schema(schema)
    validator = EventValidator(registry=registry)
    
    # Create event bus
    bus = EventBus(redis_client)
    await bus.start()
    
    # Subscribe to events
    async def task_handler(event: Event):
        # Validate event
        validator.validate_event(event)
        
        # Process event
        print(f"Processing task: {event.payload['title']}")
    
    await bus.subscribe("task.*", task_handler, "worker-1")
    
    # Publish event
    event = Event(
        event_type="task.created",
        source_agent="api",
        payload={"task_id": "123", "title": "Deploy WowEvent"}
    )
    await bus.publish(event)
    
    # Wait for processing
    await asyncio.sleep(1)
    
    # Cleanup
    await bus.stop()
    await redis_client.close()

asyncio.run(main())
"""  # noqa: W293 - as it stands there


def test_the_report_s_example(tmp_path: Path):
    assert program(EXAMPLE, tmp_path) == b"Processing task: Deploy WowEvent\n"


# --- the service ----------------------------------------------------------------------------------------------------


def test_the_service_with_its_three_addresses(tmp_path: Path):
    """`python -m waooaw.events.service`, and the page's `curl` lines."""
    url, port = url_of("redis", tmp_path), free_port()
    with running(tmp_path, "wowevent.service", REDIS_URL=url, PORT=str(port)) as service:

        def get(path: str, **headers: str) -> httpx.Response | None:
            try:
                return httpx.get(f"http://localhost:{port}{path}", headers=headers)
            except httpx.TransportError:
                return None

        until(lambda: (answer := get("/ready")) and answer.status_code == httpx.codes.OK, "readiness")
        health, metrics = get("/health"), get("/metrics")
        assert health is not None
        said = health.json()
        assert (said["status"], said["redis"], said["event_bus"]) == ("healthy", "connected", "running")
        assert metrics is not None
        assert set(metrics.json()["latency"]) >= {"p50", "p95", "p99"}
        prometheus = get("/metrics", accept="text/plain; version=0.0.4")
        assert prometheus is not None
        assert "# TYPE wowevent_published_events_total counter" in prometheus.text
        assert end(service, signal.SIGTERM) == 0
