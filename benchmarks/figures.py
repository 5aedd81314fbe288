"""Numbers out of runs: medians, ratios, percentiles, and whether an aim was met. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct


class Aim(Struct, frozen=True):
    """A bound for the figure itself, or for its ratio to the peer's."""

    of: Literal["figure", "ratio"]
    bound: float
    at_least: bool = True
    source: str = "DESIGN 6"
    """Where the bound comes from: a promise by its mark (W14), or "ours" for one that this tool sets."""

    def met(self, value: float) -> bool:
        """Whether a value keeps it."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        """`≥ 120,000`, `≥ 0.7x`."""
        return f"{'≥' if self.at_least else '≤'} {shown(self.bound)}{'x' if self.of == 'ratio' else ''}"


class Row(Struct, frozen=True, kw_only=True):
    """One line of the report."""

    workload: str
    what: str
    unit: str
    figure: float
    """The median over the rounds."""
    aim: Aim | None = None
    peer: str | None = None
    peer_figure: float | None = None
    ratio: float | None = None
    """The median of the rounds' ratios, ours to the peer's of the same round."""
    cpu_us: float | None = None
    figures: tuple[float, ...] = ()
    peer_figures: tuple[float, ...] = ()
    notes: dict[str, float] = {}

    @property
    def met(self) -> bool | None:
        """Whether the aim was met; None if there is none, or nothing to tell it by."""
        value = self.figure if self.aim is None or self.aim.of == "figure" else self.ratio
        return None if self.aim is None or value is None else self.aim.met(value)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of what was measured in the same round, not the ratio of the medians."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a share (0 to 1) of all lie at or below: nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def shown(value: float) -> str:
    """Three digits that matter, or all of a large number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
