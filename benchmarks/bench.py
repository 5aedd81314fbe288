"""What a workload is given: sides run in turn, A B A B, and their outcomes made into rows."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from benchmarks import side as sides
from benchmarks.figures import Aim, Row, median_ratio
from benchmarks.places import Absent
from benchmarks.side import Outcome, Side

Scale = Literal["tiny", "quick", "normal", "full"]
REPEAT: dict[Scale, int] = {"tiny": 1, "quick": 1, "normal": 3, "full": 5}


class Bench:
    """One run of the tool."""

    def __init__(self, directory: Path, scale: Scale = "normal", repeat: int | None = None) -> None:
        """`directory` is where the logs lie: on the disk that is meant."""
        self.directory = directory
        self.scale = scale
        self.repeat = repeat or REPEAT[scale]
        self.absent: set[str] = set()
        """Servers that peers needed and that are not installed."""

    def size(self, tiny: int, quick: int, normal: int, full: int) -> int:
        """The one of these that the scale asks for."""
        return {"tiny": tiny, "quick": quick, "normal": normal, "full": full}[self.scale]

    async def alternate(self, *compared: Side, rounds: int | None = None) -> dict[str, list[Outcome]]:
        """Each side once, then each once more, and so on; a side whose server is not installed is left out."""
        found: dict[str, list[Outcome]] = {}
        for _ in range(rounds or self.repeat):
            for side in compared:
                try:
                    outcome = await sides.run(side, self.directory)
                except Absent as absent:
                    self.absent.add(str(absent))
                    continue
                print(f"  {side.name}: {outcome.rate:,.0f}/s", file=sys.stderr)
                found.setdefault(side.name, []).append(outcome)
        return found


def rate(outcome: Outcome) -> float:
    """Events a second."""
    return outcome.rate


def value(name: str) -> Callable[[Outcome], float]:
    """One of the values that a part noted."""
    return lambda outcome: outcome.values[name]


def row(
    workload: str,
    found: dict[str, list[Outcome]],
    side: Side,
    *,
    peer: Side | None = None,
    aim: Aim | None = None,
    unit: str = "events/s",
    of: Callable[[Outcome], float] = rate,
    what: str | None = None,
    notes: Sequence[str] = (),
) -> Row:
    """One line from the outcomes of `alternate`: no ratio if the peer could not be run; Absent if ours could not."""
    if side.name not in found:
        raise Absent(f"what {side.name!r} needs")
    ours = tuple(of(outcome) for outcome in found[side.name])
    theirs = tuple(of(outcome) for outcome in found.get(peer.name, ())) if peer is not None else ()
    return Row(
        workload=workload,
        what=what or side.name,
        unit=unit,
        figure=statistics.median(ours),
        aim=aim,
        peer=peer.name if peer is not None else None,
        peer_figure=statistics.median(theirs) if theirs else None,
        ratio=median_ratio(ours, theirs) if theirs else None,
        cpu_us=statistics.median(outcome.cpu_us for outcome in found[side.name]),
        figures=ours,
        peer_figures=theirs,
        notes={name: statistics.median(o.values[name] for o in found[side.name]) for name in notes},
    )
