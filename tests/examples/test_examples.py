"""Every example as a user runs it: a process of its own, in a directory of its own, its output checked."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import environment

ROOT = Path(__file__).parents[2]


def run(home: Path, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(
        command, cwd=home, env=environment(home), capture_output=True, text=True, timeout=50, check=False
    )


OUTPUT = {
    "agent_communication.py": [
        "task.claimed     15",
        "task.completed   11",
        "task.created     12",
        "task.failed       4",
        "dead            task 5 after 2 attempts: ConnectionError: the model does not answer",
        "all numbers add up",
    ],
    "blocking_errors.py": [
        "done    good after 0 failures",
        "done    slow after 2 failures",
        "dead    broken after 4 failures",
        "dead    wrong after 1 failures",
        "health  unhealthy",
        "publish False",
    ],
    "blocking_fan_out.py": [
        "audit    12 copies",
        "billing  12 copies",
        "search   12 copies",
        "workers  12 shared, none twice",
    ],
    "blocking_priorities.py": [
        "urgent  order order outage",
        "first   order order outage",
        "then    mail mail report report",
    ],
    "blocking_request_reply.py": [
        "reply to req_001: 6",
        "called: 9",
        "nobody answers that",
    ],
    "event_responder_demo.py": [
        "--- lamp",
        "order.placed                 by website",
        "  inventory.check            by shop",
        "    inventory.reserved       by stock",
        "  payment.process            by shop",
        "    payment.accepted         by bank",
        "      address.ask            by shop",
        "      order.shipped          by shop",
        "        email.send           by post",
        "          email.sent         by post",
        "--- piano",
        "order.placed                 by website",
        "  inventory.check            by shop",
        "    inventory.reserved       by stock",
        "  payment.process            by shop",
        "    payment.declined         by bank",
        "      order.cancelled        by shop",
        "        email.send           by post",
        "          email.sent         by post",
    ],
    "quickstart.py": [
        "dead 2 after 3 attempts: ConnectionError: the model does not answer",
        "done [1, 2, 3]",
    ],
    "request_reply.py": [
        "reply: {'mean': 3.0}",
        "failed: ZeroDivisionError: division by zero",
        "timed out",
        "nobody answers that",
    ],
    "simple_responder.py": [
        "task.created -> task.claimed {'task_id': 7}",
        "error.network -> alert.page_oncall {'about': 'error.network'}",
        "payment.failed -> failure.noted {'about': 'payment.failed'}",
        "job.started -> urgent.escalated {'about': 'job.started', 'priority': 7}",
        "nothing else was responded to",
    ],
    "typed_handlers.py": [
        "audit: shop ordered lamp, attempt 1",
        "refused by audit: validation_error: validation: order.placed: count: Input should be greater than 0",
        "refused by stock: validation_error: validation: order.placed: count: Input should be greater than 0",
        "stock: 2 x lamp",
    ],
}


@pytest.mark.parametrize("name", OUTPUT)
def test_an_example_says_what_it_should(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, ROOT / "examples" / name)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (sorted(lines) if name == "typed_handlers.py" else lines) == OUTPUT[name]  # agents work side by side


def test_every_example_is_tested() -> None:
    assert {file.name for file in (ROOT / "examples").glob("*.py")} == {
        *(*OUTPUT, "git_history.py", "load_test.py", "start_server.py", "test_client.py")
    }


# --- a router, and who uses it --------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """examples/start_server.py as it runs, and where it listens."""
    command = [sys.executable, str(ROOT / "examples" / "start_server.py"), "--port", "0", "--url", "sqlite:///e.db"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert re.fullmatch(r"listening on ws://localhost:\d+, Ctrl-C ends it\n", line)
            yield process, line.split()[2].rstrip(",")
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_serves_the_test_client_until_it_is_told_to_end(
    tmp_path: Path, server: tuple[subprocess.Popen[str], str], number: int
) -> None:
    process, url = server
    done = run(tmp_path, ROOT / "examples" / "test_client.py", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        f"✅ Connected to {url}\n"
        r"✅ Published event: [0-9a-f-]{36}\n"
        r"✅ Subscription created: sub-\d+\n"
        r"✅ Received event: test\.event\n",
        done.stdout,
    )
    process.send_signal(number)
    assert process.wait(20) == 0
    assert process.stdout is not None
    assert process.stdout.read() == "ended\n"


def test_a_port_that_is_taken_is_said_in_a_line(tmp_path: Path, server: tuple[subprocess.Popen[str], str]) -> None:
    _, url = server
    done = run(tmp_path, ROOT / "examples" / "start_server.py", "--port", url.rpartition(":")[2])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cannot listen: ")
    assert done.stderr.count("\n") == 1


def test_the_test_client_says_in_a_line_that_no_router_is_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = run(tmp_path, ROOT / "examples" / "test_client.py", f"ws://localhost:{port}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"❌ ws://localhost:{port} cannot be reached: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("there", [False, True], ids=["a router of its own", "a router that is there"])
def test_the_load_test_loses_nothing(tmp_path: Path, server: tuple[subprocess.Popen[str], str], there: bool) -> None:
    at = ("--clients", "20", "--events", "300", "--url", server[1]) if there else ()
    clients, events = ("20", "300") if there else ("100", "1,000")
    done = run(tmp_path, ROOT / "examples" / "load_test.py", *at)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"clients    {clients}"
    assert re.fullmatch(rf"published  {events} in [0-9.]+ s: [0-9,]+/s", lines[1])
    assert re.fullmatch(rf"received   {events} in [0-9.]+ s: [0-9,]+/s", lines[2])
    assert re.fullmatch(r"latency    p50 [0-9.]+ ms, p95 [0-9.]+ ms, p99 [0-9.]+ ms", lines[3])
    assert lines[4:] == [f"processed  {events}, says the router", "nothing was lost, nothing came twice"]


# --- the demo -----------------------------------------------------------------------------------------------------


def repository(home: Path, commits: int) -> Path:
    """A repository of so many commits in a line, each of two files, and a merge on top of more than one."""
    where = home / "repository"
    subprocess.run(["git", "init", "--quiet", str(where)], check=True, env=environment(home))
    stream: list[str] = []

    def commit(mark: int, parents: str) -> None:
        who = f"Agent {mark % 3} <agent@example.org> {1_600_000_000 + mark} +0000"
        stream.append(
            f"commit HEAD\nmark :{mark}\nauthor {who}\ncommitter {who}\ndata <<EOT\nchange {mark} “é”\nEOT\n{parents}"
        )
        stream.extend(f'M 100644 inline "folder/a\\tb {number}"\ndata <<EOT\n{mark}\nEOT\n' for number in range(2))
        stream.append("\n")

    for mark in range(1, commits + 1):
        commit(mark, f"from :{mark - 1}\n" if mark > 1 else "")
    if commits > 1:
        commit(commits + 1, f"from :{commits}\nmerge :{commits - 1}\n")
    importing = ["git", "-C", str(where), "fast-import", "--quiet"]
    subprocess.run(importing, input="".join(stream).encode(), check=True, env=environment(home))
    return where


@pytest.mark.parametrize(
    ("commits", "lines"),
    [
        (
            1,
            [
                "0 handled at once + 0 after a retry + 1 dead letters",
                "1 dead letters sent again and handled; 0 are left",
            ],
        ),
        (
            300,
            [
                "264 handled at once + 30 after a retry + 7 dead letters",
                "7 dead letters sent again and handled; 0 are left",
            ],
        ),
    ],
)
def test_the_demo_adds_up(tmp_path: Path, commits: int, lines: list[str]) -> None:
    where = repository(tmp_path, commits)
    for _ in range(2):  # in the same directory again, as if it were the first time
        done = run(tmp_path, ROOT / "examples" / "git_history.py", str(where), "--directory", str(tmp_path / "log"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-3] == "all numbers add up"
        for line in lines:
            assert line in done.stdout
    changes = (tmp_path / "log" / "CHANGES.txt").read_text().splitlines()
    assert len(changes) == (commits + 1 if commits > 1 else 1)
    assert "change 1 “é” (Agent 1)" in changes[0]


@pytest.mark.parametrize("where", ["nowhere", "empty"])
def test_the_demo_without_a_history(tmp_path: Path, where: str) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "empty")], check=True, env=environment(tmp_path))
    done = run(tmp_path, ROOT / "examples" / "git_history.py", str(tmp_path / where))

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
