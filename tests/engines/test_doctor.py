"""What the doctor finds of real engines: in good order, and with each thing that can be wrong made wrong."""

# ruff: noqa: ASYNC240 - a test may look at its files where it stands

import asyncio
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiormq
import apsw
import pytest
from redis.asyncio import Redis

from tests.conformance.engines import eventually, shared_nats
from tests.faults.nats import cramped_server, small_disk
from tests.rabbitmq import PLACE, shared_rabbit
from tests.servers import Server, nats_running, rabbitmq_running, redis_running
from wowevent import Event, EventBus, Reject, doctor
from wowevent.broker import Broker, Retention, Subscription
from wowevent.brokers import open_broker
from wowevent.brokers.nats.link import Link
from wowevent.brokers.sqlite import doctor as sqlite_doctor
from wowevent.brokers.sqlite.backup import back_up
from wowevent.doctor import standing
from wowevent.finding import CLOCK, Finding, Verdict
from wowevent.testing import ManualClock

OK, UNKNOWN, WARN, FAIL = Verdict.OK, Verdict.UNKNOWN, Verdict.WARN, Verdict.FAIL
STANDING = [check.name for check in standing.CHECKS]


def needs(request: pytest.FixtureRequest, engine: str) -> None:
    if engine not in request.config.getoption("--broker").split(","):
        pytest.skip(f"--broker does not name {engine}")


async def looked(url: str, namespace: str = "default") -> dict[str, Finding]:
    _, found = await doctor.at_engine(url, namespace)
    assert len({finding.check for finding in found}) == len(found)
    return {finding.check: finding for finding in found}


def wrong(found: dict[str, Finding], *but: str) -> dict[str, Verdict]:
    """What is not ok, of which each says what to do; but for where the tests' own folders lie (in memory, maybe)."""
    assert all(finding.change for finding in found.values() if finding.verdict != OK)
    verdicts = {name: each.verdict for name, each in found.items() if each.verdict != OK and name not in but}
    return {name: verdict for name, verdict in verdicts.items() if (name, verdict) != ("sqlite.disk", WARN)}


async def fill(url: str, namespace: str = "default") -> None:
    """A log with three events, a subscription with three dead letters, and one that nobody serves."""

    async def refuse(event: Event) -> None:
        raise Reject("never")

    async with EventBus(url, namespace=namespace) as bus:
        await bus.subscribe("a.*", refuse, subscription="worker")
        idle = await bus.subscribe("a.*", refuse, subscription="idle")
        await idle.cancel()
        for n in range(3):
            await bus.publish(Event(topic="a.b", payload={"n": n}))
        await bus.join(timeout=10)


def as_filled(found: dict[str, Finding], *, served: bool = False) -> None:
    """What `fill` left is seen."""
    assert found["subscriptions.lapsed"].verdict == OK
    unserved = found["subscriptions.unserved"]
    assert unserved.verdict == WARN
    assert "idle (3 waiting)" in unserved.found
    assert ("worker" in unserved.found) is not served
    assert found["subscriptions.backlog"].found.startswith("3 events")
    assert found["subscriptions.dead_letters"].found == "3: worker (3)"


async def test_memory() -> None:
    promise, found = await doctor.at_engine("memory://")
    assert "gone when the process ends" in promise
    assert wrong({finding.check: finding for finding in found}) == {"memory.durability": WARN}


# ------------------------------------------------------------------------------------------------ sqlite


def shape(folder: Path) -> dict[str, tuple[int, int, str]]:
    """All that lies there: mode, time, content."""
    return {
        str(each.relative_to(folder)): (
            each.stat().st_mode,
            each.stat().st_mtime_ns,
            hashlib.sha256(each.read_bytes()).hexdigest() if each.is_file() else "",
        )
        for each in sorted(folder.rglob("*"))
    }


async def test_sqlite_where_there_is_no_log_none_is_made(tmp_path: Path) -> None:
    found = await looked(f"sqlite:///{tmp_path / 'data' / 'events.db'}")
    assert wrong(found) == {}
    assert "no log yet" in found["sqlite.file"].found
    assert list(tmp_path.iterdir()) == []


async def test_sqlite_in_good_order_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    url = f"sqlite:///{folder / 'events.db'}"
    await fill(url)
    before = shape(tmp_path)
    found = await looked(url)
    assert shape(tmp_path) == before
    as_filled(found)
    assert wrong(found, *STANDING) == {}
    assert found["sqlite.damage"].found == "quick_check: ok"
    assert found["sqlite.processes"].found == "nobody now"


async def test_sqlite_while_others_use_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    async with EventBus(url) as bus:
        await bus.subscribe("a.*", lambda event: None, subscription="worker")
        found = await looked(url)
        assert wrong(found) == {}
        assert found["sqlite.processes"].found.startswith("1 here now")
        assert found["subscriptions.unserved"].found == "1 served"
        await bus.publish(Event(topic="a.b"))
        await bus.join(timeout=10)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["events.db"]


async def test_sqlite_a_wal_that_was_left_behind_stays(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'left' / 'events.db'}"
    async with EventBus(f"sqlite:///{tmp_path / 'events.db'}") as bus:
        await bus.publish(Event(topic="a.b"))
        (tmp_path / "left").mkdir(mode=0o700)
        for file in tmp_path.glob("events.db*"):  # as a kill -9 leaves them
            shutil.copy2(file, tmp_path / "left" / file.name)
    before = {name: each for name, each in shape(tmp_path / "left").items() if not name.endswith("-shm")}
    found = await looked(url)
    assert wrong(found) == {}
    assert {name: each for name, each in shape(tmp_path / "left").items() if not name.endswith("-shm")} == before


async def test_sqlite_damage(tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    await fill(f"sqlite:///{file}")
    whole = file.read_bytes()
    with file.open("r+b") as raw:
        raw.seek(3 * 4096)
        raw.write(os.urandom(4096))
    found = await looked(f"sqlite:///{file}")
    assert found["sqlite.damage"].verdict == FAIL

    file.write_bytes(b"this is no database" * 1000)
    found = await looked(f"sqlite:///{file}")
    assert found["sqlite.file"].verdict == FAIL
    assert found["sqlite.damage"].verdict == FAIL

    file.write_bytes(whole)
    with apsw.Connection(str(file)) as db:
        db.execute("PRAGMA user_version=99")
    found = await looked(f"sqlite:///{file}")
    assert "format 99" in found["sqlite.file"].found
    assert "upgrade" in found["sqlite.file"].change
    assert found["sqlite.file"].verdict == FAIL
    assert found["subscriptions.lapsed"].verdict == UNKNOWN


async def test_sqlite_a_backup_is_no_log(tmp_path: Path) -> None:
    await fill(f"sqlite:///{tmp_path / 'events.db'}")
    back_up(str(tmp_path / "events.db"), tmp_path / "file", checks=False, told=lambda *_: None)
    found = (await looked(f"sqlite:///{tmp_path / 'file'}"))["sqlite.file"]
    assert found.verdict == FAIL
    assert "wowevent restore" in found.found


async def test_sqlite_who_was_killed_serves_nothing(tmp_path: Path) -> None:
    left = tmp_path / "left" / "events.db"
    async with EventBus(f"sqlite:///{tmp_path / 'events.db'}") as bus:
        await bus.subscribe("a.*", lambda event: None, subscription="worker")
        left.parent.mkdir(mode=0o700)
        for file in tmp_path.glob("events.db*"):  # as a kill -9 leaves them
            shutil.copy2(file, left.parent / file.name)
    with closing(apsw.Connection(str(left))) as db:
        db.execute("UPDATE instance SET seen = seen - 60")
    found = await looked(f"sqlite:///{left}")
    assert wrong(found) == {"subscriptions.unserved": WARN}
    assert found["sqlite.processes"].found == "nobody now"


async def test_sqlite_a_database_of_another_program(tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    with apsw.Connection(str(file)) as db:
        db.execute("CREATE TABLE t(a)")
    file.chmod(0o644)
    found = await looked(f"sqlite:///{file}")
    assert found["sqlite.file"].verdict == FAIL
    assert found["sqlite.journal"].verdict == WARN
    assert found["sqlite.permissions"].verdict == UNKNOWN  # whoever did what is said would break another program
    assert "chmod" not in str(found)
    (tmp_path / "folder").mkdir()
    assert (await looked(f"sqlite:///{tmp_path / 'folder'}"))["sqlite.file"].verdict == FAIL


async def test_sqlite_what_is_set_loosely(tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    await fill(f"sqlite:///{file}")
    file.chmod(0o644)
    found = await looked(f"sqlite:///{file}?synchronous=off")
    assert wrong(found, *STANDING) == {"sqlite.synchronous": FAIL, "sqlite.permissions": WARN}
    file.chmod(0o600)
    assert wrong(await looked(f"sqlite:///{file}?synchronous=normal"), *STANDING) == {"sqlite.synchronous": WARN}


async def test_sqlite_a_check_that_takes_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(f"sqlite:///{tmp_path / 'events.db'}")
    monkeypatch.setattr(sqlite_doctor, "_PATIENCE", -1.0)
    monkeypatch.setattr(sqlite_doctor, "_STEPS", 1)
    found = await looked(f"sqlite:///{tmp_path / 'events.db'}")
    assert found["sqlite.damage"].verdict == UNKNOWN
    assert "verify" in found["sqlite.damage"].change


def test_sqlite_on_a_disk_that_is_full_and_then_read_only(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    url = f"sqlite:///{disk / 'events.db'}"
    with small_disk(disk, "8m") as within:

        def run(*command: str) -> subprocess.CompletedProcess[bytes]:
            return subprocess.run([*within, *command], capture_output=True, timeout=20, check=False)

        def wowevent(*arguments: str) -> subprocess.CompletedProcess[bytes]:
            return run(sys.executable, "-m", "wowevent", *arguments, "--url", url)

        assert wowevent("publish", "a.b", "{}").returncode == 0
        run("sh", "-c", f"head -c 7800000 /dev/zero > {disk}/ballast")
        full = wowevent("doctor", "--json")
        run("mount", "-o", "remount,ro", str(disk))
        fixed = wowevent("doctor", "--json")
    found = [{each["check"]: each for each in json.loads(done.stdout)["findings"]} for done in (full, fixed)]
    assert (full.returncode, fixed.returncode) == (1, 1)
    assert found[0]["sqlite.space"]["verdict"] == "fail"
    assert found[0]["sqlite.file"]["verdict"] == "ok"
    assert found[1]["sqlite.file"]["verdict"] == "fail"
    assert "cannot be written" in found[1]["sqlite.file"]["found"]
    assert found[1]["sqlite.damage"]["verdict"] == "ok"  # what can be read is looked at


def test_sqlite_that_is_opened_while_it_is_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    opened: list[apsw.Connection] = []

    def look(db: apsw.Connection) -> tuple[int, int]:
        if not opened:  # the first look takes no locks, and sees nothing of what others write meanwhile
            opened.append(apsw.Connection(str(file)))
            opened[0].execute("INSERT INTO t VALUES (1)")
        return len(opened), db.execute("SELECT count(*) FROM t").get

    with closing(apsw.Connection(str(file))) as db:
        db.execute("PRAGMA journal_mode=wal; CREATE TABLE t(a)").fetchall()
    try:
        assert sqlite_doctor._read(file, look) == (1, 1)  # noqa: SLF001 - the moment between is not to be hit otherwise
    finally:
        opened[0].close()


async def test_sqlite_a_subscription_that_lapsed(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path / 'events.db'}", ManualClock()
    broker = open_broker(url, retention=Retention(unserved_after=1000), clock=clock)
    await broker.declare(Subscription(id="idle", patterns=("#",)))
    await broker.publish([Event(topic="a.b")])
    await clock.advance(2000)
    await eventually(partial(lapsed, broker))
    await broker.close()
    found = await looked(url)
    assert wrong(found) == {"subscriptions.lapsed": WARN}
    assert found["subscriptions.lapsed"].found == "lapsed: idle"


async def lapsed(broker: Broker) -> bool:
    info = await broker.info("idle")
    return info is not None and info.lapsed


async def test_sqlite_on_memory_is_said(tmp_path: Path) -> None:
    if sqlite_doctor.file_system(Path("/dev/shm"))[0] != "tmpfs":  # noqa: S108 - nothing is written there
        pytest.skip("there is no tmpfs")
    found = await looked("sqlite:////dev/shm/wowevent-doctor/events.db")
    assert found["sqlite.disk"].verdict == WARN
    assert not Path("/dev/shm/wowevent-doctor").exists()  # noqa: S108 - as above


# ------------------------------------------------------------------------------------------------ redis


@pytest.fixture(scope="module")
def redis_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    needs(request, "redis")
    with redis_running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def admin(redis_server: Server) -> AsyncIterator[Redis]:
    """By which settings are changed; they are put back."""
    client = Redis(port=redis_server.port, decode_responses=True)
    names = ["appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy", "save"]
    names.append("min-replicas-to-write")
    before = {name: (await client.config_get(name))[name] for name in names}
    await client.flushall()
    yield client
    for name, value in before.items():
        await client.config_set(name, value or "")
    await client.aclose()


def redis_url(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}"


async def test_redis_in_good_order_is_left_as_it_is(redis_server: Server, admin: Redis) -> None:
    url = redis_url(redis_server)
    known = ["redis.version"]  # which of them is installed here is not the test's matter
    found = await looked(url)
    assert wrong(found, *known) == {}
    assert "no log yet" in found["redis.log"].found
    assert await admin.dbsize() == 0

    await fill(url)
    before = await admin.info("persistence"), sorted([key async for key in admin.scan_iter()])
    found = await looked(url)
    after = await admin.info("persistence"), sorted([key async for key in admin.scan_iter()])
    assert before[0]["rdb_changes_since_last_save"] == after[0]["rdb_changes_since_last_save"]
    assert before[1] == after[1]
    as_filled(found)
    assert wrong(found, *known, *STANDING) == {}
    assert "3 events" in found["redis.log"].found
    assert found[CLOCK.name].verdict == OK


async def test_redis_what_is_served_is_seen(redis_server: Server, admin: Redis) -> None:
    url = redis_url(redis_server)
    async with EventBus(url) as bus:
        await bus.subscribe("a.*", lambda event: None, subscription="worker")
        await bus.subscribe("b.*", lambda event: None)
        found = await looked(url)
    assert found["subscriptions.unserved"].found == "1 served"
    assert wrong(found, "redis.version") == {}


async def test_redis_what_falls_due_is_left_to_those_who_serve(redis_server: Server, admin: Redis) -> None:
    url = redis_url(redis_server)
    broker = open_broker(url)
    await broker.declare(Subscription(id="worker", patterns=("#",), lease=0.05))
    await broker.publish([Event(topic="a.b")])
    await broker.fetch("worker", limit=1, wait=0)
    await broker.close()
    await asyncio.sleep(0.1)  # the lease has ended, and whoever comes would take the event back as crashed
    before = (await admin.info("persistence"))["rdb_changes_since_last_save"]
    found = await looked(url)
    assert (await admin.info("persistence"))["rdb_changes_since_last_save"] == before
    assert wrong(found, "redis.version") == {"subscriptions.unserved": WARN}


@pytest.mark.parametrize(
    ("name", "value", "check", "verdict", "promise"),
    [
        ("appendonly", "no", "redis.persistence", FAIL, "last snapshot"),
        ("appendfsync", "no", "redis.persistence", FAIL, "what the system had not written"),
        ("appendfsync", "everysec", "redis.persistence", WARN, "about the last second"),
        ("no-appendfsync-on-rewrite", "yes", "redis.persistence", WARN, "while the server rewrites its log"),
        ("maxmemory-policy", "allkeys-lru", "redis.eviction", FAIL, "deletes parts of the log"),
        ("maxmemory", "1", "redis.memory", FAIL, "every write is synced first"),
    ],
)
async def test_redis_settings(  # noqa: PLR0917 - fixtures and a table
    redis_server: Server, admin: Redis, name: str, value: str, check: str, verdict: Verdict, promise: str
) -> None:
    await admin.config_set(name, value)
    said, found = await doctor.at_engine(redis_url(redis_server))
    both = {"redis.snapshots": WARN} if name == "appendonly" else {}
    assert wrong({each.check: each for each in found}, "redis.version") == {check: verdict, **both}
    assert promise in said


async def test_redis_that_cannot_write(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    needs(request, "redis")
    with redis_running(tmp_path / "gone", "--appendonly", "no", "--save", "3600 1") as server:
        shutil.rmtree(tmp_path / "gone")
        async with Redis(port=server.port) as client:
            await client.execute_command("BGSAVE")
            await eventually(partial(saved, client))
        found = await looked(redis_url(server))
    assert found["redis.writes"].verdict == FAIL
    assert "MISCONF" in found["redis.writes"].found


async def saved(client: Redis) -> bool:
    return not (await client.info("persistence"))["rdb_bgsave_in_progress"]


async def followed(client: Redis) -> bool:
    return bool((await client.info("replication"))["connected_slaves"])


async def test_redis_replicas(redis_server: Server, admin: Redis, tmp_path: Path) -> None:
    with redis_running(tmp_path, "--replicaof", "127.0.0.1", str(redis_server.port)) as replica:
        await eventually(partial(followed, admin))
        assert (await looked(redis_url(redis_server)))["redis.replicas"].verdict == WARN
        await admin.config_set("min-replicas-to-write", "1")
        assert (await looked(redis_url(redis_server)))["redis.replicas"].verdict == OK
        found = (await looked(redis_url(replica)))["redis.replicas"]
        assert found.verdict == FAIL
        assert f"127.0.0.1:{redis_server.port}" in found.found


async def test_redis_that_may_not_be_asked(redis_server: Server, admin: Redis) -> None:
    await fill(redis_url(redis_server))
    rights = ["on", ">hunter22", "~*", "&*", "+@all", "-config", "-info", "-eval"]
    await admin.execute_command("ACL", "SETUSER", "guest", "reset", *rights)
    promise, every = await doctor.at_engine(f"redis://guest:hunter22@127.0.0.1:{redis_server.port}")
    found = {finding.check: finding for finding in every}
    assert "does not let us read its settings" in promise
    assert set(wrong(found, "redis.rights").values()) == {UNKNOWN}
    assert found["redis.rights"].verdict == FAIL
    assert found["redis.log"].verdict == found[CLOCK.name].verdict == OK
    assert found["redis.persistence"].verdict == found["subscriptions.lapsed"].verdict == UNKNOWN


async def test_redis_a_user_without_rights(redis_server: Server, admin: Redis) -> None:
    url = f"redis://guest:hunter22@127.0.0.1:{redis_server.port}"
    for rights in ("~other:*", "+@all"), ("~*", "+@read", "+eval", "+echo", "+info", "+config", "+time"):
        await admin.execute_command("ACL", "SETUSER", "guest", "reset", "on", ">hunter22", "&*", *rights)
        found = await looked(url)
        assert found["redis.rights"].verdict == FAIL
    assert await admin.dbsize() == 0


async def test_redis_that_falls_silent_while_it_is_looked_at(
    redis_server: Server, admin: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LIMIT", 0.5)
    async with AsyncExitStack() as stack:
        broker = open_broker(redis_url(redis_server))
        examination = await stack.enter_async_context(broker.examine())
        redis_server.pause()
        stack.callback(redis_server.resume)
        looks = [doctor.within(check, look) for check, look in examination.looks.items()]
        found = [each for part in await asyncio.gather(*looks) for each in part]
    silent = [finding.check for finding in found if "no answer within" in finding.found]
    assert len(silent) == len(found) - 3  # persistence, eviction and snapshots were read when it was reached


# ------------------------------------------------------------------------------------------------ nats


@pytest.fixture
def nats_url(request: pytest.FixtureRequest) -> str:
    needs(request, "nats")
    return shared_nats.emptied()


async def nats_state(url: str) -> Any:
    """All streams and their consumers, as the server lists them."""
    broker = open_broker(url)
    async with broker.examine():
        link = await Link.dial(broker._servers, broker._options)  # type: ignore[attr-defined] # noqa: SLF001 - the URL, read
        try:
            names = (await link.ask("STREAM.NAMES"))["streams"] or []
            infos = [(await link.ask(f"STREAM.INFO.{name}"))["state"]["last_seq"] for name in names]
            return names, infos, [(await link.ask(f"CONSUMER.NAMES.{name}"))["consumers"] for name in names]
        finally:
            await link.close()


async def test_nats_in_good_order_is_left_as_it_is(nats_url: str) -> None:
    found = await looked(nats_url)
    assert wrong(found) == {"nats.sync": UNKNOWN}
    assert "no log yet" in found["nats.streams"].found
    assert (await nats_state(nats_url))[0] == []

    await fill(nats_url)
    before = await nats_state(nats_url)
    found = await looked(nats_url)
    assert await nats_state(nats_url) == before
    as_filled(found)
    assert wrong(found, *STANDING) == {"nats.sync": UNKNOWN}
    assert found[CLOCK.name].verdict == OK


async def test_nats_what_is_served_is_seen(nats_url: str) -> None:
    async with EventBus(nats_url) as bus:
        await bus.subscribe("a.*", lambda event: None, subscription="worker")
        found = await looked(nats_url)
    assert found["subscriptions.unserved"].found == "1 served"


async def test_nats_streams_that_are_gone_or_another_kind(nats_url: str) -> None:
    await fill(nats_url)
    broker = open_broker(nats_url)
    link = await Link.dial(broker._servers, broker._options)  # type: ignore[attr-defined] # noqa: SLF001 - the URL, read
    try:
        await link.ask("STREAM.DELETE.wow-default-dead")
        await link.ask("STREAM.DELETE.wow-default-log")
        await link.ask(
            "STREAM.CREATE.wow-default-log", name="wow-default-log", subjects=["wow.default.u.>"], storage="memory"
        )
    finally:
        await link.close()
    found = (await looked(nats_url))["nats.streams"]
    assert found.verdict == FAIL
    for words in ("wow-default-dead was deleted", "wow-default-log is in memory", "drops the oldest"):
        assert words in found.found


@pytest.fixture
def cramped(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server whose disk is soon full."""
    needs(request, "nats")
    with cramped_server(tmp_path, "16m") as (server, _):
        yield server


async def test_nats_that_stores_nothing_any_more(cramped: Server) -> None:
    url = f"nats://127.0.0.1:{cramped.port}"
    await fill(url)
    assert (await looked(url))["nats.storing"].verdict == OK
    link = await Link.dial([url], {})
    try:
        for n in range(120):
            link.send("wow.default.n.a.b", bytes(200_000), headers=b"Nats-Msg-Id: %d\r\n" % n)
        await link.reach()
    finally:
        await link.close()
    found = (await looked(url))["nats.storing"]
    assert found.verdict == FAIL
    assert "stores nothing until its server is restarted" in found.found


ACCOUNTS = """
accounts {
  SYS: { exports: [{ service: "$SYS.REQ.SERVER.PING.JSZ" }] }
  A: {
    jetstream: { max_file: 300K }
    imports: [{ service: { account: SYS, subject: "$SYS.REQ.SERVER.PING.JSZ" } }]
    users: [
      { user: a, password: hunter22 }
      { user: b, password: hunter22, permissions: { publish: ["$JS.API.>", "wow.>", "_INBOX.>"] } }
      { user: d, password: hunter22, permissions: { publish: ["$JS.API.>", "_INBOX.>"] } }
    ]
  }
  C: { users: [{ user: c, password: hunter22 }] }
}
system_account: SYS
no_auth_user: a
"""


@pytest.mark.parametrize(("sync", "verdict"), [("always", OK), ('"10s"', WARN)])
async def test_nats_that_says_how_often_it_syncs(
    request: pytest.FixtureRequest, tmp_path: Path, sync: str, verdict: Verdict
) -> None:
    needs(request, "nats")
    with nats_running(tmp_path, ACCOUNTS, sync=sync) as server:
        where = f"127.0.0.1:{server.port}"
        found = await looked(f"nats://a:hunter22@{where}")
        assert found["nats.sync"].verdict == verdict
        assert found[CLOCK.name].verdict == OK

        bounded = await looked(f"nats://b:hunter22@{where}")  # who may not ask is told so, and all else is seen
        assert wrong(bounded) == {"nats.sync": UNKNOWN, CLOCK.name: UNKNOWN}

        assert (await looked(f"nats://d:hunter22@{where}"))["nats.rights"].verdict == FAIL
        (finding,) = (await looked(f"nats://c:hunter22@{where}")).values()  # an account without JetStream
        assert finding.verdict == FAIL
        (finding,) = (await looked(f"nats://a:wrong@{where}")).values()
        assert finding.verdict == FAIL
        assert "Authorization" in finding.found

        async with EventBus(f"nats://a:hunter22@{where}") as bus:
            for n in range(27):
                await bus.publish(Event(topic="a.b", payload={"n": n, "text": "x" * 10_000}))
        assert (await looked(f"nats://a:hunter22@{where}"))["nats.limits"].verdict == WARN


# ------------------------------------------------------------------------------------------------ rabbitmq


@pytest.fixture
def rabbit_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    needs(request, "rabbitmq")
    yield shared_rabbit.empty(tmp_path)
    shared_rabbit.erase(tmp_path)


def rabbit_state(url: str) -> dict[str, list[str]]:
    """The exchanges, queues and bindings of a virtual host, as its management lists them."""
    vhost = urlsplit(url).path.strip("/")
    port = int(parse_qs(urlsplit(os.environ[PLACE]).query)["management"][0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Authorization": f"Basic {b64encode(b'guest:guest').decode()}"}
    try:
        state = {}
        for kind in ("exchanges", "queues", "bindings"):
            connection.request("GET", f"/api/{kind}/{vhost}?columns=name,source,destination,routing_key", None, headers)
            state[kind] = sorted(map(str, json.loads(connection.getresponse().read())))
        return state
    finally:
        connection.close()


UNSEEN = {"rabbitmq.policies": UNKNOWN, "rabbitmq.replicas": UNKNOWN, CLOCK.name: UNKNOWN}


async def test_rabbitmq_in_good_order_is_left_as_it_is(rabbit_url: str) -> None:
    empty = await asyncio.to_thread(rabbit_state, rabbit_url)
    found = await looked(rabbit_url)
    assert wrong(found, "rabbitmq.version") == UNSEEN
    assert "no log yet" in found["rabbitmq.log"].found
    assert await asyncio.to_thread(rabbit_state, rabbit_url) == empty

    await fill(rabbit_url)
    before = await asyncio.to_thread(rabbit_state, rabbit_url)
    found = await looked(rabbit_url)
    assert await asyncio.to_thread(rabbit_state, rabbit_url) == before
    as_filled(found)
    assert wrong(found, "rabbitmq.version", *STANDING) == UNSEEN


async def test_rabbitmq_a_user_without_rights(rabbit_url: str) -> None:
    host, everything = urlsplit(rabbit_url).path.strip("/"), {"configure": ".*", "write": ".*", "read": ".*"}
    url = rabbit_url.replace("//", "//guest2:hunter22@", 1)
    with shared_rabbit.admitting("wowevent-doctor", "guest2", "hunter22"):
        for right in ("configure", "write"):
            shared_rabbit._ask("PUT", f"/api/permissions/{host}/guest2", everything | {right: "^$"})  # noqa: SLF001 - of a test's own server
            found = (await looked(url))["rabbitmq.rights"]
            assert found.verdict == FAIL
            assert "ACCESS_REFUSED" in found.found
    assert (await looked(rabbit_url))["rabbitmq.rights"].verdict == OK


async def test_rabbitmq_what_is_served_is_seen(rabbit_url: str) -> None:
    async with EventBus(rabbit_url) as bus:
        await bus.subscribe("a.*", lambda event: None, subscription="worker")
        found = await looked(rabbit_url)
    assert found["subscriptions.unserved"].found == "1 served"


async def test_rabbitmq_what_was_deleted_is_seen_and_not_made_again(rabbit_url: str) -> None:
    await fill(rabbit_url)
    connection = await aiormq.connect(rabbit_url)
    channel = await connection.channel()
    await channel.queue_delete("agent_events#history")
    await channel.queue_delete("idle")
    await connection.close()
    found = await looked(rabbit_url)
    assert found["rabbitmq.log"].found == "deleted: agent_events#history"
    assert found["rabbitmq.queues"].found == "deleted: idle"
    assert found["rabbitmq.log"].verdict == found["rabbitmq.queues"].verdict == FAIL
    assert found["subscriptions.dead_letters"].found == "3: worker (3)"
    assert "idle'" not in str((await asyncio.to_thread(rabbit_state, rabbit_url))["queues"])


@pytest.fixture
def alarmed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server that finds its disk too small."""
    needs(request, "rabbitmq")
    with rabbitmq_running(tmp_path, f"disk_free_limit.absolute = {10**15}") as server:
        yield server


async def test_rabbitmq_with_an_alarm(alarmed: Server) -> None:
    found = await looked(f"amqp://guest:guest@127.0.0.1:{alarmed.port}")
    assert wrong(found, "rabbitmq.version") == {"rabbitmq.alarm": FAIL, **UNSEEN}
    (finding,) = (await looked(f"amqp://guest:wrong@127.0.0.1:{alarmed.port}")).values()
    assert finding.verdict == FAIL
    assert "ACCESS_REFUSED" in finding.found


# ------------------------------------------------------------------------------------------------ nobody there


@pytest.mark.parametrize("scheme", ["redis", "amqp", "nats"])
async def test_one_that_takes_connections_and_never_answers(
    request: pytest.FixtureRequest, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(request, {"amqp": "rabbitmq"}.get(scheme, scheme))
    monkeypatch.setattr(doctor, "LIMIT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (finding,) = (await looked(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}")).values()
    assert (finding.check, finding.verdict) == ("engine.reachable", FAIL)
    assert "no answer within" in finding.found
