"""`wowevent copy`: a namespace into another log, stopped and gone on with, compared, and refused where it must be."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from select import select
from typing import Any

import apsw
import pytest

from tests.processes import PATIENCE, end, environment, running, until, wowevent

TO = "sqlite:///there.db"


def publish(home: Path, count: int, *arguments: str, first: int = 0, text: str = "") -> None:
    lines = "\n".join(
        json.dumps({"topic": "task.created", "payload": {"n": first + n, "t": text}}) for n in range(count)
    )
    done = wowevent(home, "publish", "--events", *arguments, stdin=lines.encode())
    assert done.returncode == 0, done.stderr


def history(home: Path, *arguments: str) -> list[bytes]:
    done = wowevent(home, "history", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def copy(home: Path, *arguments: str) -> dict[str, Any]:
    """What it says as JSON; it has to end well."""
    done = wowevent(home, "copy", "--to", TO, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stored(home: Path, name: str = "there.db") -> int:
    """How many events and facts a log has, looked at while somebody writes."""
    if not (home / name).exists():
        return 0
    db = apsw.Connection(str(home / name), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return sum(int(count) for (count,) in db.execute("SELECT count(*) FROM log"))
    except apsw.Error:  # its tables are being made
        return 0
    finally:
        db.close()


def more(home: Path, count: int) -> bool:
    return stored(home) > count


def sql(home: Path, name: str, statement: str) -> None:
    db = apsw.Connection(str(home / name))
    db.execute(statement)
    db.close()


def test_all_of_a_namespace_is_there_and_compared(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    done = wowevent(tmp_path, "copy", "--to", TO)

    assert (done.returncode, done.stderr) == (0, b"")
    first, second = done.stdout.decode().splitlines()
    assert first == f"copied 3 events and 0 facts into namespace default of {TO}"
    assert second.startswith("compared 3 events and 0 facts: the same, sha256 ")
    assert history(tmp_path, "--url", TO) == history(tmp_path)


def test_again_it_brings_what_is_new(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    assert copy(tmp_path)["copied"]["events"] == 3
    publish(tmp_path, 2, first=3)
    said = copy(tmp_path)

    assert (said["to"], said["namespace"], said["to_namespace"]) == (TO, "default", "default")
    assert (said["copied"]["events"], said["copied"]["known"]) == (2, 0)
    assert (said["compared"]["events"], said["compared"]["difference"]) == (5, None)
    assert said["compared"]["source"] == said["compared"]["target"]
    assert said["copied"]["position"] == said["compared"]["position"]
    assert history(tmp_path, "--url", TO) == history(tmp_path)


def test_another_namespace_of_the_same_engine(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    done = wowevent(tmp_path, "copy", "--to-namespace", "staging", "--no-verify")

    assert done.returncode == 0
    assert done.stdout.startswith(b"copied 3 events and 0 facts into namespace staging of sqlite:///")
    assert done.stdout.count(b"\n") == 1
    assert history(tmp_path, "--namespace", "staging") == history(tmp_path)


def test_verify_only_compares_and_names_the_first_that_differs(tmp_path: Path) -> None:
    publish(tmp_path, 2)
    ids = [json.loads(line)["event_id"] for line in history(tmp_path)]
    done = wowevent(tmp_path, "copy", "--to", TO, "--verify", "--json")

    assert done.returncode == 65
    assert done.stderr.startswith(f"error[copy_differs]: task.created {ids[0]}, at ".encode())
    assert done.stderr.endswith(b"-1 of the source, is not at the target\n")
    said = json.loads(done.stdout)
    assert (said["copied"], said["compared"]["difference"]["event_id"]) == (None, ids[0])
    assert stored(tmp_path) == 0


def test_killed_in_the_middle_it_loses_nothing_and_copies_nothing_twice(tmp_path: Path) -> None:
    publish(tmp_path, 12_000, text="x" * 1_000)
    for _ in range(3):
        before = stored(tmp_path)
        with running(tmp_path, "wowevent", "copy", "--to", TO) as copying:
            until(partial(more, tmp_path, before + 1_500), "some more events")
            assert end(copying, signal.SIGKILL) == -signal.SIGKILL
        assert before < stored(tmp_path) < 12_000
    said = copy(tmp_path)

    assert said["copied"]["events"] < 8_000
    assert said["compared"]["difference"] is None
    assert history(tmp_path, "--url", TO) == history(tmp_path)


def test_ctrl_c_says_that_it_goes_on_there(tmp_path: Path) -> None:
    publish(tmp_path, 12_000, text="x" * 1_000)
    with running(tmp_path, "wowevent", "copy", "--to", TO) as copying:
        until(partial(more, tmp_path, 1_500), "the first events")
        assert end(copying, signal.SIGINT) == 130
    assert (tmp_path / "err.txt").read_text().endswith("note: stopped; the same command goes on from there\n")
    assert stored(tmp_path) < 12_000
    assert copy(tmp_path)["compared"]["events"] == 12_000
    assert history(tmp_path, "--url", TO) == history(tmp_path)


def test_a_person_sees_a_bar(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "wowevent", "copy", "--to", TO]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        out, _ = process.communicate(timeout=PATIENCE)
    seen = b""
    while select([main], [], [], 0.2)[0]:
        try:
            seen += os.read(main, 4096)
        except OSError:  # what Linux says when the other side is closed
            break
    os.close(main)
    assert out.startswith(b"copied 3 events")
    assert b"copying" in seen
    assert b"comparing" in seen
    assert b"3 events" in seen
    assert b"100%" in seen


def test_subscriptions_go_on_there(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    publish(tmp_path, 2, first=1)  # another moment
    taken = wowevent(tmp_path, "subscribe", "task.*", "--name", "worker", "--from", "first", "-n", "1", "--json")
    assert json.loads(taken.stdout)["payload"]["n"] == 0
    before = json.loads(wowevent(tmp_path, "subscriptions", "--json").stdout)
    said = copy(tmp_path, "--subscriptions")["subscriptions"]
    after = json.loads(wowevent(tmp_path, "subscriptions", "--json", "--url", TO).stdout)

    assert (before["ready"], after["ready"]) == (2, 2)
    assert [(each["id"], each["begins"]) for each in said] == [(before["id"], "unread")]
    assert copy(tmp_path, "--subscriptions")["subscriptions"][0]["begins"] == "there"


def test_what_is_not_empty_is_only_added_to_on_demand(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    publish(tmp_path, 2, "--url", TO)
    done = wowevent(tmp_path, "copy", "--to", TO)
    assert (done.returncode, done.stdout) == (2, b"")
    assert (
        done.stderr == f"error[usage]: namespace default of {TO} is not empty: --merge adds to what it has\n".encode()
    )

    assert copy(tmp_path, "--merge")["copied"]["events"] == 3
    assert len(history(tmp_path, "--url", TO)) == 5
    assert copy(tmp_path)["copied"]["events"] == 0


def test_what_cannot_be_read_is_left_out_and_told(tmp_path: Path) -> None:
    publish(tmp_path, 4, "--url", "sqlite:///here.db")
    sql(tmp_path, "here.db", "UPDATE log SET body = replace(body, '\"n\":1', '\"n\":7') WHERE offset = 2")
    done = wowevent(tmp_path, "copy", "--from", "sqlite:///here.db", "--to", TO)

    assert done.returncode == 74
    assert done.stderr == b"error[storage_damaged]: 1 event of the source cannot be read; the rest is copied\n"
    assert [json.loads(line)["payload"]["n"] for line in history(tmp_path, "--url", TO)] == [0, 2, 3]


def test_a_clone_of_the_file_is_the_same_log(tmp_path: Path) -> None:
    publish(tmp_path, 1, "--url", "sqlite:///here.db")
    shutil.copy(tmp_path / "here.db", tmp_path / "there.db")
    done = wowevent(tmp_path, "copy", "--from", "sqlite:///here.db", "--to", TO)

    assert done.returncode == 2
    assert b"a clone of its file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), 2),
        (("--to-namespace", "default"), 2),
        (("--to", TO, "--from", TO), 2),
        (("--to", TO, "--verify", "--subscriptions"), 2),
        (("--to", TO, "--verify", "--merge"), 2),
        (("--to", TO, "--to-namespace", "a b"), 65),
        (("--to", "ftp://there"), 78),
        (("--to", "sqlite:///there.db?sync=1"), 78),
        (("--to", "redis://127.0.0.1:1"), 69),
    ],
)
def test_what_it_refuses(tmp_path: Path, arguments: tuple[str, ...], status: int) -> None:
    done = wowevent(tmp_path, "copy", *arguments)

    assert (done.returncode, done.stdout) == (status, b"")
    assert done.stderr.startswith(b"error[")
    assert done.stderr.count(b"\n") == 1
