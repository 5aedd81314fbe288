"""A pause among several processes: all see it within a second, and it outlives who said it and the engine's end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance.engines import eventually, url_of
from tests.processes import running, until
from tests.servers import redis_server
from wowevent import Event, EventBus

PROMISED = 1.0  # seconds
LOADED = 3.0  # more, for a machine that has other things to do

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

    def says(self, what: str) -> bool:
        return what in (self.folder / "err.txt").read_text()

    @property
    def events(self) -> int:
        return len((self.folder / "out.txt").read_text().splitlines())


def all_say(readers: Sequence[Reader], what: str) -> float:
    """The seconds until all of them do."""
    began = time.monotonic()
    until(lambda: all(reader.says(what) for reader in readers), what)
    return time.monotonic() - began


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
def test_three_processes_see_it_in_time_and_it_outlives_who_said_it(tmp_path: Path, engine: str) -> None:
    url = url_of(engine, tmp_path)
    with ExitStack() as stack:
        readers = [Reader(tmp_path / f"reader-{n}", url, stack) for n in range(3)]
        all_say(readers, "listening")
        with subprocess.Popen([sys.executable, "-c", PANIC, url], stdout=subprocess.PIPE) as panic:
            try:
                assert panic.stdout is not None
                assert panic.stdout.readline() == b"paused\n"
                assert all_say(readers, "subscription paused") < PROMISED + LOADED
            finally:
                panic.kill()
        readers.append(Reader(tmp_path / "reader-3", url, stack))
        all_say(readers, "listening")
        asyncio.run(_publish(url, 5))
        time.sleep(0.5)
        assert [reader.events for reader in readers] == [0, 0, 0, 0]
        asyncio.run(_resume(url))
        assert all_say(readers, "subscription resumed") < PROMISED + LOADED
        until(lambda: [reader.events for reader in readers] == [5, 5, 5, 5], "the events")


async def _publish(url: str, count: int) -> None:
    async with EventBus(url) as bus:
        await bus.publish_many([Event(topic="a.b", payload={"n": n}) for n in range(count)])


async def _resume(url: str) -> None:
    async with EventBus(url) as bus:
        assert [pause.reason for pause in await bus.resume(everything=True)] == ["panic"]


async def test_it_outlives_a_kill_of_the_engine(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "server")
    server.start()
    url, handled = f"redis://127.0.0.1:{server.port}", list[int]()
    try:
        async with EventBus(url) as bus:
            await bus.subscribe("task.*", lambda event: handled.append(event.payload["n"]), "worker")
            await bus.pause(agent="worker")
            await bus.pause(correlation_id="job")
            server.kill()
            server.start()
            async with EventBus(url) as later:
                assert [pause.scope for pause in await later.pauses()] == ["agent", "conversation"]
                await later.publish(Event(topic="task.created", payload={"n": 1}))
                await later.publish(Event(topic="task.created", payload={"n": 2}, correlation_id="job"))
                await asyncio.sleep(1.5)
                assert handled == []
                await later.resume(agent="worker")
                await eventually(lambda: handled == [1])
                await later.resume(correlation_id="job")
                await eventually(lambda: sorted(handled) == [1, 2])
    finally:
        server.kill()
