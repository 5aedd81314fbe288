"""The engines' configurations, as the real servers read them."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deployment.conftest import INFRASTRUCTURE, KUBERNETES
from tests.deployment.kustomize import documents, one
from tests.servers import Server, free_port, nats_server, rabbitmq_server
from wowevent import EventBus


def asked_for(config: pytest.Config, engine: str) -> None:
    if engine not in config.getoption("--broker").split(","):
        pytest.skip(f"--broker does not name {engine}")


def test_redis_keeps_what_it_confirms(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    asked_for(pytestconfig, "redis")
    port = free_port()
    conf = tmp_path / "redis.conf"
    shipped = (INFRASTRUCTURE / "docker" / "redis.conf").read_text("utf-8")
    conf.write_text(shipped.replace("dir /data", f"dir {tmp_path}"))
    server = Server(["redis-server", str(conf), "--port", str(port), "--bind", "127.0.0.1"], port, tmp_path)
    server.start()
    try:
        promise, settings = asyncio.run(_seen(port))
    finally:
        server.kill()
    assert "a power loss may take about the last second" in promise
    assert settings["maxmemory"] == str(2 * 1024**3)
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["save"]


def test_a_backup_of_redis_is_whole_and_the_last_seven_are_kept(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    asked_for(pytestconfig, "redis")
    job = one(documents(KUBERNETES / "overlays" / "redis" / "backup.yaml"), "CronJob")["spec"]["jobTemplate"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    *shell, script = container["command"]
    backups, port = tmp_path / "backups", free_port()
    (tmp_path / "data").mkdir()
    backups.mkdir()
    for day in range(10, 19):
        (backups / f"redis-202501{day}-021700.rdb").touch()
    (backups / "redis-20250119-021700.rdb.part").touch()
    options = ["--port", str(port), "--dir", str(tmp_path / "data"), "--repl-diskless-sync-delay", "0"]
    server = Server(["redis-server", *options], port, tmp_path)
    here = script.replace("/backups/", f"{backups}/").replace("-h redis-service -p 6379", f"-p {port}")
    server.start()
    try:
        subprocess.run(["redis-cli", "-p", str(port), "set", "kept", "x"], capture_output=True, timeout=20, check=True)
        subprocess.run([*shell, here], capture_output=True, timeout=20, check=True)
    finally:
        server.kill()
    *old, new = sorted(each.name for each in backups.iterdir())
    assert old == [f"redis-202501{day}-021700.rdb" for day in range(13, 19)]
    assert b"kept" in (backups / new).read_bytes()
    assert subprocess.run([*shell, here], capture_output=True, timeout=20, check=False).returncode != 0
    assert len([*backups.glob("*.rdb")]) == 7, "one that fails takes no other's place"


async def _seen(port: int) -> tuple[str, dict[str | None, str | None]]:
    """What the bus promises there (with `strict` it would refuse a server that may forget), and what is set."""
    from redis.asyncio import Redis

    async with (
        EventBus(f"redis://127.0.0.1:{port}?strict=true") as bus,
        Redis(port=port, decode_responses=True) as asking,
    ):
        return bus.capabilities.promise, await asking.config_get("*")


def test_nats_takes_its_configuration(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    asked_for(pytestconfig, "nats")
    said = one(documents(KUBERNETES / "overlays" / "nats" / "nats.yaml"), "ConfigMap")["data"]["nats.conf"]
    assert "sync_interval: always" in said
    program = shutil.which("nats-server", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert program is not None
    for text, well in ((said, True), (said.replace("max_file_store", "max_file_stores"), False)):
        (tmp_path / "nats.conf").write_text(text)
        command = [program, "-c", str(tmp_path / "nats.conf"), "-t"]
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        assert (done.returncode == 0) is well, done.stderr


def test_nats_answers_what_its_pod_is_asked(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    asked_for(pytestconfig, "nats")
    manifests = documents(KUBERNETES / "overlays" / "nats" / "nats.yaml")
    (container,) = one(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    server, monitor = nats_server(tmp_path), free_port()
    text = one(manifests, "ConfigMap")["data"]["nats.conf"].replace("/data", str(tmp_path / "store"))
    text = text.replace("0.0.0.0:4222", f"127.0.0.1:{server.port}").replace("0.0.0.0:8222", f"127.0.0.1:{monitor}")
    (tmp_path / "nats.conf").write_text(text)
    server.start()
    try:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = container[probe]["httpGet"]["path"]
            assert httpx.get(f"http://127.0.0.1:{monitor}{path}").status_code == 200, path
    finally:
        server.kill()


def shipped() -> tuple[str, dict[str, Any]]:
    """The configuration of RabbitMQ, and its container."""
    manifests = documents(KUBERNETES / "overlays" / "rabbitmq" / "rabbitmq.yaml")
    (container,) = one(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    return one(manifests, "ConfigMap")["data"]["wowevent.conf"], container


def test_rabbitmq_takes_its_configuration(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    asked_for(pytestconfig, "rabbitmq")
    server, (said, _) = rabbitmq_server(tmp_path), shipped()
    conf = tmp_path / "rabbitmq.conf"
    own = [line for line in conf.read_text("utf-8").splitlines() if "watermark" not in line]
    conf.write_text("\n".join(own).replace("level = warning", "level = info") + f"\n{said}")
    server.start()  # it would not, by a name that it does not know
    server.kill()
    log = (tmp_path / "server.log").read_text("utf-8")
    assert "Memory high watermark set to 1200 MiB" in log
    assert "Disk free limit set to 1000MB" in log


def test_rabbitmq_is_bounded_below_its_pod() -> None:
    text, container = shipped()
    said = dict(line.split(" = ") for line in text.splitlines() if "=" in line)
    assert said["vm_memory_high_watermark.absolute"] == "1200MiB"
    assert container["resources"]["limits"]["memory"] == "2Gi"
    assert int(said["consumer_timeout"]) == 24 * 3600 * 1000
