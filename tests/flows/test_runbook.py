"""Following the runbook alone, its lines as they stand: deploy, verify, find out that Redis was killed, repair it.

Its pages' blocks of commands are read out of them and run by a shell, one after another, on a real Redis and a real
service. What differs is the ports, which stand in one block of the index.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest

from tests.cli.daemons import processes_of
from tests.processes import environment, until, wowevent
from tests.servers import free_port
from tests.watching.runbook import HERE, blocks

NAMES = "Names on these pages"
PORTS = ("6379", "8080", "9090")
ALONE = re.compile(r"wowevent ([^|&;<>$`]*)( \|\| true)?")
PATIENT = 240  # seconds: some forty commands, each from nothing, on a machine that has other things to do
TOOLS = ("bash", "curl", "jq", "redis-cli", "redis-server")


class Machine:
    """A home of its own, and a shell in it that knows the names of the index."""

    def __init__(self, home: Path) -> None:
        for tool in TOOLS:
            assert shutil.which(tool), f"{tool} is not there, and the runbook uses it: make servers"
        self.home = home
        (names, *_) = blocks("README", NAMES)
        ports = {name: free_port() for name in PORTS}
        self._names = re.sub(r"=(\d+)", lambda found: f"={ports[found[1]]}", names.text)
        self.service = f"http://localhost:{ports['8080']}"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = environment(home, PATH=path)
        self._known: dict[str, Any] = {}

    def run(self, text: str, *, status: int = 0) -> str:
        """What a block prints, on stdout and stderr; it stops at the first line that fails."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._names + text],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENT,
            check=False,
        )
        assert done.returncode == status, f"{text}\n{done.stdout}"
        return done.stdout

    def run_quickly(self, lines: Sequence[str]) -> None:
        """The same, but a line that is one command of ours and nothing else need not start from nothing."""
        if any("=$(" in line for line in lines):
            self.run("\n".join(lines))
            return
        for line in lines:
            if found := ALONE.fullmatch(line):
                status = self.command(*shlex.split(found[1]))
                assert status == 0 or found[2], f"{line}: {status}"
            else:
                self.run(line)

    def command(self, *arguments: str) -> int:
        """The exit status of a command of ours."""
        if not self._known:
            lines = self.run("env").splitlines()
            self._known = dict(line.split("=", 1) for line in lines if line.startswith("WOWEVENT_"))
        done = wowevent(self.home, *arguments, timeout=PATIENT, **self._known)
        return done.returncode

    def follow(self, page: str, *headings: str) -> str:
        """What all blocks below these headings print."""
        found = blocks(page, HERE, *headings)
        assert found, f"{page} says nothing under {headings}"
        return "".join(self.run(block.text) for block in found)

    def redis(self) -> psutil.Process:
        """The Redis that the page on deploying starts."""
        return psutil.Process(int((self.home / "redis-data" / "redis.pid").read_text()))

    def history(self) -> list[dict[str, Any]]:
        """Every envelope in the log."""
        return [json.loads(line) for line in self.run("wowevent history --json 2>/dev/null").splitlines()]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    yield Machine(tmp_path)
    left = processes_of(tmp_path)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)


class Publisher:
    """Publishes one event after another over HTTP, and keeps the ids of those that were confirmed."""

    def __init__(self, service: str) -> None:
        self.confirmed: list[str] = []
        self.refused = 0
        self._service = service
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _publish(self) -> None:
        with httpx.Client(base_url=self._service, timeout=20) as client:
            while not self._ended.is_set():
                answer = client.post("/events", json={"topic": "task.created", "payload": {}})
                if answer.status_code == 202:
                    self.confirmed += [each["event_id"] for each in answer.json()["receipts"]]
                else:
                    self.refused += 1


def _deployed(machine: Machine) -> None:
    (first, *_) = blocks("deploy", HERE)
    assert "running" in machine.run(first.text)


@pytest.mark.timeout(PATIENT)
def test_a_killed_redis_is_found_and_repaired_and_nothing_that_was_confirmed_is_lost(machine: Machine) -> None:
    _deployed(machine)
    said = machine.follow("verify")
    assert '"status":"healthy"' in said
    assert '"ready":true' in said
    assert "runbook.checked" in said
    machine.run("wowevent subscribe 'task.*' --name worker -n 1 & sleep 1; wowevent publish task.created; wait")

    with Publisher(machine.service) as publisher:
        until(lambda: len(publisher.confirmed) > 50, "confirmed publishes")
        redis = machine.redis()
        redis.send_signal(signal.SIGKILL)
        until(lambda: not redis.is_running() or redis.status() == psutil.STATUS_ZOMBIE, "the death of Redis")

        found = machine.follow("engine-down", "Find it")
        assert re.search(r"state +unhealthy", found)
        assert "redis is unreachable" in found
        assert found.count("Connection refused") >= 2, "the service and redis-cli both say it"
        assert " ERROR " in found
        before = len(publisher.confirmed)

        machine.follow("engine-down", "Repair it")
        until(lambda: len(publisher.confirmed) > before + 50, "publishing to go on")

    machine.follow("engine-down", "Is all there?")
    machine.run(blocks("verify", HERE)[0].text)
    stored = {each["event_id"] for each in machine.history()}
    assert set(publisher.confirmed) <= stored, "all that was confirmed is in the log"
    count = len(stored) - 2  # without what the page on verifying publishes, and what was handled before
    handled = machine.run(f"wowevent subscribe 'task.*' --name worker -n {count} --json")
    assert set(publisher.confirmed) <= set(re.findall(r'"event_id": ?"([^"]+)"', handled)), (
        "and comes to its subscriber"
    )


def epoch(info: str) -> str:
    """The first part of the log's last position."""
    (found,) = re.findall(r"position +([0-9a-f]+)-", info)
    return str(found)


LOOKED_AT = (
    "monitor", "high-error-rate", "high-latency", "events-not-delivered", "dead-letters", "subscription-lapsed",
    "process-down", "disk-full", "tune", "back-up", "secure", "scale", "upgrade", "roll-back",
)  # fmt: skip


@pytest.mark.timeout(PATIENT)
def test_every_other_line_for_one_machine_runs_too(machine: Machine) -> None:
    """Each page's, on a service that is well; a line that was run before on another page is left out.

    But not of the block that puts a backup back: a log that is empty then would go unnoticed by its lines alone.
    """
    _deployed(machine)
    machine.run("wowevent publish --url sqlite:///events.db task.created")  # the embedded log that is backed up
    machine.run("wowevent publish task.kept")
    ran: set[str] = set()
    for page in LOOKED_AT:
        for block in blocks(page):
            if "wowevent stop" in block.text:
                before = epoch(machine.run("wowevent info"))
                assert epoch(machine.run(block.text)) != before, "positions of before are none of this log"
            elif not re.search(r"\b(kubectl|docker|promtool)\b", block.text):
                lines = [re.sub(r"\s+# .*", "", line) for line in block.text.splitlines()]
                machine.run_quickly([line for line in lines if line not in ran])
                ran.update(lines)
    assert machine.command("status") == 0
    assert "task.kept" in {each["topic"] for each in machine.history()}, "the backup was put back"
