"""Whose process it is: by its command line and by its start, which setting the clock does not change."""

from pathlib import Path

import msgspec
import psutil
import pytest

from wowevent.cli import pidfile
from wowevent.cli.pidfile import Record, find, forget, is_service, moments, registered


@pytest.mark.parametrize(
    "command",
    [
        "/venv/bin/python /venv/bin/wowevent serve --port 1",
        "python -P -m wowevent start --port=1 --detached",
        "/usr/bin/python3.11 -m wowevent serve",
        "wowevent --config c.toml start",
    ],
)
def test_ours(command: str) -> None:
    assert is_service(command.split())


@pytest.mark.parametrize(
    "command",
    [
        "",
        "vim wowevent.log",
        "wowevent history",
        "python -m wowevent.service",
        "serve wowevent",
        "tail -f /data/wowevent/wowevent.log",
        "less wowevent",
    ],
)
def test_not_ours(command: str) -> None:
    assert not is_service(command.split())


def record(**changes: float) -> Record:
    created, since_boot = moments(psutil.Process())
    own = Record(
        pid=psutil.Process().pid, created=created, since_boot=since_boot, websocket=None, http="http://x",
        engine="memory://", namespace="default", log="x.log", version="0", options={}, cwd="/",
    )  # fmt: skip
    return msgspec.structs.replace(own, **changes)


@pytest.fixture(autouse=True)
def this_process_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pidfile, "is_service", lambda _command: True)


def test_the_clock_was_set_meanwhile(tmp_path: Path) -> None:
    with registered(tmp_path) as register:
        assert register is not None
        register(record(created=record().created + 3600))
        assert find(tmp_path).process is not None
        register(record(since_boot=record().since_boot + 3600))
        assert find(tmp_path).process is not None
        register(record(created=1.0, since_boot=1.0))
        assert "another time" in find(tmp_path).trouble


def test_one_holds_the_lock_and_cleans_up(tmp_path: Path) -> None:
    with registered(tmp_path) as first:
        assert first is not None
        first(record())
        with registered(tmp_path) as second:
            assert second is None
        forget(tmp_path)
        assert find(tmp_path).record == record(), "it is not forgotten while its service lives"
    assert find(tmp_path) == pidfile.Seen()
    with registered(tmp_path) as third:
        assert third is not None


@pytest.mark.parametrize("text", ["", "nix", "[]", "{}", '{"pid": 1}', "\x00", "4711"])
def test_a_file_that_makes_no_sense(tmp_path: Path, text: str) -> None:
    (tmp_path / "wowevent.pid").write_text(text)
    seen = find(tmp_path)
    assert (seen.record, seen.process) == (None, None)
    assert "is not ours" in seen.trouble


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1, 2**31, 2**70])
def test_a_number_that_is_no_process(tmp_path: Path, pid: int) -> None:
    text = msgspec.json.encode(record()).replace(b'"pid":%d' % record().pid, b'"pid":%d' % pid)
    (tmp_path / "wowevent.pid").write_bytes(text)
    assert find(tmp_path).process is None
    assert find(tmp_path).trouble
