"""`wowevent serve --workers`: processes that share the ports, die, are exchanged and end, and nobody notices."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.cli.daemons import PORTS, data, processes_of, started, status
from tests.cli.terminal import at_a_terminal
from tests.processes import PATIENCE, Process, address, end, running, until, wowevent

CRASHES = "import os, sys\nif '--post' in sys.orig_argv and os.path.exists('crash'):\n    os._exit(3)\n"
"""As sitecustomize.py: workers die at once while a file of that name is there."""


@contextmanager
def serving(home: Path, workers: int, *options: str, **changes: str) -> Iterator[Process]:
    """A service with so many workers, once all serve."""
    with running(home, "wowevent", "serve", "--workers", str(workers), *PORTS, *options, **changes) as process:
        until(lambda: (data(home) / "wowevent.pid").exists() or process.poll() is not None, "the record")
        assert process.poll() is None, err(home)
        yield process


def err(home: Path) -> str:
    return (home / "err.txt").read_text()


def workers(home: Path) -> list[dict[str, Any]]:
    """The workers, by the record."""
    found: list[dict[str, Any]] = json.loads((data(home) / "wowevent.pid").read_bytes())["workers"]
    return found


def pids(home: Path) -> list[int]:
    return [each["pid"] for each in workers(home)]


def websocket(home: Path) -> str:
    found: str = json.loads((data(home) / "wowevent.pid").read_bytes())["websocket"]
    return found


def answering(url: str, count: int) -> Counter[int]:
    """Who answered, when each question comes by a connection of its own; asked until so many have."""
    seen: Counter[int] = Counter()
    for _ in range(200):
        seen[httpx.get(f"{url}/health").json()["worker"]] += 1
        if len(seen) == count:
            break
    return seen


def topics(url: str) -> list[str]:
    return [each["event"]["topic"] for each in httpx.get(f"{url}/events").json()["events"]]


def test_several_act_as_one(home: Path) -> None:
    with serving(home, 3) as process:
        url = address(home)
        assert "workers    3" in (home / "out.txt").read_text()
        assert set(answering(url, 3)) == {1, 2, 3}
        shown = workers(home)
        assert [each["number"] for each in shown] == [1, 2, 3]
        for each in shown:
            assert httpx.post(f"{each['http']}/events", json={"topic": f"from.w{each['number']}"}).status_code == 202
        for each in shown:
            assert topics(each["http"]) == ["from.w1", "from.w2", "from.w3"]
        code, told = status(home)
        assert (code, told["state"], told["pid"]) == (0, "running", process.pid)
        assert [each["worker"] for each in told["health"]["workers"]] == [1, 2, 3]
        assert told["workers"] == shown
        assert {psutil.Process(each["pid"]).ppid() for each in shown} == {process.pid}
        assert b"worker 2 says" in wowevent(home, "status").stdout
        assert end(process) == 0
    log = (data(home) / "wowevent.log").read_text()
    for number in (1, 2, 3):
        assert f" INFO wowevent[{number}] router serves " in log
        assert f" INFO wowevent[{number}] stopped\n" in log
    assert not processes_of(home)


def test_each_worker_counts_its_own_and_says_whose_the_numbers_are(home: Path) -> None:
    with serving(home, 2):
        first, second = (each["http"] for each in workers(home))
        for _ in range(3):
            httpx.post(f"{second}/events", json={"topic": "a.b"})
        numbers = [httpx.get(f"{url}/metrics").json() for url in (first, second)]
        assert [(each["worker"], each["totals"]["publishes"]) for each in numbers] == [(1, 0), (2, 3)]
        text = httpx.get(f"{second}/metrics", headers={"accept": "text/plain"}).text
        assert 'wowevent_published_events_total{type="a.b",worker="2"} 3.0' in text
        assert 'wowevent_engine_up{worker="2"} 1.0' in text
        with connect(websocket(home)) as client:
            client.send('{"type":"get_health"}')
            found = [json.loads(client.recv()) for _ in range(2)][-1]
        assert found["health"]["worker"] in {1, 2}


def test_websockets_are_dealt_out_among_them(home: Path) -> None:
    with serving(home, 3), ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(connect(websocket(home)))
        seen: Counter[int] = Counter()
        for _ in range(12):
            client = stack.enter_context(connect(websocket(home)))
            client.send('{"type":"get_health"}')
            health = [json.loads(client.recv()) for _ in range(2)][-1]["health"]
            seen[health["worker"]] = max(seen[health["worker"]], health["clients"])
        assert len(seen) == 3
        assert min(seen.values()) >= 8, seen


def test_one_that_dies_is_started_again_and_the_others_go_on(home: Path) -> None:
    with serving(home, 2) as process:
        url = address(home)
        before = workers(home)
        os.kill(before[0]["pid"], signal.SIGKILL)
        until(lambda: workers(home)[0]["pid"] is None, "the notice")
        for n in range(20):  # nobody is left waiting at the socket of the dead
            assert httpx.post(f"{url}/events", json={"topic": f"while.{n}"}, timeout=2).status_code == 202
        until(lambda: workers(home)[0]["pid"], "the next one")
        after = workers(home)
        assert after[0]["pid"] != before[0]["pid"]
        assert after[1] == before[1]
        assert [each["http"] for each in after] == [each["http"] for each in before]
        assert status(home)[0] == 0
        assert set(answering(url, 2)) == {1, 2}
        assert " ERROR wowevent worker died worker=1 " in err(home)
        assert end(process) == 0


def test_one_that_hangs_is_seen(home: Path) -> None:
    with serving(home, 2):
        pid = pids(home)[1]
        os.kill(pid, signal.SIGSTOP)
        file = data(home) / "wowevent.pid"
        record = json.loads(file.read_bytes())
        file.write_text(json.dumps({**record, "http": record["workers"][0]["http"], "websocket": None}))
        code, told = status(home)  # as if it reached the other one at the shared ports
        assert (code, told["state"], told["health"]["http"]["worker"]) == (75, "unhealthy", 1)
        assert told["health"]["workers"][0]["status"] == "healthy"
        assert told["health"]["workers"][1] is None
        assert b"worker 2 says   nothing" in wowevent(home, "status").stdout
        os.kill(pid, signal.SIGCONT)
        file.write_text(json.dumps(record))
        until(lambda: status(home)[0] == 0, "an answer")


def test_one_that_dies_again_and_again_ends_all_with_an_error(home: Path) -> None:
    (home / "sitecustomize.py").write_text(CRASHES)
    with serving(home, 2, PYTHONPATH=f"{home}:{os.environ.get('PYTHONPATH', '')}") as process:
        (home / "crash").touch()
        os.kill(pids(home)[0], signal.SIGKILL)
        assert process.wait(2 * PATIENCE) == 70
    said = err(home).splitlines()
    assert said[-1] == (
        "error[workers_failed]: worker 1 ended 5 times in a row, now with status 3: the log may say why"
    )
    assert "Traceback" not in err(home)
    assert not processes_of(home)
    assert status(home) == (69, {"state": "not_running", "trouble": None})


def test_one_that_never_serves_is_not_tried_again(home: Path) -> None:
    (home / "sitecustomize.py").write_text(CRASHES)
    (home / "crash").touch()
    done = wowevent(home, "serve", "--workers", "2", *PORTS, PYTHONPATH=f"{home}:{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == 70
    assert b"error[workers_failed]: a worker ended with status 3" in done.stderr
    assert done.stdout == b""


def test_what_keeps_a_worker_from_serving_is_said_in_its_words(home: Path) -> None:
    (home / "x.db").write_bytes(b"not a database" * 1000)
    done = wowevent(home, "serve", "--workers", "2", *PORTS, "--url", "sqlite:///x.db")
    assert done.returncode == 74
    assert done.stderr.splitlines()[-1].startswith(b"error[storage_damaged]: ")
    assert done.stderr.count(b"error[") == 1
    done = wowevent(home, "start", "--daemon", "--workers", "2", *PORTS, "--url", "sqlite:///x.db")
    assert done.returncode == 74
    assert not processes_of(home)


@pytest.mark.parametrize("command", ["serve", "start"])
def test_a_log_in_one_process_cannot_be_shared(home: Path, command: str) -> None:
    done = wowevent(home, command, "--workers", "2", *PORTS, "--url", "memory://")
    assert done.returncode == 78
    assert done.stderr == (b"error[not_supported]: memory:// lives in one process; workers need one that they share\n")


def test_one_worker_is_none_and_may_serve_memory(home: Path) -> None:
    with running(home, "wowevent", "serve", "--workers", "1", *PORTS, "--url", "memory://") as process:
        assert "worker" not in httpx.get(f"{address(home)}/health").json()
        assert end(process) == 0


def test_a_port_that_others_share_is_taken(home: Path) -> None:
    with serving(home, 2):
        port = address(home).rpartition(":")[2]
        for options in (("--workers", "2"), ()):
            done = wowevent(home, "serve", *options, "--port", "0", "--http-port", port)
            assert done.returncode == 69
            assert done.stderr.startswith(b"error[address_in_use]: ")
            assert done.stderr.count(b"\n") == 1


def test_switched_off(home: Path) -> None:
    with serving(home, 2, EVENT_BUS_ENABLED="false") as process:
        assert set(answering(address(home), 2)) == {1, 2}
        assert status(home)[1]["websocket"] is None
        assert end(process) == 0


# --- exchanged ----------------------------------------------------------------------------------------------------


class Publishing:
    """Threads that publish over HTTP, some by connections that are kept, some by a new one each time."""

    def __init__(self, url: str) -> None:
        self.confirmed: list[str] = []
        self.refused: list[str] = []
        self.said_goodbye: int = 0
        """Answers which said that they were the last ones of their connection."""
        self._url = url
        self._told = threading.Event()
        kinds = [(self._kept, n) for n in range(2)] + [(self._anew, n) for n in range(2)]
        self._threads = [threading.Thread(target=kind, args=(f"{kind.__name__}{n}",)) for kind, n in kinds]
        for thread in self._threads:
            thread.start()

    def _kept(self, name: str) -> None:
        with httpx.Client() as client:
            self._publish(client.post, name)

    def _anew(self, name: str) -> None:
        self._publish(httpx.post, name)

    def _publish(self, post: Any, name: str) -> None:
        number = 0
        while not self._told.wait(0.01):
            number += 1
            event = {"topic": "load.made", "event_id": f"{name}-{number}"}
            try:
                answer = post(f"{self._url}/events", json=event, timeout=10)
            except httpx.HTTPError as error:
                self.refused.append(f"{name}-{number}: {error!r}")
                continue
            self.said_goodbye += answer.headers.get("connection") == "close"
            if answer.status_code == 202:
                self.confirmed.append(f"{name}-{number}")
            else:
                self.refused.append(f"{name}-{number}: {answer.status_code} {answer.text}")

    def end(self) -> None:
        self._told.set()
        for thread in self._threads:
            thread.join()


def test_a_hangup_exchanges_all_and_no_request_fails(home: Path) -> None:
    with serving(home, 3) as process:
        url, before = address(home), workers(home)
        publishing = Publishing(url)
        try:
            until(lambda: len(publishing.confirmed) > 20, "some load")
            process.send_signal(signal.SIGHUP)
            until(lambda: "workers were exchanged" in err(home), "the exchange")
        finally:
            publishing.end()
        after = workers(home)
        assert not {each["pid"] for each in before} & {each["pid"] for each in after}
        assert [each["http"] for each in after] == [each["http"] for each in before]
        assert not publishing.refused
        assert publishing.said_goodbye >= 2, "who keeps a connection is told, and not cut off as it asks"
        assert status(home)[0] == 0
        kept = wowevent(home, "history", "--json", "--limit", "100000").stdout.splitlines()
        assert sorted(json.loads(line)["event_id"] for line in kept) == sorted(publishing.confirmed)
        assert end(process) == 0
    for pid in (*[each["pid"] for each in before], *[each["pid"] for each in after]):
        assert not psutil.pid_exists(pid)
    drained = [line for line in err(home).splitlines() if line.endswith("] stopped")]
    assert len(drained) == 6


def test_an_exchange_that_fails_leaves_those_that_serve(home: Path) -> None:
    (home / "sitecustomize.py").write_text(CRASHES)
    with serving(home, 2, PYTHONPATH=f"{home}:{os.environ.get('PYTHONPATH', '')}") as process:
        before = workers(home)
        (home / "crash").touch()
        process.send_signal(signal.SIGHUP)
        until(lambda: "workers are not exchanged, those before go on" in err(home), "the refusal")
        assert workers(home) == before
        assert status(home)[0] == 0
        (home / "crash").unlink()
        process.send_signal(signal.SIGHUP)
        until(lambda: "workers were exchanged" in err(home), "the exchange")
        assert end(process) == 0


# --- ends ---------------------------------------------------------------------------------------------------------


class Holding:
    """Clients that share a subscription, and hold one event each."""

    def __init__(self, home: Path, count: int) -> None:
        self._stack = ExitStack()
        self._clients = [self._stack.enter_context(connect(websocket(home))) for _ in range(count)]
        for client in self._clients:
            client.send('{"type":"subscribe","subscription":{"topics":["job.*"],"name":"worker","credit":1}}')
            assert [json.loads(client.recv())["type"] for _ in range(2)] == ["welcome", "subscribed"]
        url = address(home)
        for n in range(count):
            httpx.post(f"{url}/events", json={"topic": "job.made", "payload": {"n": n}})
        self._held = [json.loads(client.recv()) for client in self._clients]

    def acknowledge(self) -> None:
        """All that they hold."""
        for client, frame in zip(self._clients, self._held, strict=True):
            ack = {"type": "ack", "subscription_id": frame["subscription_id"], "tokens": [frame["token"]]}
            client.send(json.dumps(ack))

    def end(self) -> set[int]:
        """The close codes that they are given."""
        with self._stack:
            for client in self._clients:
                with pytest.raises(ConnectionClosed):
                    client.recv(timeout=5)
            return {client.close_code or 0 for client in self._clients}


def left(home: Path) -> int:
    """How many events of their subscription are not settled."""
    info = json.loads(wowevent(home, "info", "worker", "--json").stdout)
    return sum(int(info[name]) for name in ("ready", "leased", "delayed", "dead"))


def test_what_is_in_hand_is_finished(home: Path) -> None:
    """SIGTERM: each worker waits for what its clients hold, and takes their acknowledgements."""
    with serving(home, 2) as process:
        holding = Holding(home, 4)
        process.send_signal(signal.SIGTERM)
        until(lambda: err(home).count("draining") == 2, "the drain")
        holding.acknowledge()
        assert process.wait(PATIENCE) == 0
        assert holding.end() == {1001}
    assert left(home) == 0


def test_also_of_one_that_is_being_exchanged(home: Path) -> None:
    with serving(home, 2) as process:
        holding = Holding(home, 10)
        process.send_signal(signal.SIGHUP)
        until(lambda: "draining" in err(home), "the drain of the first")
        process.send_signal(signal.SIGTERM)
        until(lambda: err(home).count("draining") == 3, "the drain of all")
        holding.acknowledge()
        assert process.wait(PATIENCE) == 0
        assert holding.end() == {1001}
    assert left(home) == 0
    assert not processes_of(home)


def test_also_of_workers_that_are_told_twice(home: Path) -> None:
    """A service manager tells all processes at once, and then the one that started the workers tells them again."""
    with serving(home, 2) as process:
        holding = Holding(home, 4)
        for pid in pids(home):
            os.kill(pid, signal.SIGTERM)
        until(lambda: err(home).count("draining") == 2, "the drain")
        process.send_signal(signal.SIGTERM)
        until(lambda: "workers are told to end" in err(home), "the second signal")
        time.sleep(0.5)
        holding.acknowledge()
        assert process.wait(PATIENCE) == 0
        assert holding.end() == {1001}
    assert left(home) == 0
    assert not processes_of(home)


def test_workers_end_when_the_process_that_started_them_is_killed(home: Path) -> None:
    with serving(home, 2) as process:
        process.send_signal(signal.SIGKILL)
        until(lambda: not processes_of(home), "the end of the workers")


def test_in_the_background(home: Path) -> None:
    said = started(home, "--workers", "2")
    assert len(processes_of(home)) == 3
    second = json.loads(wowevent(home, "restart", "--json").stdout)
    assert second["pid"] != said["pid"]
    assert len(second["workers"]) == 2
    os.kill(second["pid"], signal.SIGHUP)
    until(lambda: {*pids(home)}.isdisjoint(each["pid"] for each in second["workers"]), "the exchange")
    until(lambda: len(processes_of(home)) == 3, "the end of the old ones")
    assert "worker serves" in Path(second["log"]).read_text()
    assert wowevent(home, "stop").returncode == 0
    assert not processes_of(home)


def test_workers_that_hang_are_killed_with_it_if_that_is_said(home: Path) -> None:
    started(home, "--workers", "2")
    for pid in pids(home):
        os.kill(pid, signal.SIGSTOP)
    done = wowevent(home, "stop", "--timeout", "0.3", "--force", "--json")
    assert json.loads(done.stdout)["killed"] is True
    until(lambda: not processes_of(home), "the end of the workers")


@pytest.mark.parametrize("how", ["closed", "ctrl-c"])
def test_what_its_terminal_says_is_for_the_one_that_started_the_workers(home: Path, how: str) -> None:
    """A terminal that is closed says SIGHUP too, and Ctrl-C reaches all that are in its foreground."""
    with at_a_terminal(home, "wowevent", "serve", "--workers", "2", *PORTS) as (process, person):
        until((data(home) / "wowevent.pid").exists, "the record")
        holding = Holding(home, 4)
        if how == "ctrl-c":
            person.write(b"\x03")
        else:
            person.close()
        until(lambda: err(home).count("draining") == 2, "the drain")
        time.sleep(0.5)
        holding.acknowledge()
        assert process.wait(PATIENCE) == 0
        assert holding.end() == {1001}
    assert left(home) == 0
    assert "workers are exchanged" not in err(home)
    assert not processes_of(home)
