"""What `wowevent monitor` shows, as values and as a picture; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, structs

from wowevent.cli.show import payload, span
from wowevent.errors import plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from wowevent.event import Event

_PAYLOAD: Final = 200  # characters of a payload
_ABOVE: Final = 11  # rows of the screen that are not events


class Seen(Struct, frozen=True):
    """An event that went by, as it is shown."""

    time: datetime
    event_id: str
    topic: str
    event_type: str
    source: str | None
    priority: int
    payload: str

    @classmethod
    def of(cls, event: Event) -> Seen:
        """The payload shortened, and nothing in it that a terminal would obey."""
        return cls(
            event.timestamp, event.event_id, event.topic, str(event.event_type), event.source_agent, event.priority,
            payload(event, _PAYLOAD),
        )  # fmt: skip


class Sample(Struct, frozen=True, kw_only=True):
    """A router at one moment; `rates` a second since the sample before, None where that is not known."""

    time: datetime
    url: str
    state: str
    health: dict[str, Any] | None
    rates: Mapping[str, float | None]
    reconnects: int
    matched: int
    events: list[Seen]

    def plain(self) -> dict[str, Any]:
        """For programs: `events` are the last of the `matched` ones since the sample before."""
        return structs.asdict(self) | {"events": [structs.asdict(each) for each in self.events]}


def rate(before: Mapping[str, Any], after: Mapping[str, Any], name: str, seconds: float) -> float | None:
    """A counter's growth a second; None if it began anew meanwhile, or no time has passed."""
    grown = after[name] - before[name]
    return grown / seconds if grown >= 0 and seconds > 0 and after["uptime"] >= before["uptime"] else None


def draw(sample: Sample, *, rows: int) -> RenderableType:
    """The picture of a sample, `rows` high."""
    from rich.console import Group
    from rich.text import Text

    lost = sample.state != "connected"
    state = Text(sample.state, style="bold red" if lost else "bold green")
    head = Text.assemble(("WowEvent ", "bold"), (sample.url, "cyan"), "  ", state, ("   q quits", "dim"))
    head.no_wrap = True
    return Group(head, Text(), _numbers(sample), Text(), _events(sample, max(1, rows - _ABOVE)))


def _numbers(sample: Sample) -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for style in ("dim", "", "dim", "", "dim", ""):
        grid.add_column(style=style, no_wrap=True)
    cells = _cells(sample)
    for start in range(0, len(cells), 3):
        grid.add_row(*(plain(word) for cell in cells[start : start + 3] for word in cell))
    return grid


def _cells(sample: Sample) -> list[tuple[str, str]]:
    health = sample.health or {}
    latency = health.get("latency") or {}
    engine = health.get("engine") or {}
    name = next((key for key, said in engine.items() if said in {"connected", "unreachable"}), "engine")
    return [
        ("status", str(health.get("status", "-"))),
        (name, str(engine.get(name, "-"))),
        ("uptime", span(health.get("uptime"))),
        ("clients", f"{_count(health.get('clients'))} of {_count(health.get('max_clients'))}"),
        ("subscriptions", _count(health.get("subscriptions"))),
        ("slow clients", _count(health.get("slow_clients"))),
        ("published", _per_second(sample.rates.get("published"))),
        ("delivered", _per_second(sample.rates.get("delivered"))),
        ("queue depth", _count(health.get("queue_depth"))),
        ("p50", _milliseconds(latency.get("p50"))),
        ("p95", _milliseconds(latency.get("p95"))),
        ("p99", _milliseconds(latency.get("p99"))),
        ("refused", _count(health.get("events_refused"))),
        ("failed", _count(health.get("events_failed"))),
        ("reconnects", _count(sample.reconnects)),
    ]


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _per_second(number: float | None) -> str:
    return "-" if number is None else f"{number:,.1f}/s"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f} ms"


def _events(sample: Sample, rows: int) -> Table:
    """The last events that fit, the newest at the bottom."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="dim", show_edge=False)
    for heading in ("time", "topic", "source", "prio"):
        table.add_column(heading, no_wrap=True)
    table.add_column(f"payload ({sample.matched:,} events so far)", no_wrap=True, overflow="ellipsis", ratio=1)
    for each in sample.events[-rows:]:
        time = each.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
        style = "red" if each.priority >= 7 else ""
        words = (time, each.topic, each.source or "-", str(each.priority), each.payload)
        table.add_row(*(Text(plain(word), style=style) for word in words))
    return table
