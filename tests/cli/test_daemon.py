"""`wowevent start | stop | restart | status`: one service on a data directory, found, told to end, never mistaken."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cli.daemons import PORTS, data, free_port, processes_of, started, status
from tests.processes import PATIENCE, address, end, environment, running, until, wowevent


def test_from_start_to_stop(home: Path) -> None:
    said = started(home)
    code, told = status(home)

    assert (code, told["state"], told["pid"]) == (0, "running", said["pid"])
    assert told["health"]["http"]["status"] == told["health"]["websocket"]["status"] == "healthy"
    assert httpx.get(f"{told['http']}/health").status_code == 200
    assert os.getsid(told["pid"]) == told["pid"], "it shares no session with who started it"
    assert [stat.S_IMODE(data(home).stat().st_mode)] == [0o700]
    assert stat.S_IMODE((data(home) / "wowevent.pid").stat().st_mode) == 0o600
    assert "router serves" in Path(told["log"]).read_text()

    done = wowevent(home, "stop")
    assert (done.returncode, done.stdout[:8]) == (0, b"stopped ")
    assert not psutil.pid_exists(told["pid"]) or psutil.Process(told["pid"]).status() == psutil.STATUS_ZOMBIE
    assert not (data(home) / "wowevent.pid").exists()
    assert Path(told["log"]).read_text().rstrip().endswith("INFO wowevent stopped"), "it drained"
    assert status(home) == (69, {"state": "not_running", "trouble": None})
    done = wowevent(home, "stop")
    assert (done.returncode, done.stderr) == (0, b"note: no service runs\n")


def test_what_people_are_told(home: Path) -> None:
    done = wowevent(home, "start", "--daemon", *PORTS)
    assert done.returncode == 0
    for word in (b"pid", b"http://127.0.0.1:", b"ws://127.0.0.1:", b"sqlite:///", b"wowevent.log"):
        assert word in done.stdout
    assert b"websocket says  healthy" in wowevent(home, "status").stdout


def test_a_service_that_runs_is_not_started_again(home: Path) -> None:
    first = started(home)
    again = wowevent(home, "start", "--daemon", "--json")
    here = wowevent(home, "start")

    assert again.returncode == 0
    assert json.loads(again.stdout)["state"] == "running"
    assert json.loads(again.stdout)["pid"] == first["pid"]
    assert b"runs already" in wowevent(home, "start", "--daemon").stderr
    assert here.returncode == 75
    assert here.stderr.startswith(b"error[already_running]: ")
    assert len(processes_of(home)) == 1


def test_several_starts_at_once_start_one(home: Path) -> None:
    command = [sys.executable, "-m", "wowevent", "start", "--daemon", "--json", *PORTS]
    starts = [
        subprocess.Popen(command, cwd=home, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    ends = [(start.communicate(timeout=2 * PATIENCE), start.returncode) for start in starts]

    assert [code for _, code in ends] == [0, 0, 0], ends
    said = [json.loads(out) for (out, _), _ in ends]
    assert len({each["pid"] for each in said}) == 1
    assert sorted(each["state"] for each in said) == ["running", "running", "started"]
    assert [process.pid for process in processes_of(home)] == [said[0]["pid"]]


def test_a_port_that_is_taken(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = wowevent(home, "start", "--daemon", "--port", "0", "--http-port", str(taken.getsockname()[1]))

    assert done.returncode == 69
    assert done.stderr.startswith(b"error[address_in_use]: ")
    assert not processes_of(home)
    assert status(home)[0] == 69


def test_a_log_that_cannot_be_read(home: Path) -> None:
    (home / "x.db").write_bytes(b"not a database" * 1000)
    done = wowevent(home, "start", "--daemon", *PORTS, "--url", "sqlite:///x.db")

    assert done.returncode == 74
    assert b"error[storage_damaged]: " in done.stderr
    assert not processes_of(home)


def test_one_that_dies_without_a_word(home: Path) -> None:
    (home / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if '--detached' in sys.orig_argv:\n"
        "    print('boom \\x1b[31m', file=sys.stderr, flush=True)\n"
        "    os._exit(3)\n"
    )
    done = wowevent(home, "start", "--daemon", *PORTS, PYTHONPATH=str(home))

    assert done.returncode == 70
    assert done.stderr.decode().splitlines()[-2:] == [
        "boom \\x1b[31m",
        "error[not_started]: the service ended with status 3; its last lines are above",
    ]


def test_one_that_hangs_is_not_waited_for(home: Path) -> None:
    pid = started(home)["pid"]
    assert status(home)[0] == 0
    os.kill(pid, signal.SIGSTOP)
    code, told = status(home)
    assert (code, told["state"], told["pid"]) == (75, "not_answering", pid)
    assert told["health"] == {"http": None, "websocket": None}
    os.kill(pid, signal.SIGCONT)
    until(lambda: status(home)[0] == 0, "an answer")


def test_one_that_hangs_is_killed_only_if_that_is_said(home: Path) -> None:
    pid = started(home)["pid"]
    os.kill(pid, signal.SIGSTOP)
    done = wowevent(home, "stop", "--timeout", "0.3")
    assert done.returncode == 75
    assert done.stderr.startswith(b"error[not_stopped]: ")
    assert psutil.pid_exists(pid)

    done = wowevent(home, "stop", "--timeout", "0.3", "--force", "--json")
    assert json.loads(done.stdout)["killed"] is True
    assert not processes_of(home)
    assert status(home) == (69, {"state": "not_running", "trouble": None})


def test_one_that_was_killed_is_started_again(home: Path) -> None:
    pid = started(home)["pid"]
    assert wowevent(home, "publish", "a.b").returncode == 0
    os.kill(pid, signal.SIGKILL)
    until(lambda: not processes_of(home), "its end")
    code, told = status(home)
    assert (code, told["state"]) == (69, "not_running")
    assert f"process {pid}" in told["trouble"]

    done = wowevent(home, "start", "--daemon", "--json", *PORTS)
    assert done.returncode == 0
    assert b"ended without cleaning up" in done.stderr
    said = json.loads(done.stdout)
    assert said["pid"] != pid
    events = httpx.get(f"{said['http']}/events").json()["events"]
    assert [each["event"]["topic"] for each in events] == ["a.b"]


def pid_file(home: Path, text: str) -> Path:
    data(home).mkdir(parents=True, exist_ok=True)
    file = data(home) / "wowevent.pid"
    file.write_text(text)
    return file


def record(process: psutil.Process, created: float) -> str:
    return json.dumps(
        {
            "pid": process.pid,
            "created": created,
            "since_boot": created - psutil.boot_time(),
            "websocket": None,
            "http": "http://127.0.0.1:9",
            "engine": "memory://",
            "namespace": "default",
            "log": "x.log",
            "version": "0",
            "options": {},
            "cwd": "/",
        }
    )


@pytest.mark.parametrize(
    ("words", "later", "why"),
    [
        ((), 0.0, "is another program"),
        (("wowevent", "serve"), 60.0, "started at another time"),
        (("wowevent", "history"), 0.0, "is another program"),
    ],
)
def test_a_process_that_is_not_ours_gets_no_signal(home: Path, words: tuple[str, ...], later: float, why: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE) as other:
        process = psutil.Process(other.pid)
        file = pid_file(home, record(process, process.create_time() + later))
        done = wowevent(home, "status", "--json")
        assert done.returncode == 69
        assert why in json.loads(done.stdout)["trouble"]

        done = wowevent(home, "stop", "--force", "--timeout", "0.1")
        assert done.returncode == 0
        assert why.encode() in done.stderr
        assert other.poll() is None
        assert not file.exists()

        pid_file(home, record(process, process.create_time() + later))
        said = started(home)
        assert said["pid"] != other.pid
        assert json.loads(file.read_text())["pid"] == said["pid"]
        assert other.poll() is None
        other.communicate(b"\n")


def test_a_file_that_makes_no_sense(home: Path) -> None:
    pid_file(home, "nix")
    assert "is not ours" in status(home)[1]["trouble"]
    assert wowevent(home, "stop").returncode == 0
    assert status(home)[1]["trouble"] is None


def test_a_restart_keeps_what_it_was_started_with(home: Path) -> None:
    (home / "inside").mkdir()
    first = started(home, "--namespace", "alpha", "--url", "sqlite:///x.db", "--log-file", "x.log")
    elsewhere = wowevent(home / "inside", "restart", "--json", HOME=str(home))
    assert elsewhere.returncode == 0, elsewhere.stderr
    second = json.loads(elsewhere.stdout)
    assert second["pid"] != first["pid"]
    assert [second[name] for name in ("namespace", "engine", "log")] == ["alpha", "sqlite:///x.db", str(home / "x.log")]
    assert (home / "x.alpha.db").exists()
    assert not list((home / "inside").iterdir())

    third = json.loads(wowevent(home, "restart", "--json", "--namespace", "beta").stdout)
    assert [third[name] for name in ("namespace", "engine")] == ["beta", "sqlite:///x.db"]
    assert [process.pid for process in processes_of(home)] == [third["pid"]]


def test_a_restart_of_nothing_is_a_start(home: Path) -> None:
    done = wowevent(home, "restart", "--json", *PORTS)
    assert done.returncode == 0
    assert json.loads(done.stdout)["state"] == "started"


def test_what_serve_runs_is_found_and_stopped(home: Path) -> None:
    with running(home, "wowevent", "serve", *PORTS) as process:
        url = address(home)
        code, told = until(lambda: (seen := status(home))[0] == 0 and seen, "the record")  # type: ignore[misc]
        assert (code, told["pid"], told["http"]) == (0, process.pid, url)
        assert wowevent(home, "stop").returncode == 0
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("command", ["serve", "start"])
def test_what_ends_in_the_foreground_leaves_no_record(home: Path, command: str) -> None:
    with running(home, "wowevent", command, *PORTS) as process:
        until(lambda: status(home)[0] == 0, "the record")
        assert end(process, signal.SIGINT) == 0
    assert not (data(home) / "wowevent.pid").exists()


def test_a_second_serve_is_let_be(home: Path) -> None:
    first = started(home)
    with running(home, "wowevent", "serve", *PORTS):
        assert address(home) != first["http"]
        until(lambda: b"another service is registered" in (home / "err.txt").read_bytes(), "a word about it")
        assert status(home)[1]["pid"] == first["pid"]
    assert status(home)[1]["pid"] == first["pid"]


def test_an_unhealthy_one(home: Path) -> None:
    """Switched off is healthy; an engine that is gone is not. Only HTTP is served when it is switched off."""
    said = started(home, EVENT_BUS_ENABLED="false")
    assert said["websocket"] is None
    code, told = status(home)
    assert (code, told["health"]["http"]["event_bus"]) == (0, "disabled")


def test_the_environments_port_is_http(home: Path) -> None:
    port = free_port()
    done = wowevent(home, "start", "--daemon", "--json", "--port", "0", PORT=str(port))
    assert json.loads(done.stdout)["http"] == f"http://127.0.0.1:{port}"
