"""Backup and restore under fault: killed at any moment, and beside processes that publish and consume."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest

from tests.faults.lab import Lab
from tests.faults.worker import Publisher, build
from wowevent import EventBus
from wowevent.brokers.sqlite.backup import back_up, verify
from wowevent.brokers.sqlite.restore import restore

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

# A line for each step that is about to be made: whoever reads them knows when to strike.
_COMMAND = """
import os, sys, time
from pathlib import Path
from wowevent.brokers.sqlite import backup, draft, restore
def told(step, *_):
    print(step, flush=True)
    time.sleep(0.002)
def noted(step, function):
    def call(*arguments):
        print(step, flush=True)
        time.sleep(0.05)
        return function(*arguments)
    return call
path, file = sys.argv[2:]
if sys.argv[1] == "backup":
    backup._PAGES = 20
    backup.back_up(path, Path(file), checks=True, told=told)
else:
    os.link = noted("linking", os.link)
    draft.Draft.place = noted("placing", draft.Draft.place)
    draft.sync_folder = noted("placed", draft.sync_folder)
    restore.restore(Path(file), path, force=True, told=told)
"""


def quiet(_step: str, _count: int, _part: float) -> None:
    """Hears nothing."""


async def filled(lab: Lab, count: int) -> None:
    source = Publisher(url="", journal="", name="p", padding=500)
    async with EventBus(lab.url) as bus:
        await bus.publish_many([build(source, number) for number in range(count)])


def struck(lab: Lab, command: str, file: Path, step: str, count: int = 1) -> None:
    """Run it, and kill it when it is about to make that step for the n-th time."""
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, command, str(lab.path), str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        while count and (line := process.stdout.readline()):
            count -= line.strip() == step
        process.kill()
    assert process.returncode == -signal.SIGKILL


def epoch_and_count(path: Path) -> tuple[str, int]:
    """What a log has, looked at as anybody who opens it would."""
    db = apsw.Connection(str(path))
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found: tuple[str, int] = db.execute("SELECT epoch, (SELECT count(*) FROM log) FROM state").get
        return found
    finally:
        db.close()


async def test_a_backup_that_is_killed_leaves_no_file_under_its_name(lab: Lab):
    await filled(lab, 1_000)
    file = lab.folder / "file"
    for step, count in (("copying", 1), ("copying", 5), ("checking", 1), ("digest", 1)):
        struck(lab, "backup", file, step, count)
        assert not file.exists()
        assert file.with_name("file.part").exists()
    back_up(str(lab.path), file, checks=True, told=quiet)
    assert not file.with_name("file.part").exists()
    assert verify(file, quiet).manifest.held.events == 1_000


@pytest.mark.parametrize("step", ["digest", "checking", "linking", "placing", "placed"])
async def test_a_restore_that_is_killed_leaves_the_old_log_or_the_new_one(lab: Lab, step: str):
    """The old one's last events are in the write-ahead log that a killed publisher has left."""
    await filled(lab, 500)
    file = lab.folder / "file"
    back_up(str(lab.path), file, checks=True, told=quiet)
    old, _ = epoch_and_count(lab.path)
    publisher = lab.publisher()
    await lab.written(100, "ok")
    publisher.kill()
    assert lab.path.with_name("events.db-wal").stat().st_size > 0
    struck(lab, "restore", file, step)
    epoch, count = epoch_and_count(lab.path)
    if step == "placed":
        assert epoch != old
        assert count == 500
    else:
        assert epoch == old
        assert count >= 500 + len({entry.id for entry in lab.history("ok")})
    restore(file, str(lab.path), force=True, told=quiet)
    assert epoch_and_count(lab.path)[1] == 500
    asides = [path for path in lab.folder.glob("events.db.*Z") if epoch_and_count(path)]
    assert len(asides) == (2 if step == "placed" else 1)
    assert not lab.path.with_name("events.db.part").exists()


async def test_beside_publishers_and_a_consumer_it_ends_and_has_all_that_was_confirmed_before(lab: Lab, measured):
    await lab.declare()
    publishers = [lab.publisher(padding=500) for _ in range(4)]
    lab.consumer()
    await lab.written(2_000, "ok", timeout=60)
    file, slowest = lab.folder / "file", 0.0
    for _ in range(3):
        before = {entry.id for entry in lab.history("ok")}
        began = time.monotonic()
        manifest, found = await asyncio.to_thread(back_up, str(lab.path), file, checks=True, told=quiet)
        slowest = max(slowest, time.monotonic() - began)
        assert found is not None
        assert not found.trouble
        assert manifest.held.events >= len(before)
    assert not any(publisher.ended for publisher in publishers)
    lab.close()
    assert not verify(file, quiet).trouble
    restore(file, str(lab.folder / "there.db"), force=False, told=quiet)
    async with EventBus(f"sqlite:///{lab.folder}/there.db") as bus:
        stored = {stored.event.event_id async for stored in bus.history()}
    measured(3, events=len(stored), slowest=slowest)
    assert before <= stored
    assert not lab.history("failed")
