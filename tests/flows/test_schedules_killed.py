"""A process that is killed takes no firing with it, and nothing is fired twice for that."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conformance.engines import url_of
from tests.processes import running, until
from wowevent import EventBus

EVERY = 1.5


def seen(home: Path) -> list[dict[str, str]]:
    lines = (home / "out.txt").read_text().split("\n")[:-1]  # the last one may be half written
    return [json.loads(line) for line in lines]


async def schedule(url: str) -> None:
    """By a process that goes at once."""
    async with EventBus(url) as bus:
        await bus.schedules.add("tick", "tick.now", every=EVERY)


async def fired(url: str) -> list[datetime]:
    """One whose release was under way in the killed process may be stored twice under its id, without dedup."""
    async with EventBus(url) as bus:
        events = [stored.event async for stored in bus.history("tick.now")]
        if not bus.capabilities.dedup:
            events = list({event.event_id: event for event in events}.values())
        return [event.timestamp for event in events]


def test_each_moment_is_fired_once_though_one_is_killed(broker_name: str, tmp_path: Path) -> None:
    if broker_name == "memory":
        pytest.skip("no other process shares this log")
    url, (one, two) = url_of(broker_name, tmp_path), (tmp_path / "one", tmp_path / "two")
    for home in (one, two):
        home.mkdir()
    listen = ("wowevent", "subscribe", "tick.*", "--json", "--url", url)
    with running(one, *listen) as killed, running(two, *listen):
        for home in (one, two):
            until(lambda home=home: "listening" in (home / "err.txt").read_text(), "listening")  # type: ignore[misc]
        asyncio.run(schedule(url))
        until(lambda: len(seen(one)) >= 1, "the first firing")
        killed.kill()
        count = len(seen(two))
        until(lambda: len(seen(two)) >= count + 2, "two more")
    times = asyncio.run(fired(url))
    gaps = [(after - before).total_seconds() for before, after in pairwise(times)]
    assert gaps == [EVERY] * len(gaps)
    came = list({each["event_id"]: datetime.fromisoformat(each["timestamp"]) for each in seen(two)}.values())
    assert came == times[: len(came)]
