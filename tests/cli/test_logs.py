"""`wowevent logs`: the last lines over the files of a rotation, and following through rotation and truncation."""

import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest

from tests.cli.daemons import data, started
from tests.processes import PATIENCE, Process, running, until, wowevent
from wowevent.cli.logfile import Follower

STAMP = "2026-01-31T12:00:00.123Z"


def log(home: Path, *files: str) -> Path:
    """The log and its older ones, newest first."""
    data(home).mkdir(parents=True, exist_ok=True)
    newest = data(home) / "wowevent.log"
    for number, text in enumerate(files):
        (newest.with_name(f"wowevent.log.{number}") if number else newest).write_text(text)
    return newest


def lines(*numbers: int, level: str = "INFO") -> str:
    return "".join(f"{STAMP} {level} wowevent line {n}\n" for n in numbers)


def shown(output: bytes) -> list[int]:
    return [int(line.rpartition(" ")[2]) for line in output.decode().splitlines()]


@contextmanager
def following(home: Path, *options: str) -> Iterator[Process]:
    """`logs -f`, with its output in `out.txt`."""
    with running(home, "wowevent", "logs", "-f", *options) as process:
        yield process


def read(home: Path) -> bytes:
    return (home / "out.txt").read_bytes()


def test_what_a_service_wrote(home: Path) -> None:
    started(home, "--log-file", "x.log")
    wowevent(home, "stop")
    started(home, "--log-file", "y.log")

    assert b" INFO wowevent router serves " in wowevent(home, "logs").stdout
    assert b"stopped" not in wowevent(home, "logs").stdout


@pytest.mark.parametrize(("count", "first"), [(0, 10), (1, 9), (3, 7), (5, 5), (50, 0)])
def test_the_last_lines_are_found_in_the_older_files_too(home: Path, count: int, first: int) -> None:
    log(home, lines(8, 9), lines(6, 7), lines(0, 1, 2, 3, 4, 5))
    done = wowevent(home, "logs", "-n", str(count))

    assert done.returncode == 0
    assert shown(done.stdout) == list(range(first, 10))


def test_a_level_and_above_with_its_tracebacks(home: Path) -> None:
    log(
        home,
        f"{lines(3)}{STAMP} ERROR wowevent x\nTraceback (most recent call last):\n  File\nOSError: y\n{lines(4)}",
        f"{STAMP} CRITICAL asyncio z\n{lines(1, level='WARNING')}",
    )
    done = wowevent(home, "logs", "--level", "error")
    assert done.stdout.decode().replace(f"{STAMP} ", "").splitlines() == [
        "CRITICAL asyncio z", "ERROR wowevent x", "Traceback (most recent call last):", "  File", "OSError: y",
    ]  # fmt: skip
    assert wowevent(home, "logs", "--level", "loud").returncode == 2


def test_a_level_of_a_log_of_json_lines(home: Path) -> None:
    def line(level: str, n: int) -> str:
        told = {"time": STAMP, "level": level, "logger": "wowevent", "message": "an ERROR is no level", "n": n}
        return f"{json.dumps(told)}\n"

    log(home, line("INFO", 1) + line("ERROR", 2) + f"{STAMP} ERROR wowevent of before\n" + line("WARNING", 3))
    done = wowevent(home, "logs", "--level", "error")

    assert done.stdout.decode() == line("ERROR", 2) + f"{STAMP} ERROR wowevent of before\n"
    assert len(wowevent(home, "logs").stdout.splitlines()) == 4


def test_no_log_yet(home: Path) -> None:
    done = wowevent(home, "logs")

    assert done.returncode == 74
    assert done.stderr.startswith(b"error[io_error]: there is no log yet: ")


def test_a_terminal_obeys_nothing(home: Path) -> None:
    log(home, f"{STAMP} INFO wowevent \x1b[31m\x9b31m\u202e\tx\n")

    assert wowevent(home, "logs").stdout.decode().endswith("INFO wowevent \\x1b[31m\\x9b31m\\u202e       x\n")


def test_following_through_rotations(home: Path) -> None:
    """Every line once and in order, while the file that is read is renamed again and again."""
    file = log(home, lines(-1, 0))
    handler = RotatingFileHandler(file, maxBytes=4000, backupCount=5)
    handler.setFormatter(logging.Formatter(f"{STAMP} INFO wowevent line %(message)s"))
    with following(home, "-n", "1") as process:
        until(lambda: b"line 0" in read(home), "the last line")
        for number in range(1, 601):
            handler.emit(logging.makeLogRecord({"msg": str(number)}))
            time.sleep(0.003)
        handler.close()
        until(lambda: b"line 600\n" in read(home), "the end")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    assert shown(read(home)) == list(range(601))
    assert file.with_name("wowevent.log.5").exists()


def test_following_through_several_rotations_between_two_looks(home: Path) -> None:
    file = log(home, lines(1))
    with following(home) as process:
        until(lambda: b"line 1" in read(home), "the first line")
        process.send_signal(signal.SIGSTOP)
        with file.open("a") as opened:
            opened.write(lines(2))
        for number in (3, 4, 5):
            for older in (3, 2, 1):
                if (name := file.with_name(f"wowevent.log.{older}")).exists():
                    name.replace(file.with_name(f"wowevent.log.{older + 1}"))
            file.replace(file.with_name("wowevent.log.1"))
            file.write_text(lines(number))
        process.send_signal(signal.SIGCONT)
        until(lambda: b"line 5" in read(home), "the newest line")
    assert shown(read(home)) == [1, 2, 3, 4, 5]


def test_what_is_written_just_before_a_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    file = tmp_path / "x.log"
    file.write_text(lines(1))
    follower = Follower(file)
    request.addfinalizer(follower.close)
    number = follower.number

    def rotate_first() -> int:
        monkeypatch.setattr(follower, "number", number)
        file.write_text(lines(1, 2))
        file.rename(tmp_path / "x.log.1")
        file.write_text(lines(3))
        return number()

    assert list(follower.more()) == lines(1).splitlines()
    monkeypatch.setattr(follower, "number", rotate_first)
    assert shown("\n".join(follower.more()).encode()) == [2, 3]


def test_following_through_truncation(home: Path) -> None:
    file = log(home, lines(1, 2, 3))
    with following(home):
        until(lambda: b"line 3" in read(home), "the last line")
        os.truncate(file, 0)
        with file.open("a") as opened:
            opened.write(lines(4))
        until(lambda: b"line 4" in read(home), "what came behind it")
    assert shown(read(home)) == [1, 2, 3, 4]


def test_following_a_file_that_is_removed_and_made_anew(home: Path) -> None:
    file = log(home, lines(1))
    with following(home):
        until(lambda: b"line 1" in read(home), "the last line")
        file.unlink()
        file.write_text(lines(2))
        until(lambda: b"line 2" in read(home), "the new file")


def test_following_what_is_not_there_yet(home: Path) -> None:
    with following(home, "--level", "WARNING"):
        file = log(home, lines(1))
        with file.open("a") as opened:
            opened.write(lines(2, level="ERROR")[:20])
            opened.flush()
            time.sleep(0.3)
            opened.write(lines(2, level="ERROR")[20:])
        until(lambda: b"line 2" in read(home), "the line, once it is complete")
    assert shown(read(home)) == [2]
