"""Who is there, told by three processes, of which one is killed and one says goodbye; through a restart of the engine.

The stated times: a word in 5 s; suspect after 7.5 s of silence, offline after 15; a goodbye is heard at once.
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.conformance.engines import eventually
from tests.processes import Process, end, running
from tests.servers import Server
from wowevent import AgentInfo, EventBus

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

LATE = 2.0  # seconds: of a look, and of a machine with much to do


async def until(bus: EventBus, name: str, state: str, within: float) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    while (found := await agent(bus, name)).state != state:
        assert time.monotonic() - began < within, f"{name} is {found.state}, not {state}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def agent(bus: EventBus, name: str) -> AgentInfo:
    (found,) = [info for info in await bus.agents() if info.name == name] or [
        AgentInfo(name, "offline", None, (), (), ())
    ]
    return found


async def test_three_processes_a_kill_a_goodbye_and_a_restart_of_the_engine(
    redis: Server, tmp_path: Path, measured
) -> None:
    url = f"redis://127.0.0.1:{redis.port}"
    homes = {name: tmp_path / name for name in ("killed", "leaving", "staying")}
    for home in homes.values():
        home.mkdir()

    def serving(name: str):
        return running(homes[name], "wowevent", "subscribe", "task.*", "--name", name, "--url", url)

    with serving("killed") as killed, serving("leaving") as leaving, serving("staying"):
        async with EventBus(url) as bus:
            for name in homes:
                await until(bus, name, "online", 20)
            heard = (await agent(bus, "killed")).last_seen
            assert heard is not None
            killed.kill()
            goodbye = asyncio.create_task(asyncio.to_thread(said_goodbye, leaving))
            left = await until(bus, "leaving", "offline", 5 + LATE)
            assert await goodbye == 0
            await until(bus, "killed", "suspect", 7.5 + LATE)
            suspect = time.time() - await last_seen(bus, "killed")
            assert (await agent(bus, "staying")).state == "online"
            await until(bus, "killed", "offline", 7.5 + LATE)
            offline = time.time() - await last_seen(bus, "killed")
            assert 7.5 <= suspect < 7.5 + LATE
            assert 15 <= offline < 15 + LATE
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)
            restarted = time.time()

            async def heard_anew() -> bool:
                return await last_seen(bus, "staying") > restarted

            await eventually(heard_anew, 5 + LATE)
            again = time.time() - restarted
            assert (await agent(bus, "staying")).state == "online"
            assert (await agent(bus, "killed")).state == "offline"
    measured(1, goodbye=left, suspect=suspect, offline=offline, after_restart=again)


async def last_seen(bus: EventBus, name: str) -> float:
    found = (await agent(bus, name)).last_seen
    assert found is not None
    return found


def said_goodbye(process: Process) -> int:
    return end(process, signal.SIGTERM)
