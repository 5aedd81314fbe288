"""A run that was cut goes on where it was, and what a busy machine spoiled is measured once more."""

import asyncio
import runpy
import threading
from pathlib import Path

import pytest

from benchmarks import kept, machine
from benchmarks.__main__ import main
from benchmarks.bench import Bench, row
from benchmarks.figures import Row
from benchmarks.kept import Kept, source
from benchmarks.places import memory
from benchmarks.report import Finding, Report, to_markdown
from benchmarks.run import better, measure
from benchmarks.side import Outcome, Part, RunFailed, Side

QUIET, BUSY = 0.0, 1.5


class Workloads:
    """Three that measure nothing, count how often they are run, and fail when they are told to."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = tmp_path
        self.ran: list[str] = []
        self.failing: dict[str, BaseException] = {}
        self.busy: list[float] = []
        """What the machine says of itself, look after look; nothing: it is quiet."""
        self.installed: dict[str, str] = {}
        monkeypatch.setattr("benchmarks.run.WORKLOADS", {name: self._workload(name) for name in ("a", "b", "c")})
        monkeypatch.setattr(machine, "busy", lambda _seconds: self.busy.pop(0) if self.busy else QUIET)
        monkeypatch.setattr(machine, "describe", self._describe)

    def _describe(self, _directory: Path) -> dict:
        packages = {"wowevent": "1", **self.installed}
        return {"cpu": "one", "cores": 2, "system": "L", "python": "3", "sqlite": "3", "packages": packages} | {
            "fdatasync_us": 100 + len(self.ran),
            "loop_ns": 50.0 + len(self.ran),
        }

    def _workload(self, name: str):
        async def run(bench: Bench) -> list[Row]:
            self.ran.append(name)
            if name in self.failing:
                raise self.failing[name]
            side = Side(name=name, place=memory, parts=(Part("nothing"),), count=1)
            return [row(name, {name: [Outcome(float(len(self.ran)), 0.0, {}, {})]}, side)]

        return run

    async def measure(self, repeat: int = 1, kept: bool = True) -> Report:
        bench = Bench(self.directory, "tiny", repeat)
        return await measure(["a", "b", "c"], bench, "c", Kept(self.directory / "kept") if kept else None)


@pytest.fixture
def workloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workloads:
    return Workloads(tmp_path, monkeypatch)


async def test_a_run_that_was_cut_goes_on_where_it_was(workloads: Workloads):
    workloads.failing["b"] = asyncio.CancelledError()  # what Ctrl-C is in there
    with pytest.raises(asyncio.CancelledError):
        await workloads.measure()
    assert workloads.ran == ["a", "b"]
    workloads.failing.clear()
    report = await workloads.measure()
    assert workloads.ran == ["a", "b", "b", "c"]
    assert [each.figure for each in report.rows] == [1, 3, 4]
    assert (await workloads.measure()).findings == report.findings
    assert len(workloads.ran) == 4


async def test_what_did_not_come_through_is_measured_again(workloads: Workloads):
    workloads.failing["b"] = RunFailed("lost 1")
    assert (await workloads.measure()).failures == {"b": "lost 1"}
    workloads.failing.clear()
    assert (await workloads.measure()).failures == {}
    assert workloads.ran == ["a", "b", "c", "b"]


async def test_what_lacked_a_server_is_measured_again(workloads: Workloads):
    first = await workloads.measure()
    first.findings["b"].absent = ["redis-server"]
    Kept(workloads.directory / "kept").keep("b", first)
    await workloads.measure()
    assert workloads.ran == ["a", "b", "c", "b"]


async def test_other_rounds_are_measured_again(workloads: Workloads):
    await workloads.measure()
    await workloads.measure(repeat=2)
    assert len(workloads.ran) == 6


async def test_another_machine_is_measured_again(workloads: Workloads):
    await workloads.measure()
    workloads.installed["redis-server"] = "8"
    await workloads.measure()
    assert len(workloads.ran) == 6


async def test_other_code_is_measured_again(workloads: Workloads, monkeypatch: pytest.MonkeyPatch):
    await workloads.measure()
    monkeypatch.setattr("benchmarks.run.source", lambda _workload: "other")
    await workloads.measure()
    assert len(workloads.ran) == 6


@pytest.mark.parametrize("damaged", [b"", b"{", b'{"rows": []}', b'{"findings": 3}'])
async def test_a_file_of_another_form_is_measured_again(workloads: Workloads, damaged: bytes):
    await workloads.measure()
    (workloads.directory / "kept" / "b.json").write_bytes(damaged)
    await workloads.measure()
    assert workloads.ran == ["a", "b", "c", "b"]


async def test_without_a_folder_everything_is_measured(workloads: Workloads):
    for _ in range(2):
        await workloads.measure(kept=False)
    assert len(workloads.ran) == 6
    assert not (workloads.directory / "kept").exists()


async def test_what_a_busy_machine_spoiled_is_measured_once_more_at_the_end(workloads: Workloads):
    workloads.busy = [QUIET, BUSY, *[QUIET] * 4]
    report = await workloads.measure()
    assert workloads.ran == ["a", "b", "c", "a"]
    assert [each.figure for each in report.rows] == [4, 2, 3]
    assert [finding.tries for finding in report.findings.values()] == [2, 1, 1]
    assert "cores |" not in to_markdown(report)


async def test_a_machine_that_stays_busy_is_said_in_the_row_and_not_tried_for_ever(workloads: Workloads):
    workloads.busy = [BUSY] * 12
    report = await workloads.measure()
    assert workloads.ran == ["a", "b", "c", "a", "b", "c"]
    assert to_markdown(report).count("| 1.5 cores |") == 3
    workloads.busy = [BUSY] * 12
    await workloads.measure()
    assert len(workloads.ran) == 6


async def test_a_run_that_is_not_kept_says_it_and_tries_nothing_twice(workloads: Workloads):
    workloads.busy = [BUSY]
    report = await workloads.measure(kept=False)
    assert workloads.ran == ["a", "b", "c"]
    assert to_markdown(report).count("| 1.5 cores |") == 1


def test_of_two_tries_the_quieter_one_counts_and_a_failure_in_any_case():
    first, second = Finding(busy=1.0), Finding(busy=0.5)
    assert better(first, second) is second
    assert second.tries == 2
    assert better(Finding(busy=0.5), Finding(busy=1.0)).busy == 0.5
    assert better(Finding(busy=0.5), Finding(busy=1.0, failure="lost 1")).failure == "lost 1"


def test_the_source_is_of_our_code_the_parts_and_the_workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code, own = tmp_path / "code", tmp_path / "own.py"
    code.mkdir()
    monkeypatch.setattr(kept, "_ROOT", tmp_path)
    monkeypatch.setattr(kept, "_MEASURED", (code,))
    seen = []
    for ours, workload in (("1", "1"), ("1", "1"), ("2", "1"), ("2", "2")):
        (code / "one.py").write_text(f"x = {ours}")
        own.write_text(f"def run():\n    return {workload}\n")
        kept._below.cache_clear()  # noqa: SLF001 - it reads the files once a process, and here they change
        seen.append(source(runpy.run_path(str(own))["run"]))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_idle_and_all_ticks_are_read():
    assert machine.ticks("cpu  10 1 5 100 20 0 2 2 3 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n") == (120, 140)


def test_a_core_at_work_is_seen():
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            pass

    spinning = threading.Thread(target=spin)
    spinning.start()
    try:
        assert machine.busy(0.3) > 0.5
    finally:
        done.set()
        spinning.join(10)


def test_a_run_that_is_cut_leaves_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.__main__.measure", cut)
    assert main(["memory-each", "--tiny", "--directory", str(tmp_path), "--resume", str(tmp_path / "kept")]) == 130
