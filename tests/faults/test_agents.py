"""Who is there, told by three processes, of which one is killed and one says goodbye; through a restart of the engine.

The stated times: a word in 5 s; suspect after 7.5 s of silence, offline after 15; a goodbye is heard at once. The short
form lets everybody speak, and be missed, five times as fast.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.conformance.engines import eventually
from tests.faults.conftest import Engine
from wowevent import AgentInfo, EventBus, attendance, roster
from wowevent.errors import BusError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

LATE = 3.0  # seconds: of a look, and of a machine with much to do
FAST = 0.2  # of the stated times, in the short form
BACK = 15.0  # seconds within which a bus has its engine again, once that answers

SERVES = """
import asyncio, signal, sys
from wowevent import EventBus, attendance

async def main(url, name, period):
    attendance.PERIOD = float(period)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with EventBus(url) as bus:
        await bus.subscribe("task.*", lambda event: None, name)
        print("there", flush=True)
        await ended.wait()

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def serving(url: str, name: str, period: float) -> Iterator[subprocess.Popen[bytes]]:
    """A process that serves a subscription of its own; killed if it is still there at the end."""
    command = [sys.executable, "-c", SERVES, url, name, str(period)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


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
    engine: Engine, long_form: bool, monkeypatch: pytest.MonkeyPatch, measured
) -> None:
    pace = 1.0 if long_form else FAST
    period, silent, gone = attendance.PERIOD * pace, roster.ONLINE * pace, roster.OFFLINE * pace
    monkeypatch.setattr(roster, "ONLINE", silent)
    monkeypatch.setattr(roster, "OFFLINE", gone)
    with ExitStack() as stack:
        there = {
            name: stack.enter_context(serving(engine.url, name, period)) for name in ("killed", "leaving", "staying")
        }
        for process in there.values():
            assert await asyncio.to_thread(said, process) == b"there\n"
        async with EventBus(engine.url) as bus:
            for name in there:
                await until(bus, name, "online", 20)
            there["killed"].kill()
            there["leaving"].send_signal(signal.SIGTERM)
            left = await until(bus, "leaving", "offline", period + LATE)
            assert await asyncio.to_thread(there["leaving"].wait, 20) == 0
            await until(bus, "killed", "suspect", silent + LATE)
            suspect = time.time() - await last_seen(bus, "killed")
            assert (await agent(bus, "staying")).state == "online"
            await until(bus, "killed", "offline", gone - silent + LATE)
            offline = time.time() - await last_seen(bus, "killed")
            assert silent <= suspect < silent + LATE
            assert gone <= offline < gone + LATE
            again = await restarted(engine, bus, period)
            assert (await agent(bus, "killed")).state == "offline"
    measured(1, goodbye=left, suspect=suspect, offline=offline, after_restart=again)


async def restarted(engine: Engine, bus: EventBus, period: float) -> float:
    """Seconds from when the engine is there again until who stayed was heard anew."""
    if engine.restart is None:
        return 0.0
    await asyncio.to_thread(engine.restart)
    back = time.time()

    async def heard_anew() -> bool:
        try:
            found = await agent(bus, "staying")
        except BusError:  # it cannot say while its engine is away
            return False
        return found.state == "online" and (found.last_seen or 0.0) > back

    await eventually(heard_anew, BACK + period)
    return time.time() - back


async def last_seen(bus: EventBus, name: str) -> float:
    found = (await agent(bus, name)).last_seen
    assert found is not None
    return found


def said(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()
