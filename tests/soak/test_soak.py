"""A soak of seconds on the embedded log: it comes through, and it convicts handlers that drop events and leak."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.soak.__main__ import main, run
from tests.soak.soak import Asked

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


def test_a_short_one_comes_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = {name: tmp_path / name for name in ("json", "markdown", "chart")}
    told = ["--minutes", "0.13", "--rate", "100", "--fault-every", "1", "--directory", str(tmp_path)]
    status = main(["sqlite", *told, *(part for name, file in files.items() for part in (f"--{name}", str(file)))])
    text = capsys.readouterr().out
    found = json.loads(files["json"].read_bytes())
    assert status == 0, found["failures"]
    (outcome,) = found["outcomes"]
    counts = outcome["counts"]
    assert counts["events"] > 100
    assert counts["ok"] == 4 * counts["events"]
    assert counts["redelivered"] > 0
    assert counts["asked"] > counts["unanswered"]
    assert counts["ticks"] > 0
    assert counts["came"] > counts["turned_away"]
    assert outcome["faults"]
    assert {"memory router 1", "tasks steady", "ready shared", "wal sqlite"} <= outcome["series"].keys()
    assert all(len(outcome["series"][name]) > 1 for name in ("tasks router 1", "tasks churn", "dead flaky"))
    assert files["markdown"].read_text() == text
    assert "| sqlite | " in text
    ET.parse(files["chart"])  # noqa: S314 - ours
    assert not list(tmp_path.glob("soak-*")), "its logs are left behind"


def test_handlers_that_drop_events_and_leak_are_convicted(tmp_path: Path):
    """Three events of the shared subscription are acknowledged and not handled; memory, pipes and tasks are kept.

    What was written of it stays, for whoever looks why.
    """
    asked = Asked(seconds=9.0, rate=100.0, fault_every=60.0, sample_every=0.4, shortest=0.0, leak=16.0, drop=3)
    (outcome,) = asyncio.run(run(["sqlite"], asked, tmp_path, "")).outcomes
    assert outcome.counts["lost"] == 3, outcome.failures
    assert {"lost: 3", "not flat: memory steady", "not flat: handles steady", "not flat: tasks steady"} <= {
        *outcome.failures
    }
    innocent = {finding.name for finding in outcome.findings if finding.flat}
    assert {"handles router 1", "tasks router 1", "handles receiver", "subscriptions all"} <= innocent
    assert list(tmp_path.glob("soak-*/sqlite/journals/steady-*.jsonl"))


def test_an_engine_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["sqlight"]) == 2
    assert "sqlight" in capsys.readouterr().err
