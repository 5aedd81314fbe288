"""`wowevent storms`: the conversations that are parked, listed and released."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.cli.broken import URL, obeys, said
from tests.processes import wowevent
from wowevent import Event, EventBus, StormPolicy


def stormy(home: Path) -> str:
    """A log with one parked conversation; the id of the event that it began with."""
    return asyncio.run(_stormy(home / "broken.db"))


async def _stormy(file: Path) -> str:
    async with EventBus(f"sqlite:///{file}", storms=StormPolicy(max_visits=3)) as bus:

        async def loop(event: Event) -> None:
            await bus.publish(Event(topic=event.topic))

        await bus.subscribe("loop.*", loop, "looper")
        first = Event(topic="loop.it", correlation_id="job-1")
        await bus.publish(first)
        await bus.join(timeout=10)
        return first.event_id


def test_the_list_and_the_release(tmp_path: Path) -> None:
    root = stormy(tmp_path)
    (storm,) = said(tmp_path, "storms")
    assert (storm["id"], storm["correlation_id"], storm["limit"], storm["who"]) == (
        root, "job-1", "max_visits", "looper~loop.*",
    )  # fmt: skip
    assert said(tmp_path, "storms", "list") == [storm]
    shown = wowevent(tmp_path, "storms", *URL).stdout
    assert shown.splitlines()[0].split() == [b"CONVERSATION", b"CORRELATION", b"SINCE", b"LIMIT", b"BY", b"PATH"]
    assert b"looper~loop.* (loop.it) x3" in shown.splitlines()[1]
    assert not obeys(shown)
    assert said(tmp_path, "dlq", "list")[0]["reason"] == "loop_detected"
    assert wowevent(tmp_path, "storms", "release", "job-1", *URL).stdout == f"released {root}\n".encode()
    assert said(tmp_path, "storms") == []


def test_what_is_not_parked_is_said(tmp_path: Path) -> None:
    stormy(tmp_path)
    done = wowevent(tmp_path, "storms", "release", "nobody", *URL)
    assert (done.returncode, done.stderr) == (69, b"error[storm_not_found]: no conversation 'nobody' is parked\n")
