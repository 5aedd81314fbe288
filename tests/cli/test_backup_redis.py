"""What docs/backup.md says of Redis, tried on a real one: its own snapshot, there and back, and a copy into a file."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import wowevent
from tests.servers import Server, redis_server

STATE = "wowevent:{default}:state"


@pytest.fixture
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if "redis" not in request.config.getoption("--broker").split(","):
        pytest.skip("--broker does not name redis")
    server = redis_server(tmp_path / "data")
    server.start()
    yield server
    server.kill()


def cli(server: Server, *words: str) -> str:
    command = ["redis-cli", "-p", str(server.port), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def run(home: Path, *arguments: str) -> str:
    done = wowevent(home, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def publish(home: Path, url: str, *numbers: int) -> None:
    lines = "\n".join(json.dumps({"topic": "task.created", "payload": {"n": n}}) for n in numbers)
    assert wowevent(home, "publish", "--events", "--url", url, stdin=lines.encode()).returncode == 0


def history(home: Path, url: str) -> list[int]:
    return [json.loads(line)["payload"]["n"] for line in run(home, "history", "--json", "--url", url).splitlines()]


def worker(home: Path, url: str, count: int) -> list[int]:
    """What a remembered subscription handles next."""
    said = run(home, "subscribe", "task.*", "--name", "worker", "-n", str(count), "--json", "--url", url)
    return [json.loads(line)["payload"]["n"] for line in said.splitlines()]


def test_a_snapshot_there_and_back(tmp_path: Path, redis: Server) -> None:
    url, data = f"redis://127.0.0.1:{redis.port}", tmp_path / "data"
    publish(tmp_path, url, 0)
    run(tmp_path, "subscribe", "task.*", "--name", "worker", "--from", "first", "-n", "1", "--url", url)
    publish(tmp_path, url, 1, 2)
    cli(redis, "CONFIG", "SET", "repl-diskless-sync-delay", "0")  # five seconds in which it waits for others
    cli(redis, "--rdb", str(tmp_path / "dump.rdb"))
    subprocess.run(["redis-check-rdb", tmp_path / "dump.rdb"], check=True, capture_output=True)
    publish(tmp_path, url, 3, 4)
    epoch = cli(redis, "HGET", STATE, "epoch")
    redis.kill()

    (data / "appendonlydir").rename(data / "appendonlydir.before")
    shutil.copy(tmp_path / "dump.rdb", data / "appendonly.aof")
    redis.start()
    cli(redis, "HSET", STATE, "epoch", "0badcafe")
    redis.kill()  # even so: all of it is in the append-only file
    redis.start()

    assert cli(redis, "HGET", STATE, "epoch") == "0badcafe" != epoch
    assert history(tmp_path, url) == [0, 1, 2]
    publish(tmp_path, url, 5)
    assert worker(tmp_path, url, 3) == [1, 2, 5]
    assert history(tmp_path, url) == [0, 1, 2, 5]


def test_a_server_with_an_append_only_file_does_not_look_at_the_snapshot(tmp_path: Path, redis: Server) -> None:
    """Why the page has more than two lines: without them nothing is restored, and nothing says so."""
    url, data = f"redis://127.0.0.1:{redis.port}", tmp_path / "data"
    publish(tmp_path, url, 0)
    cli(redis, "SAVE")
    publish(tmp_path, url, 1)
    redis.kill()
    redis.start()
    assert history(tmp_path, url) == [0, 1]
    assert (data / "dump.rdb").exists()


def test_a_copy_into_a_file_is_backed_up_and_goes_back(tmp_path: Path, redis: Server) -> None:
    url = f"redis://127.0.0.1:{redis.port}"
    publish(tmp_path, url, 0, 1, 2)
    run(tmp_path, "copy", "--from", url, "--to", "sqlite:///redis.db")
    publish(tmp_path, url, 3)
    said: dict[str, Any] = json.loads(run(tmp_path, "copy", "--from", url, "--to", "sqlite:///redis.db", "--json"))
    run(tmp_path, "backup", "redis.backup", "--url", "sqlite:///redis.db")
    cli(redis, "FLUSHALL")
    run(tmp_path, "restore", "redis.backup", "--url", "sqlite:///there.db")
    run(tmp_path, "copy", "--from", "sqlite:///there.db", "--to", url)

    assert said["copied"]["events"] == 1
    assert history(tmp_path, url) == [0, 1, 2, 3]
