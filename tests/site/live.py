"""A live system for the pages: the service with its router as a process, and agents as another one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.processes import address, environment, running, until

HERE = Path(__file__).parent
WAIT = 10.0


class Live(NamedTuple):
    """Where it is."""

    url: str
    engine: str


@contextmanager
def system(home: Path) -> Iterator[Live]:
    """The service and the agents, with a schema, a schedule and a pause; ended with the block."""
    engine = f"sqlite:///{home}/events.db"
    here = "sqlite:///events.db"  # as pictures show it
    with running(home, "wowevent", "serve", "--url", here, "--http-port", "0", "--port", "0") as _service:
        url = address(home)
        with script("agents.py", home, engine, _router(home)):
            _set_up(url)
            yield Live(url, engine)


@contextmanager
def script(name: str, home: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A script beside this file as a process, once it has said `ready`; told to end with the block."""
    said = home / f"{name}.txt"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(HERE / name), *arguments], stdout=out, stderr=subprocess.STDOUT, cwd=home,
            env=environment(home, PYTHONPATH=os.environ.get("PYTHONPATH", "")),
        )  # fmt: skip
    try:
        until(lambda: "ready" in said.read_text() or process.poll() is not None, f"{name} to be ready")
        assert process.poll() is None, said.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(WAIT)
        finally:
            process.kill()


def _router(home: Path) -> str:
    words = (home / "out.txt").read_text().split()
    return next(word for word in words if word.startswith("ws://"))


def _set_up(url: str) -> None:
    bill = {"type": "object", "required": ["order", "to", "sum"], "properties": {"sum": {"type": "number"}}}
    tick = {"topic": "report.due", "payload": {"of": "yesterday"}}
    with httpx.Client(base_url=url, timeout=WAIT) as client:
        orders = (
            client.post("/schemas", json={"event_type": "bill.sent", "version": "1.0.0", "json_schema": bill}),
            client.put("/schedules/nightly", json={"event": tick, "cron": "30 2 * * *", "tz": "Europe/Berlin"}),
            client.post("/pauses", json={"topic": "newsletter.#", "reason": "the new texts are not ready"}),
        )
        for answer in orders:
            answer.raise_for_status()
