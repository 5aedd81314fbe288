"""What others have paid for with SQLite: a file that is opened by other means loses its locks."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.faults.lab import Lab
from tests.processes import environment
from wowevent import EventBus

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

COPIED = """
    import asyncio, os, shutil, signal, subprocess, sys
    from pathlib import Path
    from wowevent import Event, EventBus
    from wowevent.brokers.sqlite.backup import back_up

    LOOK = (
        "import sqlite3, sys; log = sqlite3.connect(sys.argv[1]); "
        "log.execute('SELECT 1 FROM state').fetchall(); log.close()"
    )

    async def main(path, how):
        async with EventBus(f"sqlite:///{path}") as bus:
            await bus.publish(Event(topic="load.made", payload={"n": 0}))
            if how == "backup":
                back_up(path, Path(path + ".copy"), checks=False, told=lambda *_: None)
            else:
                shutil.copyfile(path, path + ".copy")
            subprocess.run([sys.executable, "-c", LOOK, path], check=True)
            await bus.publish(Event(topic="load.made", payload={"n": 1}))
            print("confirmed", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_log_that_is_copied_as_a_file_loses_its_locks_and_then_events(lab: Lab, guarded: bool):
    """Closing the file lets go of all locks that the process has on it (POSIX).

    The next process that looks takes itself for the last one, and removes the write-ahead log: what is confirmed after
    that goes into a file without a name.
    """
    how = "backup" if guarded else "copyfile"
    command = [sys.executable, "-c", textwrap.dedent(COPIED), str(lab.path), how]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment(lab.folder), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "confirmed\n"), done.stderr
    async with EventBus(lab.url) as bus:
        kept = [stored.event.payload["n"] async for stored in bus.history()]
    assert kept == ([0, 1] if guarded else [0])
