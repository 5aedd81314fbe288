"""The first blocks of the async ancestor's page, on a real Redis: only the import line and the port are ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis import asyncio as redis

from tests.conformance.engines import url_of
from tests.processes import environment
from wowevent import Event, EventBus, NotSupported

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
    block = QUICK_START.replace("from waooaw.events import EventBus, Event", "from wowevent import EventBus, Event")
    block = block.replace("redis://localhost:6379", url_of("redis", tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", block], env=environment(tmp_path), capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"Received: task.created from api\n"), done.stderr


@pytest.mark.parametrize("decoded", [True, False])
async def test_the_bus_on_a_client_of_the_callers(tmp_path: Path, decoded: bool):
    redis_client: Any = redis.from_url(url_of("redis", tmp_path), decode_responses=decoded)
    seen: list[Event] = []
    handler, event = seen.append, Event(event_type="task.created", source_agent="api", payload={"task_id": "123"})

    bus = EventBus(redis_client)
    await bus.start()
    await bus.subscribe("task.*", handler, "worker-1")
    await bus.publish(event)
    await bus.stop()

    assert [each.event_id for each in seen] == [event.event_id]
    await redis_client.set("mine", "still open")
    assert await redis_client.get("mine") == ("still open" if decoded else b"still open")
    await redis_client.aclose()


def test_a_client_that_blocks_is_refused():
    with pytest.raises(NotSupported, match=r"redis\.asyncio"):
        EventBus(Redis())  # type: ignore[arg-type]
