"""An event as a line: the whole envelope for programs, time, topic, source and payload for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from rich.markup import escape

from wowevent.codec import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from wowevent.event import Event

_WIDTH: Final = 400  # characters of a payload that a person is shown


def printer(*, json: bool) -> Callable[[Event], None]:
    """What writes one event to stdout, at once."""
    return _print_envelope if json else _printer_for_people()


def _print_envelope(event: Event) -> None:
    sys.stdout.buffer.write(encode(event) + b"\n")
    sys.stdout.buffer.flush()


def _printer_for_people() -> Callable[[Event], None]:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)

    def show(event: Event) -> None:
        time = event.timestamp.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        source = f" [cyan]{escape(event.source_agent)}[/]" if event.source_agent else ""
        urgent = f" [red]priority={event.priority}[/]" if event.priority != 5 else ""
        console.print(f"[dim]{time}[/] [bold]{event.topic}[/]{source}{urgent} {escape(_payload(event))}")
        console.file.flush()

    return show


def _payload(event: Event) -> str:
    """The payload's JSON, cut, and without characters that a terminal would obey."""
    body = memoryview(event.body)
    text = bytes(body[: 4 * _WIDTH]).decode("utf-8", "replace")
    cut = text if len(text) <= _WIDTH and len(body) <= 4 * _WIDTH else f"{text[:_WIDTH]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
