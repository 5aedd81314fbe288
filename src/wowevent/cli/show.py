"""What commands print: whole envelopes and JSON for programs, lines and tables for people.

Whatever came from outside goes through `plain`: no terminal obeys it.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from rich.markup import escape

from wowevent.codec import encode
from wowevent.errors import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from rich.console import Console

    from wowevent.event import Event

T = TypeVar("T")

_WIDTH: Final = 400  # characters of a payload that a person is shown
_LAST: Final = 20  # columns that the last one of a table gets at least
_GAP: Final = "  "
_UNITS: Final = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def printer(*, json: bool) -> Callable[[Event], None]:
    """What writes one event to stdout, at once."""
    return _print_envelope if json else _printer_for_people()


def _print_envelope(event: Event) -> None:
    sys.stdout.buffer.write(encode(event) + b"\n")
    sys.stdout.buffer.flush()


def _printer_for_people() -> Callable[[Event], None]:
    console = open_console()

    def show(event: Event) -> None:
        time = _shown_time(event.timestamp)
        source = f" [cyan]{escape(event.source_agent)}[/]" if event.source_agent else ""
        urgent = f" [red]priority={event.priority}[/]" if event.priority != 5 else ""
        console.print(f"[dim]{time}[/] [bold]{event.topic}[/]{source}{urgent} {escape(payload(event, _WIDTH))}")
        console.file.flush()

    return show


def payload(event: Event, width: int) -> str:
    """The payload's JSON, cut to so many characters, and without those that a terminal would obey."""
    body = memoryview(event.body)
    text = bytes(body[: 4 * width]).decode("utf-8", "replace")
    return plain(text if len(text) <= width and len(body) <= 4 * width else f"{text[:width]}…")


def print_json(value: object) -> None:
    """One value as one line of JSON, for programs."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def open_console() -> Console:
    """Stdout for people. Lines are not broken: a terminal does that itself, and a pipe wants them whole."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def local_time(seconds: float) -> str:
    """Unix seconds as a person's clock shows them."""
    return _shown_time(datetime.fromtimestamp(seconds, UTC))


def _shown_time(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def span(seconds: float | None) -> str:
    """A length of time in its two largest units: `2h 5m`; `-` for none."""
    if seconds is None:
        return "-"
    left = int(seconds)
    parts: list[str] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or (parts and len(parts) < 2):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def counted(count: int, what: str) -> str:
    """`1 event`, `2 events`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def facts(rows: Iterable[tuple[str, Any]]) -> None:
    """Names and values below each other."""
    console = open_console()
    shown = list(rows)
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        console.print(f"  [dim]{name:<{width}}[/]  ", end="")
        console.print(plain(str(value)), markup=False)
    console.file.flush()


def text(title: str, lines: Iterable[str]) -> None:
    """A title and the lines below it, indented."""
    console = open_console()
    console.print(f"[bold]{title}[/]")
    for line in lines:
        console.print(f"  {plain(line.expandtabs())}", markup=False)
    console.file.flush()


def print_all(
    found: Iterable[T],
    headings: Sequence[str],
    row: Callable[[T], Sequence[str]],
    *,
    json: bool,
    fields: Callable[[T], object] | None = None,
    right: Collection[str] = (),
) -> None:
    """What a command lists: a table for people, or an object a line, as `fields` makes it of each."""
    if not json:
        table(headings, map(row, found), right=right)
        return
    for each in found:
        print_json(each if fields is None else fields(each))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Columns as wide as what they hold; on a terminal the last one is cut where the line would not fit."""
    from rich.cells import cell_len, set_cell_size

    console = open_console()
    cells = [[plain(cell) for cell in row] for row in rows]
    *widths, last = (max(map(cell_len, column)) for column in zip(headings, *cells, strict=True))
    if console.is_terminal:
        last = min(last, max(_LAST, console.width - sum(widths) - len(_GAP) * len(widths)))

    def line(row: Sequence[str]) -> str:
        sized = [
            " " * (width - cell_len(cell)) + cell if heading in right else set_cell_size(cell, width)
            for heading, cell, width in zip(headings, row, widths, strict=False)
        ]
        end = row[-1] if cell_len(row[-1]) <= last else f"{set_cell_size(row[-1], last - 1)}…"
        return _GAP.join((*sized, end)).rstrip()

    console.print(line(headings), style="dim", markup=False)
    for row in cells:
        console.print(line(row), markup=False)
    console.file.flush()
