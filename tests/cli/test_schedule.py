"""`wowevent schedule`: added, listed, removed, and fired by whoever is there."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.broken import EVIL, obeys
from tests.processes import running, told, until, wowevent

URL = ("--url", "sqlite:///events.db")
TICK = ("schedule", "add", "tick", "--topic", "tick.now")


def said(home: Path, *arguments: str) -> list[dict[str, Any]]:
    """What a command with --json printed."""
    return told(home, *arguments, *URL)


def test_one_is_added_listed_and_removed(tmp_path: Path) -> None:
    options = ("--payload", '{"n": 1}', "--every", "10m", "--priority", "high", "--source", "me", "--ttl", "30")
    done = wowevent(tmp_path, *TICK, *options, *URL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"added tick next=")
    (found,) = said(tmp_path, "schedule", "list")
    assert (found["name"], found["every"], found["cron"], found["last"]) == ("tick", 600.0, None, None)
    event = found["event"]
    assert (event["topic"], event["payload"], event["priority"], event["source_agent"]) == (
        "tick.now",
        {"n": 1},
        7,
        "me",
    )
    assert event["ttl_seconds"] == 30.0
    assert datetime.fromisoformat(found["next"]) > datetime.fromisoformat(found["added"])
    lines = [line.split() for line in wowevent(tmp_path, "schedule", "list", *URL).stdout.decode().splitlines()]
    assert lines[0] == ["NAME", "WHEN", "NEXT", "LAST", "TOPIC"]
    assert (lines[1][:3], lines[1][-2:]) == (["tick", "every", "600s"], ["-", "tick.now"])
    (cron,) = said(tmp_path, *TICK, "--cron", "30 2 * * mon-fri", "--tz", "Europe/Berlin")
    assert (cron["cron"], cron["tz"], cron["every"]) == ("30 2 * * mon-fri", "Europe/Berlin", None)

    refused = wowevent(tmp_path, "schedule", "remove", "tick", *URL)
    assert (refused.returncode, b"which fires tick.now" in refused.stderr) == (2, True)
    assert wowevent(tmp_path, "schedule", "remove", "tick", "--yes", *URL).stdout == b"removed tick\n"
    assert said(tmp_path, "schedule", "list") == []


def test_it_is_fired_by_who_is_there(tmp_path: Path) -> None:
    with running(tmp_path, "wowevent", "subscribe", "tick.*", "--json", *URL):
        until(lambda: "listening" in (tmp_path / "err.txt").read_text(), "listening")
        assert wowevent(tmp_path, *TICK, "--every", "1s", *URL).returncode == 0
        until(lambda: (tmp_path / "out.txt").read_text().count("\n") >= 3, "three firings")
    events = [json.loads(line) for line in (tmp_path / "out.txt").read_text().splitlines()]
    times = [datetime.fromisoformat(event["timestamp"]).timestamp() for event in events]
    assert [round(time - times[0]) for time in times[:3]] == [0, 1, 2]
    assert len({event["event_id"] for event in events}) == len(events)


def test_a_terminal_obeys_nothing_of_it(tmp_path: Path) -> None:
    assert wowevent(tmp_path, *TICK, "--payload", json.dumps({"x": EVIL}), "--every", "1h", *URL).returncode == 0
    assert not obeys(wowevent(tmp_path, "schedule", "list", *URL).stdout)


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ((*TICK,), 65, "invalid_schedule"),
        ((*TICK, "--every", "soon"), 2, "usage"),
        ((*TICK, "--every", "0.5s"), 65, "invalid_schedule"),
        ((*TICK, "--cron", "soon"), 65, "invalid_schedule"),
        ((*TICK, "--cron", "* * * * *", "--tz", "Atlantis"), 65, "invalid_schedule"),
        ((*TICK, "--every", "1m", "--until", "2020-01-01"), 65, "invalid_schedule"),
        ((*TICK, "--every", "1m", "--payload", "[]"), 65, "invalid_event"),
        (("schedule", "add", "a b", "--topic", "tick", "--every", "1m"), 65, "invalid_event"),
        (("schedule", "add", "tick", "--every", "1m"), 2, "usage"),
        (("schedule", "remove", "nix", "--yes"), 69, "schedule_not_found"),
    ],
)
def test_what_it_refuses(tmp_path: Path, arguments: tuple[str, ...], status: int, code: str) -> None:
    done = wowevent(tmp_path, *arguments, *URL)

    assert done.returncode == status
    assert done.stderr.startswith(f"error[{code}]: ".encode())
