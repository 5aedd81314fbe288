"""The page: its tables and charts are those of the run beside it, and no run comes into it that lost something."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from benchmarks import page
from benchmarks.bars import drawn
from benchmarks.figures import Aim, Row
from benchmarks.page import PageError, differences, named, publish, rewritten
from benchmarks.report import Finding, Report, to_json
from benchmarks.workloads import WORKLOADS

BY_HAND = """# Performance

<!-- figures: run -->
Several days.
<!-- /figures -->

<!-- figures: redis redis-one -->
| by hand |
<!-- /figures -->

Why it is so.

<!-- figures: stored -->
By hand, too.
<!-- /figures -->
"""
MACHINE = {
    "cpu": "one",
    "cores": 2,
    "system": "L",
    "python": "3",
    "sqlite": "3",
    "packages": {},
    "fdatasync_us": 99,
    "loop_ns": 50.1,
}


def line(workload: str, **fields: Any) -> Row:
    given: dict[str, Any] = {"what": f"{workload}, ours", "unit": "events/s", "figure": 300.0} | fields
    return Row(workload=workload, **given)


def report(**findings: Finding) -> Report:
    by_name = {name.replace("_", "-"): finding for name, finding in findings.items()}
    return Report(command="c", machine=MACHINE, scale="full", repeat=5, load_before=[0.1], findings=by_name)


def compared(**fields: Any) -> Row:
    given: dict[str, Any] = {"peer": "raw", "peer_figure": 400.0, "ratio": 0.75, "aim": Aim("ratio", 0.8)} | fields
    return line("redis-one", **given)


@pytest.fixture
def measured() -> Report:
    alone = line("redis", aim=Aim("figure", 200.0, source="ours"))
    return report(redis=Finding(rows=[alone], seconds=90), redis_one=Finding(rows=[compared()], busy=0.4))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "performance.md").write_text(BY_HAND)
    return tmp_path


def text(docs: Path) -> str:
    return (docs / "performance.md").read_text()


def test_the_page_says_what_the_run_beside_it_found():
    assert differences(page.DOCS) == []


def test_the_page_has_a_place_for_every_workload():
    found = named((page.DOCS / "performance.md").read_text())
    assert sorted(found) == sorted(WORKLOADS)


def test_a_run_replaces_what_it_measured_and_leaves_the_rest_as_it_was(docs: Path, measured: Report):
    publish(to_json(measured), docs)
    assert "by hand |" not in text(docs)
    assert "Why it is so." in text(docs)
    assert "By hand, too." in text(docs)
    assert differences(docs) == []
    first = text(docs)
    publish(to_json(measured), docs)
    assert text(docs) == first


def test_each_row_says_aim_measured_peer_ratio_and_whether_it_is_met(docs: Path, measured: Report):
    publish(to_json(measured), docs)
    rows = [each for each in text(docs).splitlines() if each.startswith("| redis")]
    assert rows == [
        "| redis | redis, ours | ≥ 200 (ours) | 300 events/s |  |  | yes |  |",
        "| redis-one | redis-one, ours | ≥ 0.8x | 300 events/s | raw: 400 | 0.75 | **no** | 0.4 cores |",
    ]


def test_the_run_is_described_and_what_it_missed_is_named(docs: Path, measured: Report):
    publish(to_json(measured), docs)
    assert "Several days." not in text(docs)
    assert "5 alternated rounds; 1.5 minutes of measuring" in text(docs)
    assert "- 1 of 2 aims are met; missed are:\n    - `redis-one`, redis-one, ours: 0.75, aim ≥ 0.8x\n" in text(docs)
    assert "more than 0.25 cores: redis-one\n" in text(docs)


def test_what_has_only_some_of_its_workloads_stays_as_it_was(docs: Path, measured: Report):
    measured.findings["redis-one"].rows = []
    publish(to_json(measured), docs)
    assert "by hand |" in text(docs)


@pytest.mark.parametrize(
    ("there", "instead", "where"),
    [("| 300 events/s |", "| 900 events/s |", "redis redis-one"), ("1 of 2", "2 of 2", "run")],
)
def test_a_figure_changed_by_hand_is_noticed(docs: Path, measured: Report, there: str, instead: str, where: str):
    publish(to_json(measured), docs)
    (docs / "performance.md").write_text(text(docs).replace(there, instead))
    assert differences(docs) == [where]


@pytest.mark.parametrize("change", ["altered", "gone", "one more"])
def test_a_chart_that_is_not_the_run_s_is_noticed(docs: Path, measured: Report, change: str):
    publish(to_json(measured), docs)
    chart = docs / "performance" / "redis.svg"
    if change == "altered":
        chart.write_text(chart.read_text().replace("300", "900"))
    elif change == "gone":
        chart.unlink()
    else:
        chart.with_name("stored.svg").write_text("<svg/>")
    assert differences(docs) == ["stored.svg" if change == "one more" else "redis.svg"]


def test_charts_of_other_tools_are_left_alone(docs: Path, measured: Report):
    (docs / "performance").mkdir()
    other = docs / "performance" / "an-hour.svg"
    other.write_text("<svg/>")
    (docs / "performance" / "stored.svg").write_text("<svg/>")  # of a run before
    publish(to_json(measured), docs)
    assert differences(docs) == []
    assert sorted(file.name for file in (docs / "performance").iterdir()) == ["an-hour.svg", "redis.svg"]


def test_figures_without_their_run_are_noticed(docs: Path, measured: Report):
    publish(to_json(measured), docs)
    (docs / "performance.json").unlink()
    assert [each.partition(":")[0] for each in differences(docs)] == ["run", "redis redis-one"]


def test_a_run_that_lost_something_does_not_come_into_the_page(docs: Path, measured: Report):
    measured.findings["redis"].failure = "lost 1"
    with pytest.raises(PageError, match="these failed: redis"):
        publish(to_json(measured), docs)
    assert sorted(file.name for file in docs.iterdir()) == ["performance.md"]
    assert text(docs) == BY_HAND


def test_a_run_that_has_less_than_the_page_does_not_come_into_it(docs: Path, measured: Report):
    publish(to_json(measured), docs)
    before = text(docs)
    del measured.findings["redis-one"]
    with pytest.raises(PageError, match="redis redis-one"):
        publish(to_json(measured), docs)
    assert text(docs) == before


def test_a_page_that_names_no_workload_is_refused(measured: Report):
    with pytest.raises(PageError, match="redsi"):
        rewritten(BY_HAND.replace("figures: stored", "figures: redsi"), measured)


def test_the_command_says_why_it_refuses(
    docs: Path, measured: Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(page, "DOCS", docs)
    result = docs / "result.json"
    result.write_bytes(to_json(measured))
    assert page.main([str(result)]) == 0
    measured.findings["redis"].failure = "lost 1"
    result.write_bytes(to_json(measured))
    assert page.main([str(result)]) == 1
    assert page.main([str(docs / "no-such.json")]) == 1
    result.write_bytes(b"[]")
    assert page.main([str(result)]) == 1
    assert "these failed: redis" in capsys.readouterr().err


def bars(chart: str) -> list[tuple[str, float]]:
    """The kind and the length of each, below the legend."""
    root = ET.fromstring(chart)  # noqa: S314 - it is ours
    found = [each.attrib for each in root.iter("{http://www.w3.org/2000/svg}rect")]
    return [(each["class"], float(each["width"])) for each in found if each["x"] == "0" and float(each["y"]) > 20]


def marks(chart: str) -> list[float]:
    """Where the aims are, below the legend."""
    root = ET.fromstring(chart)  # noqa: S314 - it is ours
    lines = [each.attrib for each in root.iter("{http://www.w3.org/2000/svg}line")]
    return [float(each["x1"]) for each in lines if float(each["y1"]) > 20]


def test_bars_are_as_long_as_their_figures_and_the_aim_is_where_it_lies():
    chart = drawn("title", [compared(), line("redis", aim=Aim("figure", 200.0))])
    assert chart is not None
    assert bars(chart) == [("missed", 285.0), ("peer", 380.0), ("ours", 380.0)]
    assert marks(chart) == [304.0, 253.3]
    for said in ("ratio 0.75, aim ≥ 0.8x: missed", "aim ≥ 200: met", "raw: 400", "300 events/s", "<title>title<"):
        assert said in chart


def test_a_row_without_peer_and_aim_is_not_drawn():
    assert drawn("title", [line("redis")]) is None
    chart = drawn("title", [line("redis"), compared()])
    assert chart is not None
    assert len(bars(chart)) == 2


def test_an_aim_for_a_ratio_that_is_not_known_is_not_drawn():
    assert drawn("title", [line("redis", aim=Aim("ratio", 2.0))]) is None


def test_a_chart_of_nothing_but_zeros_is_drawn():
    chart = drawn("title", [compared(figure=0.0, peer_figure=0.0, ratio=1.0)])
    assert chart is not None
    assert bars(chart) == [("ours", 0.0), ("peer", 0.0)]


def test_names_are_escaped_and_long_ones_cut():
    chart = drawn("a < b", [compared(what="<&>" + "x" * 100, peer="<script>" + "y" * 100)])
    assert chart is not None
    ET.fromstring(chart)  # noqa: S314 - it is ours
    assert "<script>" not in chart
    assert max(len(each) for each in re.findall(r">([^<>]*)</text>", chart)) < 100


def test_a_chart_is_readable_in_light_and_in_dark():
    chart = drawn("title", [compared()])
    assert chart is not None
    assert "prefers-color-scheme: dark" in chart
    assert drawn("title", [compared()]) == chart


def test_a_report_comes_back_as_it_was(measured: Report):
    assert msgspec.json.decode(to_json(measured), type=Report) == measured
