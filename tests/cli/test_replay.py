"""`wowevent replay`: what happened, again: on the screen at its own pace, or as new events in a topic."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import answered
from tests.processes import end, environment, running, told, until, wowevent

AT = "2026-01-01T00:00:0{}Z"


def publish(home: Path, count: int, topic: str = "task.created", **fields: Any) -> None:
    """Events a second apart by their own times; from the tenth on at the same one."""
    events = [{"topic": topic, "timestamp": AT.format(min(n, 9)), "payload": {"n": n}, **fields} for n in range(count)]
    done = wowevent(home, "publish", "--events", stdin="\n".join(map(json.dumps, events)).encode())
    assert done.returncode == 0, done.stderr


def test_at_once_it_is_the_history(tmp_path: Path) -> None:
    publish(tmp_path, 5, correlation_id="job-1")
    publish(tmp_path, 5, topic="log.line")
    for arguments in (
        (),
        ("task.*",),
        ("log.*", "--since", AT.format(2), "--until", AT.format(3)),
        ("--correlation-id", "job-1", "--limit", "2"),
    ):
        replayed = wowevent(tmp_path, "replay", "--json", *arguments)
        assert replayed.returncode == 0
        assert replayed.stdout == wowevent(tmp_path, "history", "--json", *arguments).stdout
        assert replayed.stdout
    assert wowevent(tmp_path, "replay").stdout == wowevent(tmp_path, "history").stdout


def test_at_its_own_pace(tmp_path: Path) -> None:
    publish(tmp_path, 5)
    with running(tmp_path, "wowevent", "replay", "--speed", "2") as replaying:
        until((tmp_path / "out.txt").read_text, "the first event")
        began = time.monotonic()
        assert replaying.wait(20) == 0
    assert 1.5 < time.monotonic() - began < 10
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 5


def test_ctrl_c_says_how_far_it_came(tmp_path: Path) -> None:
    publish(tmp_path, 2)
    with running(tmp_path, "wowevent", "replay", "--speed", "0.01") as replaying:
        until((tmp_path / "out.txt").read_text, "the first event")
        assert end(replaying, signal.SIGINT) == 130
    said = (tmp_path / "err.txt").read_text()
    assert said.startswith("note: stopped after 1 event, at ")
    assert said.endswith("-1\n")


def test_the_output_may_be_cut_off(tmp_path: Path) -> None:
    wowevent(tmp_path, "publish", "a", "-", stdin=b'{"n":1}\n' * 5000)
    command = [sys.executable, "-m", "wowevent", "replay"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_into_a_topic_they_are_new_events(tmp_path: Path) -> None:
    publish(tmp_path, 5)
    publish(tmp_path, 2, topic="log.line")
    originals = told(tmp_path, "history", "task.*")
    done = wowevent(tmp_path, "replay", "task.*", "--since", AT.format(2), "--into", "audit.tasks", "--yes")

    assert (done.returncode, done.stdout) == (0, b"replayed 3 events into audit.tasks\n")
    copies = told(tmp_path, "history", "audit.*")
    assert [copy["payload"] for copy in copies] == [{"n": 2}, {"n": 3}, {"n": 4}]
    assert [copy["replay_of"] for copy in copies] == [event["event_id"] for event in originals[2:]]
    assert not {copy["event_id"] for copy in copies} & {event["event_id"] for event in originals}
    assert len(told(tmp_path, "history")) == 10


def test_into_a_topic_that_it_reads_ends_too(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    assert wowevent(tmp_path, "replay", "#", "--into", "task.created", "--yes").returncode == 0
    assert len(told(tmp_path, "history")) == 6


def test_nothing_is_published_without_a_yes(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    done = wowevent(tmp_path, "replay", "--into", "audit", stdin=b"y\n")

    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error[usage]: 3 events will be published ")
    assert len(told(tmp_path, "history")) == 3


@pytest.mark.parametrize("topic", ["a.*", "_bus.x", "../a"])
def test_a_topic_that_cannot_be_is_told_before_anything_is_asked(tmp_path: Path, topic: str) -> None:
    publish(tmp_path, 1)
    done = wowevent(tmp_path, "replay", "--into", topic)

    assert done.returncode == 65
    assert done.stderr.startswith(b"error[invalid_topic]: ")


def test_nothing_to_replay_is_not_asked_for(tmp_path: Path) -> None:
    assert wowevent(tmp_path, "replay", "--into", "audit").stdout == b"replayed 0 events into audit\n"


def test_a_person_is_asked_and_sees_a_bar(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    status, out, seen = answered(tmp_path, "replay", "--into", "audit", answer=b"n\n")
    assert (status, out) == (1, b"")
    assert "3 events will be published into audit as new ones. Go on? [y/N]" in seen
    assert len(told(tmp_path, "history")) == 3

    status, out, seen = answered(tmp_path, "replay", "--into", "audit", answer=b"y\n")
    assert (status, out) == (0, b"replayed 3 events into audit\n")
    assert "replaying" in seen
    assert "100%" in seen
    assert len(told(tmp_path, "history")) == 6


def test_ctrl_c_ends_the_publishing_and_says_how_far_it_came(tmp_path: Path) -> None:
    publish(tmp_path, 2)
    with running(tmp_path, "wowevent", "replay", "--into", "audit", "--yes", "--speed", "0.01") as replaying:
        until(lambda: told(tmp_path, "history", "audit"), "the first copy")
        assert end(replaying, signal.SIGINT) == 130
    said = (tmp_path / "err.txt").read_text()
    assert said.startswith("note: stopped after 1 event of 2, at ")
    assert said.endswith("-1\n")
    assert len(told(tmp_path, "history", "audit")) == 1


def test_into_another_namespace_they_keep_their_topics(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    publish(tmp_path, 2, topic="log.line")
    done = wowevent(tmp_path, "replay", "task.*", "log.*", "--to-namespace", "staging", "--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"replayed 5 events into namespace staging of sqlite:///")
    copies = told(tmp_path, "history", "--namespace", "staging")
    assert [copy["topic"] for copy in copies] == ["task.created"] * 3 + ["log.line"] * 2
    assert [copy["replay_of"] for copy in copies] == [event["event_id"] for event in told(tmp_path, "history")]
    assert len(told(tmp_path, "history")) == 5
    assert wowevent(tmp_path, "replay", "--to-namespace", "staging", "--into", "a.b", "--yes").returncode == 0
    assert len(told(tmp_path, "history", "a.b", "--namespace", "staging")) == 5


def test_into_another_engine_the_namespace_stays(tmp_path: Path) -> None:
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    publish(tmp_path, 3)
    wowevent(tmp_path, "replay", "--to-namespace", "staging", "--yes")
    done = wowevent(tmp_path, "replay", "--namespace", "staging", "--to", elsewhere, "--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"replayed 3 events into namespace staging of {elsewhere}\n".encode()
    assert len(told(tmp_path, "history", "--url", elsewhere, "--namespace", "staging")) == 3
    assert told(tmp_path, "history", "--url", elsewhere) == []
    asked = wowevent(tmp_path, "replay", "--to", elsewhere)
    assert (asked.returncode, asked.stdout) == (2, b"")
    assert asked.stderr.startswith(b"error[usage]: 3 events will be published into namespace default of sqlite:///")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--to-namespace", "default"), 2),  # the log that they are of
        (("--to-namespace", "staging", "--json"), 2),
        (("--to-namespace", "a b"), 65),
        (("--speed", "-1"), 2),
        (("--speed", "nan"), 2),
        (("--speed", "inf"), 2),
        (("--into", "a", "--json"), 2),
        (("--since", "yesterday"), 65),
        (("a*",), 65),
        (("--correlation-id", "\udcff"), 65),
    ],
)
def test_what_it_refuses(tmp_path: Path, arguments: tuple[str, ...], status: int) -> None:
    done = wowevent(tmp_path, "replay", *arguments)

    assert (done.returncode, done.stdout) == (status, b"")
    assert done.stderr.startswith(b"error[")
    assert done.stderr.count(b"\n") == 1
