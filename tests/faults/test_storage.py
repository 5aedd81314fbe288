"""Disks that are full, files that are damaged, and files of another format."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from random import Random
from unittest import mock

import apsw
import pytest

from tests.faults.checker import check
from tests.faults.disk import Disk
from tests.faults.journal import digest
from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.recorder import fingerprint
from tests.faults.worker import Publisher, build, publish_noted, waiting
from wowevent import EventBus
from wowevent.broker import Ack, Reason
from wowevent.brokers import open_broker
from wowevent.brokers.sqlite.schema import FORMAT, checksum
from wowevent.errors import BrokerError, BrokerUnavailable, FormatTooNew, StorageDamaged, StorageFull

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

COUNT = 200


# ---------------------------------------------------------------------------------------------------- full


def mountable(folder: Path) -> bool:
    """Whether a process may mount a file system for itself."""
    folder.mkdir()
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(folder)]
    return (
        shutil.which("unshare") is not None and not subprocess.run(mount, check=False, capture_output=True).returncode
    )


async def test_a_full_disk_is_told_and_got_over(lab: Lab, measured):
    """A real file system of 24 MiB: StorageFull at once, reading and acknowledging go on, and it resumes by itself."""
    disk = lab.folder / "small"
    if not mountable(disk):
        pytest.skip("this system lets nobody mount a file system of his own; the next test fills a disk of ours")
    assert await lab.ended(lab.filler(disk), timeout=120) == 0, lab.output()
    assert [entry.note for entry in lab.history("ready")][::2] == ["full", "drained"]
    times = {entry.note.split()[0]: entry.time for entry in lab.history("ready")}
    report = await lab.verdict()
    asked = {entry.id: entry.time for entry in lab.history("invoked")}
    slowest = max(entry.time - asked[entry.id] for entry in lab.history("failed"))
    measured(1, report, refused=len(lab.history("failed")), slowest=slowest)
    assert not report.broken()
    assert not report.duplicates
    assert report.handled == report.ok
    assert {entry.note.partition("(")[0] for entry in lab.history("failed")} == {"StorageFull"}
    assert slowest < 5
    full, drained, acked = times["full"], times["drained"], lab.history("effect")
    assert sum(full < entry.time < drained for entry in acked) > 100


async def test_a_disk_without_a_byte_left(lab: Lab):
    """Not even what is kept for acknowledging: every write is refused, none half done, and all goes on by itself."""
    source = Publisher(url="", journal="", name="p", padding=2_000)
    with Disk(lab.folder) as disk, lab.journal("test") as journal:
        await lab.declare(lease=60.0)
        broker = open_broker(lab.url)
        bus = EventBus(broker)
        await bus.start()
        for number in range(20):
            await publish_noted(bus, journal, [build(source, number)])
        disk.room = 50_000
        async with asyncio.timeout(10):
            for number in range(20, 10**6):
                await publish_noted(bus, journal, [build(source, number)])
                if journal.last == "failed":
                    break
        disk.room = 0
        with pytest.raises(StorageFull):
            async with asyncio.timeout(5):
                await bus.publish(build(source, number))
        assert len([stored async for stored in bus.history()]) == len(lab.history("ok"))
        disk.room = None
        # The very next call works: nobody has to open anything again.
        await publish_noted(bus, journal, [build(source, number + 1)])
        assert journal.last == "ok"
        await bus.stop()
        await broker.close()
    await lab.drain()
    report = await lab.verdict()
    assert not report.broken()
    assert not report.duplicates
    assert report.handled == report.ok


# ---------------------------------------------------------------------------------------------------- failing


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_disk_that_fails_confirms_nothing(lab: Lab, guarded: bool):
    """Each sync fails, and what it was to write is gone: no answer is yes until one succeeds. `off` asks for none."""
    source = Publisher(url="", journal="", name="p")
    with Disk(lab.folder) as disk, lab.journal("test") as journal:
        await lab.declare(lease=60.0)
        broker = open_broker(lab.url if guarded else f"{lab.url}?synchronous=off")
        bus = EventBus(broker)
        await bus.start()
        if guarded:
            await publish_noted(bus, journal, [build(source, number) for number in range(20)])
            leases = await broker.fetch(SUBSCRIPTION, limit=20, wait=1.0)
        disk.failing = True
        if guarded:
            began = time.monotonic()
            for call in (broker.publish([build(source, 20)]), broker.settle(SUBSCRIPTION, [Ack(leases[0].token)])):
                with pytest.raises(BrokerUnavailable):
                    await call
            assert time.monotonic() - began < 5
            assert len([stored async for stored in bus.history()]) == 20
        else:
            await publish_noted(bus, journal, [build(source, 20)])
        disk.failing = False
        if guarded:  # the very next calls work, and bring to the platter what the failed ones did not
            await publish_noted(bus, journal, [build(source, 21)])
            assert await broker.settle(SUBSCRIPTION, [Ack(lease.token) for lease in leases]) == 20
        folder = lab.folder / "cut"
        folder.mkdir()
        disk.cut(folder, 0.0, Random(5))
        await bus.stop()
        await broker.close()
    async with EventBus(f"sqlite:///{folder / lab.path.name}") as after:
        kept = [stored.event.event_id async for stored in after.history()]
        left = await after.info(SUBSCRIPTION)
    assert bool(check(lab.history(), retained=kept).lost) is not guarded
    if guarded:
        assert left is not None
        assert waiting(left) == 1


# ---------------------------------------------------------------------------------------------------- damaged


async def make(lab: Lab) -> dict[str, tuple[str, str]]:
    """A log with a backlog; what each event's position and digest are."""
    await lab.declare()
    with lab.journal("test") as journal:
        async with EventBus(lab.url) as bus:
            source = Publisher(url="", journal="", name="p", padding=300)
            await publish_noted(bus, journal, [build(source, number) for number in range(COUNT)])
            return {s.event.event_id: (str(s.position), fingerprint(s.event)) async for s in bus.history()}


def damage(content: bytearray, random: Random) -> None:
    """Cut it off, flip bits, or put blocks where they do not belong."""
    match random.choice(("cut", "bits", "bits", "zero", "swap")):
        case "cut":
            del content[random.randrange(len(content)) :]
        case "bits":
            for _ in range(random.choice((1, 1, 4, 64))):
                content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        case "zero":
            at = random.randrange(len(content))
            content[at : at + 4096] = bytes(len(content[at : at + 4096]))
        case "swap":
            one, two = (random.randrange(len(content) // 4096) * 4096 for _ in range(2))
            content[one : one + 4096], content[two : two + 4096] = content[two : two + 4096], content[one : one + 4096]


async def served(path: Path) -> tuple[dict[str, tuple[str, str]], bool]:
    """Everything that the log of this file gives away, by any door, and whether it refused anything."""
    found: dict[str, tuple[str, str]] = {}
    refused = False
    broker = open_broker(f"sqlite:///{path}")
    bus = EventBus(broker)

    async def history() -> None:
        async for stored in bus.history():
            found[stored.event.event_id] = (str(stored.position), fingerprint(stored.event))

    async def fetch() -> None:
        for _ in range(2 * COUNT):
            for lease in await broker.fetch(SUBSCRIPTION, limit=50, wait=0):
                one = (str(lease.position), fingerprint(lease.event))
                assert found.setdefault(lease.event.event_id, one) == one

    async def numbers() -> None:
        await bus.health()
        await bus.dead_letters.list()

    try:
        for look in (bus.start, history, fetch, numbers):
            try:
                async with asyncio.timeout(10):
                    await look()
            except BrokerError:
                refused = True
    finally:
        async with asyncio.timeout(10):
            await bus.stop()
            await broker.close()
    return found, refused


@pytest.mark.parametrize("left", ["closed", "killed"])
async def test_a_damaged_file_serves_only_what_is_intact(lab: Lab, long_form: bool, left: str, measured):
    """Refused, or only its intact part: never another payload than was written, whatever bytes were hit."""
    random = Random(6)
    good = await make(lab)
    if left == "killed":
        publisher = lab.publisher(tasks=1, padding=300)
        await lab.written(COUNT + 50, "ok")
        publisher.kill()
    originals = files_of(lab)
    assert len(originals) == (2 if left == "killed" else 1)
    good |= await whole(lab, originals)
    outcomes: Counter[str] = Counter()
    for seed in range(500 if long_form else 30):
        folder = lab.folder / f"seed-{seed}"
        folder.mkdir()
        victim = random.choice(list(originals))
        for original, content in originals.items():
            bytes_ = bytearray(content)
            if original == victim:
                damage(bytes_, random)
            (folder / original.name).write_bytes(bytes_)
        found, refused = await served(folder / lab.path.name)
        wrong = {id: facts for id, facts in found.items() if good.get(id) != facts}
        assert not wrong, f"seed {seed}"
        outcomes["whole" if len(found) == len(good) and not refused else "part" if found else "refused"] += 1
        shutil.rmtree(folder)
    measured(sum(outcomes.values()), wrong=0, **outcomes)
    assert outcomes["part"] + outcomes["refused"] > 0


def files_of(lab: Lab) -> dict[Path, bytes]:
    """The file, and the write-ahead log if there is one."""
    found = (lab.path, Path(f"{lab.path}-wal"))
    return {path: path.read_bytes() for path in found if path.exists()}


async def whole(lab: Lab, originals: dict[Path, bytes]) -> dict[str, tuple[str, str]]:
    """What the undamaged files give."""
    folder = lab.folder / "whole"
    folder.mkdir()
    for original, content in originals.items():
        (folder / original.name).write_bytes(content)
    found, refused = await served(folder / lab.path.name)
    assert not refused
    return found


@pytest.mark.parametrize("body", ["x''", "x'00'", "x'ff7b00'", "'text'", "NULL", "7", "zeroblob(100000)"])
async def test_one_damaged_event_costs_no_other(lab: Lab, body: str):
    """Its neighbours in the same batch are served, and it is a dead letter that says so."""
    good = await make(lab)
    db = apsw.Connection(str(lab.path))
    db.execute(f"UPDATE log SET body = {body}, topic = '}}' WHERE offset = 7")  # noqa: S608 - the list above
    db.close()
    await lab.drain()
    assert {entry.id: (entry.position, entry.digest) for entry in lab.history("delivered")} == {
        id: facts for id, facts in good.items() if id != "p-6"
    }
    async with EventBus(lab.url) as bus:
        (letter,) = await bus.dead_letters.list()
    assert letter.reason == Reason.DESERIALIZATION_ERROR


async def test_the_guard_matters_without_checksums_a_wrong_payload_is_served(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """The same judgement, with the comparison taken out: it convicts."""
    good = await make(lab)
    db = apsw.Connection(str(lab.path))
    db.execute("UPDATE log SET body = CAST(replace(CAST(body AS TEXT), 'padding', 'Padding') AS BLOB) WHERE offset = 7")
    db.close()
    shutil.copy(lab.path, lab.folder / "copy.db")
    found, refused = await served(lab.path)
    assert refused
    assert all(good[id] == facts for id, facts in found.items())
    monkeypatch.setattr("wowevent.brokers.sqlite.log.checksum", lambda _body, _offset: mock.ANY)
    found, _ = await served(lab.folder / "copy.db")
    assert [id for id, facts in found.items() if good[id] != facts] == ["p-6"]


# ---------------------------------------------------------------------------------------------------- another format


async def test_a_newer_format_is_refused_and_left_alone(lab: Lab):
    await make(lab)
    db = apsw.Connection(str(lab.path))
    db.pragma("user_version", FORMAT + 1)
    db.close()
    before = digest(lab.path.read_bytes())
    bus = EventBus(lab.url)
    with pytest.raises(FormatTooNew, match=str(FORMAT + 1)):
        await bus.start()
    await bus.stop()
    assert digest(lab.path.read_bytes()) == before


@pytest.mark.parametrize("content", ["text", "database"])
async def test_a_file_of_another_program_is_refused_and_left_alone(lab: Lab, content: str):
    if content == "text":
        lab.path.write_text("dear diary, " * 1_000)
    else:
        db = apsw.Connection(str(lab.path))
        db.execute("CREATE TABLE diary(day TEXT)")
        db.close()
    before = digest(lab.path.read_bytes())
    bus = EventBus(lab.url)
    with pytest.raises(StorageDamaged):
        await bus.start()
    await bus.stop()
    assert digest(lab.path.read_bytes()) == before


async def test_an_event_of_a_newer_version_is_a_dead_letter(lab: Lab):
    """It stops neither its neighbours nor the process, and its bytes are kept."""
    await make(lab)
    db = apsw.Connection(str(lab.path))
    (body,) = next(db.execute("SELECT body FROM log WHERE offset = 7"))
    newer = body.replace(b'"v":1', b'"v":9')
    assert newer != body
    db.execute("UPDATE log SET body = ?, crc = ? WHERE offset = 7", (newer, checksum(newer, 7)))
    db.close()
    await lab.drain()
    assert await lab.dead() == ["p-6"]
    report = await lab.verdict()
    assert not report.broken()
    assert len(report.handled) == COUNT - 1
