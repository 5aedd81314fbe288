"""The service over HTTP: requests as its document describes them, others, and bytes that are no request."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import strategies as st

from tests.fuzz.rounds import Rounds
from tests.fuzz.texts import torn
from tests.keys import Keys
from tests.processes import Process, address, running
from wowevent import Event, EventBus, Reject
from wowevent.access.rights import RIGHTS

BOUND = "?max_bytes=8000000"
"""A replay publishes the log again: without a bound it would double with each."""
LEFT_OUT = {
    "positive_data_acceptance": "what is wrong in relation to something else a schema cannot say",
    "use_after_free": "a job that was cancelled is still there to be looked at, as is what a schedule has sent",
}
"""Checks of Schemathesis that are not ours, and why."""
SHORT = ("--phases=fuzzing", "--max-examples=2", "--generation-deterministic")


class Service:
    """One that runs, and the token to ask it with."""

    def __init__(self, home: Path, process: Process, token: str | None) -> None:
        self.url = address(home)
        # So spelt, Schemathesis leaves it out, too, to see what happens.
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._home = home
        self._process = process

    def check(self) -> None:
        """It serves on, and nothing of what came was unhandled."""
        assert self._process.poll() is None, "it has ended"
        answer = httpx.post(f"{self.url}/events", json={"topic": "still.here"}, headers=self.headers, timeout=20)
        assert answer.status_code == 202, answer.text
        log = (self._home / "err.txt").read_text("utf-8", "replace")
        unhandled = [at for what in ("internal error", "Traceback") if (at := log.find(what)) >= 0]
        assert not unhandled, log[max(0, min(unhandled) - 500) :][:5_000]


KINDS = ("memory", "sqlite, with tokens", "sqlite", "memory, with tokens")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The short form is content with two kinds of service."""
    if "service" in metafunc.fixturenames:
        kinds = KINDS if metafunc.config.getoption("--minutes") else KINDS[:2]
        whole = metafunc.function is test_every_answer_is_as_described
        metafunc.parametrize("service", kinds if whole else KINDS[:1], indirect=True)


@pytest.fixture
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A process of its own."""
    engine, _, guarded = request.param.partition(", ")
    url = f"sqlite:///{tmp_path / 'events.db'}" if engine == "sqlite" else "memory://"
    if engine == "sqlite":
        asyncio.run(fill(url))
    keys = Keys(tmp_path)
    everything: dict[str, Any] = dict.fromkeys(RIGHTS, ("#",))
    token = keys.token("ops", **everything) if guarded else None
    more = {"WOWEVENT_TOKENS": str(keys.path)} if guarded else {}
    with running(tmp_path, "wowevent.service", PORT="0", WOWEVENT_URL=url + BOUND, **more) as process:
        yield Service(tmp_path, process, token)


async def fill(url: str) -> None:
    """What there is to look at: events, dead letters, a subscription that nobody serves, a schedule, a pause."""

    async def reject(event: Event) -> None:
        raise Reject(f"no {event.payload['n']}")

    async with EventBus(url) as bus:
        await bus.subscribe("task.*", reject, "worker")
        await bus.publish_many([Event(topic="task.created", payload={"n": n}, correlation_id="job") for n in range(20)])
        await bus.join(20)
        await bus.schedules.add("tick", Event(topic="tick.now"), every=3600)
        await bus.pause(topic="never.heard_of")


def test_every_answer_is_as_described(
    service: Service, seconds: float, noted: Callable[[int, float], None], tmp_path: Path
):
    """Schemathesis makes requests of /openapi.json, right ones and wrong ones, one by one and in a row."""
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert command is not None, "schemathesis is not installed beside this Python"
    arguments = [
        "run", f"{service.url}/openapi.json", "--no-color", "--warnings=off", "--max-failures=20", "--no-shrink",
        "--checks=all", f"--exclude-checks={','.join(LEFT_OUT)}", "--request-timeout=30",
        "--exclude-path=/events/stream",  # it does not end
        "--suppress-health-check=all",
    ]  # fmt: skip
    arguments += [f"--max-time={seconds:.0f}", "--generation-database=none"] if seconds else SHORT
    arguments += [f"--header={name}: {value}" for name, value in service.headers.items()]
    done = subprocess.run(
        [command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=seconds + 500, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    service.check()


POST = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
REQUESTS = st.sampled_from(
    (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /events?pattern=task.*&limit=5 HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n",
        POST + b'Content-Length: 13\r\n\r\n{"topic":"a"}',
        POST + b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"topic":"a"}\r\n0\r\n\r\n',
        b"PUT /schedules/x HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n",
        b"GET /events/stream HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 4f2a-1\r\nConnection: close\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain;q=0.5, */*\r\nAuthorization: Bearer x\r\n\r\n",
    )
)


def test_any_bytes_are_answered_or_cut_off(service: Service, fuzz: Rounds):
    place = urlsplit(service.url)
    assert place.hostname is not None
    assert place.port is not None

    def judged(data: bytes) -> None:
        with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(100_000)
            except ConnectionError:
                return
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer
        assert not answer.startswith(b"HTTP/1.1 500"), answer

    fuzz.check(judged, short=40, data=torn(REQUESTS))
    service.check()
