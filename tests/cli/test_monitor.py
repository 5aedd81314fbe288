"""`wowevent monitor`: the live view on a terminal, its JSON in a pipe, a router that goes away and comes back."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.broken import EVIL, obeys
from tests.cli.daemons import free_port, started
from tests.cli.dialogue import Terminal
from tests.keys import Keys
from tests.processes import PATIENCE, Process, running, until, wowevent
from wowevent.cli.dashboard import rate
from wowevent.client import EventRouterClient

QUICK = ("--interval", "0.2")


@contextmanager
def watching(home: Path, *options: str) -> Iterator[Process]:
    """`monitor --json`, with its output in `out.txt`."""
    with running(home, "wowevent", "monitor", "--json", *QUICK, *options) as process:
        yield process


def samples(home: Path) -> list[dict[str, Any]]:
    lines = (home / "out.txt").read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def published(url: str, *topics: str, **fields: Any) -> None:
    asyncio.run(_published(url, topics, fields))


async def _published(url: str, topics: tuple[str, ...], fields: dict[str, Any]) -> None:
    async with EventRouterClient(url) as client:
        for topic in topics:
            await client.publish(topic, {"text": EVIL}, **fields)


def test_samples_for_programs(home: Path) -> None:
    url = started(home)["websocket"]
    with watching(home) as process:
        until(lambda: samples(home), "a sample")
        published(url, *["task.created"] * 20, source="planner", priority=9)
        until(lambda: sum(each["matched"] for each in samples(home)) == 20, "all of the events")
        until(lambda: samples(home)[-1]["matched"] == 0, "a quiet moment")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    seen = samples(home)
    first = next(each for each in seen if each["events"])["events"][0]
    assert (first["topic"], first["source"], first["priority"]) == ("task.created", "planner", 9)
    assert datetime.fromisoformat(first["time"]).tzinfo == UTC or first["time"].endswith(("Z", "+00:00"))
    last = seen[-1]
    assert (last["url"], last["state"], last["reconnects"]) == (url, "connected", 0)
    assert last["health"]["events_processed"] == 20
    assert last["health"]["clients"] == 1
    assert max(each["rates"]["published"] or 0 for each in seen) > 0
    assert max(each["rates"]["delivered"] or 0 for each in seen) > 0
    assert (home / "err.txt").read_bytes() == b""
    assert not obeys((home / "out.txt").read_bytes())


def test_only_what_is_asked_for(home: Path) -> None:
    url = started(home)["websocket"]
    filters = ("task.*", "--type", "task.a", "--type", "task.b", "--priority", "high", "--source", "planner")
    with watching(home, *filters):
        until(lambda: samples(home), "a sample")
        published(url, "task.a", "log.a", "task.b", "task.c", source="planner", priority=8)
        published(url, "task.a", source="planner", priority=5)
        published(url, "task.a", source="other", priority=8)
        published(url, "task.b", source="planner", priority=7)
        until(lambda: sum(each["matched"] for each in samples(home)) == 3, "three events")
    assert [event["topic"] for each in samples(home) for event in each["events"]] == ["task.a", "task.b", "task.b"]


def test_one_look(home: Path) -> None:
    url = started(home)["websocket"]
    done = wowevent(home, "monitor", "--once", *QUICK)
    assert done.returncode == 0
    for word in (url, "connected", "healthy", "p99", "1 of 1,000"):
        assert word in done.stdout.decode()
    done = wowevent(home, "monitor", "--once", "--json", *QUICK)
    assert json.loads(done.stdout)["state"] == "connected"


def test_what_is_refused(home: Path) -> None:
    done = wowevent(home, "monitor")
    assert done.returncode == 2
    assert b"--json or --once" in done.stderr
    done = wowevent(home, "monitor", "--once", "--url", f"ws://127.0.0.1:{free_port()}")
    assert done.returncode == 69
    assert done.stderr.startswith(b"error[broker_unavailable]: ")
    assert done.stderr.count(b"\n") == 1
    assert wowevent(home, "monitor", "--once", "--url", "http://127.0.0.1:1").returncode == 78
    url = started(home)["websocket"]
    done = wowevent(home, "monitor", "--once", "task**", "--url", url)
    assert (done.returncode, done.stderr.count(b"\n")) == (65, 1)
    assert wowevent(home, "monitor", "--once", "--priority", "11", "--url", url).returncode == 65


def test_a_router_that_goes_away_and_comes_back(home: Path) -> None:
    port = str(free_port())
    first = started(home, "--port", port)
    with watching(home, "--url", first["websocket"]) as process:
        until(lambda: samples(home), "a sample")
        os.kill(first["pid"], signal.SIGKILL)
        until(lambda: samples(home)[-1]["state"] == "reconnecting", "that it is away")
        assert samples(home)[-1]["health"] is None
        assert samples(home)[-1]["rates"] == {"published": None, "delivered": None}
        began = time.monotonic()
        count = len(samples(home))
        until(lambda: len(samples(home)) >= count + 3, "that it goes on telling")
        assert time.monotonic() - began < 3
        started(home, "--port", port)
        until(lambda: samples(home)[-1]["state"] == "connected", "that it is back")
        assert samples(home)[-1]["reconnects"] == 1
        assert process.poll() is None


@pytest.mark.parametrize("key", ["q", "Q", "\x03"])
def test_the_live_view_leaves_the_terminal_as_it_was(home: Path, key: str) -> None:
    url = started(home)["websocket"]
    with Terminal(home, "monitor", *QUICK) as terminal:
        terminal.wait_for("connected")
        published(url, "task.created", source="planner")
        terminal.wait_for("task.created")
        assert terminal.modes != terminal.before
        terminal.type(key)
        code, seen = terminal.end()
        assert code == 0
        assert terminal.modes == terminal.before
    assert seen.rstrip().endswith("\x1b[?1049l"), "the screen of before is back"
    assert seen.index("\x1b[?25l") < seen.rindex("\x1b[?25h"), "the cursor is shown again"
    assert "\x1b[31m\x9b" not in seen
    assert "\u202e" not in seen
    assert "Traceback" not in seen


def test_the_live_view_of_a_router_that_goes_away(home: Path) -> None:
    first = started(home)
    with Terminal(home, "monitor", *QUICK) as terminal:
        terminal.wait_for("connected")
        os.kill(first["pid"], signal.SIGKILL)
        terminal.wait_for("reconnecting")
        terminal.type("q")
        code, seen = terminal.end()
    assert code == 0
    assert "WARNING" not in seen, "no log line disturbs the picture"


def test_the_live_view_of_a_router_that_does_not_want_us_any_more(home: Path) -> None:
    keys = Keys(home)
    token = keys.all_of("ops")
    started(home, f"--tokens={keys.path}")
    assert wowevent(home, "configure", "--set", f'token="{token}"').returncode == 0
    with Terminal(home, "monitor", *QUICK) as terminal:
        terminal.wait_for("connected")
        keys.revoke(token)
        code, seen = terminal.end()
        assert terminal.modes == terminal.before
    assert (code, "error[unauthenticated]: " in seen) == (77, True), seen[-500:]


def test_a_terminal_that_is_gone(home: Path) -> None:
    started(home)
    terminal = Terminal(home, "monitor", *QUICK)
    try:
        terminal.wait_for("connected")
    finally:
        os.close(terminal.main)
        os.close(terminal.terminal)
    assert terminal.process.wait(PATIENCE) is not None


def test_rates() -> None:
    assert rate({"n": 1, "uptime": 1.0}, {"n": 5, "uptime": 3.0}, "n", 2.0) == 2.0
    assert rate({"n": 1, "uptime": 1.0}, {"n": 1, "uptime": 3.0}, "n", 2.0) == 0.0
    assert rate({"n": 1, "uptime": 1.0}, {"n": 5, "uptime": 0.5}, "n", 2.0) is None
    assert rate({"n": 5, "uptime": 1.0}, {"n": 1, "uptime": 2.0}, "n", 2.0) is None
    assert rate({"n": 1, "uptime": 1.0}, {"n": 5, "uptime": 3.0}, "n", 0.0) is None
