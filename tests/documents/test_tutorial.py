"""docs/tutorial.md, followed from its first block to its last, in three terminals; what it shows is what is seen."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.documents.pages import ROOT, Block, blocks
from tests.documents.shell import PATH, Shell, lines, wait
from tests.processes import environment
from tests.servers import redis_running

PAGE = "docs/tutorial.md"
RUNS = blocks(PAGE, "sh", "python")
PATIENCE = 400
"""Seconds for some ten processes, each from nothing, on a machine that has other things to do."""


class Worker:
    """The terminal in which `wowevent run` is left running."""

    def __init__(self, block: Block, home: Path, url: str, run: int) -> None:
        self._out, self._err = home / f"worker-{run}.out", home / f"worker-{run}.err"
        self._home = home
        self._env = environment(home, PATH=PATH, WOWEVENT_URL=url)
        (self._command,) = lines(block.text)
        self._seen = 0

    def start(self, stack: ExitStack) -> None:
        """Start it; it serves when this returns, and is ended with the stack."""
        out, err = (stack.enter_context(path.open("wb")) for path in (self._out, self._err))
        command = ["bash", "-c", f"exec {self._command}"]
        process = subprocess.Popen(command, cwd=self._home, env=self._env, stdout=out, stderr=err)
        stack.callback(process.wait, 60)
        stack.callback(process.terminate)
        self.says("worker serves")

    def says(self, words: str, times: int = 1) -> None:
        """Log lines with that are there, or come."""
        wait(lambda: self._err.read_text().count(words) >= times, f"{words!r} of the worker")

    def prints(self, block: Block) -> None:
        """It prints what the page shows, and did nothing else since it was last asked."""
        wanted = block.text.splitlines()
        wait(lambda: len(self._lines()) >= len(wanted), f"{block}: {wanted}")
        assert self._lines() == wanted, str(block)
        self._seen += len(wanted)

    def _lines(self) -> list[str]:
        return self._out.read_text().splitlines()[self._seen :]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    with redis_running(tmp_path / "redis") as server:
        yield f"redis://localhost:{server.port}"


def setting(block: Block) -> tuple[str, str]:
    """What an `export` says."""
    found = re.fullmatch(r"export (\w+)=(\S+)\n", block.text)
    assert found, str(block)
    return found[1], found[2]


def masked(text: str) -> str:
    """Without the moment, and what it does to the width of columns."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", "MOMENT", text)


@pytest.mark.timeout(PATIENCE)
def test_the_tutorial(tmp_path: Path, redis: str) -> None:
    (
        install, url, worker, start, planner, plan, planned, done, listed, letters, repair, redeliver, redelivered,
        again, redis_url, start_on_redis, plan_on_redis, done_on_redis, serve, curl, by_curl, frames, by_frames,
    ) = blocks(PAGE)  # fmt: skip
    assert "'.[redis]'" in install.text
    assert "redis" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (tmp_path / "worker.py").write_text(worker.text)
    (tmp_path / "planner.py").write_text(planner.text)

    shell = Shell(tmp_path, **dict([setting(url)]))
    with ExitStack() as terminal:
        at_work = Worker(start, tmp_path, shell.settings["WOWEVENT_URL"], 1)
        at_work.start(terminal)
        assert shell.follow(plan) == planned.text
        at_work.prints(done)
        at_work.says("delivery failed for good, dead_letter kept in the DLQ")
        assert masked(shell.follow(listed)) == masked(letters.text)
        assert "Traceback" in shell.line("wowevent dlq show 1")
        before = (tmp_path / "worker.py").read_text()
        shell.follow(repair)
        assert (tmp_path / "worker.py").read_text() != before
        at_work.says("worker is started again, the code changed")
        at_work.says("worker serves", times=2)
        assert shell.follow(redeliver) == redelivered.text
        at_work.prints(again)
        assert "worker" not in shell.line("wowevent dlq list")

    name, place = setting(redis_url)
    assert place == "redis://localhost:6379"
    shell = Shell(tmp_path, **{name: redis})
    with ExitStack() as terminal:
        at_work = Worker(start_on_redis, tmp_path, redis, 2)
        at_work.start(terminal)
        assert shell.follow(plan_on_redis) == planned.text
        at_work.prints(done_on_redis)
        (line,) = lines(serve.text)
        with shell.serving(line) as http:
            said = json.loads(shell.follow(curl, {"localhost:8080": http.removeprefix("http://")}))
            assert said["receipts"][0]["event_id"]
            at_work.prints(by_curl)
            asyncio.run(type_in(frames, websocket(tmp_path)))
            at_work.prints(by_frames)


def websocket(home: Path) -> str:
    """Where the service said that it speaks it."""
    found = re.search(r"ws://[\w.]+:\d+", (home / "out.txt").read_text() + (home / "err.txt").read_text())
    assert found
    return found[0]


async def type_in(block: Block, url: str) -> None:
    """The lines with `>`; the event that they publish is seen by who typed them."""
    typed = [line.removeprefix("> ") for line in block.text.splitlines()]
    async with asyncio.timeout(10), connect(url) as socket:
        for line in typed:
            await socket.send(line)
        while json.loads(await socket.recv())["type"] != "event":
            pass
