"""What the doctor decides, by values that engines and machines gave: tables; and that nothing stops its round."""

import asyncio
import gc
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from wowevent import doctor
from wowevent.broker import Examination, Subscription, SubscriptionInfo
from wowevent.brokers import open_broker
from wowevent.brokers.nats import doctor as nats
from wowevent.brokers.rabbitmq import doctor as rabbitmq
from wowevent.brokers.redis import doctor as redis
from wowevent.brokers.redis import server
from wowevent.brokers.sqlite import doctor as sqlite
from wowevent.doctor import machine, places, standing
from wowevent.doctor.discretion import Discretion
from wowevent.errors import BrokerUnavailable, NotPermitted
from wowevent.finding import Check, Finding, Verdict, clock, size, version_of, worst

if TYPE_CHECKING:
    from wowevent.brokers.redis.line import Line

OK, UNKNOWN, WARN, FAIL = Verdict.OK, Verdict.UNKNOWN, Verdict.WARN, Verdict.FAIL
CHECK = Check("some.check", "something")
GIB = 2**30


def says(finding: Finding, verdict: Verdict, words: str = "") -> bool:
    """Whether it is so, says that, and says what to do unless all is well."""
    return finding.verdict == verdict and words in finding.found and bool(finding.change) == (verdict != OK)


@pytest.mark.parametrize(
    ("asked", "said", "heard", "verdict", "words"),
    [
        (100.0, 100.2, 100.4, OK, "the same"),
        (100.0, 104.9, 105.0, OK, "the same"),  # a slow answer is no difference
        (100.0, 101.9, 101.0, OK, "0.9 s ahead of"),
        (100.0, 102.1, 101.0, WARN, "1.1 s ahead of"),
        (100.0, 98.9, 101.0, WARN, "1.1 s behind"),
        (100.0, 131.5, 101.0, FAIL, "30.5 s ahead of"),
        (100.0, 69.5, 101.0, FAIL, "30.5 s behind"),
    ],
)
def test_the_engines_clock(asked: float, said: float, heard: float, verdict: Verdict, words: str) -> None:
    assert says(clock(asked, said, heard), verdict, words)


def test_versions_and_sizes() -> None:
    assert version_of("3.51.3-rc1") == (3, 51, 3)
    assert version_of("v2.12.6") == (2, 12, 6)
    assert version_of("unknown") == ()
    assert [size(n) for n in (0, 1023, 1536, 5 * 2**20, 3 * GIB)] == [
        "0 bytes",
        "1023 bytes",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]


def test_the_gravest_verdict() -> None:
    findings = [CHECK.ok(""), CHECK.unknown("", ""), CHECK.warn("", ""), CHECK.fail("", "")]
    assert [worst(findings[:count]) for count in range(5)] == [OK, OK, UNKNOWN, WARN, FAIL]
    assert worst(reversed(findings)) == FAIL


# ------------------------------------------------------------------------------------------------ redis


@pytest.mark.parametrize(
    ("about", "verdict"),
    [
        ({"redis_version": "6.2.14"}, FAIL),
        ({}, FAIL),
        ({"redis_version": "7.0.15"}, WARN),
        ({"redis_version": "7.2.14"}, WARN),
        ({"redis_version": "7.2.15"}, OK),
        ({"redis_version": "7.4.10"}, OK),
        ({"redis_version": "8.0.6"}, WARN),  # of which none is mended
        ({"redis_version": "8.6.4"}, WARN),
        ({"redis_version": "8.10.0"}, OK),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.0.9"}, WARN),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.9"}, OK),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.2.0"}, OK),
    ],
)
def test_redis_versions(about: dict[str, str], verdict: Verdict) -> None:
    assert says(server.version(about), verdict)


@pytest.mark.parametrize(
    ("about", "verdict", "words"),
    [
        ({"used_memory": "50", "maxmemory": "100"}, OK, "(50%)"),
        ({"used_memory": "81", "maxmemory": "100"}, WARN, "(81%)"),
        ({"used_memory": "100", "maxmemory": "100"}, FAIL, "(100%)"),
        ({"used_memory": "40", "maxmemory": "0", "total_system_memory": "100"}, OK, "no maxmemory"),
        ({"used_memory": "60", "maxmemory": "0", "total_system_memory": "100"}, WARN, "no maxmemory"),
    ],
)
def test_redis_memory(about: dict[str, str], verdict: Verdict, words: str) -> None:
    assert says(redis.memory(about), verdict, words)


@pytest.mark.parametrize(
    ("about", "settings", "verdict"),
    [
        ({"aof_last_write_status": "ok", "rdb_last_bgsave_status": "ok"}, {}, OK),
        ({"loading": "1"}, {}, FAIL),
        ({"aof_last_write_status": "err"}, {}, FAIL),
        ({"aof_last_bgrewrite_status": "err"}, {}, WARN),
        ({"rdb_last_bgsave_status": "err"}, {"save": ""}, WARN),
        ({"rdb_last_bgsave_status": "err"}, {"save": "3600 1"}, FAIL),
        ({"rdb_last_bgsave_status": "err"}, {"save": "3600 1", "stop-writes-on-bgsave-error": "no"}, WARN),
    ],
)
def test_redis_writes(about: dict[str, str], settings: dict[str, str], verdict: Verdict) -> None:
    assert says(redis.writes(about, settings), verdict)


@pytest.mark.parametrize(
    ("about", "settings", "verdict"),
    [
        ({"role": "master", "connected_slaves": "0"}, {}, OK),
        ({"role": "master", "connected_slaves": "2"}, {"min-replicas-to-write": "0"}, WARN),
        ({"role": "master", "connected_slaves": "2"}, {"min-replicas-to-write": "1"}, OK),
        ({"role": "master", "connected_slaves": "2"}, None, UNKNOWN),
        ({"role": "master", "connected_slaves": "2"}, {"save": ""}, UNKNOWN),
        ({"role": "slave", "master_host": "db-1", "master_port": "6379"}, {}, FAIL),
    ],
)
def test_redis_replicas(about: dict[str, str], settings: dict[str, str] | None, verdict: Verdict) -> None:
    assert says(redis.replicas(about, settings), verdict)


async def test_redis_settings_that_are_not_told_are_not_taken_to_be_right() -> None:
    """A managed server may answer CONFIG GET, and leave out what is asked for."""
    for settings in (None, {}, {"maxmemory": "0"}):
        looks = redis.Patient(cast("Line", None), "", settings).examination().looks
        for check in (server.PERSISTENCE, server.EVICTION, redis.SNAPSHOTS):
            (finding,) = await looks[check]()
            assert says(finding, UNKNOWN, "CONFIG GET")


def test_redis_that_does_not_sync_while_it_rewrites() -> None:
    for sync in ("always", "everysec"):
        settings = {"appendonly": "yes", "appendfsync": sync, "no-appendfsync-on-rewrite": "yes"}
        assert says(server.persistence(settings), WARN, "nothing is synced while")
        assert "while the server rewrites its log" in server.promise(settings)
        settings["no-appendfsync-on-rewrite"] = "no"
        assert "rewrite" not in server.persistence(settings).found + server.promise(settings)


def test_redis_snapshots_and_log() -> None:
    assert says(redis.snapshots({"save": "3600 1"}), OK, "3600")
    assert says(redis.snapshots({"save": "", "appendonly": "yes"}), OK)
    assert says(redis.snapshots({"save": "", "appendonly": "no"}), WARN)
    assert says(redis.log(None, "wowevent:{default}"), OK, "no log yet")
    assert says(redis.log({"layout": "1", "epoch": "ab", "head": "3", "bytes": "10"}, ""), OK, "3 events")
    assert says(redis.log({"layout": "99"}, ""), FAIL, "newer")


# ------------------------------------------------------------------------------------------------ rabbitmq


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("3.9.29", FAIL), ("?", FAIL), ("3.10.8", WARN), ("3.13.7", OK), ("4.1.0", OK)],
)
def test_rabbitmq_versions(version: str, verdict: Verdict) -> None:
    assert says(rabbitmq.version(version), verdict, version)


def test_rabbitmq_log_and_policies() -> None:
    assert says(rabbitmq.log({"control": True, "history": True, "later": True}), OK)
    assert says(rabbitmq.log({"control": False, "history": False, "later": False}), OK, "no log yet")
    assert says(rabbitmq.log({"control": True, "history": False, "later": True}), FAIL, "deleted: history")
    assert says(rabbitmq.policies("3.13.7"), UNKNOWN, "policies")
    assert "limit of 20" not in rabbitmq.policies("3.13.7").found
    assert says(rabbitmq.policies("4.0.5"), UNKNOWN, "limit of 20")


# ------------------------------------------------------------------------------------------------ nats


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("2.10.29", FAIL), ("2.11.4", WARN), ("2.12.5", WARN), ("2.12.6", OK), ("2.15.1", OK), ("3.0.0", OK)],
)
def test_nats_versions(version: str, verdict: Verdict) -> None:
    assert says(nats.version(version), verdict, version)


@pytest.mark.parametrize(
    ("answer", "verdict", "words"),
    [
        (None, UNKNOWN, "may not ask"),
        ({"error": {"code": 500}}, UNKNOWN, "may not ask"),
        ({"data": {"config": {"sync_interval": 120_000_000_000, "sync_always": True}}}, OK, "always"),
        ({"data": {"config": {"sync_interval": 120_000_000_000}}}, WARN, "every 120 s"),
    ],
)
def test_nats_sync(answer: dict[str, Any] | None, verdict: Verdict, words: str) -> None:
    assert says(nats.sync(answer), verdict, words)


def stream(**changes: Any) -> dict[str, Any]:
    """What a server says of a stream of ours."""
    config = {"storage": "file", "discard": "new", "num_replicas": 1, "max_bytes": -1} | changes.pop("config", {})
    return {"config": config, "state": {"messages": 3, "bytes": 100}, **changes}


def peers(*late: str) -> dict[str, Any]:
    return {"leader": "n1", "replicas": [{"name": name, "current": name not in late} for name in ("n2", "n3")]}


@pytest.mark.parametrize(
    ("infos", "verdict", "words"),
    [
        ({"log": None, "dead": None}, OK, "no log yet"),
        ({"log": stream(), "dead": stream()}, OK, "3 events"),
        ({"log": stream(), "dead": None}, FAIL, "dead was deleted"),
        ({"log": stream(config={"storage": "memory"}), "dead": stream()}, FAIL, "in memory"),
        ({"log": stream(config={"discard": "old"}), "dead": stream()}, FAIL, "drops the oldest"),
    ],
)
def test_nats_streams(infos: dict[str, Any], verdict: Verdict, words: str) -> None:
    assert says(nats.streams(infos), verdict, words)


@pytest.mark.parametrize(
    ("infos", "cluster", "verdict", "words"),
    [
        ({"log": None}, "", OK, "no stream yet"),
        ({"log": stream()}, "", OK, "a server alone"),
        ({"log": stream(cluster={"leader": "n1"})}, "c1", WARN, "takes its streams along"),
        ({"log": stream(config={"num_replicas": 3}, cluster=peers())}, "c1", OK, "cluster c1"),
        ({"log": stream(config={"num_replicas": 3}, cluster=peers("n3"))}, "c1", WARN, "n3 of log"),
        ({"log": stream(config={"num_replicas": 3}, cluster={"replicas": []})}, "c1", FAIL, "no leader: log"),
    ],
)
def test_nats_replicas(infos: dict[str, Any], cluster: str, verdict: Verdict, words: str) -> None:
    assert says(nats.replicas(infos, cluster), verdict, words)


@pytest.mark.parametrize(
    ("account", "log", "verdict", "words"),
    [
        ({"storage": 10, "limits": {"max_storage": -1, "max_streams": -1}}, None, OK, "none"),
        ({"storage": 10, "limits": {"max_storage": 100, "max_streams": -1}}, None, OK, "10 bytes of 100 bytes"),
        ({"storage": 81, "limits": {"max_storage": 100, "max_streams": -1}}, None, WARN, "81 bytes"),
        ({"storage": 100, "limits": {"max_storage": 100, "max_streams": -1}}, None, FAIL, "storage_full"),
        ({"storage": 1, "streams": 0, "limits": {"max_streams": 4}}, None, FAIL, "a log is 5 streams"),
        ({"storage": 1, "streams": 0, "limits": {"max_streams": 5}}, None, OK, "0 of 5"),
        ({"storage": 1, "streams": 5, "limits": {"max_streams": 5}}, stream(), WARN, "5 of 5"),
        (
            {"storage": 1, "consumers": 9, "limits": {"max_consumers": 10}},
            stream(),
            WARN,
            "consumers of the account: 9",
        ),
        ({"storage": 1, "consumers": 0, "limits": {"max_consumers": 9}}, None, WARN, "consumers of the account: 0"),
        ({"storage": 1, "consumers": 0, "limits": {"max_consumers": 10}}, None, OK, "consumers of the account: 0"),
        ({"storage": 0, "limits": {"max_storage": 0, "max_streams": 0}}, None, FAIL, "0 bytes of 0 bytes"),
        ({"storage": 0, "limits": {"max_streams": 0, "max_consumers": 0}}, None, OK, "none"),
        ({"storage": 1, "limits": {"max_storage": -1}}, stream(config={"max_bytes": 110}), WARN, "bytes of the log"),
        ({"storage": 90, "tiers": {"R1": {"limits": {"max_storage": 100}}}}, None, WARN, "90 bytes"),
    ],
)
def test_nats_limits(account: dict[str, Any], log: dict[str, Any] | None, verdict: Verdict, words: str) -> None:
    assert says(nats.limits(account, log), verdict, words)


def test_nats_times() -> None:
    assert nats.time_of("2026-11-22T11:17:25.531737389Z") == pytest.approx(1795346245.531737)
    assert nats.time_of("2026-11-22T11:17:25Z") == 1795346245.0
    assert nats.time_of("") is None


# ------------------------------------------------------------------------------------------------ sqlite


@pytest.mark.parametrize(("version", "verdict"), [("3.46.1", FAIL), ("3.51.2", FAIL), ("3.51.3", OK), ("3.54.1", OK)])
def test_sqlite_versions(version: str, verdict: Verdict) -> None:
    assert says(sqlite.version(version), verdict, version)


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("ext4", OK),
        ("nfs4", FAIL),
        ("cifs", FAIL),
        ("fuse.sshfs", FAIL),
        ("tmpfs", WARN),
        ("overlay", WARN),
        ("", UNKNOWN),
    ],
)
def test_sqlite_file_systems(kind: str, verdict: Verdict) -> None:
    assert says(sqlite.disk(kind, "/data"), verdict, kind)


@pytest.mark.parametrize(("free", "verdict"), [(8 * 2**20, FAIL), (8 * 2**20 + 1, WARN), (80 * 2**20, OK), (GIB, OK)])
def test_sqlite_space(free: int, verdict: Verdict) -> None:
    assert says(sqlite.space(free, 8 * 2**20), verdict, "kept")


def test_sqlite_settings() -> None:
    assert says(sqlite.wal(4096), OK)
    assert says(sqlite.wal(65 * 2**20), WARN, "65.0 MiB")
    assert [sqlite.synced(each).verdict for each in ("full", "normal", "off")] == [OK, WARN, FAIL]


@pytest.mark.parametrize(
    ("folder", "file", "verdict"),
    [
        (0o700, 0o600, OK),
        (0o755, 0o600, OK),
        (0o755, 0o644, WARN),
        (0o700, 0o660, FAIL),
        (0o777, 0o600, FAIL),
        (0o770, 0o600, WARN),
        (0o1777, 0o600, OK),  # as /tmp is: nobody may replace what is another one's
    ],
)
def test_sqlite_permissions(folder: int, file: int, verdict: Verdict) -> None:
    assert says(sqlite.permissions(folder, {"events.db": file}, "/data"), verdict)


# ------------------------------------------------------------------------------------------------ the machine


def test_the_clock_is_kept() -> None:
    assert says(machine.kept(0), OK)
    assert says(machine.kept(5), WARN)
    assert says(machine.kept(None), UNKNOWN)


@pytest.mark.parametrize(("most", "verdict"), [(256, WARN), (1024, WARN), (1100, OK), (None, OK)])
def test_files(most: int | None, verdict: Verdict) -> None:
    assert says(machine.files(most), verdict)


@pytest.mark.parametrize(("free", "verdict"), [(2**20, FAIL), (512 * 2**20, WARN), (2 * GIB, OK)])
def test_room(free: int, verdict: Verdict) -> None:
    assert says(places.room(Path("/data"), free), verdict)


@contextmanager
def somebody() -> Iterator[Path]:
    """A folder that anybody may reach; who looks at it is no superuser meanwhile, for whom nothing is forbidden."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        was = os.geteuid()
        if was == 0:
            os.chown(folder, 65_534, 65_534)
            os.seteuid(65_534)
        try:
            yield folder
        finally:
            os.seteuid(was)


def test_a_folder_that_cannot_be_written() -> None:
    with somebody() as folder:
        folder.chmod(0o500)
        assert says(places.data(folder, embedded=True), FAIL, "cannot be written")
        assert says(places.data(folder, embedded=False), OK, "need not be")
        below = folder / "wowevent" / "events.db"
        assert says(sqlite._file(below), FAIL, "none can be made")  # noqa: SLF001 - by the command it is another's process
        assert says(places.data(below.parent, embedded=True), OK, "is not there")
        folder.chmod(0o700)
        assert says(sqlite._file(below), OK, "no log yet")  # noqa: SLF001 - as above
        assert says(places.data(folder, embedded=True), OK, "0700")


def test_a_log_that_cannot_be_read() -> None:
    with somebody() as folder:
        file = folder / "events.db"
        file.write_bytes(b"whatever")
        file.chmod(0o000)
        assert says(sqlite._file(file), FAIL, "cannot be written")  # noqa: SLF001 - as above
        file.chmod(0o600)
        folder.chmod(0o600)
        assert says(sqlite._file(file), FAIL, "may not be reached")  # noqa: SLF001 - as above


def test_what_is_anothers_and_ours_by_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod's volumes are root's, and of the pod's group: a Secret 0440, a disk 2775, an empty folder 2777."""
    file, folder = tmp_path / "tokens.json", tmp_path / "data"
    file.touch()
    folder.mkdir()
    owner = tmp_path.stat().st_uid
    for mine, mode, verdict in (
        (True, 0o440, FAIL),
        (False, 0o440, OK),
        (False, 0o460, FAIL),
        (False, 0o444, FAIL),
    ):
        monkeypatch.setattr(os, "geteuid", lambda mine=mine: owner if mine else owner + 1)
        file.chmod(mode)
        assert places.secrets({"tokens": file}).verdict == verdict, oct(mode)
    for mine, mode, embedded, verdict in (
        (True, 0o2770, False, FAIL),
        (False, 0o2770, False, OK),
        (False, 0o2775, True, WARN),
        (False, 0o2777, False, WARN),
        (False, 0o2777, True, FAIL),
    ):
        monkeypatch.setattr(os, "geteuid", lambda mine=mine: owner if mine else owner + 1)
        folder.chmod(mode)
        found = places.data(folder, embedded=embedded)
        assert found.verdict == verdict, oct(mode)
        assert mine or "chmod 700" not in found.change  # which would shut us out
        assert sqlite._permissions(folder / "events.db").verdict == (  # noqa: SLF001 - as above
            FAIL if mode & 0o002 else WARN if mine else OK
        )


def test_files_that_others_may_read(tmp_path: Path) -> None:
    secret = tmp_path / "tokens.json"
    assert says(places.secrets({}), OK)
    assert says(places.secrets({"tokens": secret}), FAIL, "what tokens names is not there")
    secret.write_text("{}")
    for mode, verdict in ((0o600, OK), (0o640, FAIL), (0o604, FAIL)):
        secret.chmod(mode)
        assert says(places.secrets({"tokens": secret}), verdict)
    folder = tmp_path / "data"
    folder.mkdir()
    for mode, verdict in ((0o700, OK), (0o755, WARN), (0o777, FAIL)):
        folder.chmod(mode)
        assert says(places.data(folder, embedded=True), verdict)
    assert says(places.data(secret, embedded=True), FAIL, "no folder")
    assert says(places.data(secret / "below", embedded=True), FAIL, "no folder")


def test_a_file_of_another_s_that_our_group_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Kubernetes mounts a Secret: root's, 0440, and the pod's group is the file's."""
    secret = tmp_path / "tokens.json"
    secret.write_text("{}")
    monkeypatch.setattr("os.geteuid", lambda: secret.stat().st_uid + 1)
    for mode, verdict in ((0o440, OK), (0o460, FAIL), (0o444, FAIL)):
        secret.chmod(mode)
        assert says(places.secrets({"tokens": secret}), verdict)


def test_the_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    assert says(places.config(file), OK, "none at")
    for text, mode, verdict, words in (
        ("port = 9191\n", 0o644, OK, "0644"),
        ("port = 9191\n", 0o666, FAIL, "others may write"),
        ('url = "redis://u:hunter22@h"\n', 0o600, OK, "0600"),
        ('url = "redis://u:hunter22@h"\n', 0o644, FAIL, "others may read"),
        ('redis_url = "redis://h?password=hunter22"\n', 0o644, FAIL, "others may read"),
        ('token = "hunter22"\n', 0o640, FAIL, "others may read"),
        ('jwt_keys = \'{"keys": "hunter22"}\'\n', 0o644, FAIL, "others may read"),
        ('jwt_keys = "keys.json"\n', 0o644, OK, "0644"),
        ("prot = 9191\n", 0o600, FAIL, "prot"),
        ("port = \n", 0o600, FAIL, "config.toml"),
    ):
        file.write_text(text)
        file.chmod(mode)
        found = places.config(file)
        assert says(found, verdict, words), found
        assert "hunter22" not in found.found


# ------------------------------------------------------------------------------------------------ subscriptions


def info(id: str = "worker", **changes: Any) -> SubscriptionInfo:
    durable = changes.pop("durable", True)
    subscription = Subscription(id=id, patterns=("#",), durable=durable)
    return SubscriptionInfo(subscription=subscription, **({"consumers": 1} | changes))


@pytest.mark.parametrize(
    ("one", "check", "words"),
    [
        (info(), None, ""),
        (info(durable=False, consumers=0), None, ""),
        (info(lapsed=True), "subscriptions.lapsed", "lapsed: worker"),
        (info(lapsed=True, consumers=0), "subscriptions.lapsed", "lapsed: worker"),
        (info(lost=7), "subscriptions.lapsed", "worker (7 events)"),
        (info(consumers=0, ready=3), "subscriptions.unserved", "worker (3 waiting)"),
        (info(ready=10_000), None, ""),
        (info(ready=10_001), "subscriptions.backlog", "10001 waiting"),
        (info(ready=1, oldest=3601.0), "subscriptions.backlog", "the oldest for 3601 s"),
        (info(dead=4), "subscriptions.dead_letters", "4: worker (4)"),
    ],
)
def test_how_subscriptions_stand(one: SubscriptionInfo, check: str | None, words: str) -> None:
    found = standing.judge([one])
    assert [finding.check for finding in found] == [each.name for each in standing.CHECKS]
    assert [finding.check for finding in found if finding.verdict != OK] == ([check] if check else [])
    assert all(says(finding, WARN, words) for finding in found if finding.check == check)


def test_many_are_not_all_named() -> None:
    found = standing.judge([info(f"s{n}", consumers=0) for n in range(8)])[1]
    assert says(found, WARN, "s4 (0 waiting) and 3 more")
    assert all(says(each, OK) for each in standing.judge(None))


# ------------------------------------------------------------------------------------------------ discretion


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://user:hunter22@h", "redis://***@h"),
        ("amqp://user:hun%2Fter22@h:1/v", "amqp://***@h:1/v"),
        ("redis://:hunter/22@h", "redis://***@h"),  # one that should have been quoted
        ("redis://h?password=hunter22", "redis://h?password=***"),
        ("nats://hunter22@h1,h2", "nats://***@h1,h2"),
        ("user:hunter22@h", "***@h"),
        ("sqlite:////data/a@b.db", "sqlite:////data/a@b.db"),
        ("sqlite://user:hunter22@h/a.db", "sqlite://***@h/a.db"),  # which is none
    ],
)
def test_a_url_without_secrets(url: str, shown: str) -> None:
    discretion = Discretion(url)
    assert discretion.url == shown
    assert discretion.text(f"{url!r} is wrong") == f"{shown!r} is wrong"
    for secret in ("hunter22", "hun/ter22", "hun%2Fter22", "hunter/22"):
        if secret in url.replace("%2F", "/") or secret in url:
            assert secret not in discretion.text(f"AUTH {secret}: wrong")


def test_a_short_secret_hides_no_words() -> None:
    discretion = Discretion("nats://b:b@h")
    assert discretion.text("10 bytes, user b") == "10 bytes, user ***"


# ------------------------------------------------------------------------------------------------ the round


async def test_a_name_server_that_does_not_answer_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question of a driver is in a thread that the loop waits for at its end, or in one of libuv's."""
    monkeypatch.setattr(doctor, "LIMIT", 0.3)
    over, asked = threading.Event(), list[object]()

    def silent(host: object, *_: object, **__: object) -> list[object]:
        asked.append(host)
        over.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    try:
        _, (finding,) = await doctor.at_engine("redis://user:pw@redis-service:6379")
    finally:
        over.set()
    assert says(finding, FAIL, "no name server answers")
    assert asked == ["redis-service"]


async def test_a_driver_that_cancels_whoever_waits_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def examine(self) -> "Broken":
            return self

        async def __aenter__(self) -> None:
            raise asyncio.CancelledError

        async def __aexit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(doctor, "open_broker", lambda _url, namespace: Broken())
    _, (finding,) = await doctor.at_engine("amqp://localhost")
    assert says(finding, FAIL, "the connection was lost")


async def test_a_look_that_breaks_is_a_finding() -> None:
    async def broken() -> list[Finding]:
        raise KeyError("no such field")

    async def forbidden() -> list[Finding]:
        raise NotPermitted("redis: NOPERM")

    async def lost() -> list[Finding]:
        raise BrokerUnavailable("redis: gone")

    (finding,) = await doctor.within(CHECK, broken)
    assert says(finding, UNKNOWN, "KeyError: 'no such field'")
    assert finding.check == CHECK.name
    for look, words, advice in ((forbidden, "NOPERM", "that right"), (lost, "redis: gone", "logs")):
        (finding,) = await doctor.within(CHECK, look)
        assert says(finding, UNKNOWN, words)
        assert advice in finding.change


async def test_a_look_that_takes_too_long_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIMIT", 0.1)
    began = time.monotonic()
    (finding,) = await doctor.within(CHECK, lambda: asyncio.sleep(30, []))
    assert says(finding, UNKNOWN, "no answer within")
    assert time.monotonic() - began < 5


class Engine:
    """One that is entered, or left, in its own way."""

    capabilities = open_broker("memory://").capabilities

    def __init__(self, *, enters: bool) -> None:
        self.enters = enters
        self.held = asyncio.Event()
        self.left = False

    def examine(self) -> "Engine":
        return self

    async def __aenter__(self) -> Examination:
        if not self.enters:
            await self.hold()
        return Examination({}, self.subscriptions)

    async def __aexit__(self, *_: object) -> None:
        await self.hold()

    async def hold(self) -> None:
        self.held.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.left = True
            raise ConnectionError("the driver says so instead") from None

    async def subscriptions(self) -> None:
        """There is no log yet."""


async def test_what_a_visit_that_is_given_up_raises_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIMIT", 0.1)
    monkeypatch.setattr(doctor, "_LEAVING", 0.1)
    engine, said = Engine(enters=True), list[dict[str, Any]]()
    monkeypatch.setattr(doctor, "open_broker", lambda _url, namespace: engine)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context))
    promise, findings = await doctor.at_engine("memory://")
    assert (promise, says(findings[0], OK, "answers"), engine.left) == (engine.capabilities.promise, True, True)
    gc.collect()
    assert said == []


@pytest.mark.parametrize("enters", [True, False])
async def test_who_gives_up_looking_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, enters: bool) -> None:
    engine = Engine(enters=enters)
    monkeypatch.setattr(doctor, "open_broker", lambda _url, namespace: engine)
    looks = [doctor.at_engine("memory://"), doctor.within(CHECK, engine.hold)]  # type: ignore[arg-type]  # never ends
    for look in looks:
        engine.held.clear()
        engine.left = False
        looking = asyncio.create_task(look)
        await engine.held.wait()
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        assert engine.left


def test_every_name_is_one_checks_own() -> None:
    own = [*doctor.CHECKS, *sqlite.CHECKS, *redis.CHECKS, *rabbitmq.CHECKS, *nats.CHECKS]
    names = [check.name for check in set(own)]
    assert len(names) == len(set(names))
