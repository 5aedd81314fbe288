"""publish, subscribe and history as commands: real processes over one embedded log."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import end, environment, running, told, until, wowevent
from tests.rabbitmq import shared_rabbit

PIPE = "-"


def test_one_event_with_everything(tmp_path: Path) -> None:
    options = {
        "--priority": "high", "--type": "task.retried", "--source": "planner", "--target": "worker-1",
        "--correlation-id": "job-1", "--ttl": "60",
    }  # fmt: skip
    flat = [word for pair in options.items() for word in pair]
    done = wowevent(tmp_path, "publish", "task.created", '{"n": 1}', *flat)

    assert done.returncode == 0
    assert done.stdout.startswith(b"published ")
    (event,) = told(tmp_path, "history", "task.*", "--correlation-id", "job-1")
    wanted = {
        "topic": "task.created", "event_type": "task.retried", "priority": 7, "source_agent": "planner",
        "target_agent": "worker-1", "correlation_id": "job-1", "ttl_seconds": 60, "payload": {"n": 1},
    }  # fmt: skip
    assert wanted.items() <= event.items()
    assert str(event["event_id"]).encode() in done.stdout


def test_without_a_payload(tmp_path: Path) -> None:
    assert wowevent(tmp_path, "publish", "a").returncode == 0
    assert told(tmp_path, "history")[0]["payload"] == {}


def test_later(tmp_path: Path) -> None:
    done = wowevent(tmp_path, "publish", "a", "--delay", "3600")

    assert b" delay=3600 " in done.stdout
    assert told(tmp_path, "history") == []


def test_on_an_engine_that_tells_no_position(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if "rabbitmq" not in request.config.getoption("--broker").split(","):
        pytest.skip("--broker does not name rabbitmq")
    done = wowevent(tmp_path, "publish", "a", "--url", shared_rabbit.empty(tmp_path))
    shared_rabbit.erase(tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b" matched=0\n")


@pytest.mark.parametrize("dash", [(PIPE,), ()])
def test_lines_of_payloads(tmp_path: Path, dash: tuple[str, ...]) -> None:
    lines = b"".join(b'{"n": %d}\n' % n for n in range(1, 2001)) + b'\r\n\n{"n": 2001}'
    done = wowevent(tmp_path, "publish", "a.b", *dash, stdin=lines)

    assert (done.returncode, done.stdout) == (0, b"published 2001 events\n")
    assert [event["payload"] for event in told(tmp_path, "history")] == [{"n": n} for n in range(1, 2002)]


def test_whole_events_go_through_a_pipe(tmp_path: Path) -> None:
    cloud = b'{"specversion":"1.0","id":"c-1","source":"shop","type":"order.placed","data":{"n":2}}'
    wowevent(
        tmp_path, "publish", "--events", stdin=b'{"type":"order.placed","source":"shop","payload":{"n":1}}\n' + cloud
    )
    exported = wowevent(tmp_path, "history", "--json").stdout
    done = wowevent(tmp_path, "publish", "--events", "--url", "sqlite:///copy.db", stdin=exported)

    assert done.stdout == b"published 2 events\n"
    assert wowevent(tmp_path, "history", "--json", "--url", "sqlite:///copy.db").stdout == exported


def test_a_bad_line_ends_it_and_says_where(tmp_path: Path) -> None:
    done = wowevent(tmp_path, "publish", "a", PIPE, stdin=b'{"n":1}\n{"n":2}\n[3]\n{"n":4}\n')

    assert done.returncode == 65
    assert done.stderr.decode().startswith("error[invalid_event]: event 3: ")
    assert "2 before it were published" in done.stderr.decode()
    assert len(told(tmp_path, "history")) == 2


def test_lines_are_published_as_they_come(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wowevent", "publish", "a", PIPE]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stdin=subprocess.PIPE) as publisher:
        assert publisher.stdin is not None
        publisher.stdin.write(b'{"n":1}\n')
        publisher.stdin.flush()
        until(lambda: told(tmp_path, "history"), "the first event")
        publisher.send_signal(signal.SIGINT)  # while it waits for more
        assert publisher.wait(20) == 130


def test_a_bar_for_people(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "wowevent", "publish", "a", PIPE]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(tmp_path),
        input=b'{"n":1}\n' * 50,
        stderr=terminal,
        timeout=20,
        check=True,
    )
    os.close(terminal)
    seen = os.read(main, 10_000)
    os.close(main)

    assert b"50 events" in seen
    assert done.returncode == 0


NEXT = b'{"n":1}\n'
BAD = {
    "not JSON": b"{n\n",
    "truncated": b'{"n":1',
    "a list": b"[1]\n",
    "UTF-16": '{"n":1}\n'.encode("utf-16"),
    "not UTF-8": b'{"n":"\xff"}\n',
    "NaN": b'{"n":NaN}\n',
    "1e999": b'{"n":1e999}\n',
    "5,000 digits": b'{"n":%s}\n' % (b"9" * 5000),
    "a key twice": b'{"n":1,"n":2}\n',
    "a lone surrogate": b'{"n":"\\ud800"}\n',
    "NUL": b'{"n":1}\0\n',
    "100,000 levels": b'{"n":' * 100_000 + b"1" + b"}" * 100_000 + b"\n",
    "40 levels": b'{"n":' * 40 + b"1" + b"}" * 40 + b"\n",
    "too large a payload": b'{"n":"%s"}\n' % (b"x" * 300_000),
    "a line of 100 MiB": b"x" * (100 * 1024 * 1024),
}


@pytest.mark.parametrize("lines", BAD.values(), ids=BAD.keys())
def test_bad_payloads(tmp_path: Path, lines: bytes) -> None:
    done = wowevent(tmp_path, "publish", "a", PIPE, stdin=lines)

    assert done.returncode == 65
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith((b"error[invalid_event]: ", b"error[payload_too_large]: "))
    assert wowevent(tmp_path, "publish", "a", PIPE, stdin=NEXT).returncode == 0
    assert len(told(tmp_path, "history")) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *(("publish", topic) for topic in ("../a", "a\r\nb", "a.*", "$SYS", "a" * 256, "", "_bus.x", "\udcff")),
        *(("publish", "a", "--source", name) for name in ("a\r\nb", "a b", "*", "a" * 129)),
        ("publish", "a", "--priority", "11"),
        ("publish", "a", "--ttl", "-1"),
        ("publish", "a", "[]"),
        ("publish", "a", '{"n":NaN}'),
        *(("history", pattern) for pattern in ("a*", "**", "a\nb", "../a")),
        ("history", "--since", "yesterday"),
        ("subscribe", "a*"),
        ("subscribe", "a", "--name", "a b"),
    ],
)
def test_bad_names(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = wowevent(tmp_path, *arguments)

    assert done.returncode == 65
    assert done.stderr.startswith(b"error[invalid_")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("publish",), 2),
        (("publish", "--events", "a"), 2),
        (("publish", "a", "{}", "--nix"), 2),
        (("nix",), 2),
        (("subscribe", "a", "--from", "nix"), 2),
        (("history", "--url", "nix://x"), 78),
        (("history", "--url", "sqlite:///x.db?synchronuos=full"), 78),
        (("history", "--namespace", "a b"), 65),
    ],
)
def test_what_a_command_refuses(tmp_path: Path, arguments: tuple[str, ...], status: int) -> None:
    done = wowevent(tmp_path, *arguments)

    assert done.returncode == status
    assert done.stderr.startswith(b"error[")
    assert done.stderr.count(b"\n") == 1


def test_a_traceback_only_where_it_is_asked_for(tmp_path: Path) -> None:
    assert b"Traceback" not in wowevent(tmp_path, "publish", "a b").stderr
    assert b"Traceback" in wowevent(tmp_path, "--debug", "publish", "a b").stderr


def test_memory_says_what_it_is(tmp_path: Path) -> None:
    assert (
        b"memory:// is gone when this process ends" in wowevent(tmp_path, "publish", "a", "--url", "memory://").stderr
    )


def test_history_for_people_and_by_time(tmp_path: Path) -> None:
    wowevent(
        tmp_path, "publish", "--events", stdin=b'{"topic":"old","timestamp":"2020-01-01T00:00:00Z"}\n{"topic":"new"}'
    )
    wowevent(tmp_path, "publish", "evil", '{"x": "\x9b31m"}')

    assert [event["topic"] for event in told(tmp_path, "history", "--since", "1h")] == ["new", "evil"]
    assert [event["topic"] for event in told(tmp_path, "history", "--until", "2020-01-02")] == ["old"]
    assert [event["topic"] for event in told(tmp_path, "history", "--limit", "1")] == ["old"]
    shown = wowevent(tmp_path, "history").stdout.decode()
    assert [line.split()[2] for line in shown.splitlines()] == ["old", "new", "evil"]
    assert "\x9b" not in shown


def test_history_backwards(tmp_path: Path) -> None:
    """The last 50, or as many as are wanted, however long the log is; with any of the other conditions."""
    lines = b"".join(b'{"topic":"n%d.made","payload":{"n":%d}}\n' % (n % 2, n) for n in range(1, 2_502))
    wowevent(tmp_path, "publish", "--events", stdin=lines)

    def numbers(*arguments: str) -> list[object]:
        return [event["payload"]["n"] for event in told(tmp_path, "history", "--newest", *arguments)]

    assert numbers() == list(range(2_501, 2_451, -1))
    assert numbers("n0.*", "--limit", "3") == [2_500, 2_498, 2_496]
    assert numbers("--limit", "9999") == list(range(2_501, 0, -1))
    assert numbers("--until", "2020-01-01") == []


def test_the_output_may_be_cut_off(tmp_path: Path) -> None:
    wowevent(tmp_path, "publish", "a", PIPE, stdin=b'{"n":1}\n' * 20_000)
    for command in (("history", "--json"), ("history",), ("subscribe", "a", "--from", "first")):
        words = [sys.executable, "-m", "wowevent", *command]
        with subprocess.Popen(
            words, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read().decode()
            assert process.wait(20) == 0, said
            assert "Error" not in said


def test_a_live_tail(tmp_path: Path) -> None:
    wowevent(tmp_path, "publish", "task.before")
    with running(tmp_path, "wowevent", "subscribe", "task.*", "log.#", "--json", "-n", "2") as tail:
        until(lambda: "listening" in (tmp_path / "err.txt").read_text(), "listening")
        for topic in ("task.one", "other", "log.two", "task.three"):
            wowevent(tmp_path, "publish", topic)
        assert tail.wait(20) == 0
    topics = [json.loads(line)["topic"] for line in (tmp_path / "out.txt").read_text().splitlines()]
    assert topics == ["task.one", "log.two"]


def test_a_live_tail_from_the_first_event_on(tmp_path: Path) -> None:
    wowevent(tmp_path, "publish", "a.one")
    with running(tmp_path, "wowevent", "subscribe", "a.*", "--from", "first") as tail:
        until(lambda: "a.one" in (tmp_path / "out.txt").read_text(), "the past")
        wowevent(tmp_path, "publish", "a.two")
        until(lambda: "a.two" in (tmp_path / "out.txt").read_text(), "the present")
        assert end(tail, signal.SIGINT) == 0
    assert [line.split()[2] for line in (tmp_path / "out.txt").read_text().splitlines()] == ["a.one", "a.two"]
    assert "Traceback" not in (tmp_path / "err.txt").read_text()


def test_a_name_is_remembered(tmp_path: Path) -> None:
    def take(count: int, *more: str) -> list[int]:
        arguments = ("subscribe", "a", "--name", "reader", "--json", "-n", str(count), *more)
        done = wowevent(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["payload"]["n"] for line in done.stdout.splitlines()]

    wowevent(tmp_path, "publish", "a", PIPE, stdin=b"".join(b'{"n":%d}\n' % n for n in range(5)))
    assert take(2, "--from", "first") == [0, 1]
    wowevent(tmp_path, "publish", "a", '{"n": 5}')
    assert take(4) == [2, 3, 4, 5]
