"""The benchmark tool: its workloads run, it notices what is lost, and it computes what it says. No timings."""

import json
import os
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from benchmarks import side as sides
from benchmarks.__main__ import main
from benchmarks.bench import Bench, row
from benchmarks.figures import Aim, Row, median_ratio, percentile, shown
from benchmarks.part import Record
from benchmarks.places import Absent, memory
from benchmarks.report import Report, from_json, to_json, to_markdown
from benchmarks.run import measure
from benchmarks.side import Lost, Outcome, Part, RunFailed, Side, outcome
from benchmarks.workloads import DESIGN, TITLES, WORKLOADS
from benchmarks.workloads.soak import about, largest

NEEDS = {
    "rabbitmq": {"rabbitmq", "rabbitmq-one", "rabbitmq-latency", "blocking"},
    "nats": {"nats", "nats-one", "nats-latency"},
}


def side(function: str, name: str = "a side", count: int = 10) -> Side:
    return Side(name=name, place=memory, parts=(Part(f"tests.benchmarks.lossy:{function}"),), count=count)


@pytest.mark.parametrize("name", WORKLOADS)
async def test_each_workload_runs_and_reports_valid_json(name: str, tmp_path: Path, request: pytest.FixtureRequest):
    for server, workloads in NEEDS.items():
        if name in workloads and server not in request.config.getoption("--broker").split(","):
            pytest.skip(f"--broker does not name {server}")
    report = await measure([name], Bench(tmp_path, "tiny"), "the command")
    assert report.failures == {}
    found = json.loads(to_json(report))
    rows = found["findings"][name]["rows"]
    assert rows
    assert found["machine"]["cores"] >= 1
    assert len(found["load_before"]) == len(found["load_after"]) == 3
    if name in DESIGN and name != "soak":  # whose aim is one of ten minutes
        assert any(each["aim"] and each["aim"]["source"] == "DESIGN 6" for each in rows)
    for each in rows:
        assert each["workload"] == name
        assert each["figure"] > 0
        assert (each["ratio"] is None) == (each["peer_figure"] is None)
        assert each["met"] in {None, True, False}
    assert rows[0]["what"] in to_markdown(report)
    assert from_json(to_json(report)) == report
    assert not any(os.scandir(tmp_path)), "logs are left behind"


async def test_an_honest_side_is_measured(tmp_path: Path):
    found = await sides.run(side("honest"), tmp_path)
    assert found.rate == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("function", ["drops", "repeats", "keeps_some_back"])
async def test_a_lossy_side_fails_the_run(function: str, tmp_path: Path):
    with pytest.raises(Lost):
        await sides.run(side(function), tmp_path)


async def test_a_part_that_breaks_fails_the_run(tmp_path: Path):
    with pytest.raises(RunFailed, match="without a record"):
        await sides.run(side("breaks"), tmp_path)


async def test_a_failed_workload_is_reported_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def lossy(bench: Bench) -> list[Row]:
        await bench.alternate(side("drops"))
        return []

    async def honest(bench: Bench) -> list[Row]:
        one = side("honest")
        return [row("honest", await bench.alternate(one), one)]

    monkeypatch.setattr("benchmarks.run.WORKLOADS", {"lossy": lossy, "honest": honest})
    report = await measure(["lossy", "honest"], Bench(tmp_path, "tiny"))
    assert "lost 1" in report.failures["lossy"]
    assert [each.workload for each in report.rows] == ["honest"]
    assert "FAILED: lossy" in to_markdown(report)


async def test_sides_are_run_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []

    async def run(one: Side, _directory: Path) -> Outcome:
        order.append(one.name)
        return Outcome(float(len(order)), 0.0, {}, {})

    monkeypatch.setattr("benchmarks.side.run", run)
    a, b = side("honest", "a"), side("honest", "b")
    found = await Bench(tmp_path, repeat=3).alternate(a, b)
    assert order == ["a", "b", "a", "b", "a", "b"]
    line = row("w", found, a, peer=b, aim=Aim("ratio", 0.7))
    assert list(line.figures) == [1, 3, 5]
    assert list(line.peer_figures) == [2, 4, 6]
    assert line.figure == 3
    assert line.ratio == 3 / 4  # of 1/2, 3/4 and 5/6
    assert line.met


async def test_a_peer_whose_server_is_not_installed_leaves_no_ratio(tmp_path: Path):
    def nowhere(_directory: Path) -> AbstractAsyncContextManager[str]:
        raise Absent("some-server")

    bench = Bench(tmp_path, "tiny")
    a = side("honest", "a")
    b = Side(name="b", place=nowhere, parts=a.parts, count=1)
    line = row("w", await bench.alternate(a, b), a, peer=b, aim=Aim("ratio", 0.7))
    assert (line.ratio, line.met) == (None, None)
    assert bench.absent == {"some-server"}


async def test_a_workload_whose_own_server_is_absent_has_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def nowhere(_directory: Path) -> AbstractAsyncContextManager[str]:
        raise Absent("some-server")

    async def run(bench: Bench) -> list[Row]:
        ours, peer = Side(name="ours", place=nowhere, parts=side("honest").parts, count=1), side("honest")
        return [row("w", await bench.alternate(ours, peer), ours, peer=peer)]

    monkeypatch.setattr("benchmarks.run.WORKLOADS", {"w": run})
    report = await measure(["w"], Bench(tmp_path, "tiny"))
    assert (report.rows, report.failures, report.absent) == ([], {}, ["some-server"])
    assert "Not installed, so rows lack a ratio or are not there: some-server" in to_markdown(report)


async def test_a_peer_that_is_not_installed_leaves_no_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.peers.FOLDER", tmp_path / "peers")
    bench = Bench(tmp_path, "tiny")
    a = side("honest", "a")
    b = Side(name="b", place=memory, parts=(Part("tests.benchmarks.lossy:honest", peer="faststream"),), count=1)
    line = row("w", await bench.alternate(a, b), a, peer=b, aim=Aim("ratio", 0.7))
    assert (line.ratio, line.met) == (None, None)
    assert bench.absent == {"faststream (python -m benchmarks --install-peers)"}


async def test_a_peer_runs_in_its_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.peers.FOLDER", tmp_path)
    own = tmp_path / "faststream" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text(f"#!/bin/sh\ntouch '{tmp_path}/used'\nexec '{sys.executable}' \"$@\"\n")
    own.chmod(0o755)
    peer = Part("tests.benchmarks.lossy:honest", peer="faststream")
    await sides.run(Side(name="b", place=memory, parts=(peer,), count=10), tmp_path)
    assert (tmp_path / "used").exists()


def test_an_outcome_spans_all_parts():
    records = [
        Record(started=10.0, ended=11.0, cpu=0.1, published=["a", "b"]),
        Record(ended=12.0, cpu=0.3, handled=["b", "a"], values={"more": 1.0}),
    ]
    found = outcome(side("honest", count=2), records)
    assert (found.rate, found.values) == (1.0, {"more": 1.0})
    assert found.cpu_us == pytest.approx(200_000)


def test_what_one_part_lost_is_not_hidden_by_one_that_lost_nothing():
    records = [Record(values={"lost": 1.0}), Record(values={"lost": 0.0})]
    with pytest.raises(Lost, match="lost 1"):
        outcome(side("honest"), records)


def test_a_ratio_is_of_what_was_measured_in_the_same_round():
    assert median_ratio([1, 10, 4], [1, 5, 1]) == 2


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_percentiles_are_nearest_ranks(share: float, expected: int):
    assert percentile(range(100, 0, -1), share) == expected


@pytest.mark.parametrize(
    ("aim", "value", "met", "text"),
    [
        (Aim("figure", 120_000), 120_000, True, "≥ 120,000"),
        (Aim("figure", 120_000), 119_999, False, "≥ 120,000"),
        (Aim("ratio", 1.5, at_least=False), 1.5, True, "≤ 1.5x"),
        (Aim("ratio", 1.5, at_least=False), 1.6, False, "≤ 1.5x"),
    ],
)
def test_aims(aim: Aim, value: float, met: bool, text: str):
    assert aim.met(value) is met
    assert str(aim) == text


def test_the_soak_compares_tenths_and_the_heights_of_a_saw():
    samples = [float(number) for number in range(40)]
    assert about(samples, 0.25) == 7.5
    assert about(samples, 1.0) == 37.5
    assert largest(samples, 0.25) == 9
    assert largest([0, 4, 1, 0, 4, 1, 0, 2], 1.0) == 2


def test_numbers_are_shown_as_people_read_them():
    assert [shown(value) for value in (123_456.7, 0.123456, 12.345)] == ["123,457", "0.123", "12.3"]


def test_what_the_design_sets_figures_for_is_measured():
    assert len(set(DESIGN)) == len(DESIGN)
    assert set(DESIGN) < WORKLOADS.keys()


def test_a_run_that_lost_something_says_so_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    async def lossy(bench: Bench) -> list[Row]:
        await bench.alternate(side("drops"))
        return []

    monkeypatch.setattr("benchmarks.run.WORKLOADS", {"memory-each": lossy})
    made = tmp_path / "new" / "a.json"
    assert main(["memory-each", "--tiny", "--json", str(made), "--directory", str(tmp_path)]) == 1
    assert "FAILED: memory-each: a side: lost 1" in capsys.readouterr().out
    assert "lost 1" in from_json(made.read_bytes()).failures["memory-each"]


def test_the_list_names_every_workload(capsys: pytest.CaptureFixture[str]):
    assert main(["--list"]) == 0
    assert all(name in capsys.readouterr().out.split() for name in [next(iter(WORKLOADS))])
    assert all(TITLES.values())


def test_an_unknown_workload_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["no-such"]) == 2
    assert "no-such" in capsys.readouterr().err


def test_the_command_writes_both_files_and_names_no_path(tmp_path: Path):
    files = ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md"), "--directory", str(tmp_path)]
    assert main(["memory-each", "--tiny", *files]) == 0
    assert json.loads((tmp_path / "a.json").read_bytes())["command"] == "python -m benchmarks memory-each --tiny"
    text = (tmp_path / "a.md").read_text()
    assert text.startswith("| workload |")
    assert str(tmp_path) not in text


def test_a_report_without_rows_is_a_report():
    report = Report(command="c", machine={"cpu": "x"}, scale="tiny", repeat=1, load_before=[0.0])
    assert json.loads(to_json(report))["findings"] == {}
