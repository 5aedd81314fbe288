"""`python -m wowevent.service` as containers run it: environment in, sockets, signals, exit status."""

import json
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.processes import address, end, environment, running, until, wowevent
from wowevent.process.logs import set_up_logs

MIB = 1024 * 1024


@pytest.mark.parametrize("number", [15, 2])
def test_a_signal_drains_and_ends_well(tmp_path: Path, number: int) -> None:
    with running(tmp_path, "wowevent.service", PORT="0") as process:
        url = address(tmp_path)
        until(lambda: httpx.get(f"{url}/ready").status_code == 200, "readiness")
        assert httpx.post(f"{url}/events", json={"topic": "a", "payload": {"secret": "s3cret"}}).status_code == 202
        assert end(process, number) == 0
    log = (tmp_path / "err.txt").read_text()
    assert "draining" in log
    assert "Traceback" not in log
    assert "s3cret" not in log
    assert b"s3cret" in wowevent(tmp_path, "history").stdout


def test_bodies_that_are_too_large(service: httpx.Client) -> None:
    def chunks() -> object:
        for _ in range(100):
            yield b"x" * MIB

    headers = {"content-type": "application/json"}
    for body in (b"x" * 100 * MIB, chunks()):
        with suppress(httpx.WriteError, httpx.RemoteProtocolError):  # it may be cut off before it has sent all
            assert service.post("/events", content=body, headers=headers).status_code == 413  # type: ignore[arg-type]
        assert service.post("/events", json={"topic": "next"}).status_code == 202


def test_a_length_that_is_too_large_is_refused_before_a_byte_is_sent(service: httpx.Client) -> None:
    url = service.base_url
    with socket.create_connection((url.host, url.port), timeout=5) as connection:
        head = f"POST /events HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {100 * MIB}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_client_that_talks_nonsense_harms_nobody(service: httpx.Client, raw: bytes) -> None:
    with socket.create_connection((service.base_url.host, service.base_url.port or 80), timeout=5) as connection:
        connection.sendall(raw)
    assert service.post("/events", json={"topic": "next"}).status_code == 202
    assert service.get("/health").json()["status"] == "healthy"


def test_a_stream_that_is_left_harms_nobody(service: httpx.Client) -> None:
    events = [{"topic": "a", "payload": {"n": n}} for n in range(5000)]
    assert service.post("/events", json=events).status_code == 202
    with service.stream("GET", "/events", headers={"accept": "application/x-ndjson"}) as answer:
        assert json.loads(next(answer.iter_lines()))["event"]["payload"] == {"n": 0}
    assert service.post("/events", json={"topic": "next"}).status_code == 202


def test_switched_off(tmp_path: Path) -> None:
    with running(tmp_path, "wowevent.service", PORT="0", EVENT_BUS_ENABLED="false") as process:
        url = address(tmp_path)
        assert httpx.get(f"{url}/health").json()["event_bus"] == "disabled"
        assert httpx.get(f"{url}/ready").status_code == 503
        assert httpx.post(f"{url}/events", json={"topic": "a"}).status_code == 503
        assert end(process) == 0


@pytest.mark.parametrize(
    ("changes", "code", "status"),
    [
        ({"WOWEVENT_HOST": "0.0.0.0"}, "not_permitted", 77),
        ({"PORT": "no"}, "config", 78),
        ({"LOG_LEVEL": "LOUD"}, "config", 78),
        ({"WOWEVENT_LOG_FORMAT": "xml"}, "config", 78),
        ({"WOWEVENT_CONFIG": "nowhere.toml"}, "config", 78),
        ({"WOWEVENT_URL": "nix://x"}, "not_supported", 78),
        ({"REDIS_URL": "redis://localhost:no"}, "config", 78),  # looked at here, and by no EventBus()
        ({"WOWEVENT_NAMESPACE": "a b"}, "invalid_event", 65),
        ({"WOWEVENT_URL": "sqlite:///damaged.db"}, "storage_damaged", 74),
    ],
)
def test_what_keeps_it_from_serving(tmp_path: Path, changes: dict[str, str], code: str, status: int) -> None:
    (tmp_path / "damaged.db").write_bytes(b"this is no database" * 100)
    with running(tmp_path, "wowevent.service", **{"PORT": "0", **changes}) as process:
        assert process.wait(20) == status
    said = (tmp_path / "err.txt").read_text().splitlines()
    assert said[-1].startswith(f"error[{code}]: ")
    assert f" ERROR wowevent service failed code={code} " in said[-2]
    assert "Traceback" not in "".join(said)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running(tmp_path, "wowevent.service", PORT=port) as process:
            assert process.wait(20) == 69
    assert (tmp_path / "err.txt").read_text().splitlines()[-1].startswith("error[address_in_use]: ")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("PORT", "s3cret", "PORT: "),
        ("WOWEVENT_URL", "nix://me:s3cret@x", "nix"),
        ("REDIS_URL", "redis://:s3cret@x:no", ""),
    ],
)
def test_a_wrong_setting_is_named_and_no_secret_is_shown(tmp_path: Path, name: str, value: str, shown: str) -> None:
    with running(tmp_path, "wowevent.service", **{"PORT": "0", name: value}) as process:
        assert process.wait(20) == 78
    said = (tmp_path / "err.txt").read_text()
    assert shown in said
    assert "s3cret" not in said


def test_the_log_file_is_its_owners_alone_also_after_it_was_rotated(tmp_path: Path) -> None:
    import logging.handlers

    file = tmp_path / "data" / "wowevent.log"
    loggers = [logging.getLogger(name) for name in ("wowevent", "uvicorn", "asyncio")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    try:
        set_up_logs("INFO", file)
        handler = loggers[0].handlers[-1]
        assert isinstance(handler, logging.handlers.RotatingFileHandler)
        loggers[0].error("delivery failed %s", "once")
        handler.doRollover()
        loggers[0].error("delivery failed %s", "twice")
        handler.close()
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
    files = [file, file.with_name("wowevent.log.1")]
    assert [stat.S_IMODE(each.stat().st_mode) for each in files] == [0o600, 0o600]
    assert " ERROR wowevent delivery failed twice" in file.read_text()
    assert " ERROR wowevent delivery failed once" in files[1].read_text()


def test_the_environment_of_these_tests_is_private(tmp_path: Path) -> None:
    assert environment(tmp_path)["HOME"] == str(tmp_path)
    assert "WOWEVENT_URL" not in environment(tmp_path)


def test_a_client_that_does_not_read_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    with running(tmp_path, "wowevent.service", PORT="0", WOWEVENT_URL="memory://") as process, socket.socket() as deaf:
        url = httpx.URL(address(tmp_path))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((url.host, url.port))
        deaf.sendall(b"GET /events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert deaf.recv(12) == b"HTTP/1.1 200"
        events = [{"topic": "a", "payload": {"x": "x" * 200_000}}] * 4
        for _ in range(10):
            assert httpx.post(f"{url}/events", json=events).status_code == 202
        began = time.monotonic()
        assert end(process) == 0
        assert time.monotonic() - began < 8
    log = (tmp_path / "err.txt").read_text()
    assert "stream cut off" in log
    assert "Traceback" not in log
