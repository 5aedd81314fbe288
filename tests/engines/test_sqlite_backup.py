"""The parts of a backup: what it holds while others write, every damage noticed, a full disk."""

import asyncio
import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import apsw
import pytest

from tests.faults.disk import Disk
from wowevent.broker import Bury, Query, Reason, Subscription
from wowevent.brokers.sqlite import SqliteBroker, backup, check, restore, schema, writer
from wowevent.brokers.sqlite.backup import back_up, verify
from wowevent.brokers.sqlite.check import Checked, connect_log
from wowevent.brokers.sqlite.draft import drafted
from wowevent.brokers.sqlite.opening import alone, entered
from wowevent.errors import (
    BrokerUnavailable,
    BusError,
    FormatTooNew,
    StorageDamaged,
    StorageFull,
)
from wowevent.event import Event

# ruff: noqa: SLF001 - to count what a writer does by itself, a test has to reach inside

COUNT = 300


def quiet(_step: str, _count: int, _part: float) -> None:
    """Hears nothing."""


def event(n: int) -> Event:
    return Event(topic="task.created", payload={"n": n, "t": "x" * 100})


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    """A log with events, a subscription that has not handled them, a fact, a delayed event and a dead letter."""
    path = tmp_path / "events.db"
    broker = SqliteBroker(str(path))
    await broker.declare(Subscription(id="worker", patterns=("#",)))
    await broker.publish([event(n) for n in range(COUNT)])
    await broker.publish([Event(topic="_bus.copy.x", payload={})])
    await broker.publish([Event(topic="task.late", payload={}, not_before="2100-01-01T00:00:00Z")])
    (lease,) = await broker.fetch("worker", limit=1, wait=0)
    await broker.settle("worker", [Bury(lease.token, Reason.REJECTED, "no", "")])
    await broker.close()
    return path


def backed_up(log: Path, name: str = "file") -> Path:
    target = log.with_name(name)
    back_up(str(log), target, checks=True, told=quiet)
    return target


def sql(path: Path, *statements: str) -> None:
    db = apsw.Connection(str(path))
    try:
        for statement in statements:
            db.execute(statement).fetchall()
    finally:
        db.close()


def looked_at(log: Path) -> Checked:
    db = connect_log(str(log))
    try:
        return check.check(db, quiet)
    finally:
        db.close()


def trouble_of(file: Path) -> str:
    """What verify says of a backup, by whatever way."""
    try:
        return verify(file, quiet).trouble
    except BusError as error:
        return f"{error.code}: {error}"


def resealed(file: Path, change: Callable[[bytearray], None]) -> None:
    """Change the database of a backup, and make its digest right again."""
    content = bytearray(file.read_bytes())
    change(content)
    content[-32:] = hashlib.sha256(content[:-32]).digest()
    file.write_bytes(content)


# ------------------------------------------------------------------------------------------------ what it holds


def test_it_says_what_it_holds(log: Path) -> None:
    manifest, found = back_up(str(log), log.with_name("file"), checks=True, told=quiet)
    held = manifest.held

    assert (held.format, held.first, held.last, held.events) == (schema.FORMAT, 1, COUNT + 1, COUNT + 1)
    assert (held.subscriptions, held.dead_letters, held.delayed) == (1, 1, 1)
    assert found is not None
    assert not found.trouble
    assert verify(log.with_name("file"), quiet).manifest == manifest


async def test_what_is_published_meanwhile_neither_is_in_it_nor_makes_it_begin_anew(log: Path) -> None:
    """SQLite's copy starts over when another process commits; within a transaction it does not."""
    broker = SqliteBroker(str(log))
    await broker.publish([event(n) for n in range(3_000)])
    count, seen = COUNT + 3_001, 0
    loop = asyncio.get_running_loop()

    def told(step: str, _count: int, _part: float) -> None:
        nonlocal seen
        if step == "copying":
            seen += 1
            assert seen < 1_000, "it begins anew"
            asyncio.run_coroutine_threadsafe(broker.publish([event(seen)]), loop).result(10)

    few = pytest.MonkeyPatch()
    few.setattr(backup, "_PAGES", 20)
    with few.context():
        manifest, _ = await asyncio.to_thread(back_up, str(log), log.with_name("file"), checks=True, told=told)
    newest = len([stored async for stored in broker.read(Query())])
    await broker.close()
    assert manifest.held.events == count
    assert seen > 10
    assert newest == count - 1 + seen  # facts are not among what is read


async def test_a_reader_that_stays_does_not_stop_who_writes(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write-ahead log grows beside a backup; a writer that insisted would hold the lock for seconds each time."""
    monkeypatch.setattr(writer, "_WAL_PAGES", 2)
    monkeypatch.setattr(writer, "_WAL_PAGES_TOO_MANY", 4)
    insisted, attempt = [], writer.Writer._try_checkpoint

    def counted(db: apsw.Connection, mode: int) -> bool:
        insisted.append(mode == apsw.SQLITE_CHECKPOINT_RESTART)
        return attempt(db, mode)

    monkeypatch.setattr(writer.Writer, "_try_checkpoint", staticmethod(counted))
    broker = SqliteBroker(str(log))
    await broker.open()
    reader = apsw.Connection(str(log))
    reader.execute("BEGIN; SELECT epoch FROM state").fetchall()
    loop, slowest = asyncio.get_running_loop(), 0.0
    for n in range(60):
        before = loop.time()
        await broker.publish([event(n)])
        slowest = max(slowest, loop.time() - before)
    reader.close()
    await broker.publish([event(99)])
    await broker.close()
    assert len(insisted) > 50
    assert 1 < sum(insisted) < 10
    assert slowest < 4


def test_only_whole_backups_have_the_name(log: Path) -> None:
    target = log.with_name("file")
    target.write_text("the one before")

    def told(step: str, _count: int, part: float) -> None:
        assert target.read_text() == "the one before"
        if step == "digest" and part == 1.0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(str(log), target, checks=True, told=told)
    assert target.read_text() == "the one before"
    assert sorted(path.name for path in log.parent.iterdir()) == ["events.db", "file"]


def test_it_is_on_the_disk_before_it_has_its_name(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(file: int) -> None:
        steps.append(Path(f"/proc/self/fd/{file}").readlink().name)
        sync(file)

    def noted_replace(path: Path, target: Path) -> Path:
        steps.append(f"{path.name} -> {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    backed_up(log)
    assert steps == ["file.part", "file.part -> file", log.parent.name]


def test_two_do_not_make_the_same_file(log: Path) -> None:
    with drafted(log.with_name("file")) as draft:
        draft.file.write(b"mine")
        draft.file.flush()
        with pytest.raises(BrokerUnavailable, match="another process is making"):
            backed_up(log)
        assert draft.path.read_bytes() == b"mine"
    assert not log.with_name("file.part").exists()


def test_what_a_killed_one_left_is_taken_over(log: Path) -> None:
    log.with_name("file.part").write_bytes(b"x" * 10**7)
    log.with_name("file.part-wal").write_bytes(b"x")
    log.with_name("file.part").chmod(0o644)

    file = backed_up(log)
    assert not verify(file, quiet).trouble
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in log.parent.iterdir()) == ["events.db", "file"]


def test_a_write_ahead_log_that_is_not_its_own_does_not_meet_a_draft(log: Path) -> None:
    """What is restored is written as bytes: SQLite would take what lies beside it by name for its own."""
    file, left = backed_up(log), [log.with_name(f"new.db.part{suffix}") for suffix in ("-wal", "-journal")]
    for path in left:
        path.write_bytes(b"x")

    def told(step: str, _count: int, _part: float) -> None:
        assert not (step == "digest" and any(path.exists() for path in left))

    restore.restore(file, str(log.with_name("new.db")), force=False, told=told)
    assert looked_at(log.with_name("new.db")).held.events == COUNT + 1


def test_it_is_his_whose_the_log_was(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom a superuser restores for could not open it otherwise."""
    file, given = backed_up(log), list[tuple[int, int]]()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _file, user, group: given.append((user, group)))
    restore.restore(file, str(log), force=True, told=quiet)
    restore.restore(file, str(log.with_name("new.db")), force=False, told=quiet)
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    restore.restore(file, str(log), force=True, told=quiet)
    owner = log.parent.stat()
    assert given == [(owner.st_uid, owner.st_gid)] * 2


def test_what_could_not_be_settled_keeps_its_log(log: Path) -> None:
    """A restore was killed when it had put a damaged log with its write-ahead log aside, and taken that one away."""
    file, aside = backed_up(log), log.with_name("events.db.20260131T120000Z")
    aside.hardlink_to(log)
    log.with_name(f"{aside.name}-wal").write_bytes(b"the last events")
    restore.restore(file, str(log), force=True, told=quiet)
    assert aside.exists()
    assert log.with_name(f"{aside.name}-wal").read_bytes() == b"the last events"


def test_who_opens_a_log_does_not_wait_for_ever(log: Path) -> None:
    """A restore that was stopped while it moved files keeps its lock."""
    with alone(str(log), 1.0):
        for how in (entered, alone):
            with pytest.raises(BrokerUnavailable, match="by another process"), how(str(log), 0.05):
                pytest.fail("nobody was to come in")
    with entered(str(log), 0.05), entered(str(log), 0.05):
        pass


def test_a_log_that_was_made_meanwhile_is_left_alone(log: Path) -> None:
    file, new = backed_up(log), log.with_name("new.db")

    def told(step: str, _count: int, part: float) -> None:
        if (step, part) == ("checking", 1.0):
            new.write_text("somebody's")

    with pytest.raises(FileExistsError):
        restore.restore(file, str(new), force=False, told=told)
    assert new.read_text() == "somebody's"


# ------------------------------------------------------------------------------------------------ no room


@pytest.mark.parametrize("room", [0, 5_000, 60_000])
def test_a_full_disk_is_told_and_nothing_is_left(log: Path, room: int) -> None:
    with Disk(log.parent) as disk:
        disk.room = room
        with pytest.raises(StorageFull):
            backed_up(log)
    assert [path.name for path in log.parent.iterdir()] == ["events.db"]


def test_a_disk_is_not_filled_first(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the log's own, which would have to refuse what is published."""
    real = os.statvfs(log.parent)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*tuple(real)[:4], 1, *tuple(real)[5:])))
    steps: list[str] = []
    with pytest.raises(StorageFull, match="MB are needed"):
        back_up(str(log), log.with_name("file"), checks=True, told=lambda step, *_: steps.append(step))
    assert steps == []


# ------------------------------------------------------------------------------------------------ damage


def test_every_flipped_bit_is_noticed(log: Path) -> None:
    """In the middle of an event, in free space, in SQLite's own pages, in the manifest, in the digest, in its end."""
    file = backed_up(log)
    sound, random = file.read_bytes(), Random(8)
    size = verify(file, quiet).manifest.size
    places = [0, 20, 60, 68, 100, size - 1, size, size + 30, *(len(sound) - n for n in (1, 20, 33, 40, 41, 48, 49))]
    places += [random.randrange(size) for _ in range(25)]
    for place in places:
        content = bytearray(sound)
        content[place] ^= 1 << random.randrange(8)
        file.write_bytes(content)
        assert trouble_of(file), place
        with pytest.raises(BusError):
            restore.restore(file, str(log.with_name("new.db")), force=False, told=quiet)
    assert sorted(path.name for path in log.parent.iterdir()) == ["events.db", "file"]


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_a_truncated_backup_is_none(log: Path, part: float) -> None:
    file = backed_up(log)
    with file.open("r+b") as opened:
        opened.truncate(int((file.stat().st_size - 1) * part))
    assert "no backup" in trouble_of(file)


@pytest.mark.parametrize("content", [b"", b"a letter", bytes(100_000), b"WowBack1", b"WowBack1" + bytes(32)])
def test_what_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(StorageDamaged):
        verify(file, quiet)


def test_a_newer_format_is_said_to_be_newer(log: Path) -> None:
    file = backed_up(log)
    resealed(file, lambda content: struct.pack_into(">I", content, 60, schema.FORMAT + 1))
    with pytest.raises(FormatTooNew):
        verify(file, quiet)
    with pytest.raises(FormatTooNew):
        restore.restore(file, str(log.with_name("new.db")), force=False, told=quiet)
    sql(log, f"PRAGMA user_version={schema.FORMAT + 1}")
    with pytest.raises(FormatTooNew):
        backed_up(log)


def test_the_manifest_has_to_agree(log: Path) -> None:
    file = backed_up(log)
    resealed(file, lambda content: content.__setitem__(content.rindex(b'"events":30') + 10, ord("4")))
    assert "manifest" in trouble_of(file)
    with pytest.raises(StorageDamaged, match="manifest"):
        restore.restore(file, str(log.with_name("new.db")), force=False, told=quiet)


CHANGE = "SET body = CAST(replace(body, '\"t\"', '\"u\"') AS BLOB)"


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (f"UPDATE log {CHANGE} WHERE offset = 7", "-7: the bytes stored"),
        ("UPDATE log SET body = NULL, crc = NULL WHERE offset = 7", "-7: the bytes stored"),
        ("UPDATE log SET body = CAST(body AS TEXT) WHERE offset = 7", "-7: its columns"),
        ("UPDATE log SET topic = 'task.failed' WHERE offset = 7", "-7: it is found under another"),
        ("UPDATE log SET ts = ts + 1 WHERE offset = 7", "-7: it is found under another"),
        ("UPDATE log SET topic = CAST(x'ff' AS TEXT) WHERE offset = 7", "-7: what lies there cannot be read"),
        ("UPDATE log SET correlation = 'x' WHERE offset = 7", "-7: it is found under another"),
        ("UPDATE log SET total = total + 1 WHERE offset = 7", "-7: its size"),
        ("DELETE FROM log WHERE offset = 7", "-7: it is not there"),
        ("UPDATE fact SET crc = crc + 1", f"-{COUNT + 1}, a fact: the bytes"),
        ("UPDATE dead SET body = x'00'", "-1, a dead letter: the bytes"),
        ("UPDATE delayed SET body = x'00'", "-0, a delayed event: the bytes"),
        ("INSERT INTO entry(sub, lane, offset) VALUES (1, 1, 999)", "-999: it waits for a subscription"),
        ("DELETE FROM state", "its own name"),
        ("UPDATE state SET epoch = x'00'", "what this log says of itself"),
        (f"UPDATE log {CHANGE} WHERE offset BETWEEN 5 AND 8", "4 events are wrong, the first is "),
    ],
)
def test_what_is_wrong_is_named(log: Path, damage: str, word: str) -> None:
    assert not looked_at(log).trouble
    sql(log, damage)
    try:
        said = looked_at(log).trouble
    except StorageDamaged as error:
        said = str(error)
    assert word in said


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        ("UPDATE state SET epoch = CAST(x'ff' AS TEXT)", "UnicodeDecodeError"),
        ("ALTER TABLE subscription RENAME durable TO burable", "no such column"),
    ],
)
def test_what_is_no_text_or_no_column_any_more_is_damage(log: Path, damage: str, word: str) -> None:
    sql(log, damage)
    with pytest.raises(StorageDamaged, match=word):
        backed_up(log)


def test_what_was_given_up_is_not_missed(log: Path) -> None:
    given_up = "UPDATE state SET trimmed = 9, trimmed_total = (SELECT total FROM log WHERE offset = 9)"
    waiting = "DELETE FROM entry WHERE offset <= 9"
    sql(log, "UPDATE log SET body = NULL, crc = NULL WHERE offset <= 9", given_up, waiting)
    sql(log, "DELETE FROM log WHERE offset < 5")
    found = looked_at(log)

    assert not found.trouble
    assert (found.held.first, found.held.events) == (10, COUNT + 1 - 9)


def test_tables_in_disorder_are_not_backed_up(log: Path) -> None:
    sql(log, "PRAGMA writable_schema=1", "DELETE FROM sqlite_schema WHERE name = 'dead_event'")
    assert "SQLite finds" in looked_at(log).trouble
    with pytest.raises(StorageDamaged, match="wowevent copy"):
        backed_up(log)
    assert [path.name for path in log.parent.iterdir()] == ["events.db"]


def test_a_file_in_which_no_log_was_made_yet(tmp_path: Path) -> None:
    (tmp_path / "events.db").touch()
    with pytest.raises(StorageDamaged, match="no log in it yet"):
        backed_up(tmp_path / "events.db")


def test_a_log_of_the_format_before(log: Path) -> None:
    sql(log, "DROP TABLE fact", "PRAGMA user_version=1")
    file = backed_up(log)
    assert not verify(file, quiet).trouble
    restore.restore(file, str(log.with_name("new.db")), force=False, told=quiet)
    assert looked_at(log.with_name("new.db")).held.format == 1
