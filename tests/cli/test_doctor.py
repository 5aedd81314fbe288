"""`wowevent doctor`: what it prints, how it ends, and that neither the configuration nor the machine stops it."""

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

from tests.cli.broken import URL, broken, obeys
from tests.cli.daemons import data, free_port, started
from tests.processes import wowevent
from wowevent import doctor
from wowevent.brokers.memory import doctor as memory
from wowevent.brokers.nats import doctor as nats
from wowevent.brokers.rabbitmq import doctor as rabbitmq
from wowevent.brokers.redis import doctor as redis
from wowevent.brokers.sqlite import doctor as sqlite

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
QUIET = {"sqlite.disk": "", "machine.clock": "", "files.room": "", "ports.websocket": "", "ports.http": ""}
"""What is as this machine happens to be."""


def report(home: Path, *arguments: str, status: int = 0, **changes: Any) -> dict[str, Any]:
    """What it says with --json; and that it ends so."""
    done = wowevent(home, "doctor", "--json", *arguments, **changes)
    assert (done.returncode, done.stderr) == (status, b""), done
    (line,) = done.stdout.splitlines()
    said: dict[str, Any] = json.loads(line)
    assert (said["verdict"] == "fail") is (status == 1)
    return said


def found(said: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {finding["check"]: finding for finding in said["findings"]}


def wrong(said: dict[str, Any]) -> dict[str, str]:
    """What is not ok, but for what is as this machine happens to be."""
    return {
        name: each["verdict"] for name, each in found(said).items() if each["verdict"] != "ok" and name not in QUIET
    }


def test_an_embedded_log_that_is_not_there_yet(tmp_path: Path) -> None:
    said = report(tmp_path)
    assert list(said) == ["verdict", "engine", "namespace", "promise", "counts", "findings"]
    assert said["engine"] == f"sqlite:///{data(tmp_path) / 'events.db'}"
    assert "a power loss" in said["promise"]
    assert wrong(said) == {}
    assert set(said["counts"]) == {"ok", "unknown", "warn", "fail"}
    assert sum(said["counts"].values()) == len(said["findings"])
    for finding in said["findings"]:
        assert list(finding) == ["check", "verdict", "found", "promised", "change"]
    assert list(tmp_path.iterdir()) == []  # nothing was made


def test_what_a_person_reads(tmp_path: Path) -> None:
    broken(tmp_path)
    done = wowevent(tmp_path, "doctor", *URL)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not obeys(done.stdout)
    text = done.stdout.decode()
    assert re.search(r"^warn     subscriptions\.dead_letters +4: worker~task\.\* \(4\)$", text, re.MULTILINE)
    assert "change:   wowevent dlq list says why" in text
    assert re.search(r"^ok       sqlite\.damage +quick_check: ok$", text, re.MULTILINE)
    assert re.search(r"^\d+ ok, .*\d+ warn$", text, re.MULTILINE)


def test_what_fails_ends_with_1(tmp_path: Path) -> None:
    broken(tmp_path)
    said = report(tmp_path, "--url", f"{URL[1]}?synchronous=off", status=1)
    assert found(said)["sqlite.synchronous"]["verdict"] == "fail"
    assert "damage the log" in said["promise"]


def test_no_password_is_shown(tmp_path: Path) -> None:
    port = free_port()
    for url in (
        f"redis://user:hunter22@127.0.0.1:{port}",
        f"amqp://user:hunter22@127.0.0.1:{port}",
        f"nats://user:hunter22@127.0.0.1:{port}",
        "redis://user:hunter22@127.0.0.1:port",
        "foo://user:hunter22@h",
        "hunter22@h",
        "sqlite://user:hunter22@h/events.db",
    ):
        flags = () if url.startswith("redis") else ("--json",)
        done = wowevent(tmp_path, "doctor", *flags, "--url", url)
        assert (done.returncode, done.stderr) == (1, b""), done
        assert b"hunter22" not in done.stdout
        assert b"engine.reachable" in done.stdout


def test_a_black_hole_ends_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        said = report(tmp_path, "--url", f"nats://127.0.0.1:{silent.getsockname()[1]}", status=1)
    assert time.monotonic() - began < 20
    assert wrong(said) == {"engine.reachable": "fail"}
    assert found(said)["engine.reachable"]["found"] == "no answer within 5 s"
    assert "machine.files" in found(said)  # and all else was looked at


def test_a_wrong_configuration_stops_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('prot = 9191\nurl = "redis://u:hunter22@h"\n')
    file.chmod(0o600)
    said = report(tmp_path, WOWEVENT_CONFIG=str(file), status=1)
    assert wrong(said) == {"settings": "fail", "engine.reachable": "unknown", "files.config": "fail"}
    assert "prot" in found(said)["files.config"]["found"]
    assert "hunter22" not in json.dumps(said)

    said = report(tmp_path, "--url", "memory://", WOWEVENT_CONFIG=str(file), status=1)  # that one is known
    assert found(said)["engine.reachable"]["verdict"] == "ok"

    said = report(tmp_path, "--url", "memory://", PORT="many", status=1)
    assert wrong(said) == {"settings": "fail", "memory.durability": "warn"}
    said = report(tmp_path, "--namespace", "no name", status=1)
    assert wrong(said) == {"settings": "fail", "engine.reachable": "unknown"}
    said = report(tmp_path, WOWEVENT_CONFIG=str(tmp_path / "none.toml"), status=1)
    assert "none.toml" in found(said)["settings"]["found"]


def test_what_no_service_starts_with(tmp_path: Path) -> None:
    for given in (
        {"WOWEVENT_TOKENS": '{"version": 1, "hunter22"'},
        {"WOWEVENT_TOKENS": "wow_0123_hunter22"},
        {"WOWEVENT_JWT_KEYS": '{"keys": []}'},
        {"WOWEVENT_TLS_CERT": str(tmp_path / "none.pem")},
    ):
        said = report(tmp_path, "--url", "memory://", **given, status=1)
        assert found(said)["settings"]["verdict"] == "fail", given
        assert "hunter22" not in json.dumps(said)
        assert found(said)["engine.reachable"]["verdict"] == "ok"


def test_files_that_others_may_read(tmp_path: Path) -> None:
    folder, file = tmp_path / "data", tmp_path / "config.toml"
    folder.mkdir()
    folder.chmod(0o755)
    file.write_text('url = "redis://u:hunter22@127.0.0.1:1"\n')
    file.chmod(0o644)
    given = {"WOWEVENT_DATA_DIR": str(folder), "WOWEVENT_CONFIG": str(file)}
    said = report(tmp_path, "--url", f"sqlite:///{folder / 'events.db'}", **given, status=1)
    assert wrong(said) == {"files.config": "fail", "files.data": "warn"}
    assert found(said)["files.config"]["change"] == f"chmod 600 {file}"


def test_without_a_home(tmp_path: Path) -> None:
    said = report(tmp_path, "--url", "memory://", HOME="/nowhere")  # as in a container that is read alone
    assert wrong(said) == {"memory.durability": "warn"}
    assert "is not there" in found(said)["files.data"]["found"]
    assert not Path("/nowhere").exists()


def test_ports_of_ours_and_of_a_stranger(home: Path) -> None:
    record = started(home)
    ports = {name: record[name].rpartition(":")[2] for name in ("websocket", "http")}
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = str(stranger.getsockname()[1])
        ours = report(home, WOWEVENT_PORT=ports["websocket"], PORT=ports["http"])
        others = report(home, WOWEVENT_PORT=taken, PORT="0")
    for name in ports:
        assert found(ours)[f"ports.{name}"]["verdict"] == "ok"
        assert f"registered here, process {record['pid']}" in found(ours)[f"ports.{name}"]["found"]
    elsewhere = report(home, WOWEVENT_PORT=ports["websocket"], PORT="0", WOWEVENT_DATA_DIR=str(home / "elsewhere"))
    assert f"a wowevent service, process {record['pid']}" in found(elsewhere)["ports.websocket"]["found"]
    assert found(others)["ports.websocket"]["verdict"] == "warn"
    assert "another program" in found(others)["ports.websocket"]["found"]
    assert found(others)["ports.http"]["verdict"] == "ok"
    assert found(ours)["sqlite.processes"]["found"].startswith("1 here now")
    assert wrong(ours) == {}


def test_an_address_that_is_none_of_this_machine(tmp_path: Path) -> None:
    said = report(tmp_path, "--url", "memory://", WOWEVENT_HOST="192.0.2.1", status=1)
    assert found(said)["ports.http"]["verdict"] == "fail"
    said = report(tmp_path, "--url", "memory://", WOWEVENT_HOST="no.such.host.invalid", status=1)
    assert found(said)["ports.http"]["verdict"] == "fail"


def test_every_check_stands_on_the_page() -> None:
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+?) \| .+ \|$", PAGE.read_text(), re.MULTILINE))
    engines = (memory, sqlite, redis, rabbitmq, nats)
    checks = {check for engine in engines for check in engine.CHECKS} | {*doctor.CHECKS}
    assert rows == {check.name: check.promised for check in checks}
