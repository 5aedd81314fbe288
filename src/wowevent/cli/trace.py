"""`wowevent trace ID`: the tree of a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import typer
from rich.markup import escape

from wowevent.causation import MOST
from wowevent.cli.engine import Namespace, Url, note, open_bus, settle
from wowevent.cli.show import counted, local_time, open_console, print_json, span
from wowevent.conversation import Conversation, FailedDelivery, Step
from wowevent.errors import plain
from wowevent.process.loop import run
from wowevent.settings import Settings

_DEEPEST: Final = 20  # levels that are drawn: no terminal is wider


def trace(
    id: Annotated[str, typer.Argument(help="An event, or a correlation id.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many events.")] = MOST,
    json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print the conversation that an event belongs to: who caused what, when, how long after, and what failed."""
    found = run(_trace(settle(url=url, namespace=namespace), id, limit))
    if json:
        print_json(found)
        return
    _show(found)
    if found.more:
        note(f"there is more than these {limit}; --limit shows it")
    if found.unreadable:
        note(f"{counted(found.unreadable, 'event')} could not be read")


async def _trace(settings: Settings, id: str, limit: int) -> Conversation:
    async with open_bus(settings) as bus:
        return await bus.trace(id, limit=limit)


def _show(found: Conversation) -> None:
    console = open_console()

    def line(text: str) -> None:
        console.print(text, emoji=False)  # a name may have what would be one

    line(f"[bold]conversation[/] {found.id}  [dim]{local_time(found.started)}[/]")
    for guide, below, step in _drawn(found.steps):
        line(f"[dim]{guide}[/]{_line(step)}")
        for failure in step.failures:
            line(f"[dim]{below}[/][red]✗ {escape(plain(_failed(failure)))}[/]")
    line(f"[{'red' if found.failures else 'green'}]{_summary(found)}[/]")
    console.file.flush()


def _drawn(steps: Sequence[Step]) -> Iterator[tuple[str, str, Step]]:
    """Each step with what stands left of it, and left of what is said below it."""
    going_on: list[set[int]] = []  # for each step, the depths at which another one follows below
    open_depths: set[int] = set()
    for step in reversed(steps):
        going_on.append(open_depths)
        open_depths = {depth for depth in open_depths if depth < step.depth} | {step.depth}
    for step, later in zip(steps, reversed(going_on), strict=True):
        if step.depth > _DEEPEST:
            yield f"{'   ' * _DEEPEST}({step.depth}) ", "   " * (_DEEPEST + 2), step
            continue
        above = "".join("│  " if depth in later else "   " for depth in range(1, step.depth))
        here = ("├─ " if step.depth in later else "└─ ") if step.depth else ""
        on = ("│  " if step.depth in later else "   ") if step.depth else ""
        yield above + here, above + on + "   ", step


def _line(step: Step) -> str:
    """One event: what, whose, for whom, how long after its cause, and what is to be known of it."""
    kind = f" [dim]({step.event_type})[/]" if step.event_type != step.topic else ""
    whose = f" [cyan]{step.source_agent}[/]" if step.source_agent else ""
    target = f" → [cyan]{step.target_agent}[/]" if step.target_agent else ""
    after = "" if step.after is None else f"  +{_length(step.after)}"
    marks = "".join(f"  [yellow]{mark}[/]" for mark in _marks(step))
    return f"[bold]{step.topic}[/]{kind}{whose}{target}{after}{marks}  [dim]{step.event_id}[/]"


def _marks(step: Step) -> Iterator[str]:
    if step.orphan:
        yield f"orphan of {step.parent_event_id}"
    if step.replay_of is not None:
        yield f"replay of {step.replay_of}"
    if step.delayed_until is not None:
        yield "delayed"
    if step.position is None:
        yield "not in the log any more"


def _failed(failure: FailedDelivery) -> str:
    tries = f" after {counted(failure.attempts, 'attempt')}" if failure.attempts else ""
    return f"{failure.subscription}: {failure.reason}{tries}, {local_time(failure.time)}: {failure.error}"


def _summary(found: Conversation) -> str:
    parts = [
        counted(len(found.steps), "event"),
        counted(len(found.agents), "agent"),
        f"{_length(found.seconds)} from first to last",
        counted(found.failures, "failure"),
    ]
    parts += [counted(count, what) for count, what in ((found.orphans, "orphan"), (found.replays, "replay")) if count]
    return ", ".join(parts)


def _length(seconds: float) -> str:
    """A length of time, as exact as a person wants it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else span(seconds)
