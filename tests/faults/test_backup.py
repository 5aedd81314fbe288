"""Backup and restore under fault: killed at any moment, and beside processes that publish and consume."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import apsw
import pytest

from tests.faults.lab import Lab
from tests.faults.worker import Publisher, build
from wowevent import EventBus
from wowevent.brokers.sqlite.backup import back_up, verify
from wowevent.brokers.sqlite.restore import restore

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

ROUNDS = 6
# Before each step, a line: whoever reads them knows when to strike.
_COMMAND = """
import sys, time
from pathlib import Path
from wowevent.brokers.sqlite import backup, restore
def told(step, count, part):
    print(step, flush=True)
    time.sleep(0.002)
path, file = sys.argv[2:]
if sys.argv[1] == "backup":
    backup._PAGES = 20
    backup.back_up(path, Path(file), checks=True, told=told)
else:
    link, place = restore.os.link, restore.sync_folder
    def noted(*names):
        link(*names)
        print("linked", flush=True)
        time.sleep(0.05)
    restore.os.link = noted
    restore.restore(Path(file), path, force=True, told=told)
"""


def quiet(_step: str, _count: int, _part: float) -> None:
    """Hears nothing."""


async def filled(lab: Lab, count: int) -> None:
    source = Publisher(url="", journal="", name="p", padding=500)
    async with EventBus(lab.url) as bus:
        await bus.publish_many([build(source, number) for number in range(count)])


def struck(lab: Lab, command: str, file: Path, lines: int) -> bool:
    """Run it, and kill it after so many lines; whether it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, command, str(lab.path), str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        for _ in range(lines):
            if not process.stdout.readline():
                break
        process.kill()
    return process.returncode == -signal.SIGKILL


def epoch_and_count(path: Path) -> tuple[str, int]:
    """What a log has, looked at as anybody who opens it would."""
    db = apsw.Connection(str(path))
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((epoch, count),) = db.execute("SELECT epoch, (SELECT count(*) FROM log) FROM state").fetchall()
        return str(epoch), int(count)
    finally:
        db.close()


async def test_a_backup_that_is_killed_leaves_no_file_under_its_name(lab: Lab, measured):
    await filled(lab, 1_000)
    random, file, killed = Random(8), lab.folder / "file", 0
    for _ in range(ROUNDS):
        if struck(lab, "backup", file, random.randrange(1, 20)):
            killed += 1
            assert not file.exists() or not verify(file, quiet).trouble
            file.unlink(missing_ok=True)
    back_up(str(lab.path), file, checks=True, told=quiet)
    measured(ROUNDS, killed=killed)
    assert killed >= ROUNDS // 2
    assert not file.with_name("file.part").exists()
    assert verify(file, quiet).manifest.held.events == 1_000


async def test_a_restore_that_is_killed_leaves_the_old_log_or_the_new_one(lab: Lab, measured):
    await filled(lab, 500)
    file = lab.folder / "file"
    back_up(str(lab.path), file, checks=True, told=quiet)
    async with EventBus(lab.url) as bus:
        await bus.publish_many([build(Publisher(url="", journal="", name="q"), number) for number in range(50)])
    old, _ = epoch_and_count(lab.path)
    random, killed = Random(8), 0
    for _ in range(ROUNDS):
        killed += struck(lab, "restore", file, random.randrange(1, 8))
        epoch, count = epoch_and_count(lab.path)
        assert count == (550 if epoch == old else 500)
    restore(file, str(lab.path), force=True, told=quiet)
    measured(ROUNDS, killed=killed)
    assert killed >= ROUNDS // 2
    assert epoch_and_count(lab.path)[1] == 500
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
    for publisher in publishers:
        publisher.signal(signal.SIGSTOP)
        assert not publisher.ended
    lab.close()
    assert not verify(file, quiet).trouble
    restore(file, str(lab.folder / "there.db"), force=False, told=quiet)
    async with EventBus(f"sqlite:///{lab.folder}/there.db") as bus:
        stored = {stored.event.event_id async for stored in bus.history()}
    measured(3, events=len(stored), slowest=slowest)
    assert before <= stored
    assert not lab.history("failed")
