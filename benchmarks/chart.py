"""Lines over time, as an SVG: panels in a grid, each with axes, a legend and marks; readable in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

from msgspec import Struct

Point = tuple[float, float]

_WIDTH: Final = 400
_HEIGHT: Final = 190
_LEFT: Final = 46
_RIGHT: Final = 12
_TOP: Final = 26
_BOTTOM: Final = 22
_LEGEND: Final = 14
"""Pixels of a line of a panel's legend, which stands beneath it."""
_COLUMNS: Final = 3
_COLOURS: Final = ("#0b76c2", "#d9730d", "#2e8b57", "#a64ca6", "#c0392b", "#008b8b", "#8c6d1f", "#6a5acd")
_STYLE: Final = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600 }
.axis { stroke: #999; fill: none }
.grid { stroke: #8884; fill: none }
.mark { stroke: #c0392b66; stroke-dasharray: 2 3 }
.line { fill: none; stroke-width: 1.5; stroke-linejoin: round }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .axis { stroke: #777 } .line { filter: brightness(1.35) } }
"""


class Panel(Struct, frozen=True):
    """One diagram: lines by their names, and the moments at which something happened."""

    title: str
    unit: str
    lines: Mapping[str, Sequence[Point]]
    marks: Sequence[float] = ()


def lines(title: str, panels: Sequence[Panel], columns: int) -> str:
    """An SVG with these panels, so many beside each other. Times are seconds."""
    columns = max(1, min(columns, len(panels)))
    rows = [panels[at : at + columns] for at in range(0, len(panels), columns)]
    heights = [_HEIGHT + _LEGEND * max(_legend_lines(panel) for panel in row) for row in rows]
    width, height = columns * _WIDTH, sum(heights)
    drawn = []
    for number, row in enumerate(rows):
        for column, panel in enumerate(row):
            move = f"translate({column * _WIDTH} {sum(heights[:number])})"
            drawn.append(f'<g transform="{move}">{"".join(_panel(panel))}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>\n" + "\n".join(drawn) + "\n</svg>\n"
    )


def ceiling(value: float) -> float:
    """The next of 1, 2, 2.5 and 5 times a power of ten: what an axis ends with."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


def _legend_lines(panel: Panel) -> int:
    return math.ceil(len(panel.lines) / _COLUMNS)


def _panel(panel: Panel) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    most = ceiling(max((value for _, value in points), default=1.0))
    longest = max((at for at, _ in points), default=1.0) or 1.0
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(at: float) -> float:
        return _LEFT + wide * at / longest

    def y(value: float) -> float:
        return _TOP + high * (1 - value / most)

    drawn = [f'<text class="title" x="{_LEFT}" y="16">{escape(panel.title)}, {escape(panel.unit)}</text>']
    for share in (0.0, 0.5, 1.0):
        at = y(most * share)
        drawn.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>')
        drawn.append(f'<text x="{_LEFT - 4}" y="{at + 4:.1f}" text-anchor="end">{most * share:g}</text>')
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        moment = _moment(longest * share)
        drawn.append(f'<text x="{x(longest * share):.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{moment}</text>')
    drawn += [f'<path class="mark" d="M{x(at):.1f} {_TOP}V{_TOP + high}"/>' for at in panel.marks if at <= longest]
    drawn.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{_TOP + high}H{_WIDTH - _RIGHT}"/>')
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line)
        drawn.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        drawn += _named(name, colour, number)
    return drawn


def _named(name: str, colour: str, number: int) -> list[str]:
    """A line of the legend."""
    left = _LEFT + (number % _COLUMNS) * (_WIDTH - _LEFT) // _COLUMNS
    down = _HEIGHT + _LEGEND * (number // _COLUMNS) + 6
    return [
        f'<path class="line" stroke="{colour}" d="M{left} {down - 4}h12"/>',
        f'<text x="{left + 16}" y="{down}">{escape(name)}</text>',
    ]


def _moment(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 and not seconds % 6 else f"{seconds:.0f} s"
