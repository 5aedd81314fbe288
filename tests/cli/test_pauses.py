"""`wowevent pause`, `resume` and `pauses`, and what `info` and `subscriptions` say of it."""

from __future__ import annotations

import getpass
import time
from pathlib import Path

import pytest

from tests.cli.broken import URL, broken, said
from tests.processes import running, until, wowevent


def done(home: Path, *arguments: str) -> str:
    """What a command that succeeds prints."""
    found = wowevent(home, *arguments, *URL)
    assert found.returncode == 0, found.stderr
    return found.stdout.decode()


def states(home: Path) -> dict[str, bool]:
    return {each["id"]: each["paused"] for each in said(home, "subscriptions")}


def test_everything_is_paused_and_resumed(tmp_path: Path) -> None:
    broken(tmp_path)
    assert done(tmp_path, "pause", "--everything", "--reason", "panic") == "paused everything\n"
    (pause,) = said(tmp_path, "pauses")
    assert (pause["scope"], pause["name"], pause["reason"], pause["until"]) == ("everything", "", "panic", None)
    assert pause["by"] == getpass.getuser()
    assert abs(pause["since"] - time.time()) < 60
    assert set(states(tmp_path).values()) == {True}
    assert [each["scope"] for each in said(tmp_path, "info")[0]["pauses"]] == ["everything"]
    assert "everything" in done(tmp_path, "info")
    assert done(tmp_path, "resume", "--everything") == "resumed everything\n"
    assert set(states(tmp_path).values()) == {False}
    assert said(tmp_path, "pauses") == []


def test_an_agent_a_topic_and_a_conversation(tmp_path: Path) -> None:
    broken(tmp_path)
    assert done(tmp_path, "pause", "--agent", "worker", "--for", "10m").startswith("paused agent worker until 20")
    assert done(tmp_path, "pause", "--topic", "task.*") == "paused topic task.*\n"
    assert done(tmp_path, "pause", "--conversation", "job-1").startswith("paused conversation job-1 until ")
    assert done(tmp_path, "pause", "idle") == "paused idle\n"
    lines = done(tmp_path, "pauses").splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["SCOPE", "NAME"],
        ["agent", "worker"],
        ["conversation", "job-1"],
        ["subscription", "idle"],
        ["topic", "task.*"],
    ]
    assert states(tmp_path) == {"idle": True, "worker~log.*": True, "worker~task.*": True}
    found = wowevent(tmp_path, "resume", "idle", *URL)
    assert found.stdout == b"resumed idle\n"
    assert b"note: still paused: agent worker" in found.stderr
    for what in (("--agent", "worker"), ("--topic", "task.*"), ("--conversation", "job-1")):
        assert done(tmp_path, "resume", *what).startswith("resumed ")
    found = wowevent(tmp_path, "resume", "--topic", "task.*", *URL)
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"note: that was not paused\n")


def test_a_reason_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    done(tmp_path, "pause", "--everything", "--reason", "\x1b[31mred")
    assert "\x1b" not in done(tmp_path, "pauses")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("idle", "--everything"),
        ("--agent", "a", "--topic", "b"),
        ("--everything", "--for", "soon"),
        ("--everything", "--for", "0s"),
    ],
)
def test_a_wrong_line_pauses_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    found = wowevent(tmp_path, "pause", *arguments, *URL)
    assert (found.returncode, found.stdout) == (2, b"")
    assert found.stderr.startswith(b"error[usage]: ")
    assert said(tmp_path, "pauses") == []


def test_who_serves_heeds_it_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, "wowevent", "subscribe", "a.*", "--name", "reader", *URL):
        errors = tmp_path / "err.txt"
        until(lambda: "listening" in errors.read_text(), "listening")
        done(tmp_path, "pause", "--everything", "--reason", "panic")
        until(lambda: "subscription paused" in errors.read_text(), "the pause")
        assert "panic" in errors.read_text()
        done(tmp_path, "publish", "a.b")
        time.sleep(0.3)
        assert (tmp_path / "out.txt").read_text() == ""
        done(tmp_path, "resume", "--everything")
        until(lambda: "a.b" in (tmp_path / "out.txt").read_text(), "the event")
