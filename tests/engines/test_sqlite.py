"""What is the SQLite engine's own: its file, the processes that share it, damage, a full disk, limits, presence."""

# ruff: noqa: SLF001 - to stop an instance as a process is stopped, or to fill its file, a test has to reach inside

import asyncio
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from wowevent.broker import (
    Ack,
    Appended,
    Bury,
    DeadQuery,
    Discard,
    Extend,
    Lease,
    Position,
    Query,
    Reason,
    Redeliver,
    Retention,
    Retry,
    Settlement,
    Stored,
    Subscription,
)
from wowevent.brokers.sqlite import SqliteBroker, opening, schema, wake
from wowevent.brokers.sqlite.schema import checksum
from wowevent.directory import Directory
from wowevent.errors import (
    BrokerUnavailable,
    Closed,
    FormatTooNew,
    PositionLost,
    StorageDamaged,
    StorageFull,
    SubscriptionNotFound,
)
from wowevent.event import Event
from wowevent.testing import ManualClock

WORKER = "worker"


def event(n: int, topic: str = "task.created", **fields: Any) -> Event:
    return Event(topic=topic, payload={"n": n}, **fields)


def numbers(found: Sequence[Lease | Stored]) -> list[int]:
    return [item.event.payload["n"] for item in found]


class File:
    """One log, and the instances that a test opens on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.brokers: list[SqliteBroker] = []

    def open(self, **settings: Any) -> SqliteBroker:
        broker = SqliteBroker(str(self.path), clock=self.clock, **settings)
        self.brokers.append(broker)
        return broker

    async def pass_time(self, seconds: float, *brokers: SqliteBroker) -> None:
        """Let time pass, in steps short enough for instances to stay present, and let these do what is due."""
        while seconds > 0:
            await self.clock.advance(min(seconds, 4.0))
            seconds -= 4.0
            for broker in brokers or self.brokers:
                for _ in range(3):
                    await broker.ping()

    async def close(self) -> None:
        await asyncio.gather(*(broker.close() for broker in self.brokers))

    def sql(self, text: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Look into the file, or change it, behind the instances' backs."""
        db = apsw.Connection(str(self.path))
        db.set_busy_timeout(2000)
        try:
            return db.execute(text, bindings).fetchall()
        finally:
            db.close()


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[File]:
    file = File(tmp_path / "events.db")
    yield file
    await file.close()


async def declare(broker: SqliteBroker, id: str = WORKER, **settings: Any) -> None:
    await broker.declare(Subscription(id=id, **{"patterns": ("#",)} | settings))


async def take(broker: SqliteBroker, limit: int = 100, id: str = WORKER) -> Sequence[Lease]:
    return await broker.fetch(id, limit=limit, wait=0)


async def publish(broker: SqliteBroker, count: int, first: int = 0, **fields: Any) -> list[Appended]:
    return list(await broker.publish([event(n, **fields) for n in range(first, first + count)]))


async def read(broker: SqliteBroker, after: Position | None = None) -> list[Stored]:
    return [stored async for stored in broker.read(Query(), after=after)]


async def facts(broker: SqliteBroker) -> list[Stored]:
    return [stored async for stored in broker.read(Query(patterns=("_bus.#",)))]


# ------------------------------------------------------------------------------------------------ the file


async def test_constructing_opens_nothing_and_the_first_call_makes_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a name with spaces ?&#%.db"
    broker = SqliteBroker(str(path))
    assert not path.parent.exists()
    await broker.publish([event(1)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await broker.close()
    assert list(path.parent.iterdir()) == [path]


async def test_a_relative_path_stays_where_it_was_when_the_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    broker = SqliteBroker("events.db")
    monkeypatch.chdir("/")
    await broker.open()
    await broker.close()
    assert (tmp_path / "events.db").exists()


async def test_a_connection_is_set_up_to_the_last_setting(file: File) -> None:
    """APSW carries out nothing behind a row that is not taken, and some of these answer with one."""
    await file.open().open()
    for db in (schema.connect(str(file.path), "full"), schema.connect_reader(str(file.path))):
        assert db.pragma("cell_size_check") == 1
        assert db.pragma("trusted_schema") == 0
        db.close()


async def test_a_newer_format_is_refused_and_left_alone(file: File) -> None:
    await file.open().open()
    await file.close()
    file.sql("PRAGMA user_version=99")
    with pytest.raises(FormatTooNew, match="99"):
        await file.open().publish([event(1)])
    assert file.sql("PRAGMA user_version") == [(99,)]


async def test_a_file_of_the_format_before_opens_and_keeps_what_it_has(file: File) -> None:
    broker = file.open()
    before = await publish(broker, 3)
    await file.close()
    file.sql("DROP TABLE fact; PRAGMA user_version=1")  # what format 2 added
    one, two = file.open(), file.open()
    await asyncio.gather(one.open(), two.open())
    assert file.sql("PRAGMA user_version") == [(schema.FORMAT,)]
    assert [stored.position for stored in await read(one)] == [answer.position for answer in before]
    assert await facts(one) == []
    await publish(one, 2, topic="_bus.a")
    assert numbers(await facts(two)) == [1]


async def test_another_programs_database_is_refused(file: File) -> None:
    file.sql("CREATE TABLE theirs(x)")
    with pytest.raises(StorageDamaged, match="not a log"):
        await file.open().open()
    assert file.sql("SELECT name FROM sqlite_schema") == [("theirs",)]


async def test_a_file_of_garbage_is_refused(file: File) -> None:
    file.path.write_bytes(os.urandom(10_000))
    with pytest.raises(StorageDamaged):
        await file.open().publish([event(1)])


async def test_a_directory_that_cannot_be_opened_is_unavailable_and_then_works(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    broker = SqliteBroker(str(path))
    with pytest.raises(BrokerUnavailable):
        await broker.open()
    path.rmdir()
    await broker.publish([event(1)])
    await broker.close()


async def test_a_damaged_page_is_never_served_as_a_payload(file: File) -> None:
    await publish(file.open(), 400)
    await file.close()
    size = file.path.stat().st_size
    with file.path.open("r+b") as raw:
        for at in range(size // 2, size, 4096):
            raw.seek(at + 100)
            raw.write(os.urandom(3900))
    broker = file.open()
    with pytest.raises(StorageDamaged):
        await read(broker)


def test_another_process_may_make_the_log_while_this_one_looks_at_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "events.db")
    other = threading.Thread(target=lambda: schema.connect(path, "full").close())

    def traced(path: str, *, make: bool = False) -> apsw.Connection:
        db = opening.opened(path, make=make)
        if threading.current_thread() is threading.main_thread():
            db.exec_trace = lambda _cursor, sql, _bindings: meanwhile(sql)
        return db

    def meanwhile(sql: str) -> bool:
        if "application_id" in sql and other.ident is None:
            other.start()
        elif "sqlite_schema" in sql:
            other.join(1.0)
        return True

    monkeypatch.setattr(schema, "opened", traced)
    schema.connect(path, "full").close()
    assert other.ident is not None
    other.join(10.0)
    assert not other.is_alive()


@pytest.mark.parametrize("synchronous", ["normal", "off"])
async def test_the_promise_says_what_the_setting_keeps(file: File, synchronous: str) -> None:
    broker = file.open(synchronous=synchronous)
    await publish(broker, 3)
    assert "power loss" in broker.capabilities.promise
    assert numbers(await read(broker)) == [0, 1, 2]


def test_an_unknown_setting_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="extra"):
        SqliteBroker("x.db", synchronous="extra")
    with pytest.raises(ValueError, match="path"):
        SqliteBroker("a\0b")


# ------------------------------------------------------------------------------------------------ checksums


async def test_a_changed_body_becomes_a_dead_letter_in_a_fetch_and_an_error_in_a_read(file: File) -> None:
    broker = file.open()
    await declare(broker)
    ids = [f"id-{n}" for n in range(3)]
    await broker.publish([event(n, event_id=ids[n]) for n in range(3)])
    file.sql("UPDATE log SET body = replace(body, '\"n\":1', '\"n\":7') WHERE offset = 2")
    assert numbers(await take(broker)) == [0, 2]
    (letter,) = await broker.dead(DeadQuery())
    assert (letter.reason, letter.event.event_id, letter.event.topic) == (
        Reason.DESERIALIZATION_ERROR,
        ids[1],
        "task.created",
    )
    assert letter.event.payload == {}
    log = broker.read(Query())
    assert (await anext(log)).event.payload == {"n": 0}
    with pytest.raises(StorageDamaged, match="position 2"):
        await anext(log)
    assert (await anext(log)).event.payload == {"n": 2}


async def test_a_body_in_anothers_place_is_noticed(file: File) -> None:
    broker = file.open()
    await publish(broker, 2)
    file.sql("UPDATE log SET (crc, body) = (SELECT crc, body FROM log WHERE offset = 1) WHERE offset = 2")
    log = broker.read(Query())
    await anext(log)
    with pytest.raises(StorageDamaged):
        await anext(log)


async def test_a_newer_envelope_is_kept_for_those_who_can_read_it(file: File) -> None:
    broker = file.open()
    await declare(broker)
    await publish(broker, 1)
    ((body,),) = file.sql("SELECT body FROM log")
    newer = body.replace(b'"v":1', b'"v":2')
    file.sql("UPDATE log SET body = ?, crc = ?", (newer, checksum(newer, 1)))
    assert not await take(broker)
    (letter,) = await broker.dead(DeadQuery())
    assert letter.reason == Reason.DESERIALIZATION_ERROR
    assert "version 2" in letter.error
    assert file.sql("SELECT body FROM dead") == [(newer,)]


async def test_a_damaged_fact_is_not_served_and_those_behind_it_are(file: File) -> None:
    broker = file.open()
    await broker.publish([event(n, f"_bus.t.{n}") for n in range(5)])
    file.sql("UPDATE fact SET body = replace(body, '\"n\":1', '\"n\":7') WHERE offset = 2")
    file.sql("UPDATE fact SET (crc, body) = (SELECT crc, body FROM fact WHERE offset = 3) WHERE offset = 4")
    log = broker.read(Query(patterns=("_bus.#",)))
    found: list[Any] = []
    while len(found) < 5:
        try:
            found.append((await anext(log)).event.payload["n"])
        except StorageDamaged as damage:
            found.append(str(damage))
    assert [each if isinstance(each, int) else each.split(" are")[0] for each in found] == [
        0,
        "the bytes stored at position 2",
        2,
        "the bytes stored at position 4",
        4,
    ]
    with pytest.raises(StopAsyncIteration):
        await anext(log)
    others = broker.read(Query(patterns=("_bus.t.0", "_bus.t.4")))  # who asks for others hears nothing of it
    assert [stored.event.payload["n"] async for stored in others] == [0, 4]


async def test_a_directory_leaves_damaged_facts_out(file: File, caplog: pytest.LogCaptureFixture) -> None:
    directory, other = Directory(file.open()), Directory(file.open())
    for n in range(3):
        await directory.put("schema", f"{n}", {"n": n})
    file.sql("UPDATE fact SET body = replace(body, '\"n\":1', '\"n\":7') WHERE offset = 2")
    for _ in range(3):
        await other.refresh()
        await directory.refresh()
    assert other.facts("schema") == {"0": {"n": 0}, "2": {"n": 2}}
    assert caplog.text.count("position 2") == 1
    await directory.put("schema", "1", {"n": 8})
    await other.refresh()
    assert other.facts("schema") == {"0": {"n": 0}, "2": {"n": 2}, "1": {"n": 8}}
    await asyncio.gather(directory.close(), other.close())


async def test_facts_in_disorder_are_damage_and_end(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = file.open()
    await broker.publish([event(n, f"_bus.t.{n}") for n in range(5)])
    real = schema.rows

    def damaged(db: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found = real(db, sql, bindings)
        return found[::-1] if "FROM fact" in sql else found

    monkeypatch.setattr("wowevent.brokers.sqlite.reader.rows", damaged)
    log = broker.read(Query(patterns=("_bus.#",)))
    with pytest.raises(StorageDamaged, match="disorder"):
        await anext(log)
    async with asyncio.timeout(5):
        assert [stored async for stored in log] == []


async def test_other_events_cost_no_statement_more(file: File) -> None:
    broker = file.open()
    await broker.open()
    assert broker._session is not None
    said: list[str] = []

    def listen(store: Any) -> None:
        store.db.trace_v2(apsw.SQLITE_TRACE_STMT, lambda told: said.append(told["sql"]))

    await broker._session.write(listen)
    await publish(broker, 3)
    assert any("INTO log" in sql for sql in said)
    assert not [sql for sql in said if "fact" in sql]
    await publish(broker, 1, first=3, topic="_bus.a")
    assert len([sql for sql in said if "fact" in sql]) == 1


# ------------------------------------------------------------------------------------------------ waking each other


async def test_two_instances_wake_each_other_without_polling(file: File) -> None:
    here, there = file.open(), file.open()
    await declare(here)
    for n in range(5):
        fetch = asyncio.create_task(here.fetch(WORKER, limit=1, wait=60))
        await here.ping()
        await asyncio.sleep(0.02)
        assert not fetch.done()
        started = time.perf_counter()  # the manual clock stands still: nothing but the datagram can wake it
        await there.publish([event(n)])
        (lease,) = await asyncio.wait_for(fetch, 1)
        assert time.perf_counter() - started < 0.1
        await here.settle(WORKER, [Ack(lease.token)])


async def test_a_follower_is_woken_by_another_instance(file: File) -> None:
    here, there = file.open(), file.open()
    log = here.read(Query(), follow=True)
    following = asyncio.ensure_future(anext(log))
    await asyncio.sleep(0.05)
    await there.publish([event(1)])
    assert (await asyncio.wait_for(following, 1)).event.payload == {"n": 1}


async def test_without_datagrams_a_look_once_a_second_is_enough(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake.Bell, "ring", lambda *_: None)
    here, there = file.open(), file.open()
    await declare(here)
    fetch = asyncio.create_task(here.fetch(WORKER, limit=1, wait=60))
    await here.ping()
    await there.publish([event(1)])
    await asyncio.sleep(0.05)
    assert not fetch.done()
    await file.clock.advance(1)
    assert numbers(await asyncio.wait_for(fetch, 1)) == [1]


async def test_an_idle_fetch_writes_nothing(file: File) -> None:
    broker = file.open()
    await declare(broker)
    await take(broker)
    ((before,),) = file.sql("SELECT count(*) FROM log")
    wal = file.path.with_name(file.path.name + "-wal")
    size = wal.stat().st_size
    for _ in range(50):
        assert not await take(broker)
    assert wal.stat().st_size == size
    assert before == 0


@pytest.mark.parametrize("datagram", [b"", b"short", b"\xff" * 8, b"12345678abc", b"12345678" + b"\0\0\0\1" * 400])
def test_any_datagram_is_harmless(datagram: bytes) -> None:
    epoch, nums = wake.unpack(datagram)
    assert isinstance(epoch, str)
    assert all(isinstance(num, int) for num in nums)


def test_a_datagram_says_what_was_packed() -> None:
    assert wake.unpack(wake.pack("0123abcd", {wake.GREW, 7})) == ("0123abcd", (0, 7))
    assert wake.EVERYWHERE in wake.unpack(wake.pack("0123abcd", set(range(1, 1000))))[1]


# ------------------------------------------------------------------------------------------------ presence


async def stopped(broker: SqliteBroker) -> None:
    """As a process that was stopped looks to the others: its timers are silent."""
    session = broker._session
    assert session is not None
    if session._timer is not None:
        session._timer.cancel()
    assert session._bell._socket is not None
    session._loop.remove_reader(session._bell._socket)  # and it hears nothing


async def test_an_instance_that_is_gone_is_noticed_and_one_that_returns_is_there_again(file: File) -> None:
    here, there = file.open(), file.open()
    await declare(here)
    await take(here)
    await here.declare(Subscription(id="live", patterns=("x",), durable=False))
    await there.ping()
    assert [info.consumers for info in await there.subscriptions()] == [1, 1]
    await stopped(here)
    await file.pass_time(21, there)
    assert {info.subscription.id: info.consumers for info in await there.subscriptions()} == {WORKER: 0}
    await here.ping()  # it goes on: a heartbeat is long due
    assert {info.subscription.id: info.consumers for info in await there.subscriptions()} == {WORKER: 1, "live": 1}
    assert (await there.publish([event(1, topic="x")]))[0].matched == ("live", WORKER)


async def test_an_exclusive_subscription_is_taken_over_when_its_owner_is_gone(file: File) -> None:
    here, there = file.open(), file.open()
    await declare(here, exclusive=True, lease=10.0)
    await publish(here, 3)
    assert numbers(await take(here, 1)) == [0]
    assert not await take(there)
    await stopped(here)
    await file.pass_time(24, there)
    (lease,) = await take(there, 1)
    assert (lease.event.payload["n"], lease.crashes) == (0, 1)


async def test_an_exclusive_subscription_given_up_waits_for_the_open_leases(file: File) -> None:
    here, there = file.open(), file.open()
    await declare(here, exclusive=True)
    await publish(here, 2)
    (lease,) = await take(here, 1)
    waiting = asyncio.create_task(there.fetch(WORKER, limit=5, wait=60))
    await there.ping()
    await here.detach(WORKER)
    await there.ping()
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await here.settle(WORKER, [Ack(lease.token)])
    assert numbers(await asyncio.wait_for(waiting, 1)) == [1]


# ------------------------------------------------------------------------------------------------ leases


async def test_a_lease_of_another_boot_has_ended(file: File) -> None:
    broker = file.open()
    await declare(broker)
    await publish(broker, 1)
    (old,) = await take(broker)
    file.sql("UPDATE lease SET boot = 'another', until = until + 1e9")
    await file.pass_time(6)
    (new,) = await take(broker)
    assert (new.crashes, new.attempts[0].error) == (1, "the lease ended unsettled")
    assert await broker.settle(WORKER, [Ack(old.token)]) == 0
    assert await broker.settle(WORKER, [Ack(new.token)]) == 1


async def test_extending_one_of_a_batch_keeps_only_that_one(file: File) -> None:
    broker = file.open()
    await declare(broker, lease=10.0)
    await publish(broker, 3)
    first, second, third = await take(broker)
    await file.pass_time(8)
    assert await broker.settle(WORKER, [Extend(second.token, 10.0)]) == 1
    await file.pass_time(4)
    assert await broker.settle(WORKER, [Ack(first.token), Ack(third.token)]) == 0
    assert await broker.settle(WORKER, [Extend(second.token, 10.0, "slow")]) == 1
    assert await broker.settle(WORKER, [Ack(second.token), Ack(second.token)]) == 1
    assert file.sql("SELECT count(*) FROM lease") == [(0,)]
    assert [(lease.event.payload["n"], lease.crashes) for _ in range(2) for lease in await take(broker)] == [
        (0, 1),
        (2, 1),
    ]


async def test_extending_all_that_is_open_moves_one_row(file: File) -> None:
    broker = file.open()
    await declare(broker, lease=10.0)
    await publish(broker, 3)
    first, *rest = await take(broker)
    await broker.settle(WORKER, [Ack(first.token)])
    assert await broker.settle(WORKER, [Extend(lease.token, 30.0) for lease in rest]) == 2
    assert file.sql("SELECT open FROM lease") == [(2,)]
    await file.pass_time(20)
    assert await broker.settle(WORKER, [Ack(lease.token) for lease in rest]) == 2
    assert file.sql("SELECT count(*) FROM lease") == [(0,)]


@pytest.mark.parametrize("token", ["", "x", "1.1", "1.1.1.1", "-1.1.1", "1.7.1", f"{2**70}.1.1", "1.1.0", "1.1.1"])
async def test_a_token_that_is_none_settles_nothing(file: File, token: str) -> None:
    broker = file.open()
    await declare(broker)
    await publish(broker, 1)
    await take(broker)
    orders: list[Settlement] = [Ack(token), Retry(token), Extend(token, 1.0), Bury(token, Reason.UNKNOWN)]
    assert await broker.settle(WORKER, orders) == 0


async def test_a_fetch_that_is_cancelled_gives_back_what_it_leased(file: File) -> None:
    broker = file.open()
    await declare(broker)
    for n in range(20):
        fetch = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=60))
        await asyncio.sleep(0)
        publishing = asyncio.create_task(broker.publish([event(n)]))
        for _ in range(n):
            await asyncio.sleep(0)
        fetch.cancel()
        await asyncio.gather(fetch, publishing, return_exceptions=True)
        await broker.ping()
        if fetch.cancelled():
            (lease,) = await broker.fetch(WORKER, limit=1, wait=60)
        else:
            (lease,) = fetch.result()
        assert (lease.event.payload["n"], lease.crashes, lease.failures) == (n, 0, 0)
        await broker.settle(WORKER, [Ack(lease.token)])


# ------------------------------------------------------------------------------------------------ the past


async def test_a_long_past_is_taken_in_by_chunks_and_in_order(file: File) -> None:
    broker = file.open()
    for first in range(0, 3000, 1000):
        await broker.publish(
            [event(n, topic="wanted" if n % 100 == 0 else "other") for n in range(first, first + 1000)]
        )
    await declare(broker, patterns=("wanted",), start="first")
    assert file.sql("SELECT count(*) FROM backfill") == [(1,)]
    await broker.publish([event(9000, topic="wanted", priority=9)])
    info = await broker.info(WORKER)
    assert info is not None
    assert info.ready == 31
    found: list[int] = []
    while len(found) < 31:
        leases = await broker.fetch(WORKER, limit=4, wait=5)
        found += numbers(leases)
        await broker.settle(WORKER, [Ack(lease.token) for lease in leases])
    assert sorted(found) == [*range(0, 3000, 100), 9000]
    assert [n for n in found if n != 9000] == list(range(0, 3000, 100))
    assert file.sql("SELECT count(*) FROM backfill") == [(0,)]


async def test_new_settings_do_not_change_what_was_asked_of_the_past(file: File) -> None:
    broker = file.open()
    await broker.publish([event(n, topic="a" if n % 2 else "b") for n in range(1500)])
    await declare(broker, patterns=("a",), start="first")
    await declare(broker, patterns=("b",))
    found: list[int] = []
    while leases := await broker.fetch(WORKER, limit=500, wait=0.0 if len(found) == 750 else 5):
        found += numbers(leases)
    assert found == list(range(1, 1500, 2))


async def test_purging_drops_what_was_not_looked_at_yet(file: File) -> None:
    broker = file.open()
    await publish(broker, 2500)
    await declare(broker, start="first")
    assert await broker.purge(WORKER) == 2500
    assert not await take(broker)


async def test_removing_takes_a_large_backlog_away_in_steps(file: File) -> None:
    broker = file.open()
    await declare(broker)
    await publish(broker, 5000)
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=60))
    await waiting
    await broker.remove(WORKER)
    for _ in range(10):
        await broker.ping()
    assert file.sql("SELECT (SELECT count(*) FROM entry), (SELECT count(*) FROM orphan)") == [(0, 0)]
    with pytest.raises(SubscriptionNotFound):
        await take(broker)


# ------------------------------------------------------------------------------------------------ limits


async def test_age_drops_the_unread_and_says_so_once(file: File) -> None:
    broker = file.open(retention=Retention(max_age=60.0))
    await declare(broker)
    appended = await publish(broker, 700)
    await take(broker, 1)
    await file.pass_time(70)
    await publish(broker, 1, first=700)
    info = await broker.info(WORKER)
    assert info is not None
    assert (info.lost, info.ready, info.leased) == (700, 1, 0)  # the lease ended before its event went
    with pytest.raises(PositionLost) as lost:
        await take(broker)
    assert lost.value.lost == 700
    assert numbers(await take(broker)) == [700]
    with pytest.raises(PositionLost):
        await read(broker, after=appended[10].position)
    assert numbers(await read(broker, after=appended[-1].position)) == [700]


async def test_what_is_leased_outlives_the_log(file: File) -> None:
    broker = file.open(retention=Retention(max_age=20.0))
    await declare(broker, lease=100.0)
    await publish(broker, 2)
    first, second = await take(broker)
    await file.pass_time(30)
    assert not await read(broker)
    await broker.settle(WORKER, [Retry(first.token, 0, "again"), Bury(second.token, Reason.REJECTED, "no")])
    assert numbers(await take(broker)) == [0]
    (letter,) = await broker.dead(DeadQuery())
    assert letter.event.payload == {"n": 1}


async def test_bytes_bound_the_log(file: File) -> None:
    broker = file.open(retention=Retention(max_bytes=100_000))
    await declare(broker)
    for first in range(0, 2000, 500):
        await publish(broker, 500, first=first)
    await file.pass_time(8)
    ((size, count),) = file.sql("SELECT sum(length(body)), count(body) FROM log")
    assert 90_000 < size <= 100_000
    with pytest.raises(PositionLost) as lost:
        await take(broker)
    assert lost.value.lost == 2000 - count


async def test_count_takes_only_what_every_subscription_has_left_behind(file: File) -> None:
    broker = file.open(retention=Retention(max_count=100))
    await declare(broker)
    await declare(broker, "other")
    await publish(broker, 1000)
    await file.pass_time(4)
    assert len(await read(broker)) == 1000
    for id in (WORKER, "other"):
        leases = await take(broker, 950, id)
        await broker.settle(id, [Ack(lease.token) for lease in leases])
    await file.pass_time(4)
    assert numbers(await read(broker)) == list(range(900, 1000))
    await broker.publish([event(1000)])
    assert numbers(await take(broker)) == [*range(950, 1001)]


async def test_an_unserved_subscription_lapses_and_is_told(file: File) -> None:
    broker = file.open(retention=Retention(unserved_after=100.0))
    await declare(broker)
    await publish(broker, 3)
    await file.pass_time(110)
    await publish(broker, 2, first=3)
    info = await broker.info(WORKER)
    assert info is not None
    assert (info.lapsed, info.lost, info.ready) == (True, 5, 0)
    with pytest.raises(PositionLost) as lost:
        await take(broker)
    assert lost.value.lost == 5
    await publish(broker, 1, first=5)
    assert numbers(await take(broker)) == [5]


async def test_a_subscription_that_is_served_never_lapses(file: File) -> None:
    broker = file.open(retention=Retention(unserved_after=50.0))
    await declare(broker)
    await publish(broker, 1)
    await broker.fetch(WORKER, limit=0, wait=0)
    await file.pass_time(120)
    assert numbers(await take(broker)) == [0]


async def test_an_id_outlives_its_event_and_then_goes(file: File) -> None:
    broker = file.open(retention=Retention(max_age=1.0))
    first = event(0)
    await broker.publish([first])
    await file.pass_time(8)
    assert not await read(broker)
    assert (await broker.publish([first]))[0].duplicate
    await file.pass_time(200)
    assert (await broker.publish([first]))[0].duplicate  # among the last 10,000
    for start in range(0, 11_000, 1000):
        await publish(broker, 1000, first=start)
    await file.pass_time(8)
    assert (await broker.publish([first]))[0].duplicate is False
    await file.pass_time(200)
    assert file.sql("SELECT count(*) <= 10001 FROM log") == [(1,)]


async def test_positions_are_never_used_twice(file: File) -> None:
    broker = file.open(retention=Retention(max_age=1.0))
    (last,) = (await publish(broker, 50))[-1:]
    await file.pass_time(200)
    assert not await read(broker)
    await file.close()
    again = file.open()
    (new,) = await publish(again, 1)
    assert last.position is not None
    assert new.position is not None
    assert (new.position.epoch, new.position.offset) == (last.position.epoch, last.position.offset + 1)


async def test_a_cancelled_event_stays_known(file: File) -> None:
    broker = file.open()
    later = event(1, not_before=datetime.fromtimestamp(file.clock.time(), UTC) + timedelta(seconds=30))
    assert (await broker.publish([later]))[0].position is None
    assert await broker.cancel(later.event_id)
    assert not await broker.cancel(later.event_id)
    assert (await broker.publish([later]))[0].duplicate
    await file.pass_time(40)
    assert not await read(broker)


# ------------------------------------------------------------------------------------------------ trouble


async def limit_pages(broker: SqliteBroker, more: int) -> None:
    """Let the file grow by so many pages at most."""
    session = broker._session
    assert session is not None
    await session.write(lambda store: store.db.pragma("max_page_count", store.db.pragma("page_count") + more))


async def test_a_full_disk_refuses_publishes_and_nothing_else(file: File) -> None:
    broker = file.open()
    await declare(broker)
    await publish(broker, 100)
    leases = await take(broker, 50)
    await limit_pages(broker, 2)
    big = [event(n, headers={"pad": "x" * 4000}) for n in range(100)]
    results = await asyncio.gather(
        broker.publish(big),
        broker.settle(WORKER, [Ack(lease.token) for lease in leases]),
        broker.publish([event(1000, event_id="small")]),
        return_exceptions=True,
    )
    assert isinstance(results[0], StorageFull)
    assert results[1] == 50
    assert not isinstance(results[2], BaseException)
    assert len(await read(broker)) == 101
    await limit_pages(broker, 100_000)
    assert len(await broker.publish(big)) == 100


async def test_publishing_leaves_room_on_the_disk_for_acknowledging(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = file.open()
    await declare(broker)
    await publish(broker, 1)
    (lease,) = await take(broker)
    real = os.statvfs(file.path.parent)
    full = os.statvfs_result((*tuple(real)[:4], 1, *tuple(real)[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(StorageFull):
        await publish(broker, 1)
    assert await broker.settle(WORKER, [Ack(lease.token)]) == 1
    monkeypatch.undo()
    await publish(broker, 1)


async def test_one_bad_call_does_not_spoil_the_others_of_its_commit(file: File) -> None:
    broker = file.open()
    await broker.open()
    session = broker._session
    assert session is not None

    def break_it(store: Any) -> None:
        store.db.execute("INSERT INTO log(offset, id, topic, ts, stored_at, total) VALUES (99, 'x', 'x', 0, 0, 0)")
        store.db.execute("INSERT INTO nowhere VALUES (1)")

    results = await asyncio.gather(
        publish(broker, 2), session.write(break_it), publish(broker, 2, first=2), return_exceptions=True
    )
    assert isinstance(results[1], Exception)
    assert numbers(await read(broker)) == [0, 1, 2, 3]


async def test_who_serves_is_known_though_the_commit_that_said_so_was_taken_back(file: File) -> None:
    broker, other = file.open(), file.open()
    await declare(broker, exclusive=True)
    await publish(broker, 1)

    def break_it(store: Any) -> None:
        store.db.execute("INSERT INTO nowhere VALUES (1)")

    session = broker._session
    assert session is not None
    await asyncio.gather(broker.fetch(WORKER, limit=0, wait=0), session.write(break_it), return_exceptions=True)
    (info,) = await other.subscriptions()
    assert info.consumers == 1
    (lease,) = await broker.fetch(WORKER, limit=1, wait=0)
    await broker.settle(WORKER, [Retry(lease.token)])
    await asyncio.gather(broker.detach(WORKER), session.write(break_it), return_exceptions=True)
    (info,) = await other.subscriptions()
    assert info.consumers == 0
    assert numbers(await other.fetch(WORKER, limit=1, wait=0)) == [0]


async def test_another_process_that_holds_the_file_makes_it_unavailable_for_a_while(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.2)
    broker = file.open()
    await publish(broker, 1)
    other = apsw.Connection(str(file.path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BrokerUnavailable):
        await publish(broker, 1, first=1)
    assert numbers(await read(broker)) == [0]  # readers never wait for a writer
    other.execute("ROLLBACK")
    other.close()
    await publish(broker, 1, first=2)
    assert numbers(await read(broker)) == [0, 2]


async def test_closing_carries_out_what_was_asked_for_and_ends_what_waits(file: File) -> None:
    broker = file.open()
    await declare(broker, patterns=("wanted",))
    fetching = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=60))
    log = broker.read(Query(patterns=("wanted",)), follow=True)
    following = asyncio.ensure_future(anext(log))
    await asyncio.sleep(0.05)
    publishing = asyncio.create_task(broker.publish([event(n) for n in range(3000)]))
    await asyncio.sleep(0)
    await asyncio.gather(*(broker.close() for _ in range(10)))
    assert len(await publishing) == 3000
    with pytest.raises(Closed):
        await fetching
    with pytest.raises(StopAsyncIteration):
        await following
    with pytest.raises(Closed):
        await broker.ping()
    assert len(await read(file.open())) == 3000


async def test_dead_letters_are_found_by_everything_that_names_them(file: File) -> None:
    broker = file.open()
    await declare(broker)
    await broker.publish([event(n, event_id=f"e-{n}", correlation_id=f"c-{n % 2}") for n in range(4)])
    await broker.settle(WORKER, [Bury(lease.token, Reason.REJECTED, "no", "tb") for lease in await take(broker)])
    assert [d.event.event_id for d in await broker.dead(DeadQuery(correlation_id="c-1"))] == ["e-1", "e-3"]
    assert [d.id for d in await broker.dead(DeadQuery(event_id="e-2"))] == ["3"]
    assert [d.traceback for d in await broker.dead(DeadQuery(ids=("1", "x", "99")))] == ["tb"]
    assert await broker.resolve([Redeliver("1"), Discard("2"), Discard("2"), Discard("nonsense")]) == 2
    (lease,) = await take(broker)
    assert (lease.event.event_id, lease.redelivered, lease.attempts) == ("e-0", True, ())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_internal_error_of_the_thread_leaves_nobody_waiting(file: File) -> None:
    broker = file.open()
    await broker.declare(Subscription(id=WORKER, patterns=("#",)))
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=30))
    await asyncio.sleep(0.05)
    assert broker._session is not None
    broker._session._writer._deliver = None  # type: ignore[assignment]  # a fault that no code accounts for
    async with asyncio.timeout(5):
        for call in (broker.publish([event(1)]), waiting, broker.ping()):
            with pytest.raises(BrokerUnavailable, match="internal error"):
                await call
        await broker.close()
