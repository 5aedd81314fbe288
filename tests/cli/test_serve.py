"""`wowevent serve`: its banner tells the truth, its port and host are guarded, a signal drains it."""

import re
import signal
import socket
import stat
from pathlib import Path

import httpx
import pytest

from tests.processes import address, end, running, until, wowevent


def test_from_the_banner_to_the_end(tmp_path: Path) -> None:
    with running(tmp_path, "wowevent", "serve", "--http-port", "0", "--port", "9191") as process:
        url = address(tmp_path)
        for path in re.findall(r"http://\S+", (tmp_path / "out.txt").read_text()):
            assert httpx.get(path).status_code == 200, path
        assert httpx.post(f"{url}/events", json={"topic": "a.b"}).status_code == 202
        assert b" a.b " in wowevent(tmp_path, "history").stdout
        wowevent(tmp_path, "publish", "a.c")
        assert [each["event"]["topic"] for each in httpx.get(f"{url}/events").json()["events"]] == ["a.b", "a.c"]
        assert httpx.post(f"{url}/events", json={"topic": "a b"}).status_code == 400
        assert end(process) == 0
    banner = (tmp_path / "out.txt").read_text()
    for told in ("ws://127.0.0.1:9191", "sqlite:///", "on disk before it is confirmed", "default"):
        assert told in banner
    (log,) = tmp_path.rglob("wowevent.log")
    assert str(log) in banner
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert " WARNING wowevent validation refused a request " in log.read_text()
    assert "stopped" in log.read_text()


def test_ctrl_c(tmp_path: Path) -> None:
    with running(
        tmp_path, "wowevent", "serve", "--http-port", "0", "--url", "memory://", "--log-file", "x.log"
    ) as process:
        address(tmp_path)
        assert end(process, signal.SIGINT) == 0
    assert (tmp_path / "x.log").is_file()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = wowevent(tmp_path, "serve", "--http-port", str(taken.getsockname()[1]))
    assert done.returncode == 69
    assert done.stderr.startswith(b"error[address_in_use]: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_others_are_let_in_only_where_that_is_said(tmp_path: Path, host: str) -> None:
    done = wowevent(tmp_path, "serve", "--http-port", "0", "--host", host)

    assert done.returncode == 77
    assert done.stderr.startswith(b"error[not_permitted]: ")


def test_others_are_let_in(tmp_path: Path) -> None:
    arguments = ("serve", "--http-port", "0", "--host", "0.0.0.0", "--allow-anonymous")
    with running(tmp_path, "wowevent", *arguments) as process:
        url = address(tmp_path)
        assert httpx.get(f"{url}/events", headers={"host": "bus.example"}).status_code == 200
        assert end(process) == 0


def test_switched_off(tmp_path: Path) -> None:
    with running(tmp_path, "wowevent", "serve", "--http-port", "0", EVENT_BUS_ENABLED="false") as process:
        url = address(tmp_path)
        assert httpx.get(f"{url}/health").json()["event_bus"] == "disabled"
        until(lambda: "disabled (EVENT_BUS_ENABLED=false)" in (tmp_path / "out.txt").read_text(), "the banner")
        assert end(process) == 0


def test_a_log_of_another_program_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database" * 1000)
    done = wowevent(tmp_path, "serve", "--http-port", "0", "--url", "sqlite:///x.db")

    assert done.returncode == 74
    assert b"error[storage_damaged]: " in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_secret_in_a_url_is_not_shown() -> None:
    from wowevent.settings import Settings

    assert Settings(url="redis://user:s3cret@host:6379/0").shown_url() == "redis://***@host:6379/0"


def test_version(tmp_path: Path) -> None:
    assert re.fullmatch(rb"wowevent \d+\.\d+\.\d+\S*, Python \S+, SQLite \S+\n", wowevent(tmp_path, "version").stdout)
    assert b"publish" in wowevent(tmp_path, "--help").stdout
