"""A pause among several processes: all see it within a second, and it outlives who said it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from tests.conformance.engines import url_of
from tests.processes import running, until
from wowevent import Event, EventBus

PROMISED = 1.0  # seconds
LOADED = 2.0  # more, for a machine that has other things to do just then
ROUNDS = 2

PANIC = """
import asyncio, sys
from wowevent import EventBus

async def main():
    async with EventBus(sys.argv[1]) as bus:
        await bus.pause(everything=True, reason="panic")
        print("paused", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


class Reader:
    """A process that serves a subscription of its own, and prints what it gets."""

    def __init__(self, folder: Path, url: str, stack: ExitStack) -> None:
        self.folder = folder
        folder.mkdir()
        options = ("--name", folder.name, "--url", url, "--json")
        stack.enter_context(running(folder, "wowevent", "subscribe", "a.*", *options))

    def said(self, what: str) -> list[str]:
        """The lines that have that in them."""
        return [line for line in (self.folder / "err.txt").read_text().splitlines() if what in line]

    @property
    def events(self) -> int:
        return len((self.folder / "out.txt").read_text().splitlines())


def all_say(readers: Sequence[Reader], what: str, times: int = 1) -> None:
    until(lambda: all(len(reader.said(what)) >= times for reader in readers), what)


def last_said(readers: Sequence[Reader], what: str) -> float:
    """When the last of them said it last, by what its line says: Unix seconds."""
    stamps = [reader.said(what)[-1].split()[0] for reader in readers]
    return max(datetime.fromisoformat(stamp).timestamp() for stamp in stamps)


def test_three_processes_see_it_within_a_second_and_it_outlives_who_said_it(broker_name: str, tmp_path: Path) -> None:
    if broker_name == "memory":
        pytest.skip("no other process shares this log")
    url, took = url_of(broker_name, tmp_path), list[float]()
    with ExitStack() as stack:
        readers = [Reader(tmp_path / f"reader-{n}", url, stack) for n in range(3)]
        all_say(readers, "listening")
        for n in range(ROUNDS):
            for what, ask in (("subscription paused", _pause), ("subscription resumed", _resume)):
                asked = asyncio.run(ask(url))
                all_say(readers, what, n + 1)
                took.append(last_said(readers, what) - asked)
        with subprocess.Popen([sys.executable, "-c", PANIC, url], stdout=subprocess.PIPE) as panic:
            try:
                assert panic.stdout is not None
                assert panic.stdout.readline() == b"paused\n"
                all_say(readers, "subscription paused", ROUNDS + 1)
            finally:
                panic.kill()
        readers.append(Reader(tmp_path / "reader-3", url, stack))
        all_say(readers, "listening")
        asyncio.run(_publish(url, 5))
        time.sleep(0.5)
        assert [reader.events for reader in readers] == [0, 0, 0, 0]
        asyncio.run(_resume(url))
        until(lambda: [reader.events for reader in readers] == [5, 5, 5, 5], "the events")
    assert sorted(took)[-2] < PROMISED, took
    assert max(took) < PROMISED + LOADED, took


async def _publish(url: str, count: int) -> None:
    async with EventBus(url) as bus:
        await bus.publish_many([Event(topic="a.b", payload={"n": n}) for n in range(count)])


async def _pause(url: str) -> float:
    """When it was paused, Unix seconds."""
    async with EventBus(url) as bus:
        await bus.pause(everything=True, reason="panic")
        return time.time()


async def _resume(url: str) -> float:
    async with EventBus(url) as bus:
        assert [pause.reason for pause in await bus.resume(everything=True)] == ["panic"]
        return time.time()
