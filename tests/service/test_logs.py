"""What a service and its workers write is found by the words that people search for, as text and as JSON."""

import json
import logging
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import end, running, until, wowevent
from tests.servers import free_port, redis_server
from wowevent.log import logger
from wowevent.process.logs import set_up_logs

WORDS = ("ERROR", "subscription", "delivery", "dead_letter", "DLQ", "validation")
"""What each grep of the runbook looks for, one by one."""
RUNBOOK = ("ERROR", r"subscription\|delivery", r"DLQ\|dead_letter", "validation")
"""The greps of the runbook."""
WORKER = """
from wowevent import EventBus, RetryPolicy
from wowevent.errors import ValidationError

bus = EventBus()

@bus.on("order.*", "shop", retry=RetryPolicy(max_retries=0))
async def fail(event):
    if event.payload["n"]:
        raise ValidationError("n: must be 0")
    raise OSError("no such shop")
"""


class Both:
    """A service and a worker on one engine, each in a home of its own, and what they wrote."""

    def __init__(self, home: Path, url: str) -> None:
        self.url = url
        self.service = home / "service"
        self.worker = home / "worker"

    def found(self, word: str, home: Path) -> list[str]:
        """The lines that grep finds, as it does behind `kubectl logs`."""
        with (home / "err.txt").open("rb") as log:
            done = subprocess.run(["grep", word], stdin=log, capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode in {0, 1}
        return done.stdout.splitlines()

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=15)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def both(home: Path, engine: str, **changes: str) -> Iterator[Both]:
    port = free_port()
    found = Both(home, f"http://127.0.0.1:{port}")
    for folder in (found.service, found.worker):
        folder.mkdir()
    (found.worker / "shop.py").write_text(WORKER)
    given = {"WOWEVENT_URL": engine, **changes}
    with ExitStack() as stack:
        stack.enter_context(running(found.service, "wowevent.service", PORT=str(port), **given))
        stack.enter_context(running(found.worker, "wowevent", "run", "shop", **given))
        until(found.ready, "readiness")
        until(lambda: "worker serves" in (found.worker / "err.txt").read_text(), "the worker")
        yield found


def go_wrong(at: Both) -> None:
    """An event that fails for good, one that its handler takes for invalid, and one that is none."""
    for n in (0, 1):
        assert at.post("/events", {"topic": "order.placed", "payload": {"n": n, "x": "s3cret"}}).status_code == 202
    assert at.post("/events", {"topic": "a b", "payload": {"x": "s3cret"}}).status_code == 400
    until(lambda: len(at.found("dead_letter", at.worker)) == 2, "the dead letters")


def administer(at: Both) -> None:
    """What a person may do about it."""
    letters = httpx.get(f"{at.url}/dead-letters").json()["dead_letters"]
    (name,) = {letter["subscription"] for letter in letters}
    assert at.post("/dead-letters/discard", {"ids": [letters[0]["id"]]}).json() == {"discarded": 1}
    assert at.post(f"/dead-letters/{letters[1]['id']}/redeliver").json() == {"redelivered": 1}
    for verb in ("pause", "resume", "purge"):
        assert at.post(f"/subscriptions/{name}/{verb}").status_code == 200
    assert httpx.delete(f"{at.url}/subscriptions/{name}").status_code == 204


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("engine", ["sqlite", "redis"])
def test_what_the_runbook_searches_for_is_found(tmp_path: Path, engine: str, form: str) -> None:
    server = redis_server(tmp_path / "redis") if engine == "redis" else None
    url = f"redis://127.0.0.1:{server.port}" if server else f"sqlite:///{tmp_path}/events.db"
    try:
        if server:
            server.start()
        with both(tmp_path, url, WOWEVENT_LOG_FORMAT=form) as at:
            for home in (at.service, at.worker):
                assert not any(at.found(word, home) for word in ("ERROR", "dead_letter", "DLQ", "validation"))
            go_wrong(at)
            assert all(at.found(word, at.worker) for word in (*WORDS, *RUNBOOK))
            errors = at.found("ERROR", at.worker)
            assert ["order.placed" in line and "shop" in line for line in errors] == [True, True]
            assert len(at.found("validation", at.worker)) == len(at.found("validation", at.service)) == 1
            administer(at)
            assert len(at.found("subscription", at.service)) == 4
            assert len(at.found("dead_letter", at.service)) == 2
            if server:
                assert not at.found("ERROR", at.service)
                server.kill()
                assert at.post("/events", {"topic": "a"}).status_code == 503
                assert at.found("ERROR", at.service)
            for home in (at.service, at.worker):
                said = (home / "err.txt").read_text()
                assert "s3cret" not in said
                if form == "json":
                    assert_json(said)
    finally:
        if server:
            server.kill()


def assert_json(said: str) -> None:
    lines = [json.loads(line) for line in said.splitlines()]
    assert lines
    for line in lines:
        assert list(line)[:4] == ["time", "level", "logger", "message"]
    for line in lines:
        if line["message"].startswith("delivery failed for good"):
            assert {"subscription", "event_id", "topic", "reason"} <= set(line)


@pytest.fixture
def restored() -> Iterator[None]:
    """The loggers as they were."""
    loggers = [logging.getLogger(name) for name in ("wowevent", "uvicorn", "asyncio")]
    before = [(each, each.handlers[:], each.level, each.propagate) for each in loggers]
    yield
    for each, handlers, level, propagate in before:
        for handler in each.handlers:
            handler.close()
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


def written(file: Path, form: str) -> str:
    """A line of each kind."""
    set_up_logs("DEBUG", file, stderr=False, form=form)
    logger.info("subscription purged", subscription="a b", purged=3, ok=True, took=1.5, nothing=None, path=Path("x"))
    logger.warning("strange", text="\n\x1b[31m\u2028\ud800ä", level="mine", never=float("inf"), listed=[1])
    logger.error("delivery failed", exc_info=OSError("first\nsecond"))
    logging.getLogger("uvicorn").error("of %s", "another library", exc_info=OSError("x"))
    return file.read_text()


def test_a_line_as_json(tmp_path: Path, restored: None) -> None:
    said = written(tmp_path / "x.log", "json")
    lines = [json.loads(line) for line in said.splitlines()]

    assert said.isascii()
    assert len(lines) == 4
    times = [line.pop("time") for line in lines]
    assert all(len(time) == len("2026-01-31T12:00:00.123Z") and time.endswith("Z") for time in times)
    assert lines[0] == {
        "level": "INFO", "logger": "wowevent", "message": "subscription purged", "subscription": "a b", "purged": 3,
        "ok": True, "took": 1.5, "nothing": None, "path": "x",
    }  # fmt: skip
    assert lines[1] == {
        "level": "WARNING", "logger": "wowevent", "message": "strange", "text": "\n\x1b[31m\u2028\\ud800ä",
        "level_": "mine", "never": "inf", "listed": "[1]",
    }  # fmt: skip
    assert lines[2]["exception"] == "OSError: first\nsecond"
    assert (lines[3]["logger"], lines[3]["message"]) == ("uvicorn", "of another library")
    assert "OSError: x" in lines[3]["exception"]


def test_a_line_as_text(tmp_path: Path, restored: None) -> None:
    lines = written(tmp_path / "x.log", "text").splitlines()

    assert lines[0].endswith("Z INFO wowevent subscription purged subscription='a b' purged=3 ok=True took=1.5 "
                             "nothing=None path=x")  # fmt: skip
    assert r"text='\n\x1b[31m\u2028\ud800ä' level=mine never=inf" in lines[1]
    assert lines[2].endswith(" ERROR wowevent delivery failed")
    assert lines[3:5] == ["OSError: first", "second"]


def test_a_format_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a log format"):
        set_up_logs("INFO", form="xml")
    done = wowevent(tmp_path, "run", "shop", "--log-format", "xml")
    assert done.returncode == 78
    assert b"is not a log format: text, json" in done.stderr


def test_the_service_of_the_command_takes_it_as_a_flag(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    ports = ("--port", "0", "--http-port", "0")
    with running(tmp_path, "wowevent", "serve", *ports, "--log-format", "JSON", "--log-file", str(log)) as process:
        until(lambda: log.exists() and "router serves" in log.read_text(), "the router")
        assert end(process) == 0
    assert_json(log.read_text())


def test_workers_write_it_too(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WORKER)
    given = {"WOWEVENT_URL": f"sqlite:///{tmp_path}/events.db"}
    with running(tmp_path, "wowevent", "run", "shop", "--workers", "2", "--log-format", "json", **given) as process:
        until(lambda: (tmp_path / "err.txt").read_text().count("worker serves") == 2, "the workers")
        assert end(process) == 0
    assert_json((tmp_path / "err.txt").read_text())
