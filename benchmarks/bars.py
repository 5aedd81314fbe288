"""Rows as bars: a figure beside its peer's, and where its aim lies; an SVG that is readable in light and in dark.

Each row has a scale of its own, since events a second and milliseconds are in one chart.

redis-one: redis, to nobody                         ratio 0.65, aim ≥ 0.85x: missed
████████████████          │     4,448 events/s
▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒    raw redis-py, XADD awaited, to nobody: 6,909
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.figures import Row, shown

_WIDTH: Final = 860
_LONGEST: Final = 380  # pixels of the longest bar of a row; what it says stands behind it
_TEXT: Final = 62  # letters that fit there
_HEAD: Final = 72  # letters that fit above
_ROW: Final = 64
_TOP: Final = 32
_STYLE: Final = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.head { font-weight: 600 }
.legend, .peer-text { fill: #59636e }
.ours { fill: #1a7f64 }
.missed { fill: #bc4c00 }
.peer { fill: #afb8c1 }
.aim { stroke: #1f2328; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .legend, .peer-text { fill: #9198a1 }
  .ours { fill: #3fb68b }
  .missed { fill: #f0883e }
  .peer { fill: #59636e }
  .aim { stroke: #e6edf3 }
}"""


def drawn(title: str, rows: Sequence[Row]) -> str | None:
    """The chart of the rows that have something beside them, a peer or an aim; None if none has."""
    compared = [row for row in rows if row.peer_figure is not None or _aimed(row) is not None]
    if not compared:
        return None
    height = _TOP + _ROW * len(compared)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        *_legend(),
    ]
    for number, row in enumerate(compared):
        lines += _pair(row, _TOP + _ROW * number)
    return "\n".join((*lines, "</svg>")) + "\n"


def _legend() -> list[str]:
    return [
        '<rect class="ours" x="0" y="6" width="12" height="10"/>',
        _text(16, 15, "ours", "legend"),
        '<rect class="missed" x="56" y="6" width="12" height="10"/>',
        _text(72, 15, "ours, aim missed", "legend"),
        '<rect class="peer" x="182" y="6" width="12" height="10"/>',
        _text(198, 15, "peer", "legend"),
        '<line class="aim" x1="240" y1="4" x2="240" y2="18"/>',
        _text(246, 15, "aim; each pair has a scale of its own", "legend"),
    ]


def _pair(row: Row, top: int) -> list[str]:
    aimed = _aimed(row)
    largest = max(row.figure, row.peer_figure or 0.0, aimed or 0.0) or 1.0
    ours, kind = _LONGEST * row.figure / largest, "missed" if row.met is False else "ours"
    lines = [
        _text(0, top + 12, _cut(f"{row.workload}: {row.what}", _HEAD), "head"),
        _text(_WIDTH, top + 12, _said(row), "head", anchor="end"),
        f'<rect class="{kind}" x="0" y="{top + 19}" width="{ours:.1f}" height="14"/>',
        _text(max(ours, _marked(aimed, largest)) + 6, top + 30, f"{shown(row.figure)} {row.unit}"),
    ]
    if row.peer_figure is not None:
        theirs = _LONGEST * row.peer_figure / largest
        lines += [
            f'<rect class="peer" x="0" y="{top + 35}" width="{theirs:.1f}" height="14"/>',
            _text(
                max(theirs, _marked(aimed, largest)) + 6, top + 46,
                _cut(f"{row.peer}: {shown(row.peer_figure)}", _TEXT), "peer-text",
            ),
        ]  # fmt: skip
    if aimed is not None:
        at = f"{_LONGEST * aimed / largest:.1f}"
        lines.append(f'<line class="aim" x1="{at}" y1="{top + 16}" x2="{at}" y2="{top + 52}"/>')
    return lines


def _aimed(row: Row) -> float | None:
    """The figure that would just have met the aim; None if there is no aim, or nothing to tell it by."""
    if row.aim is None:
        return None
    if row.aim.of == "figure":
        return row.aim.bound
    return None if row.peer_figure is None else row.aim.bound * row.peer_figure


def _marked(aimed: float | None, largest: float) -> float:
    """Where the mark of the aim is, which no letter may cover."""
    return 0.0 if aimed is None else _LONGEST * aimed / largest


def _said(row: Row) -> str:
    verdict = {None: "", True: ": met", False: ": missed"}[row.met]
    said = ["" if row.ratio is None else f"ratio {row.ratio:.2f}", "" if row.aim is None else f"aim {row.aim}{verdict}"]
    return ", ".join(filter(None, said))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(x: float, y: int, text: str, kind: str = "", *, anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
