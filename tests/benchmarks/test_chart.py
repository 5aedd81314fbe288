"""The chart of lines: what is drawn where, and that any name and number is drawn."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from benchmarks.chart import Panel, ceiling, lines

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.3, 0.5), (1, 1), (1.01, 2), (2.2, 2.5), (3, 5), (7, 10), (1000, 1000), (86_400, 1e5)]
)
def test_axes_end_with_round_numbers(value: float, top: float):
    assert ceiling(value) == pytest.approx(top)


def test_lines_marks_and_legends_are_drawn():
    panel = Panel("a: Memory", "MiB", {"one": [(0, 0), (60, 50), (120, 100)], "two <&>": [(0, 100)]}, [30.0, 999.0])
    root = ET.fromstring(lines("a title", [panel, Panel("b", "files", {})], 2))  # noqa: S314 - ours
    drawn = root.findall(f".//{SVG}polyline")
    points = [[tuple(map(float, point.split(","))) for point in (each.get("points") or "").split()] for each in drawn]
    (x0, y0), (x1, y1), (x2, y2) = points[0]
    assert x0 < x1 < x2
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(y1 - y2)
    assert points[1] == [(x0, y2)]
    texts = ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]
    assert {"a: Memory, MiB", "one", "two <&>", "100", "50", "0", "1 min", "2 min"} <= set(texts)
    marks = [each for each in root.iter(f"{SVG}path") if each.get("class") == "mark"]
    assert len(marks) == 1, "what happened after the last sample is not on the axis"


def test_panels_do_not_overlap():
    many = Panel("many", "u", {str(number): [(0, number)] for number in range(10)})
    text = lines("t", [many, many, many], 2)
    moves = [tuple(map(float, each)) for each in re.findall(r"translate\(([\d.]+) ([\d.]+)\)", text)]
    assert list(moves[0]) == [0, 0]
    assert moves[1][1] == 0 < moves[2][1]
    lowest = max(float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)">', text))
    assert lowest < moves[2][1], "a legend has room"


def test_it_can_be_read_in_the_dark():
    assert "prefers-color-scheme: dark" in lines("t", [Panel("p", "u", {})], 1)
