"""A log with an agent's dead letters, a backlog that nobody serves, and words that a terminal would obey."""

import asyncio
from pathlib import Path
from typing import Any

from tests.processes import told
from wowevent import Event, EventBus, Reject, RetryPolicy

URL = ("--url", "sqlite:///broken.db")
EVIL = "\x1b[31m\x9b31m\r\u202e"
WORKER = "worker~task.*"


def broken(home: Path) -> None:
    """Five events: four dead letters of `worker` (two of job-1, one rejected), five waiting for `idle`."""
    asyncio.run(_broken(home / "broken.db"))


async def _broken(file: Path) -> None:
    async def work(event: Event) -> None:
        if event.payload["n"] == 3:
            raise Reject("never")
        if event.payload["n"] != 4:
            raise ConnectionError(f"no answer {EVIL}")

    async with EventBus(f"sqlite:///{file}") as bus:
        await bus.subscribe("task.*", work, "worker", retry=RetryPolicy(max_retries=1, initial=0.01))
        await bus.subscribe("log.*", work, "worker", types=[f"log {EVIL}"], priorities=["high"])
        idle = await bus.subscribe("task.*", work, subscription="idle")
        await idle.cancel()
        for n in range(5):
            await bus.publish(
                Event(
                    topic="task.created",
                    payload={"n": n, "text": EVIL},
                    source_agent="planner",
                    correlation_id="job-1" if n < 2 else "job-2",
                )
            )
        await bus.join(timeout=10)


def said(home: Path, *arguments: str) -> list[dict[str, Any]]:
    """What a command with --json printed."""
    return told(home, *arguments, *URL)


def dead(home: Path) -> list[int]:
    """The events of the dead letters that are there, by their payload."""
    return [letter["event"]["payload"]["n"] for letter in said(home, "dlq", "list")]


def obeys(output: bytes) -> bool:
    """Whether there is something that a terminal would obey, line ends aside."""
    return not "".join(output.decode().splitlines()).isprintable()
