"""`wowevent run`: the handlers of a module, in one process or several that are kept alive."""

import os
import signal
from pathlib import Path

import pytest

from tests.processes import end, running, until, wowevent

APP = """
import os, pathlib
from wowevent import EventBus

bus = EventBus("sqlite:///app.db")

@bus.on("job.*", name="worker", lease=1.0)
async def work(event):
    n = event.payload["n"]
    with open("done.txt", "a") as file:
        file.write(f"{n} {os.getpid()}\\n")
    if n == 3 and not pathlib.Path("died").exists():
        pathlib.Path("died").touch()
        os._exit(9)
"""
URL = ("--url", "sqlite:///app.db")


def serving(home: Path, workers: int) -> list[int]:
    """The processes that serve, once there are so many."""

    def look() -> list[int]:
        lines = [line for line in (home / "err.txt").read_text().splitlines() if "worker serves" in line]
        found = [int(line.rpartition("process=")[2]) for line in lines]
        return found if len(found) >= workers else []

    return until(look, f"{workers} workers that serve")


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def done(home: Path) -> set[str]:
    file = home / "done.txt"
    return {line.split()[0] for line in file.read_text().splitlines()} if file.exists() else set()


def test_one_process(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with running(tmp_path, "wowevent", "run", "app:bus") as process:
        serving(tmp_path, 1)
        wowevent(tmp_path, "publish", "job.x", '{"n": 1}', *URL)
        until(lambda: done(tmp_path) == {"1"}, "the work")
        assert end(process) == 0


def test_workers_that_die_are_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with running(tmp_path, "wowevent", "run", "app", "--workers", "2", "--log-file", "run.log") as process:
        serving(tmp_path, 2)
        wowevent(tmp_path, "publish", "job.x", "-", *URL, stdin=b"".join(b'{"n":%d}\n' % n for n in range(1, 41)))
        until(lambda: len(done(tmp_path)) == 40, "all the work")
        workers = serving(tmp_path, 3)
        assert "worker died" in (tmp_path / "err.txt").read_text()
        assert end(process) == 0
    assert not any(map(alive, workers))
    assert (tmp_path / "run.1.log").is_file()


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with running(tmp_path, "wowevent", "run", "app", "--workers", "2") as process:
        workers = serving(tmp_path, 2)
        process.send_signal(signal.SIGKILL)
        until(lambda: not any(map(alive, workers)), "the end of the workers")


def test_reload(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with running(tmp_path, "wowevent", "run", "app", "--reload") as process:
        serving(tmp_path, 1)
        (tmp_path / "app.py").write_text(APP.replace('open("done.txt"', 'open("other.txt"'))
        serving(tmp_path, 2)
        wowevent(tmp_path, "publish", "job.x", '{"n": 1}', *URL)
        until((tmp_path / "other.txt").exists, "the new code at work")
        (tmp_path / "app.py").write_text("this is not Python")
        until(
            lambda: "waits for the code to change" in (tmp_path / "err.txt").read_text(), "a worker that cannot start"
        )
        (tmp_path / "app.py").write_text(APP)
        serving(tmp_path, 3)
        assert end(process, signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("code", "arguments", "status", "message"),
    [
        ("from wowevent import EventBus\nbus = EventBus('memory://')", ("app", "--workers", "2"), 78, "not_supported"),
        ("bus = 1", ("app",), 2, "usage"),
        ("bus = 1", ("app:other",), 2, "usage"),
        ("bus = 1", ("nix:bus",), 2, "usage"),
        ("bus = 1", (":",), 2, "usage"),
        ("import nix", ("app",), 1, "internal_error"),
        ("bus = 1", ("app", "--workers", "0"), 2, "usage"),
    ],
)
def test_what_cannot_be_run(tmp_path: Path, code: str, arguments: tuple[str, ...], status: int, message: str) -> None:
    (tmp_path / "app.py").write_text(code)
    ended = wowevent(tmp_path, "run", *arguments)

    assert ended.returncode == status
    assert ended.stderr.startswith(f"error[{message}]: ".encode())
    assert ended.stderr.count(b"\n") == 1
