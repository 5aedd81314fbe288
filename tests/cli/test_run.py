"""`wowevent run`: the handlers of a module, in one process or several that are kept alive."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.cli.daemons import processes_of
from tests.cli.terminal import at_a_terminal
from tests.processes import PATIENCE, end, running, until, wowevent

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


def test_one_that_starting_again_does_not_mend_ends_all(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(f"{APP}\nif 'WOWEVENT_WORKER' in os.environ:\n    raise SystemExit(78)\n")
    ended = wowevent(tmp_path, "run", "app", "--workers", "2")
    assert ended.returncode == 70
    said = ended.stderr.splitlines()[-1]
    assert re.fullmatch(rb"error\[workers_failed\]: worker [12] ended with status 78; see above", said)


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


# --- told to end --------------------------------------------------------------------------------------------------

SLOW = """
import asyncio, os
from wowevent import EventBus

bus = EventBus("sqlite:///app.db")

@bus.on("job.*", name="worker", concurrency=2)
async def work(event):
    os.write(began, b"%d\\n" % event.payload["n"])
    await asyncio.sleep(1.5)
    os.write(ended, b"%d\\n" % event.payload["n"])

began, ended = (os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("began.txt", "ended.txt"))
"""


def at_work(home: Path) -> list[int]:
    """Two workers, once each has something in hand."""
    workers = serving(home, 2)
    wowevent(home, "publish", "job.x", "-", *URL, stdin=b"".join(b'{"n":%d}\n' % n for n in range(1, 9)))
    until(lambda: len((home / "began.txt").read_text().split()) == 4, "work in all hands")
    return workers


def nothing_was_cut_off(home: Path) -> None:
    """All that was begun was ended; nothing runs any more."""
    assert sorted((home / "ended.txt").read_text().split()) == sorted((home / "began.txt").read_text().split())
    assert not processes_of(home)
    said = (home / "err.txt").read_text()
    assert said.count("worker drains") == 2
    assert "killed" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("how", ["closed", "ctrl-c"])
def test_what_its_terminal_says_lets_workers_finish_what_they_have(home: Path, how: str) -> None:
    """Ctrl-C and a terminal that is closed are told to all processes of its foreground, and once is enough."""
    (home / "app.py").write_text(SLOW)
    with at_a_terminal(home, "wowevent", "run", "app", "--workers", "2") as (process, person):
        at_work(home)
        if how == "ctrl-c":
            person.write(b"\x03")
            assert process.wait(PATIENCE) == 0
        else:
            person.close()
            process.wait(PATIENCE)
    until(lambda: not processes_of(home), "the end of the workers")
    nothing_was_cut_off(home)


def test_workers_that_are_told_twice_finish_what_they_have(home: Path) -> None:
    """A service manager tells all processes at once, and then their supervisor tells them again."""
    (home / "app.py").write_text(SLOW)
    with running(home, "wowevent", "run", "app", "--workers", "2") as process:
        workers = at_work(home)
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        until(lambda: (home / "err.txt").read_text().count("worker drains") == 2, "the drain")
        assert end(process) == 0
    nothing_was_cut_off(home)
